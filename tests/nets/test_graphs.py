"""Networks on nodes: dense and sparse are one function, and neither orders nor other graphs are seen."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import likelify as lk
from likelify import nets
from likelify.errors import UnsupportedError
from likelify.nets import graphs as graph_nets
from likelify.nets import order
from likelify.nets.graphs import AllPairs, EdgeList, PaddedPairs, neighbourhoods
from likelify.transforms.surjections import order as orders
from tests.cases import normal, weighted_graphs

NETS = {"messages": nets.MessagePassingNet, "attention": nets.GraphAttentionNet}


@pytest.fixture(params=NETS)
def kind(request):
    return NETS[request.param]


def small(kind, **settings):
    return kind(2, 3, **{"width": 8, "zero_start": False} | settings).double()


def edges_only(structure, weight=None):
    """The same graphs, not known to be complete."""
    return lk.GraphBatch(structure.sizes, structure.edge_index, weight)


@pytest.mark.parametrize("sizes", [[3, 3, 3], [1, 1], [2], [2, 0, 3, 1], [1, 1, 1, 1, 5]])
def test_dense_and_along_edges_are_one_function(kind, sizes):
    net, complete = small(kind, rounds=2, frequencies=3, context_features=1), lk.GraphBatch.complete(sizes)
    x, condition, upstream = normal(sum(sizes), 2).requires_grad_(), normal(sum(sizes), 1), normal(sum(sizes), 3)
    results = []
    for graphs in (complete, edges_only(complete), edges_only(complete, torch.ones(complete.edge_index.shape[1]))):
        value = net(x, lk.Context(condition, graphs))
        leaves = (x, *net.parameters())
        results.append((value, *torch.autograd.grad(value, leaves, upstream)))
    for other in results[1:]:
        for found, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_sizes_that_differ_little_are_filled_up():
    kinds = [type(neighbourhoods(lk.GraphBatch.complete(sizes))) for sizes in ([3, 3], [3, 2, 3], [1] * 9 + [5])]
    assert kinds == [AllPairs, PaddedPairs, EdgeList]


class WithoutDouble(TorchDispatchMode):
    """A device that has no double precision, as far as it can be tried without one."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if any(isinstance(part, torch.Tensor) and part.dtype == torch.float64 for part in tree_leaves(result)):
            raise TypeError("This device has no float64.")
        return result


