"""In training steps exponentials have a tolerance of their own, and nowhere else."""

import threading

import pytest
import torch

import likelify as lk
from likelify import nets, testing, zoo
from likelify.errors import ConfigError
from likelify.fitting.settings import FitSettings
from likelify.linalg import Recompute, Stored, Unrolled, recorded

LAYERS = {
    "convolution": (lambda: lk.conv_exponential(3), (4, 3, 5, 5), None),
    "without a limit": (lambda: lk.conv_exponential(3, norm_limit=None), (4, 3, 5, 5), None),
    "orthogonal": (lambda: lk.orthogonal_convolution(3), (4, 3, 5, 5), None),
    "circular": (lambda: lk.conv_exponential(3, padding="circular"), (4, 3, 5, 5), None),
    "rows of their own": (lambda: lk.conv_exponential(3, context_features=2), (4, 3, 5, 5), torch.ones(4, 2)),
    "rotation": (lambda: lk.rotation(4), (6, 4), None),
    "dense": (lambda: lk.dense_exponential(4), (6, 4, 3), None),
    "graph": (
        lambda: lk.graph_exponential(3),
        (4, 3),
        lk.Context(structure=lk.GraphBatch(torch.tensor([4]), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))),
    ),
}


def tolerances(layer, x, context=None):
    with recorded() as found:
        layer(x, context)
    return {diagnostics.tolerance for diagnostics in found}


@pytest.mark.parametrize("name", LAYERS)
def test_the_tolerance_of_a_step_is_kept_in_it_and_nowhere_else(name):
    make, shape, context = LAYERS[name]
    torch.manual_seed(0)
    layer, x = testing.randomize(make(), scale=0.3), torch.randn(shape)
    exact, log_det = layer(x, context)
    assert tolerances(layer, x, context) == {1e-6}
    with nets.regularized(layer, exp_tol=1e-2):
        with recorded() as found:
            loose, same = layer(x, context)
        other: list[set[float]] = []
        thread = threading.Thread(target=lambda: other.append(tolerances(layer, x, context)))
        thread.start()
        thread.join()
    assert {d.tolerance for d in found} == {1e-2}
    assert other == [{1e-6}]
    assert tolerances(layer, x, context) == {1e-6}
    gap = float((loose - exact).detach().norm() / x.norm())
    assert gap < 1e-2
    assert torch.equal(same, log_det)


def test_code_compiled_during_a_step_of_another_thread_has_the_full_tolerance():
    torch.manual_seed(0)
    layer = testing.randomize(lk.conv_exponential(2), scale=0.3)
    x = torch.randn(3, 2, 4, 4)
    exact = layer(x)[0].detach()
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    found: list[torch.Tensor] = []
    with nets.regularized(layer, exp_tol=0.1):
        assert not torch.allclose(layer(x)[0], exact, atol=1e-4)
        thread = threading.Thread(target=lambda: found.append(compiled(x)[0].detach()))
        thread.start()
        thread.join()
    torch.testing.assert_close(found[0], exact)


def test_a_tolerance_of_the_layer_or_the_format_is_not_changed():
    x = torch.randn(2, 3, 4, 4)
    for layer, before in ((lk.conv_exponential(3, tol=1e-4), {1e-4}), (lk.conv_exponential(3), {1e-6})):
        with nets.regularized(layer):
            assert tolerances(layer, x) == before
        with nets.regularized(layer, exp_tol=1e-9):
            assert tolerances(layer, x) == before
    fixed = lk.conv_exponential(3, degree=5)
    with nets.regularized(fixed, exp_tol=1e-2):
        assert torch.equal(fixed(x)[0], fixed(x)[0])
    half = lk.conv_exponential(3, norm_limit=0.1).bfloat16()
    with nets.regularized(half, exp_tol=1e-3):
        assert tolerances(half, x.bfloat16()) == {8 * torch.finfo(torch.bfloat16).eps}
    with nets.regularized(half, exp_tol=0.1), nets.regularized(half, exp_tol=0.2):
        assert tolerances(half, x.bfloat16()) == {0.2}


@pytest.mark.parametrize("gradient", [Stored(), Recompute(), Unrolled()])
@pytest.mark.parametrize("limit", [1.8, None])
def test_gradients_keep_to_the_tolerance_of_the_step(gradient, limit):
    torch.manual_seed(1)
    layer = testing.randomize(lk.conv_exponential(3, norm_limit=limit, gradient=gradient), scale=0.2).double()
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    weight, g = layer.parametrization.weight, torch.randn(4, 3, 6, 6, dtype=torch.float64)

    def gradients():
        return torch.autograd.grad((layer(x)[0] * g).sum(), [x, weight])

    exact = gradients()
    for tol in (1e-2, 1e-4):
        with nets.regularized(layer, exp_tol=tol):
            value = layer(x)[0]
        # As in a fit, whose steps go back when the block has been left.
        loose = torch.autograd.grad((value * g).sum(), [x, weight])
        assert float((loose[0] - exact[0]).norm() / g.norm()) < 2 * tol
        gap = float((loose[1] - exact[1]).norm() / (x.detach().norm() * g.norm()))
        assert 0 < gap < 2 * tol * 9
    assert all(torch.equal(one, other) for one, other in zip(gradients(), exact, strict=True))


@pytest.mark.parametrize("model", ["glow", "sylvester", "mixing-flow"])
def test_every_exponential_of_a_model_has_the_tolerance_of_the_step(model):
    settings = {} if model == "sylvester" else {"mixing": "conv-exponential"}
    flow = zoo.build(model, event_shape=(1, 4, 4), pixel_levels=17, levels=1, steps=1, **settings)
    x = torch.randint(17, (3, 1, 4, 4))
    for regular, expected in (({"exp_tol": 1e-3}, {1e-3}), ({}, {1e-6})):
        with nets.regularized(flow, **regular), recorded() as found:
            flow.elbo(x)
        assert {d.tolerance for d in found} == expected


def test_only_training_steps_of_a_fit_have_it(monkeypatch):
    seen: dict[bool, set[float]] = {True: set(), False: set()}
    original = lk.Exponential._flow

    def flow_(self, *args):
        with recorded() as found:
            value = original(self, *args)
        # What the fit measures at its end is computed to both.
        seen[self.active and self.training_step.exp_tol is not None] |= {d.tolerance for d in found}
        return value

    monkeypatch.setattr(lk.Exponential, "_flow", flow_)
    # Of a base that is fitted too: rotations of a standard normal would leave it to rounding whether the fit improves.
    flow = lk.Flow(lk.Normal((3,), trainable=True), lk.rotation(3))
    lk.fit(flow, 3 + torch.randn(30, 3), steps=2, batch_size=8, validations=1, exp_tol=2e-3)
    assert seen == {True: {2e-3}, False: {1e-6}}


def test_settings_refuse_tolerances_that_are_none():
    for wrong in (0.0, -1.0, 0.5):
        with pytest.raises(ConfigError, match="exp_tol"):
            FitSettings.parse({"exp_tol": wrong})
    assert FitSettings.parse({"exp_tol": None}).exp_tol is None
