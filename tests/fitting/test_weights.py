"""Files of weights, and settings, that do not belong to the run, were changed, or ask for more than they hold."""

import json
import resource
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from likelify import zoo
from likelify.errors import RunError
from likelify.fitting.run import Run
from likelify.fitting.settings import RunConfig
from likelify.fitting.weights import build_within, digest_of, pack, read_header
from tests.fitting.toys import QUICK, facts_for, stripes, tiny_config

MODELS = {
    "marginal-spline": {"couplings": 1, "hidden": (4,)},
    "fconv1": {"net_hidden": 4},
    "glow": {"levels": 1, "steps": 1, "hidden": 4},
}


def run_of(folder, model, settings):
    config = zoo.MODELS[model](event_shape=(1, 8, 8), pixel_levels=3, **settings)
    run = Run.create(folder, RunConfig(data=facts_for(config), model=config, fit=QUICK))
    run.save_weights(config.build().state_dict())
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {model: run_of(folder / model, model, settings) for model, settings in MODELS.items()}


@pytest.fixture
def run(runs, tmp_path):
    """A copy of a run, to be damaged."""

    def copy(model):
        shutil.copytree(runs[model].path, tmp_path / model)
        return Run.load(tmp_path / model)

    return copy


@pytest.mark.parametrize(
    ("model", "buffer", "change"),
    [
        ("marginal-spline", "mass", lambda mass: 2 * mass),
        ("fconv1", "matrix", torch.zeros_like),
        ("glow", "permutation", torch.zeros_like),
        ("glow", "signs", torch.zeros_like),
        ("glow", "lower", lambda lower: 1.01 * lower),
    ],
)
@pytest.mark.parametrize("digest", ["none", "old", "new"])
def test_tensors_that_were_changed_are_noticed(run, model, buffer, change, digest):
    copy = run(model)
    file = copy.path / "model.safetensors"
    state, kept = load_file(file), read_header(file).digest
    name = next(name for name in state if name.endswith(f".{buffer}"))
    state[name] = change(state[name])
    digests = {"none": None, "old": {"likelify.sha256": kept}, "new": {"likelify.sha256": digest_of(state)}}
    save_file(state, file, metadata=digests[digest])
    if (buffer, digest) == ("lower", "new"):
        copy.flow()
        return
    # A digest can be made anew; a permutation of zeros is still none.
    messages = {"none": "have no digest", "old": "digest differs", "new": f"'{name}' of .* must be"}
    with pytest.raises(RunError, match=messages[digest]):
        copy.flow()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state, name: state | {name: state[name] * torch.nan}, "'{name}' .* are not finite"),
        (lambda state, name: state | {name: state[name] + torch.inf}, "'{name}' .* are not finite"),
        (lambda state, name: {key: value.half() for key, value in state.items()}, "'.*' is float16 .*, not float32"),
        (lambda state, name: {key: state[key] for key in state if key != name}, "'{name}' missing"),
        (lambda state, name: state | {"more": torch.ones(1), "most": torch.ones(1)}, "has no 'more', 'most'"),
        (lambda state, name: state | {name: state[name][None]}, "'{name}' is float32 1x.*, not float32"),
        (lambda state, name: {}, "'.*', '.*', '.*' and .* more missing"),
    ],
)
def test_weights_of_another_kind_are_refused_in_a_sentence(run, change, message):
    copy = run("glow")
    file = copy.path / "model.safetensors"
    state = load_file(file)
    name = next(name for name in state if name.endswith(".lower"))
    state = {key: value.contiguous() for key, value in change(state, name).items()}
    save_file(state, file, metadata={"likelify.sha256": digest_of(state)})
    with pytest.raises(RunError, match=message.format(name=name)) as caught:
        copy.flow()
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_not_written(run):
    copy = run("glow")
    state = copy.flow().state_dict()
    name = next(iter(state))
    before = (copy.path / "model.safetensors").read_bytes()
    with pytest.raises(RunError, match=f"'{name}' are not numbers"):
        copy.save_weights(state | {name: state[name] * torch.nan})
    assert (copy.path / "model.safetensors").read_bytes() == before