@pytest.mark.parametrize("sizes", [[3, 3], [3, 2, 3], [1] * 9 + [5]])
def test_a_device_without_double_precision_is_given_none(kind, sizes, monkeypatch):
    complete = lk.GraphBatch.complete(sizes)
    weighted = edges_only(complete, torch.rand(complete.edge_index.shape[1]))
    x, net = torch.randn(sum(sizes), 2), small(kind).float()
    # Batches remember what was worked out for them.
    expected = [net(x, lk.Context(structure=graphs)) for graphs in (edges_only(complete), weighted)]
    with WithoutDouble(), pytest.raises(TypeError, match="no float64"):
        net(x, lk.Context(structure=edges_only(complete)))
    for module in (graph_nets, order, orders):
        monkeypatch.setattr(module, "widest_dtype", lambda _: torch.float32)
    with WithoutDouble():
        fresh = (lk.GraphBatch.complete(sizes), edges_only(complete, weighted.edge_weight))
        found = [net(x, lk.Context(structure=graphs)) for graphs in fresh]
        assert order._earlier_edges(complete)[2].dtype == torch.float32
        assert sorted(orders.shuffled(complete).tolist()) == list(range(sum(sizes)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_messages_are_what_the_formula_says():
    net, graphs, x = small(nets.MessagePassingNet), weighted_graphs(), normal(5, 2)
    round_ = net.between[0]
    h = net.enter(x)
    to, by = round_.ends(h).chunk(2, 1)
    weights = torch.eye(5).double()
    weights.index_put_((graphs.edge_index[1], graphs.edge_index[0]), graphs.edge_weight.double(), accumulate=True)
    # A loop is a message of its own, not a heavier one.
    squares = torch.eye(5).double()
    squares.index_put_((graphs.edge_index[1], graphs.edge_index[0]), graphs.edge_weight.double() ** 2, accumulate=True)
    sums = (weights[:, :, None] * torch.nn.functional.silu(to[:, None] + by[None])).sum(1)
    m = sums / squares.sum(1, keepdim=True).sqrt()
    h = round_.update(h, m)
    expected = net.leave(torch.nn.functional.silu(h))
    torch.testing.assert_close(net(x, lk.Context(structure=graphs)), expected, atol=1e-12, rtol=1e-12)


def test_attention_is_what_the_formula_says():
    net, graphs, x = small(nets.GraphAttentionNet, heads=2), weighted_graphs(), normal(5, 2)
    round_ = net.between[0]
    h = net.enter(x)
    weights = torch.eye(5).double()
    weights.index_put_((graphs.edge_index[1], graphs.edge_index[0]), graphs.edge_weight.double(), accumulate=True)
    parts = []
    for query, key, value in zip(*(part.chunk(2, 1) for part in round_.enter(h).chunk(3, 1)), strict=True):
        shares = weights * (query @ key.T / 2).exp()
        parts.append(shares / shares.sum(1, keepdim=True) @ value)
    expected = net.leave(torch.nn.functional.silu(round_.update(h + round_.leave(torch.cat(parts, 1)))))
    torch.testing.assert_close(net(x, lk.Context(structure=graphs)), expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("complete", [True, False])
def test_the_order_of_nodes_is_not_seen(kind, complete):
    net, x = small(kind, rounds=2), normal(5, 2)
    graphs = lk.GraphBatch.complete([2, 3]) if complete else weighted_graphs()
    order = torch.tensor([1, 0, 4, 2, 3])
    moved = graphs if complete else lk.GraphBatch(graphs.sizes, order.argsort()[graphs.edge_index], graphs.edge_weight)
    value = net(x, lk.Context(structure=graphs))
    torch.testing.assert_close(net(x[order], lk.Context(structure=moved)), value[order], atol=1e-12, rtol=1e-12)


def test_graphs_of_a_batch_do_not_see_one_another(kind):
    net, x = small(kind, rounds=2), normal(6, 2)
    together = net(x, lk.Context(structure=lk.GraphBatch.complete([1, 3, 2])))
    parts = zip(x.split([1, 3, 2]), ([1], [3], [2]), strict=True)
    alone = torch.cat([net(part, lk.Context(structure=lk.GraphBatch.complete(size))) for part, size in parts])
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=1e-12)


def test_scores_of_any_size_are_taken(kind):
    net = small(kind)
    for graphs in (lk.GraphBatch.complete([3]), edges_only(lk.GraphBatch.complete([3]))):
        assert bool(torch.isfinite(net(1e4 * normal(3, 2), lk.Context(structure=graphs))).all())


def test_a_fresh_net_gives_zeros_unless_told_otherwise(kind):
    context = lk.Context(structure=lk.GraphBatch.complete([2]))
    assert not bool(kind(2, 3, width=8)(torch.randn(2, 2), context).any())
    assert bool(kind(2, 3, width=8, zero_start=False)(torch.randn(2, 2), context).any())


def test_refusals(kind):
    net, graphs = small(kind), lk.Context(structure=lk.GraphBatch.complete([3]))
    with pytest.raises(lk.errors.ShapeError, match=r"needs the graphs: give Context\(structure="):
        net(normal(3, 2))
    with pytest.raises(lk.errors.ShapeError, match="got shape .4, 2.; the graphs of the context have 3 nodes"):
        net(normal(4, 2), graphs)
    with pytest.raises(lk.errors.ShapeError, match="was built for 2 channels"):
        net(normal(3, 5), graphs)
    negative = lk.GraphBatch(torch.tensor([3]), torch.tensor([[0], [1]]), torch.tensor([-1.0]))
    with pytest.raises(lk.errors.DomainError, match="weights from zero"):
        net(normal(3, 2), lk.Context(structure=negative))
    with pytest.raises(lk.errors.ConfigError, match="rounds must be at least 1"):
        kind(2, 3, rounds=0)


def test_heads_divide_the_width():
    with pytest.raises(lk.errors.ConfigError, match="a multiple of its heads, not 10 for 4"):
        nets.GraphAttentionNet(2, 3, 10)


@pytest.mark.parametrize("net", [nets.MessagePassingNet, nets.GraphAttentionNet])
def test_weights_that_would_get_no_gradient_are_refused(net):
    weight = torch.ones(2, requires_grad=True)
    graph = lk.GraphBatch(torch.tensor([2]), torch.tensor([[0, 1], [1, 0]]), weight)
    with pytest.raises(UnsupportedError, match="edge_weight requires a gradient"):
        net(1, 2, 8)(torch.rand(2, 1), lk.Context(structure=graph))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_sizes_are_integers_of_any_width(dtype):
    sizes = torch.tensor([2, 3], dtype=dtype)
    edges = torch.tensor([[0, 1], [1, 0]])
    for graph in (lk.GraphBatch(sizes, edges), lk.GraphBatch.complete(sizes)):
        assert graph.sizes.dtype == torch.int64
        assert graph.owner.tolist() == [0, 0, 1, 1, 1]
