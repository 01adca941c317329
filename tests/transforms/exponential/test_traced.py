"""Exponential layers under torch.compile and torch.func: they work, or say in one way why not and what to do."""

import pytest
import torch
from torch.func import functional_call, hessian, jacfwd, jvp, vmap

import likelify as lk
from likelify import transforms
from likelify.errors import UnsupportedError
from tests.cases import normal

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

COMPLETE = lk.GraphBatch.complete([2, 1])
SPARSE = lk.GraphBatch(torch.tensor([3]), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))


def fixed(layer):
    return lk.Exponential(layer.parametrization, degree=16)


# Layer, shape of its events, context.
KNOWN = {
    "conv": (lambda: lk.conv_exponential(2, dims=1), (2, 3), None),
    "conv-condition": (lambda: lk.conv_exponential(2, dims=1, context_features=2), (2, 3), "condition"),
    "axis": (lambda: lk.axis_exponential(2, 3), (2, 3, 2), None),
    "dense": (lambda: lk.dense_exponential(2, norm_limit=1.0), (2,), None),
    "rotation": (lambda: fixed(lk.rotation(3)), (3,), None),
    "cayley": (lambda: lk.rotation(2, method="cayley"), (2,), None),
    "cayley-condition": (lambda: lk.rotation(2, method="cayley", context_features=2), (2,), "condition"),
    "householder": (lambda: lk.rotation(3, method="householder"), (3,), None),
    "sets": (lambda: fixed(transforms.equivariant_exponential(2, "sets")), (2, 3), None),
    "graph": (lambda: lk.graph_exponential(2, neighbours=1), (2,), COMPLETE),
    "graph-sparse": (lambda: lk.graph_exponential(2, neighbours=2), (2,), SPARSE),
    "linear": (lambda: lk.linear_exponential(torch.nn.Linear(2, 2, bias=False), norm=4.0), (2,), None),
}
UNKNOWN = {
    "conv": (lambda: lk.conv_exponential(2, dims=1, norm_limit=None), (2, 3), None),
    "orthogonal": (lambda: lk.orthogonal_convolution(2, dims=1), (2, 3), None),
    "dense": (lambda: lk.dense_exponential(2), (2,), None),
    "rotation": (lambda: lk.rotation(3), (3,), None),
    "pairs": (lambda: transforms.equivariant_exponential(2, "pairs"), (2, 2, 2), None),
    "graph": (lambda: lk.graph_exponential(2), (2,), COMPLETE),
    "graph-sparse": (lambda: lk.graph_exponential(2), (2,), SPARSE),
}


def slow_if(names, slow):
    """Return the names; compiling takes its time, so that of layers that are much alike one is not marked as slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in slow else []) for name in names]


def prepared(case):
    build, shape, context = case
    layer, x = lk.testing.randomize(build().double()), normal(3, *shape)
    if isinstance(context, lk.GraphBatch):
        context = lk.Context(structure=context)
    return layer, x, normal(3, 2) if context == "condition" else context


@pytest.mark.parametrize("name", slow_if(KNOWN, {"conv", "cayley", "sets", "graph", "linear"}))
def test_layers_whose_norm_is_known_compile(name):
    layer, x, context = prepared(KNOWN[name])
    value = layer(x, context)[0].detach()
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x, context)[0], value, atol=1e-10)


@pytest.mark.parametrize("name", KNOWN)
def test_layers_whose_norm_is_known_vectorize_and_have_tangents(name):
    layer, x, context = prepared(KNOWN[name])
    value = layer(x, context)[0].detach()
    assert torch.allclose(jvp(lambda x: layer(x, context)[0], (x,), (x,))[1], value, atol=1e-10)
    if context is None:
        assert torch.allclose(vmap(lambda row: layer(row[None])[0][0])(x), value, atol=1e-10)


@pytest.mark.parametrize("name", ["conv", "cayley", "cayley-condition", "graph-sparse"])
def test_layers_whose_norm_is_known_have_second_derivatives_by_functions(name):
    layer, x, context = prepared(KNOWN[name])
    parameter, weight = next(iter(layer.named_parameters()))

    def loss(weight):
        return functional_call(layer, {parameter: weight}, (x, context))[0].sin().sum()

    exact = torch.autograd.functional.hessian(loss, weight.detach())
    assert torch.allclose(hessian(loss)(weight.detach()), exact, atol=1e-8)
    assert torch.allclose(jacfwd(jacfwd(loss))(weight.detach()), exact, atol=1e-8)


@pytest.mark.parametrize("name", slow_if(UNKNOWN, {"pairs", "graph"}))
def test_layers_whose_norm_is_not_known_say_so_and_name_themselves(name):
    layer, x, context = prepared(UNKNOWN[name])
    layer(x, context)
    words = r"Exponential\(\w+\) chooses its degree by the norm .* degree=12"
    with pytest.raises(UnsupportedError, match=words):
        jvp(lambda x: layer(x, context)[0], (x,), (x,))
    torch.compiler.reset()
    with pytest.raises(Exception, match=words):
        torch.compile(layer, fullgraph=True, backend="eager")(x, context)


def test_graphs_have_to_be_met_before_a_layer_is_compiled():
    layer, x = lk.graph_exponential(2, neighbours=1), torch.ones(4, 2)
    torch.compiler.reset()
    with pytest.raises(Exception, match="Call the layer once on these graphs"):
        torch.compile(layer, fullgraph=True, backend="eager")(x, lk.Context(structure=lk.GraphBatch.complete([2, 2])))


def test_batches_of_gradients_are_refused_in_words():
    layer, x, _ = prepared(KNOWN["conv"])
    with pytest.raises(UnsupportedError, match="leave vectorize out"):
        torch.autograd.functional.jacobian(lambda x: layer(x)[0], x, vectorize=True)