HOSTILE = {
    "hidden": {"hidden": [65536, 65536]},
    "one event": {"event_shape": [65536] * 3},
    "events": {"event_shape": [1, 8192, 8192], "pixel_levels": 65536},
    "couplings": {"couplings": 10**7},
    "allowed couplings": {"couplings": 4096},
    "bins": {"bins": 4096, "hidden": [65536]},
    "levels": {"pixel_levels": 65536, "event_shape": [1, 512, 512]},
    "exponentials": {"exponentials": 4096},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_settings_that_ask_for_more_than_the_weights_are_refused(run, name):
    copy = run("marginal-spline")
    file = copy.path / "config.json"
    values = json.loads(file.read_text())
    values["model"] |= HOSTILE[name]
    file.write_text(json.dumps(values))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RunError, match="far larger than its weights|cannot be read|make no model"):
        Run.load(copy.path).flow()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 3, "fit": {"seed": ' + "9" * 5000 + "}}", "an integer of 5000 digits"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 200 + "]" * 200, "nested too deeply"),
        (" " * (2**24 + 1), "more than 16 MB"),
        ('{"format": NaN}', "not finite, NaN"),
        ('{"format": 1e999}', "not finite, 1e999"),
        ('{"format": 3' + ', "x": 1' * 3, "cannot be read"),
        ("[3]", "has format None"),
        (b"\xff\xfe".decode("latin-1"), "cannot be read"),
    ],
)
def test_hostile_json_is_refused(run, text, message):
    copy = run("glow")
    (copy.path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=message):
        Run.load(copy.path)
    for name in ("course.json", "evaluation.json"):
        (copy.path / name).write_bytes(text.encode("latin-1"))
    assert copy.course() is None
    assert copy.evaluation() is None


@pytest.mark.parametrize("length", [2**23 + 1, 2**63, 7])
def test_headers_are_bounded(run, length):
    copy = run("glow")
    (copy.path / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(RunError, match="damaged"):
        copy.flow()


@pytest.mark.parametrize("name", zoo.MODELS)
def test_a_bounded_build_gives_the_same_model(name, tmp_path):
    kind = zoo.MODELS[name].kind
    shapes = {"table": {"event_shape": (6,)}, "sequence": {"event_shape": (2, 16)}, "graph": {"event_shape": (2,)}}
    shape = shapes.get(kind, {"event_shape": (3, 16, 16), "pixel_levels": 17})
    if "nodes" in zoo.MODELS[name].model_fields:
        shape = shape | {"nodes": 3}
    config = zoo.config_from_dict({"model": name} | shape)
    torch.manual_seed(0)
    expected = config.build().state_dict()
    (tmp_path / "weights").write_bytes(pack(expected))
    torch.manual_seed(0)
    built = build_within(config.build, read_header(tmp_path / "weights"), tmp_path).state_dict()
    assert built.keys() == expected.keys()
    assert all(torch.equal(built[key], expected[key]) for key in built)


def test_the_digest_is_of_names_kinds_and_values():
    state = {
        "a": torch.arange(4.0),
        "b": torch.tensor(3),
        "c": torch.zeros(0),
        "d": torch.ones(2, dtype=torch.bfloat16),
    }
    digests = {
        digest_of(state | change)
        for change in (
            {},
            {"a": torch.arange(4.0).double()},
            {"a": torch.arange(4.0).reshape(2, 2)},
            {"a": torch.arange(4.0) + 1e-6},
            {"b": torch.tensor(4)},
        )
    }
    assert len(digests) == 5
    assert digest_of(dict(reversed(state.items()))) == digest_of(state)


def test_a_run_of_tiny_settings_is_read(tmp_path):
    run = Run.create(tmp_path / "run", RunConfig(data=stripes().facts(), model=tiny_config(), fit=QUICK))
    run.save_weights(tiny_config().build().state_dict())
    assert Run.load(run.path).flow().likelihood == "bound"
