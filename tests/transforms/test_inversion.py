"""Inverses that cannot be trusted say so, and those that can are left in peace."""

import threading

import pytest
import torch

import likelify as lk
from likelify import nets, testing, transforms
from likelify.errors import ConvergenceError
from likelify.transforms import InverseCheck, unchecked


def noisy(layer, deviation, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(deviation * torch.randn_like(parameter))
    return layer


def ill_conditioned(dtype=torch.float32):
    torch.manual_seed(0)
    return noisy(lk.Conv1x1(48), 0.5).to(dtype)


def spline_coupling():
    split, bijector = lk.ChannelSplit(6), lk.SplineBijector()
    return lk.Coupling(split, bijector, nets.MLP(3, 3 * bijector.size, (32,)))


def steep_coupling():
    split, bijector = lk.ChannelSplit(6), lk.AffineBijector(limit=40.0)
    return lk.Coupling(split, bijector, nets.MLP(3, 6, (32,)))


# Layers, deviation of the noise on their parameters, event, and whether float64 is enough.
SPOILT = {
    "emerging 2x2": (lambda: lk.emerging_conv(3, 2), 0.3, (3, 32, 32), False),
    "emerging 3x3": (lambda: lk.emerging_conv(3, 3), 0.5, (3, 16, 16), False),
    "emerging, scale 1": (lambda: lk.emerging_conv(3, 3), 1.0, (3, 32, 32), False),
    "emerging, scale 3": (lambda: lk.emerging_conv(3, 2), 3.0, (3, 16, 16), False),
    "1x1": (lambda: lk.Conv1x1(48), 0.5, (48, 4, 4), True),
    "two 1x1": (lambda: transforms.two_conv1x1(24), 0.6, (24, 4, 4), True),
    "spline coupling": (spline_coupling, 1.0, (6,), True),
    "affine coupling without a limit": (steep_coupling, 2.0, (6,), False),
    "splines of channels": (lambda: lk.ChannelSpline(6), 4.0, (6,), True),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_inverse_raises(name):
    build, deviation, event, finer = SPOILT[name]
    torch.manual_seed(1)
    layer = noisy(build(), deviation)
    x = torch.randn(32, *event)
    z, _ = layer(x)
    with unchecked():
        back, _ = layer.inverse(z)
    assert not bool(((back - x).abs() < 1e-2).all())
    for inverse in (layer.inverse, layer.mean_inverse):
        with pytest.raises(ConvergenceError, match="cannot be trusted in float32.*float64"):
            inverse(z)
    if finer:
        layer, x = layer.double(), x.double()
        with torch.no_grad():
            assert float((layer.inverse(layer(x)[0])[0] - x).abs().max()) < 1e-4


def test_the_condition_number_of_a_sylvester_layer_counts_though_its_residual_is_small():
    torch.manual_seed(0)
    layer = noisy(lk.conv_sylvester(3), 0.1)
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        found = layer.checked_inverse(layer(x)[0], throw=False)
    report = found.reports[-1]
    assert float(report.residual.max()) < 1e-3
    assert not report.trusted
    assert float((found.value - x).abs().max()) > 1
    with pytest.raises(ConvergenceError, match="condition number"), torch.no_grad():
        layer.inverse(layer(x)[0])


def test_layers_that_lose_little_one_by_one_are_looked_at_together():
    torch.manual_seed(0)
    chain, z = noisy(lk.Chain([lk.Conv1x1(12) for _ in range(20)]), 0.2), torch.randn(16, 12)
    with torch.no_grad():
        assert all(layer.checked_inverse(z).trusted for layer in chain)
        with unchecked():
            assert float((chain(chain.inverse(z)[0])[0] - z).abs().max()) > 0.5
        with pytest.raises(ConvergenceError, match="inverse of Chain cannot .* Most of the digits are lost in Conv1x1"):
            chain.inverse(z)


def test_a_glow_that_would_draw_black_and_white_images_names_the_layer():
    torch.manual_seed(0)
    flow = lk.zoo.build("glow", event_shape=(3, 16, 16), mixing="emerging", steps=1, hidden=8)
    spoilt = [layer for layer in flow.modules() if isinstance(layer, transforms.AutoregressiveConv)]
    noisy(spoilt[0], 1.0)
    for draw in (lambda: flow.sample(3), lambda: flow.rsample(3)):
        with pytest.raises(ConvergenceError, match=r"layer \d+ of \d+ \(Autoreg\w+\): The inverse of Aut") as caught:
            draw()
        assert caught.value.layer is spoilt[0]
    with unchecked():
        flow.sample(3)


def test_the_place_is_named_through_chains_conjugates_and_inverses():
    layer = ill_conditioned()
    inner = lk.Chain([lk.ActNorm(48), layer])
    z = layer(torch.randn(16, 48))[0].detach()
    where = r"^In layer 2 of 3 \(Chain\), in it layer 2 of 2 \(Conv1x1\): The inverse of \w+ cannot"
    chain = lk.Chain([lk.ActNorm(48), inner, lk.ActNorm(48)])
    flow = lk.Flow(lk.Normal((48,)), chain)
    draws = (lambda: flow.sample(5), lambda: flow.sample_and_log_prob(5))
    for call in (lambda: chain.inverse(z), lambda: chain.mean_inverse(z), *draws):
        with pytest.raises(ConvergenceError, match=where):
            call()
    turned = lk.Chain([lk.ActNorm(48), lk.Inverse(inner)])
    for call in (turned, turned.mean_forward):
        with pytest.raises(ConvergenceError, match=r"^In layer 2 of 2 \(Inverse\), in it layer 2 of 2 \(Conv1x1\): "):
            call(z)
    conjugate = lk.Conjugate(layer, lk.ActNorm(48))
    for call in (conjugate, conjugate.inverse):
        # Forward, it is looked at where no gradients are recorded.
        with torch.no_grad(), pytest.raises(ConvergenceError, match=r"^In layer 1 of 2 \(Conv1x1\): "):
            call(torch.randn(16, 48))


def test_draws_of_an_ill_conditioned_layer_are_refused_by_their_residual():
    layer = ill_conditioned()
    z = torch.randn(16, 48)
    with unchecked(), torch.no_grad():
        back, _ = layer(layer.inverse(z)[0])
    assert float((back - z).abs().max()) > 0.1
    with pytest.raises(ConvergenceError):
        layer.inverse(z)


def test_the_report_says_what_was_found():
    layer = ill_conditioned()
    x = torch.randn(16, 48)
    z = layer(x)[0].detach()
    found = layer.checked_inverse(z, throw=False)
    (report, *_) = found.reports
    assert not found.trusted
    assert report.layer is layer
    assert report.dtype == torch.float32
    assert len(report.residual) == len(report.error) == 16
    assert not report.error.isnan().any()
    assert report.failed.tolist() == list(range(16))
    exact = float(torch.linalg.cond(layer.matrix().double().detach()))
    assert 1e-3 * exact < report.condition < 10 * exact
    assert "condition number" in str(report)
    with pytest.raises(ConvergenceError, match="condition number") as caught:
        layer.checked_inverse(z)
    assert caught.value.diagnostics.condition == pytest.approx(report.condition)
    assert torch.equal(found.value, layer.checked_inverse(z, throw=False).value)
    fine = lk.Chain([lk.Conv1x1(3), lk.ActNorm(3)]).checked_inverse(torch.randn(4, 3))
    assert fine.trusted
    assert "keeps its digits" in str(fine.reports[-1])


def test_linear_layers_are_looked_at_whatever_the_size_of_their_inputs():
    layer = ill_conditioned()
    for size in (1e-12, 1e-4, 1e6):
        with pytest.raises(ConvergenceError):
            layer.inverse(layer(size * torch.randn(16, 48))[0])


class Vanishing(lk.Transform):
    """The map `z = x / 1e40`, which is zero in float32."""

    def forward(self, x, context=None):
        return x * 1e-30 * 1e-30, lk.structure.sum_items(torch.full_like(x, -138.0), context)

    def inverse(self, z, context=None):
        return z / 1e-30 / 1e-30, lk.structure.sum_items(torch.full_like(z, 138.0), context)


def test_what_is_not_finite_is_an_error_at_its_layer():
    layers = lk.Chain([lk.ActNorm(2), lk.ActNorm(2), lk.ActNorm(2)])
    with torch.no_grad():
        layers[1].log_scale.fill_(-200.0)
    with pytest.raises(ConvergenceError, match=r"^In layer 2 of 3 \(ActNorm\): .* not finite"):
        layers.inverse(torch.randn(3, 2))
    # The first layer would stumble over what the second makes, and the second is to blame.
    layers = lk.Chain([lk.conv_exponential(2, norm_limit=None, dims=1), Vanishing()])
    with pytest.raises(ConvergenceError, match=r"^In layer 2 of 2 \(Vanishing\): "):
        layers.inverse(torch.randn(2, 2, 5))


def test_latents_that_are_not_finite_are_not_the_fault_of_a_layer():
    layer = lk.ActNorm(2)
    z = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    assert bool(layer.inverse(z)[0][1].isfinite().all())


class Cube(lk.Transform):
    """The map `z = x^3`, whose inverse a user gets wrong."""

    def __init__(self, power=1 / 3):
        super().__init__()
        self.power = power

    def forward(self, x, context=None):
        return x**3, lk.structure.sum_items((3 * x * x).log(), context)

    def inverse(self, z, context=None):
        x = z.sign() * z.abs() ** self.power
        return x, -lk.structure.sum_items((3 * x * x).log(), context)


def test_layers_of_users_are_looked_at_unless_they_say_otherwise():
    z = torch.randn(5, 3)
    Cube().inverse(z)
    with pytest.raises(ConvergenceError, match="Cube"):
        Cube(0.3).inverse(z)

    class Trusting(Cube):
        inverse_check = None

    Trusting(0.3).inverse(z)

    class Thorough(Cube):
        inverse_check = InverseCheck("every row")

    with pytest.raises(ConvergenceError, match="of 5 rows"):
        Thorough(0.3).inverse(z)


def test_the_check_is_off_in_its_block_and_nowhere_else():
    layer = ill_conditioned()
    z = layer(torch.randn(16, 48))[0].detach()
    found = []

    def elsewhere():
        try:
            layer.inverse(z)
        except ConvergenceError as error:
            found.append(error)

    with unchecked():
        layer.inverse(z)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        with pytest.raises(ConvergenceError):
            layer.checked_inverse(z)
        layer.inverse(z)
    assert len(found) == 1
    with pytest.raises(ConvergenceError):
        layer.inverse(z)


def test_the_check_changes_neither_values_nor_random_numbers_nor_gradients():
    torch.manual_seed(0)
    layers = [lk.emerging_conv(2), lk.conv_exponential(2, norm_limit=None), transforms.Woodbury(2, channel_rank=1)]
    layer = lk.Chain(layers).double()
    z = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    state = torch.get_rng_state()
    x, contribution = layer.inverse(z)
    assert torch.equal(torch.get_rng_state(), state)
    with unchecked():
        plain = layer.inverse(z)
    assert torch.allclose(x, plain[0], rtol=0, atol=1e-13)
    assert torch.allclose(contribution, plain[1], rtol=0, atol=1e-13)
    parameters = list(layer.parameters())
    one, other = (torch.autograd.grad(v[0].sin().sum() + v[1].sum(), parameters) for v in ((x, contribution), plain))
    for g, expected in zip(one, other, strict=True):
        assert torch.allclose(g, expected, rtol=1e-10, atol=1e-12)


def test_conditions_go_with_their_rows():
    layer = lk.conv_exponential(2, norm_limit=None, context_features=3)
    testing.randomize(layer, scale=0.3)
    z, context = torch.randn(5, 2, 4, 4), torch.randn(5, 3)
    with unchecked():
        expected, _ = layer.inverse(z, context)
    assert torch.allclose(layer.inverse(z, context)[0], expected, atol=1e-5)
