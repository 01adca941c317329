"""The registry of models: what is registered is known everywhere."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from likelify import zoo
from likelify.errors import ConfigError, ShapeError


@pytest.mark.parametrize(
    "config",
    [
        zoo.MODELS["glow"](event_shape=(1, 4, 4), levels=1, mixing="conv-exponential", norm_limit=None),
        zoo.MODELS["marginal-spline"](event_shape=(1, 4, 4), pixel_levels=17, hidden=(3, 4)),
    ],
)
def test_configurations_survive_json(config):
    again = zoo.config_from_dict(json.loads(config.model_dump_json()))
    assert again == config
    shapes = [{k: v.shape for k, v in c.build().state_dict().items()} for c in (config, again)]
    assert shapes[0] == shapes[1]
    with pytest.raises(ValueError, match="frozen"):
        config.pixel_levels = 3


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match=r"no setting 'stpes'. Did you mean 'steps'.* Known are: model, event_shape"):
        zoo.build("glow", event_shape=(3, 8, 8), stpes=2)
    with pytest.raises(ConfigError, match="no mixing 'emergin'. Did you mean 'emerging'"):
        zoo.build("glow", event_shape=(3, 8, 8), mixing="emergin")
    with pytest.raises(ConfigError, match="There is no model 'glwo'. Did you mean 'glow'"):
        zoo.config_from_dict({"model": "glwo"})
    with pytest.raises(ConfigError, match="settings of the model 'vae', not of 'glow'"):
        zoo.MODELS["vae"].parse({"model": "glow", "event_shape": (1, 4, 4)})
    with pytest.raises(ConfigError, match="does not read labels"):
        zoo.build("fmlp", event_shape=(1, 4, 4), classes=3)
    with pytest.raises(ShapeError, match="not a multiple of 8"):
        zoo.build("glow", event_shape=(3, 12, 12), levels=3)


def test_a_number_is_the_shape_of_a_vector():
    assert zoo.MODELS["flowified-mlp"](event_shape=4, widths=(2,)).event_shape == (4,)
    with pytest.raises(ConfigError, match="event_shape"):
        zoo.build("glow", event_shape=4)


def test_every_model_says_what_it_is_for():
    for name, config in zoo.MODELS.items():
        assert config.name == name
        assert config.kind in ("image", "table", "sequence", "graph")
        assert len(config.summary) > 20
    assert zoo.MODELS["flowified-mlp"].kind == "table"
    assert "converted" not in zoo.MODELS
    assert zoo.config_class("converted") is zoo.ConvertedConfig


TOY = '''
"""A model of the user's."""

from likelify import transforms
from likelify.zoo.registry import ModelConfig, register


@register("toy", kind="table", summary="standard normal, scaled")
class ToyConfig(ModelConfig):
    """Settings of the toy."""

    scale: float = 2.0

    def build(self):
        """Build it."""
        from likelify import Flow, Normal

        layers = transforms.Chain([transforms.Affine(scale=self.scale)])
        return Flow(Normal(self.event_shape), layers, event_shape=self.event_shape)
'''
ASK = """
import sys
import likelify.zoo
likelify.zoo.__path__.append(sys.argv[1])
assert "toy" in likelify.zoo.MODELS
assert likelify.zoo.PRESETS
assert "torch" not in sys.modules
from likelify.app import cli
sys.argv[1:] = ["models"]
try:
    cli.main()
except SystemExit:
    pass
from likelify import zoo
assert zoo.MODELS["toy"].kind == "table"
config = zoo.config_from_dict({"model": "toy", "event_shape": [3]})
assert config.model_dump() == {"model": "toy", "event_shape": (3,), "classes": None, "scale": 2.0}
assert zoo.build("toy", event_shape=(3,), scale=1.0).sample((2,)).shape == (2, 3)
"""


def test_a_new_file_is_all_that_a_new_model_needs(tmp_path):
    """One file with a registered configuration: listed by the command line, found in tables and saved settings."""
    (tmp_path / "toy.py").write_text(TOY)
    command = [sys.executable, "-c", ASK, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("  toy ")]
    assert line.endswith("standard normal, scaled")


def test_two_files_cannot_share_a_name():
    class Other(zoo.ModelConfig):
        pass

    with pytest.raises(ConfigError, match="two models 'glow'"):
        zoo.register("glow", kind="image", summary="another")(Other)


@pytest.mark.parametrize("bins", [1, 500])
@pytest.mark.parametrize(
    ("model", "shape"), [("series", (1, 4)), ("glow", (1, 4, 4)), ("marginal-spline", (1, 4, 4)), ("table-flow", 2)]
)
def test_splines_have_as_many_pieces_as_splines_take(model, shape, bins):
    with pytest.raises(ConfigError, match="bins"):
        zoo.MODELS[model](event_shape=shape, bins=bins)


def test_settings_that_no_layer_reads_are_unknown():
    for name in ("pyramid", "fmlp", "fconv1", "coupling-flow", "residual"):
        assert {"norm_limit", "mixing_kernel"}.isdisjoint(zoo.MODELS[name].model_fields)
    three, five = (zoo.build("sylvester", event_shape=(1, 4, 4), steps=1, mixing_kernel=size) for size in (3, 5))
    assert sum(p.numel() for p in five.parameters()) > sum(p.numel() for p in three.parameters())


def test_small_settings_are_widened_where_a_layer_needs_it():
    assert zoo.build("vae", event_shape=(1, 28, 28), posterior="generalized", flows=1).likelihood == "bound"
    assert zoo.build("sylvester", event_shape=(30, 2, 2), steps=1).likelihood == "bound"
    assert zoo.build("fconv1", event_shape=(1, 1, 1), nsf=True).likelihood == "bound"
    assert zoo.build("fmlp", event_shape=(1, 2, 2)).sample((2,)).shape == (2, 1, 2, 2)


def test_reflections_are_those_of_the_method_that_has_them():
    def reflections(count):
        flow = zoo.build("fconv1", event_shape=(1, 4, 4), method="householder", reflections=count)
        return {len(p) for name, p in flow.named_parameters() if name.endswith("vectors") and p.shape[1] > 1}

    assert reflections(2) == {2}
    assert reflections(4) == {4}
    with pytest.raises(ConfigError, match="those of the method 'householder', not of 'cayley'"):
        zoo.MODELS["fmlp"](event_shape=(1, 4, 4), reflections=2)
    with pytest.raises(ConfigError, match="reflections"):
        zoo.MODELS["fmlp"](event_shape=(1, 4, 4), method="householder", reflections=3)
    with pytest.raises(ConfigError, match="widths"):
        zoo.MODELS["fmlp"](event_shape=(1, 4, 4), widths=())


def test_a_wrong_shape_of_a_table_is_what_is_said():
    with pytest.raises(ConfigError, match="event_shape") as wrong:
        zoo.MODELS["table-flow"](event_shape=(2, 3))
    assert "Field required" not in str(wrong.value)
    assert zoo.MODELS["table-flow"](event_shape=np.int64(3)).event_shape == (3,)


def test_a_table_of_one_row_initialises():
    flow = zoo.build("table-flow", event_shape=2, width=8)
    flow.initialize(torch.zeros(1, 2))
    assert bool(flow.log_prob(torch.zeros(1, 2)).isfinite().all())
