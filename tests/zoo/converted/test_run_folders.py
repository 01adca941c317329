"""Flows of networks in run folders: the user brings the architecture, the folder the rest."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import likelify as lk
from likelify.data import ArraySource, Facts
from likelify.errors import ConfigError
from likelify.fitting.loop import fit
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.testing import check_weights, randomize
from likelify.zoo import ConvertedConfig, config_from_dict, converted_flow
from tests.flowification.networks import SMALL, mlp


def facts(name, model):
    kind = {1: "table", 2: "sequence", 3: "image"}[len(model.event_shape)]
    known = {
        "kind": kind,
        "event_shape": model.event_shape,
        "levels": getattr(model, "pixel_levels", None),
        "classes": model.classes,
    }
    return Facts(name=name, family=name, **known, sizes={}, fingerprint="0")


def saved(flow, folder, source="mine"):
    model = ConvertedConfig.of(flow)
    run = Run.create(folder, RunConfig(data=facts(source, model), model=model, fit=FitSettings(steps=1)))
    run.save_weights(flow.state_dict())
    return run


@pytest.mark.parametrize("name", ["resnet", "lenet-max", "mixer"])
def test_a_run_is_restored_with_a_fresh_network_of_the_same_architecture(name, tmp_path):
    make, shape = SMALL[name]
    levels = 17 if len(shape) == 3 else None
    with lk.seeded(1):
        flow = converted_flow(make(), torch.rand(2, *shape), pixel_levels=levels, value_range=(-1, 1), hidden=8)
    randomize(flow)
    saved(flow, tmp_path / "run")
    again = Run.load(tmp_path / "run", module=make()).flow()
    x = torch.randint(17, (3, *shape)).float() if levels else torch.randn(3, *shape)
    for twin in (flow, again):
        with lk.seeded(2):
            twin.value = twin.elbo(x).value
    assert torch.equal(flow.value, again.value)
    assert set(flow.state_dict()) == set(again.state_dict())
    assert again.event_shape == shape
    assert again.likelihood == flow.likelihood


def test_without_the_network_or_with_another_one_the_run_says_what_to_do(tmp_path):
    flow = converted_flow(mlp((4, 3, 2)), torch.rand(2, 1, 2, 2), pixel_levels=5)
    folder = tmp_path / "run"
    saved(flow, folder)
    values = json.loads((folder / "config.json").read_text())["model"]
    assert values["model"] == "converted"
    assert values["options"]["method"] == "free"
    assert config_from_dict(values) == ConvertedConfig.of(flow)
    run = Run.load(folder)
    for build in (run.flow, run.config.model.build):
        with pytest.raises(ConfigError, match=r"likelify\.Run\.load\('RUN', module=\.\.\.\)\.flow\(\)"):
            build()
    with pytest.raises(ConfigError, match="another architecture.*fingerprint"):
        Run.load(folder, module=mlp((4, 4, 2))).flow()
    with pytest.raises(ConfigError, match="fingerprint"):
        config_from_dict({key: value for key, value in values.items() if key != "fingerprint"})


def test_other_models_need_no_module(tmp_path):
    from likelify.zoo.marginal_spline import MarginalSplineConfig

    model = MarginalSplineConfig(event_shape=(1, 2, 2), pixel_levels=3, couplings=1)
    Run.create(tmp_path / "run", RunConfig(data=facts("x", model), model=model, fit=FitSettings()))
    with pytest.raises(ConfigError, match="needs no module"):
        Run.load(tmp_path / "run", module=nn.Linear(2, 2))


def test_what_cannot_be_written_down_is_refused():
    flow = converted_flow(nn.Linear(4, 2), torch.randn(2, 4), density_nets=lambda dims: nn.Linear)
    with pytest.raises(ConfigError, match="converted with density_nets="):
        ConvertedConfig.of(flow)
    with pytest.raises(ConfigError, match="made by zoo.converted_flow"):
        ConvertedConfig.of(lk.Flow(lk.Normal((2,)), lk.Affine(scale=2.0), event_shape=(2,)))
    with pytest.raises(ConfigError, match="low < high"):
        converted_flow(nn.Linear(4, 2), torch.randn(2, 4), value_range=(1, 0))
    with pytest.raises(ConfigError, match="columns=True is for events"):
        converted_flow(nn.Conv2d(1, 1, 1), torch.randn(2, 1, 2, 2), columns=True)


def test_a_network_of_raw_columns_keeps_their_digits(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal([1.7e9, 0.1], [100.0, 0.01], (400, 2))
    source = ArraySource(
        "sensors", {"train": rows[:200], "validation": rows[200:300], "test": rows[300:]}, kind="table", levels=None
    )
    net = nn.Linear(2, 2)
    nn.init.eye_(net.weight)
    flow = converted_flow(net, torch.randn(4, 2), columns=True)
    model = ConvertedConfig.of(flow)
    assert model.columns
    run = Run.create(tmp_path / "run", RunConfig(data=source.facts(), model=model, fit=FitSettings(steps=10)))
    fit(flow, source, run=run)
    x = torch.tensor(rows[300:])
    # The entropy of two independent normal columns, in nats per row.
    expected = 1 + math.log(2 * math.pi) + math.log(100) + math.log(0.01)
    assert abs(-float(flow.log_prob(x).mean().detach()) - expected) < 0.5
    again = Run.load(tmp_path / "run", module=nn.Linear(2, 2)).flow()
    assert torch.equal(again.log_prob(x), flow.log_prob(x))
    assert again.sample((3,)).dtype == torch.float64


def test_the_weights_of_a_tiny_network_average_to_one():
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 3), nn.LeakyReLU(0.5), nn.Linear(3, 1)).double()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 0.3], [-0.4, 1.1], [0.5, 0.5]]))
        net[3].weight.copy_(torch.tensor([[0.8, 0.5, -0.6]]))
    # Levels from -6 to 6 reach where the flow has no mass left.
    example = torch.rand(2, 1, 1, 2, dtype=torch.float64)
    flow = converted_flow(net, example, pixel_levels=9, value_range=(-6, 6), hidden=4)
    for name, p in flow.named_parameters():
        if "net" in name:
            p.data += 0.1 * torch.randn_like(p)
    assert flow.likelihood == "bound"
    check_weights(flow, torch.cartesian_prod(torch.arange(9), torch.arange(9)).reshape(-1, 1, 1, 2), samples=4000)


def test_a_network_can_be_trained_as_a_density(tmp_path):
    rng = np.random.default_rng(0)
    events = {
        split: np.broadcast_to(rng.integers(0, 4, (n, 1, 1, 1)), (n, 1, 2, 2)).copy()
        for split, n in (("train", 400), ("validation", 60), ("test", 60))
    }
    source = ArraySource("stripes", events, kind="image", levels=4)
    net = mlp((4, 4, 3, 2), slope=0.5)
    flow = converted_flow(net, torch.rand(2, 1, 2, 2), pixel_levels=4, value_range=(-1, 1), hidden=16)
    settings = FitSettings(steps=150, lr=1e-2, validations=3)
    config = RunConfig(data=source.facts(), model=ConvertedConfig.of(flow), fit=settings)
    run = Run.create(tmp_path / "run", config)
    result = fit(flow, source, run=run)
    assert math.isfinite(result.best.validation_bits)
    assert result.best.validation_bits < 2 - 0.15
    again = Run.load(tmp_path / "run", module=net).flow()
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), flow.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            lambda layer: lk.Flow(lk.distributions.StudentT((2,)), layer, event_shape=(3,)),
            "a base of its own, StudentT",
        ),
        (lambda layer: lk.Flow(lk.Normal((2,), trainable=True), layer, event_shape=(3,)), "a base of its own"),
        (lambda layer: lk.Flow(lk.Normal((2,)), lk.Chain([lk.ActNorm(3), layer]), event_shape=(3,)), "ActNorm"),
    ],
)
def test_flows_that_could_not_be_built_again_are_refused(changed, said):
    layer = lk.flowify(nn.Linear(3, 2), torch.randn(4, 3))
    with pytest.raises(ConfigError, match=said):
        ConvertedConfig.of(changed(layer))
    assert ConvertedConfig.of(lk.Flow(lk.Normal((2,)), layer, event_shape=(3,))).event_shape == (3,)
