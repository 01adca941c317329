"""The models of the first paper and their presets."""

import json
import math

import pytest
import torch

import likelify as lk
from likelify import testing, zoo
from likelify.errors import ConfigError, ShapeError
from likelify.fitting.recipes import preset_fit
from likelify.fitting.settings import FitSettings
from likelify.nets.masked import AutoregressiveNet
from likelify.nets.tied import TiedHeads
from likelify.testing import randomize
from likelify.transforms.sylvester_flows.scalar import FreeTanhResidual
from likelify.transforms.sylvester_flows.triangular import TriangularResidual

NAMES = (
    *(f"table1-{mixing}" for mixing in ("1x1", "emerging", "woodbury", "conv-exponential", "axis-exponential")),
    *(
        f"table2-{name}{noise}"
        for name in ("coupling", "residual", "residual-equal-memory", "sylvester", "sylvester-axis")
        for noise in ("", "-variational")
    ),
    "table3-without-generalization",
    "table3-without-basis",
)
# The smallest sizes that still have every part.
TINY = {"levels": 2, "steps": 1, "width": 4, "depth": 1, "growth": 3}
TINY_NOISE = {"noise_steps": 1, "noise_features": 3, "noise_depth": 1}


def tiny(name, event_shape=(2, 8, 4), **settings):
    values = TINY | ({"hidden": 16} if not name.startswith("table1") else {}) | TINY_NOISE
    return zoo.preset_config(name, event_shape, size="small", pixel_levels=8, **(values | settings))


def test_the_presets_are_those_of_the_issue():
    assert tuple(name for name in zoo.PRESETS if name.startswith("table")) == NAMES
    with pytest.raises(ConfigError, match="There is no preset 'table4'. Did you mean 'table1-1x1'"):
        zoo.preset("table4")
    with pytest.raises(ConfigError, match="no size of a preset 'huge'"):
        zoo.preset_config("table1-1x1", size="huge")


@pytest.mark.parametrize("name", NAMES)
def test_presets_are_plain_data_and_valid_at_both_sizes(name):
    for size in ("paper", "small"):
        config = zoo.preset_config(name, size=size)
        assert zoo.config_from_dict(json.loads(config.model_dump_json())) == config
        FitSettings.parse(preset_fit(name, size))
        # Who changes what was given must not change the preset.
        zoo.preset(name).settings(size)["steps"] = 99
        assert zoo.preset_config(name, size=size).steps != 99


@pytest.mark.parametrize("name", NAMES)
def test_presets_go_both_ways_and_can_be_trained(name):
    flow = randomize(tiny(name).build(), scale=0.1).double()
    x = torch.randint(8, (3, 2, 8, 4), dtype=torch.uint8)
    flow.initialize(x)
    (-flow.elbo(x).value.mean()).backward()
    for label, parameter in flow.named_parameters():
        assert parameter.grad is not None, label
        assert torch.isfinite(parameter.grad).all(), label
    # Behind dequantization and scaling; the split prior draws anew, so the way starts at the latent.
    inner = flow.transform[2:]
    z = torch.randn(3, *flow.base.event_shape, dtype=torch.float64)
    with lk.seeded(0), torch.no_grad():
        back, undone = inner.inverse(z)
        again, contribution = inner(back)
    assert torch.allclose(again, z, atol=1e-8)
    if flow.likelihood != "estimate":
        assert torch.allclose(undone, -contribution, atol=1e-7)
    drawn = flow.sample((2,))
    assert drawn.shape == (2, 2, 8, 4)
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 7


