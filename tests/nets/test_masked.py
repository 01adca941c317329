"""Autoregressive networks: what their heads depend on, their norms and their memory."""

import math

import pytest
import torch

import likelify as lk
from likelify import nets
from likelify.testing import randomize
from tests.cases import normal
from tests.cases.triangular import residual


@pytest.mark.parametrize(
    ("dims", "shape", "kernel_size"), [(0, (5,), 3), (1, (3, 7), 5), (2, (2, 4, 3), 3), (3, (2, 2, 3, 2), 3)]
)
def test_heads_depend_on_all_earlier_elements_they_see_and_no_other(dims, shape, kernel_size):
    net = randomize(nets.AutoregressiveNet(shape[0], hidden=40, dims=dims, kernel_size=kernel_size).double())
    size, channels, dependence = math.prod(shape), shape[0], 0
    for _ in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda v: net(v).unflatten(1, (4, -1)).sum(1), normal(1, *shape))
        # Numbered by position first, then by channel.
        flat = jacobian.reshape(channels, size // channels, channels, size // channels).permute(1, 0, 3, 2)
        dependence += flat.reshape(size, size).abs()
    flat = dependence
    assert float(flat.triu().abs().max()) == 0
    if dims == 0:
        assert int((flat != 0).sum()) == size * (size - 1) // 2
    # The first channel of a position sees every channel of the position before it.
    if dims == 1:
        assert bool((flat[shape[0], : shape[0]] != 0).all())


def test_nodes_see_earlier_neighbours_only():
    graph = lk.GraphBatch(torch.tensor([4]), torch.tensor([[0, 2, 3], [2, 3, 1]]))
    net = randomize(nets.AutoregressiveNet(1, hidden=9, dims="nodes").double())
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v, lk.Context(structure=graph)).sum(1), normal(4, 1))
    # Edges 0-2, 2-3, 1-3: two layers of messages carry node 0 to node 3.
    expected = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)
    assert torch.equal(jacobian[:, :, 0] != 0, expected)


def test_a_checkpointed_network_keeps_little_and_has_the_same_gradients():
    plain, lean = (residual(3, hidden=60, checkpoint=flag).double() for flag in (False, True))
    lean.load_state_dict(plain.state_dict())
    x, kept, grads = normal(2, 3, 6, 6), [], []
    for layer in (plain, lean):
        places = {}

        def pack(tensor, places=places):
            places[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            value, log_det = layer(x)
        kept.append(sum(places.values()))
        grads.append(torch.autograd.grad(value.square().sum() + log_det.sum(), list(layer.parameters())))
    assert kept[1] < kept[0] / 4
    assert all(torch.allclose(one, other) for one, other in zip(*grads, strict=True))


def test_the_norm_limit_holds_for_the_masked_layers():
    net = randomize(nets.AutoregressiveNet(2, hidden=10, norm_limit=1.5).double(), scale=4.0)
    enter, middle, leave = (w if isinstance(w, list) else w.detach() for w in net.weights())
    assert float(torch.linalg.matrix_norm(middle[0].detach(), 2)) <= 1.5
    identity = torch.eye(2 * 36, dtype=torch.float64).view(-1, 6, 6, 2)
    near = net.neighbours(torch.zeros(1, 2, 6, 6), None)
    matrix = torch.einsum("nhwi,oi->nhwo", near.stack(identity), enter.flatten(1)).flatten(1)
    assert 0.4 < float(torch.linalg.matrix_norm(matrix, 2)) <= 1.5
    units = torch.eye(10 * 36, dtype=torch.float64).view(-1, 6, 6, 10)
    for head in range(4):
        matrix = near.fold(units @ leave[:, head].flatten(0, 1).T).flatten(1)
        assert 0.4 < float(torch.linalg.matrix_norm(matrix, 2)) <= 1.5
