"""Settings that nothing reads beside others: each claim is checked on the flows that are built."""

from contextlib import suppress

import pytest

import likelify as lk
from likelify import zoo
from likelify.errors import ConfigError

CLAIMS = [
    (name, setting, other, values)
    for name, config in zoo.MODELS.items()
    for setting, (other, values) in config.read_by.items()
]
# Another value of each setting than the usual one.
ANOTHER = {
    "norm_limit": 0.5,
    "norm_bound": {"torus": "reshape", "reshape": "torus"},
    "mixing_kernel": 5,
    "bins": 5,
    "kernel_size": 3,
    "dropout": 0.5,
    "noise_steps": 1,
    "noise_features": 7,
    "noise_depth": 1,
    "basis": "axis",
    "reflections": 3,
    "net_norm_limit": 0.5,
    "flows": 2,
    "hidden_units": 3,
    "flow_hidden": 70,
}
SMALL = {"event_shape": (1, 8, 8), "pixel_levels": 17}


def another(config, setting):
    value = ANOTHER[setting]
    return value[getattr(config, setting)] if isinstance(value, dict) else value


def built(config):
    with lk.seeded(0):
        flow = config.build()
    return repr(flow), {name: tuple(tensor.shape) for name, tensor in flow.state_dict().items()}


def all_values(model, setting):
    annotation = zoo.MODELS[model].model_fields[setting].annotation
    return annotation.__args__


def test_there_are_claims():
    assert len(CLAIMS) > 25


@pytest.mark.parametrize(("model", "setting", "other", "values"), CLAIMS)
def test_a_setting_is_read_where_it_says_and_nowhere_else(model, setting, other, values):
    read = []
    for value in all_values(model, other):
        config = zoo.MODELS[model](**SMALL, **{other: value})
        changed = config.model_copy(update={setting: another(config, setting)})
        with suppress(ConfigError):
            if built(config) != built(changed):
                read.append(value)
        assert bool(changed.idle([setting])) == (value not in values)
    assert set(read) == set(values)


def test_users_are_told():
    config = zoo.MODELS["glow"](**SMALL)
    said = "norm_limit is for mixing conv-exponential or orthogonal, and it is 1x1 (--set mixing=...)."
    assert config.idle(["norm_limit", "hidden"]) == [said]