def test_the_log_likelihood_of_a_preset_is_that_of_its_jacobian():
    """One Sylvester model, end to end without noise: the contribution is the determinant and the split prior."""
    flow = randomize(tiny("table2-sylvester", (1, 4, 4)).build(), scale=0.1).double()
    inner = flow.transform[1:]
    x = 8 * torch.rand(2, 1, 4, 4, dtype=torch.float64)
    z, contribution = inner(x)
    prior = next(i for i, layer in enumerate(inner) if isinstance(layer, lk.Chain))
    front, rest = inner[:prior], inner[prior + 1 :]

    def both(v):
        u = front(v)[0]
        coupled = inner[prior][0](u)[0]
        return torch.cat([rest(coupled[:, : coupled.shape[1] // 2])[0].flatten(1), coupled[:, 2:].flatten(1)], 1)

    for row in range(2):
        jacobian = torch.autograd.functional.jacobian(both, x[row : row + 1]).reshape(16, 16)
        dropped = both(x[row : row + 1]).detach()[:, -8:]
        normal = float(-0.5 * (dropped**2).sum() - 4 * math.log(2 * math.pi))
        expected = float(torch.linalg.slogdet(jacobian)[1]) + normal
        assert abs(float(contribution[row].detach()) - expected) < 1e-8


def test_all_presets_of_a_table_have_the_same_split_priors():
    for names in (NAMES[1:4], [name for name in NAMES if name[:6] in ("table2", "table3")]):
        found = set()
        for name in names:
            with torch.device("meta"):
                priors = [
                    zoo.preset_config(name)._split_prior(channels, side, side)  # noqa: SLF001
                    for channels, side in ((12, 16), (24, 8))
                ]
            found.add(str([{k: tuple(v.shape) for k, v in prior.state_dict().items()} for prior in priors]))
        assert len(found) == 1


PUBLISHED = [name for name in NAMES if ("sylvester" in name or "conv-exp" in name) and "axis" not in name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_exponentials_have_the_norm_limit_of_the_paper_with_the_tight_bound(name):
    flow = tiny(name).build()
    layers = [m for m in flow.modules() if isinstance(m, lk.Exponential)]
    assert layers
    for layer in layers:
        assert layer.parametrization.norm_limit == 0.9
        assert layer.parametrization.settings["bound"] == "torus"


def size_of(module):
    return sum(p.numel() for p in module.parameters())


def without_dequantizer(flow):
    return size_of(flow) - size_of(flow.transform[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("table1-1x1", 47.85e6),
        ("table1-emerging", 46.66e6),
        ("table1-woodbury", 46.76e6),
        ("table1-conv-exponential", 46.76e6),
        # Not in the paper: as many as its 1x1.
        ("table1-axis-exponential", 47.85e6),
    ],
)
def test_mixing_presets_have_the_parameters_of_the_published_models(name, published):
    flow = zoo.preset_config(name).build()
    assert abs(without_dequantizer(flow) - published) < 0.01 * published


@pytest.mark.slow
def test_residual_presets_have_the_parameters_that_their_architecture_says():
    """50.3, 43.7 and 40.2 million are published; with 4.4 million in split priors for all, 50.3, 30.6 and 27.4."""
    sylvester = zoo.preset_config("table2-sylvester").build()
    # Published weights include the masked ones: four taps of nine that are not kept here.
    masked = sum(
        4 * net.channels * net.hidden * (1 + net.heads)
        for net in sylvester.modules()
        if isinstance(net, AutoregressiveNet)
    )
    assert abs(size_of(sylvester) + masked - 50.3e6) < 0.01 * 50.3e6
    priors = sum(size_of(part) for part in sylvester.transform if isinstance(part, lk.Chain))
    assert abs(priors - 4.4e6) < 0.01 * 4.4e6
    residual = zoo.preset_config("table2-residual").build()
    assert abs(size_of(residual) - (43.7e6 - 17.5e6 + 4.4e6)) < 0.01 * 30.6e6
    halved = zoo.preset_config("table2-residual-equal-memory").build()
    assert abs(size_of(halved) - priors - (size_of(residual) - priors) / 2) < 100
    # Two split priors for 12, 24 and 48 channels; the published baseline has one, and 12, 48 and 96 channels.
    nets = sum(16 * (c // 2 * 528 * 9 + 528 * 528 + c * 528 * 9) for c in (12, 24, 48))
    coupling = zoo.preset_config("table2-coupling").build()
    assert abs(size_of(coupling) - (nets + priors)) < 0.01 * (nets + priors)


@pytest.mark.parametrize("name", ["sylvester", "residual", "coupling-flow", "mixing-flow"])
def test_models_can_be_class_conditional(name):
    values = TINY | {} if name == "mixing-flow" else TINY | {"hidden": 16}
    given = {"model": name, "event_shape": (1, 4, 4), "pixel_levels": 4, "classes": 3, "dequantization": "variational"}
    flow = randomize(zoo.config_from_dict(given | values | TINY_NOISE).build(), scale=0.3).double()
    x = torch.randint(4, (1, 1, 4, 4)).expand(3, 1, 4, 4)
    with lk.seeded(1):
        value = flow.elbo(x, torch.arange(3)).value
    assert torch.isfinite(value).all()
    # The main path reads the labels too, not only the noise: same latent, other image.
    inner, z = flow.transform[2:], torch.randn(1, *flow.base.event_shape, dtype=torch.float64).expand(3, -1, -1, -1)
    with lk.seeded(1), torch.no_grad():
        images = inner.mean_inverse(z, flow.encoder(torch.arange(3)))
    assert float((images[0] - images[1]).abs().max()) > 1e-3
    assert flow.sample((), torch.tensor([2, 0])).shape == (2, 1, 4, 4)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="has no network that could read labels"):
        tiny("table3-without-generalization", classes=3)
    with pytest.raises(ShapeError, match="sylvester with 2 levels .* 6x6 is not a multiple of 4"):
        tiny("table2-sylvester", (1, 6, 6)).build()
    with pytest.raises(ConfigError, match="hidden"):
        tiny("table1-1x1", hidden=3)
    # Masked networks get as many units as they have channels.
    assert tiny("table2-sylvester", hidden=2).build().likelihood == "bound"


def test_form_without_generalization_obeys_the_laws():
    layer = randomize(TriangularResidual(TiedHeads(2), FreeTanhResidual())).double()
    testing.check_transform(layer, torch.randn(2, 2, 3, 4, dtype=torch.float64))


def test_checkpointing_a_model_changes_nothing_but_memory():
    x = torch.randint(8, (3, 2, 8, 4))
    values = []
    for lean in (False, True):
        with lk.seeded(0):
            flow = randomize(tiny("table1-1x1", checkpoint=lean).build())
            loss = -flow.elbo(x).value.mean()
        loss.backward()
        values.append([loss.detach(), *(p.grad for p in flow.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*values, strict=True))


def test_fits_of_the_paper_follow_its_learning_rates():
    """Published: 1e-3 min(1, (e + 1) / 10) 0.995^e, for the residual models with the first factor squared."""
    for name, power in (("table1-1x1", 1), ("table2-sylvester", 2)):
        settings = FitSettings.parse(preset_fit(name))
        epoch = settings.steps // 1000
        assert epoch == 40_000 // settings.batch_size
        for e in (0, 4, 9, 20, 500, 999):
            ours = settings.lr_at((e + 1) * epoch - 1, e / 1000)
            published = 1e-3 * min(1, (e + 1) / 10) ** power * 0.995**e
            assert ours == pytest.approx(published, rel=1e-6)
    assert FitSettings.parse(preset_fit("table1-1x1")).optimizer == "adamax"
    cosine = FitSettings(steps=100, lr=2.0, warmup=10)
    assert [cosine.lr_at(0, 0), cosine.lr_at(50, 0.5), cosine.lr_at(99, 1.0)] == pytest.approx([0.2, 1.0, 0.0])
