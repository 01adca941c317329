"""Inside `torch.autocast` with bfloat16 every layer gives float32, and a map and an inverse that belong together."""

import pytest
import torch

import likelify as lk
from likelify import testing
from likelify.structure import as_context
from likelify.transforms.core import Composite
from tests.cases import LAYERS

# What rounding the numbers inside of networks to eight bits may do to a value; the largest of all cases is half of it.
NETWORKS = 0.03


def single(tensor):
    return tensor.float() if tensor is not None and tensor.is_floating_point() else tensor


def case_in_single(name):
    """The layer of a case, its data and its context in float32."""
    case = LAYERS[name]
    layer = testing.randomize(case.build().float(), scale=0.1)
    x, context = case.data(), as_context(case.context())
    return layer, single(x), lk.Context(single(context.condition), context.structure)


def has_networks(layer):
    return any(
        m.keeps_autocast and not isinstance(m, Composite) for m in layer.modules() if isinstance(m, lk.Transform)
    )


def both_ways(layer, x, context):
    with lk.seeded(1):
        z, contribution = layer(x, context)
    with lk.seeded(2):
        back, inverse = layer.inverse(z.detach(), context)
    return z, contribution, back, inverse


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_in_float32_inside_autocast(name):
    layer, x, context = case_in_single(name)
    with torch.no_grad():
        plain = both_ways(layer, x, context)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = both_ways(layer, x, context)
        mean = layer.mean_forward(x, context)
    # Units of columns are float64 whatever the flow is.
    assert [t.dtype for t in found] == [t.dtype for t in plain]
    assert torch.float32 in {t.dtype for t in found}
    assert mean.dtype == plain[0].dtype
    for value, expected in zip(found[:2], plain[:2], strict=True):
        room = NETWORKS * (1 + expected.abs()) if has_networks(layer) else 1e-6 * (1 + expected.abs())
        assert bool(((value - expected).abs() <= room).all()), float((value - expected).abs().max())
    if not layer.random_forward and not layer.random_inverse:
        # How far an inverse gets in float32 is not what this law is about.
        assert float((found[2] - x).detach().abs().max()) <= max(1e-4, 2 * float((plain[2] - x).abs().max()))
        left = 2 * (plain[3] + plain[1]).abs()
        assert layer.noisy_log_det or bool(((found[3] + found[1]).abs() <= left + 1e-4 * (1 + found[1].abs())).all())
    parameters = [p for p in layer.parameters() if p.requires_grad]
    total = found[0].sum() + found[1].sum()
    if parameters and total.requires_grad:
        grads = torch.autograd.grad(total, parameters, allow_unused=True)
        assert all(
            g is None or (g.dtype == p.dtype and g.isfinite().all()) for g, p in zip(grads, parameters, strict=True)
        )


@pytest.mark.parametrize("name", [name for name in LAYERS if "coupling" in name and "graphs" not in name])
def test_the_contribution_is_that_of_the_map_that_was_applied(name):
    layer, x, context = case_in_single(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, contribution = layer(x.requires_grad_(), context)
    # Items are rows, so the gradient of a sum over rows is that of each.
    rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in z.flatten(1).unbind(1)]
    own = torch.stack(rows, 1).flatten(2).double()
    assert torch.allclose(torch.linalg.slogdet(own)[1], contribution.detach().double(), atol=1e-4)
