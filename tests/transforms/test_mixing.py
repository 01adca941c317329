"""Mixing layers against dense matrices, their gradients, memory, precision and refusals."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import likelify as lk
from likelify.errors import ConfigError, DomainError, ShapeError
from likelify.linalg.householder import householder_matrix
from likelify.transforms.exponential.parametrizations import HouseholderVectors
from likelify.transforms.mixing import emerging


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def matrix_of(function, shape):
    """Give the matrix of a linear function of one event."""
    size = int(torch.Size(shape).numel())
    return function(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).reshape(size, size).T


KERNELS = [2, 3, 4, (1, 2), (1, 3), (2, 1), (3, 1), (3, 5), (5, 2), (2, 5)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kernel_size", KERNELS)
@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 1, 5), (3, 5, 1), (1, 1, 1), (2, 2, 6)])
def test_the_inverse_of_an_autoregressive_convolution_is_that_of_its_matrix(kernel_size, shape, reverse):
    layer = lk.testing.randomize(lk.AutoregressiveConv(shape[0], kernel_size, reverse=reverse).double())
    matrix = matrix_of(lambda x: layer(x)[0], shape).detach()
    z = normal(3, *shape)
    x, log_det = layer.inverse(z)
    assert torch.allclose(x.flatten(1), torch.linalg.solve(matrix, z.flatten(1).T).T, atol=1e-10)
    assert torch.allclose(-log_det, torch.linalg.slogdet(matrix)[1], atol=1e-10)


@pytest.mark.parametrize("reverse", [False, True])
def test_an_autoregressive_convolution_is_triangular_in_raster_order(reverse):
    layer = lk.testing.randomize(lk.AutoregressiveConv(2, 3, reverse=reverse).double())
    matrix = matrix_of(lambda x: layer(x)[0], (2, 3, 4)).detach()
    # Pixels first, then channels.
    order = torch.arange(24).reshape(2, 12).T.flatten()
    matrix = matrix[order][:, order]
    assert float((matrix.tril(-1) if reverse else matrix.triu(1)).abs().max()) == 0
    assert float((matrix.triu(1) if reverse else matrix.tril(-1)).abs().max()) > 0.1


def test_which_pixels_are_read():
    for kernel_size, expected in ((2, {(1, 1), (1, 2), (2, 1), (2, 2)}), (3, {(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)})):
        x = normal(1, 1, 5, 5).requires_grad_()
        (grad,) = torch.autograd.grad(lk.AutoregressiveConv(1, kernel_size).double()(x)[0][0, 0, 2, 2], x)
        assert {tuple(place) for place in grad[0, 0].nonzero().tolist()} == expected


@pytest.mark.parametrize(("kernel_size", "reverse"), [(2, False), (3, True), ((2, 3), True), ((1, 3), False)])
def test_gradients_through_the_inverse_are_those_of_a_dense_solve(kernel_size, reverse):
    layer = lk.testing.randomize(lk.AutoregressiveConv(2, kernel_size, reverse=reverse).double())
    z, upstream = normal(2, 2, 3, 4).requires_grad_(), normal(2, 2, 3, 4)
    leaves = [z, *layer.parameters()]
    matrix = matrix_of(lambda x: layer(x)[0], (2, 3, 4))
    dense = torch.linalg.solve(matrix, z.flatten(1).T).T.reshape(z.shape)
    log_det = -torch.linalg.slogdet(matrix)[1]
    expected = torch.autograd.grad((dense * upstream).sum() + 2 * log_det, leaves)
    x, contribution = layer.inverse(z)
    found = torch.autograd.grad((x * upstream).sum() + contribution.sum(), leaves)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-9)


@pytest.mark.parametrize(("kernel_size", "reverse"), [(2, False), ((2, 3), True)])
def test_second_derivatives_through_the_inverse(kernel_size, reverse):
    layer = lk.testing.randomize(lk.AutoregressiveConv(2, kernel_size, reverse=reverse).double())
    names = [name for name, _ in layer.named_parameters()]

    class Inverse(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, z):
            return self.layer.inverse(z)[0]

    def function(z, *values):
        given = {f"layer.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(Inverse(), given, (z,))

    inputs = (normal(1, 2, 2, 3).requires_grad_(), *layer.parameters())
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_the_inverse_keeps_its_result_and_the_kernel_only():
    layer = lk.AutoregressiveConv(3)
    z = torch.randn(4, 3, 16, 16).requires_grad_()
    kept = {}

    def look(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().size() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        layer.inverse(z)
    assert z.numel() <= sum(kept.values()) <= z.numel() + 200


def test_a_frozen_autoregressive_inverse_is_the_same_and_passes_gradients_on():
    layer = lk.testing.randomize(lk.emerging_conv(2, 3).double())
    z = normal(2, 2, 4, 4).requires_grad_()
    x, _ = layer.inverse(z)
    with layer.frozen():
        again, _ = layer.inverse(z)
        other, _ = layer.inverse(z[:, :, :3])
    assert torch.allclose(again, x, atol=1e-12)
    assert torch.allclose(other, layer.inverse(z[:, :, :3])[0], atol=1e-12)
    one, two = (torch.autograd.grad(value.square().sum(), z)[0] for value in (again, x))
    assert torch.allclose(one, two, atol=1e-10)


def test_autoregressive_inverses_of_no_rows_and_under_vmap():
    layer = lk.testing.randomize(lk.AutoregressiveConv(2, 3).double())
    assert layer.inverse(normal(0, 2, 3, 3))[0].shape == (0, 2, 3, 3)
    z = normal(3, 2, 3, 4)
    x, _ = layer.inverse(z)
    alone = torch.func.vmap(lambda row: layer.inverse(row[None])[0][0])(z)
    assert torch.allclose(alone, x)
    jacobian = torch.func.jacrev(lambda row: layer.inverse(row[None])[0][0])(z[0]).reshape(24, 24)
    assert torch.allclose(jacobian @ z[0].flatten(), x[0].flatten())
    weights = {name: torch.stack([value, 2 * value]) for name, value in layer.named_parameters()}
    both = torch.func.vmap(lambda given: torch.func.functional_call(lk.Inverse(layer), given, (z,))[0])(
        {f"transform.{name}": value for name, value in weights.items()}
    )
    assert torch.allclose(both[0], x)
    assert not torch.allclose(both[1], x, atol=1e-3)


def test_sets_of_pixels_that_depend_on_each_other_are_never_solved_together():
    for kernel_size in KERNELS:
        layer = lk.AutoregressiveConv(1, kernel_size)
        order = emerging.Order(layer.left, reverse=False, upper=False)
        prepared = emerging.prepare(layer.kernel(), order)
        step = prepared.step
        for row in range(layer.rows + 1):
            for column in range(-layer.left, layer.right + 1 if row else 0):
                assert 1 <= row * step - column <= prepared.reach


def test_settings_of_autoregressive_convolutions():
    for kernel_size in (1, 0, (1, 1), (2, 2, 2), (3,)):
        with pytest.raises(ConfigError, match="kernel"):
            lk.AutoregressiveConv(2, kernel_size)
    with pytest.raises(ShapeError, match="images"):
        lk.AutoregressiveConv(2)(torch.ones(3, 2, 4))
    with pytest.raises(ShapeError, match="2 channels"):
        lk.emerging_conv(2).inverse(torch.ones(3, 3, 4, 4))


def test_reflections_have_the_determinant_of_their_number():
    for count in range(1, 6):
        layer = lk.rotation(4, method="householder", reflections=count).double()
        matrix = matrix_of(lambda x, layer=layer: layer(x)[0], (4,))
        assert torch.allclose(torch.linalg.det(matrix), torch.tensor((-1.0) ** count).double())
    for size in (2, 3, 4):
        vectors = lk.rotation(size, method="householder").source(None)
        assert len(vectors) == size - size % 2


@pytest.mark.parametrize("count", [None, 1, 5])
@pytest.mark.parametrize("sign", [1, -1])
def test_reflections_start_where_they_should(count, sign):
    start = torch.linalg.qr(normal(4, 4))[0]
    start[0] *= sign
    layer = lk.rotation(4, method="householder", reflections=count, start=start).double()
    x = normal(3, 4)
    z, log_det = layer(x)
    assert torch.allclose(z, x @ start.T, atol=1e-12)
    assert torch.equal(log_det, torch.zeros(3, dtype=torch.float64))
    lk.testing.randomize(layer)
    moved, _ = layer(x)
    assert not torch.allclose(moved, z, atol=1e-2)
    assert torch.allclose(moved.norm(dim=1), x.norm(dim=1))
    assert torch.allclose(layer.inverse(moved)[0], x, atol=1e-12)


def test_reflections_of_each_row_are_as_if_alone():
    layer = lk.testing.randomize(lk.rotation(3, method="householder", condition_features=2).double())
    x, condition = normal(4, 3, 2), normal(4, 2)
    together, _ = layer(x, condition)
    alone = torch.cat([layer(x[i : i + 1], condition[i : i + 1])[0] for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-12)
    assert not torch.allclose(together, layer(x, condition.flip(0))[0], atol=1e-3)
    with pytest.raises(ShapeError, match="cannot act"):
        layer(x, condition[:2])
    with layer.frozen():
        assert torch.equal(layer(x, condition)[0], together)


def test_frozen_reflections_form_their_matrix_once():
    layer = lk.rotation(3, method="householder", reflections=2).double()
    x = normal(4, 3, 2)
    z, _ = layer(x)
    with layer.frozen():
        assert torch.allclose(layer(x)[0], z, atol=1e-12)
        assert torch.allclose(layer.inverse(z)[0], x, atol=1e-12)
        assert list(layer._cache) == ["matrix"]
        with pytest.raises(ShapeError, match="3 channels"):
            layer(normal(4, 2))


def test_vectors_that_cannot_reflect_are_refused_at_the_start():
    good = HouseholderVectors(3, 2, vectors=torch.eye(3)[:2])
    assert torch.allclose(householder_matrix(good(None)), torch.diag(torch.tensor([-1.0, -1.0, 1.0])))
    for bad in (0.0, float("nan"), float("inf")):
        with pytest.raises(DomainError, match="no direction"):
            HouseholderVectors(3, 2, vectors=torch.tensor([[1.0, 0, 0], [0, bad, 0]]))
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        HouseholderVectors(3, 2, vectors=torch.eye(3))
    with pytest.raises(ConfigError, match="at least one"):
        lk.rotation(3, method="householder", reflections=0)
    with pytest.raises(ConfigError, match="householder"):
        lk.rotation(3, method="cayley", reflections=2)


@pytest.mark.parametrize("ranks", [(2, 3), (0, 2), (1, 0)])
def test_woodbury_is_its_dense_matrix(ranks):
    layer = lk.Woodbury(3, (2, 4), channel_rank=ranks[0], spatial_rank=ranks[1]).double()
    lk.testing.randomize(layer)
    factors = [torch.eye(3, dtype=torch.float64), torch.eye(8, dtype=torch.float64)]
    for i, name in enumerate(("channel", "spatial")):
        if ranks[i]:
            factors[i] = factors[i] + getattr(layer, f"{name}_left") @ getattr(layer, f"{name}_right")
    matrix = torch.kron(*factors)
    x = normal(5, 3, 2, 4)
    z, log_det = layer(x)
    assert torch.allclose(z.flatten(1), x.flatten(1) @ matrix.T, atol=1e-12)
    assert torch.allclose(log_det, torch.linalg.slogdet(matrix)[1].expand(5), atol=1e-12)
    back, undone = layer.inverse(x)
    assert torch.allclose(back.flatten(1), torch.linalg.solve(matrix, x.flatten(1).T).T, atol=1e-10)
    assert torch.allclose(undone, -log_det)


def test_woodbury_never_forms_a_matrix_of_the_positions():
    layer = lk.Woodbury(1, (64, 64), spatial_rank=2)
    sizes = []

    def look(tensor):
        sizes.append(tensor.numel())
        return tensor

    x = torch.randn(1, 1, 64, 64)
    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        z, _ = layer(x)
        back, _ = layer.inverse(z)
    assert max(sizes) <= 2 * 64 * 64
    assert torch.allclose(back, x, atol=1e-5)


def test_woodbury_belongs_to_one_image_size():
    layer = lk.woodbury_conv(3, (4, 4), rank=2)
    for shape in ((2, 3, 4, 5), (2, 3, 16), (2, 3)):
        with pytest.raises(ShapeError, match=r"\(4, 4\)"):
            layer[1](torch.ones(shape))
    assert lk.Woodbury(3, (4, 4), channel_rank=2)(torch.ones(2, 3, 5, 7))[0].shape == (2, 3, 5, 7)
    with pytest.raises(ConfigError, match="rank"):
        lk.Woodbury(3, (4, 4))
    with pytest.raises(ConfigError, match="size"):
        lk.Woodbury(3, spatial_rank=2)


@pytest.mark.parametrize("name", ["channel", "spatial"])
@pytest.mark.parametrize("fault", ["singular", "nan", "nearly"])
def test_a_singular_woodbury_factor_is_refused(name, fault):
    layer = lk.Woodbury(3, (2, 2), channel_rank=2, spatial_rank=2)
    left, right = getattr(layer, f"{name}_left"), getattr(layer, f"{name}_right")
    with torch.no_grad():
        left.zero_()
        right.zero_()
        # One direction is multiplied by zero, or by a rounding error.
        left[0, 0], right[0, 0] = 1.0, {"singular": -1.0, "nan": float("nan"), "nearly": -1.0 + 1e-7}[fault]
    for call in (layer, layer.inverse):
        with pytest.raises(DomainError, match=f"{name} factor"):
            call(torch.ones(2, 3, 2, 2))
    with layer.frozen(), pytest.raises(DomainError, match="smaller learning rate"):
        layer(torch.ones(2, 3, 2, 2))


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (4, 5), (1, 2), (2, 1), (7,), (8,), (2, 3, 4)])
@pytest.mark.parametrize("taps", [3, 5])
def test_periodic_convolutions_are_their_dense_matrices(size, taps):
    layer = lk.testing.randomize(lk.PeriodicConv(2, taps, dims=len(size)).double(), scale=0.1)
    shape = (2, *size)
    # From the definition: every tap reads the pixel it leads to, round the border.
    events = torch.eye(int(torch.Size(shape).numel()), dtype=torch.float64).reshape(-1, *shape)
    expected = torch.zeros_like(events)
    for tap in torch.cartesian_prod(*[torch.arange(taps)] * len(size)).reshape(-1, len(size)).tolist():
        moved = events.roll([taps // 2 - t for t in tap], list(range(2, 2 + len(size))))
        expected = expected + torch.einsum("ij,bj...->bi...", layer.weight[(..., *tap)], moved)
    matrix = expected.flatten(1).T
    x = normal(3, *shape)
    z, log_det = layer(x)
    assert torch.allclose(z.flatten(1), x.flatten(1) @ matrix.T, atol=1e-11)
    assert torch.allclose(log_det, torch.linalg.slogdet(matrix)[1].expand(3), atol=1e-11)
    assert torch.allclose(layer.inverse(x)[0].flatten(1), torch.linalg.solve(matrix, x.flatten(1).T).T, atol=1e-9)


def test_periodic_convolutions_commute_with_translations_and_keep_their_factors_when_frozen():
    layer = lk.testing.randomize(lk.PeriodicConv(2).double(), scale=0.1)
    x = normal(2, 2, 4, 5)
    assert torch.allclose(layer(x.roll((1, 2), (2, 3)))[0], layer(x)[0].roll((1, 2), (2, 3)), atol=1e-12)
    with layer.frozen():
        for shape in ((4, 5), (5, 4)):
            x = normal(2, 2, *shape)
            assert torch.allclose(layer.inverse(layer(x)[0])[0], x, atol=1e-10)


def test_a_singular_frequency_is_refused():
    layer = lk.PeriodicConv(1, dims=1)
    with torch.no_grad():
        # The mean over three pixels: it loses the frequency of period three.
        layer.weight.fill_(1 / 3)
    assert bool(layer(torch.ones(1, 1, 4))[1].isfinite().all())
    for call in (layer, layer.inverse):
        with pytest.raises(DomainError, match="frequency"):
            call(torch.ones(1, 1, 6))
    with pytest.raises(ShapeError, match="1 axes"):
        layer(torch.ones(1, 1, 4, 4))
    with pytest.raises(ConfigError, match="dims"):
        lk.PeriodicConv(1, (3, 3), dims=1)


@pytest.mark.parametrize(
    ("build", "condition"),
    [
        (lambda: lk.Conv1x1(4), None),
        (lambda: lk.rotation(4, method="cayley"), None),
        (lambda: lk.Orthogonal(torch.linalg.qr(torch.randn(4, 4))[0]), None),
        (lambda: lk.rotation(4, method="householder"), None),
        (lambda: lk.rotation(4, method="householder", condition_features=2), torch.ones(2, 2)),
        (lambda: lk.emerging_conv(4), None),
        (lambda: lk.Woodbury(4, (4, 4), channel_rank=2, spatial_rank=3), None),
        (lambda: lk.PeriodicConv(4), None),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixing_layers_leave_autocast(build, condition, dtype):
    layer = lk.testing.randomize(build(), scale=0.1)
    x = torch.randn(2, 4, 4, 4).to(dtype)
    z, log_det = layer(x.float(), condition)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, contribution = layer(x, None if condition is None else condition.to(dtype))
        back, _ = layer.inverse(found, condition)
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert found.dtype == back.dtype == contribution.dtype == torch.float32
    assert torch.equal(found, z)
    assert torch.equal(contribution, log_det)
    assert torch.allclose(back, x.float(), atol=1e-4)


def test_two_conv1x1_is_the_product_of_two():
    layer = lk.testing.randomize(lk.two_conv1x1(3).double())
    x = normal(2, 3, 4, 4)
    z, log_det = layer(x)
    product = layer[1].matrix() @ layer[0].matrix()
    assert torch.allclose(z, torch.einsum("ij,bjhw->bihw", product, x))
    assert torch.allclose(log_det, 16 * torch.linalg.slogdet(product)[1].expand(2))


# torch.compile itself makes an object of an autograd function, which PyTorch deprecates.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    "build",
    [
        lambda: lk.Conv1x1(4),
        lambda: lk.rotation(4, method="householder"),
        lambda: lk.emerging_conv(4, 3),
        lambda: lk.Woodbury(4, (3, 3), channel_rank=2, spatial_rank=3),
    ],
)
def test_mixing_layers_compile_without_graph_breaks_and_take_no_rows(build):
    layer = build()
    x = torch.randn(2, 4, 3, 3)
    z, log_det = layer(x)

    @torch.compile(backend="eager", fullgraph=True)
    def both(x):
        z, log_det = layer(x)
        return z, log_det, layer.inverse(z)[0]

    found, contribution, back = both(x)
    assert torch.allclose(found, z, atol=1e-5)
    assert torch.allclose(contribution, log_det, atol=1e-5)
    assert torch.allclose(back, x, atol=1e-4)
    for call in (layer, layer.inverse):
        value, contribution = call(x[:0])
        assert value.shape == (0, 4, 3, 3)
        assert contribution.shape == (0,)
