"""Run folders that somebody has tampered with: values, tensors, links and devices, each file in its own format.

Digests are made anew, so that what lies behind them is met too. Whatever is there, reading ends, in bounded memory,
with what was meant or an error of ours; nothing is run and nothing is written.
"""

import faulthandler
import json
import os
import resource
import socket
import warnings
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

import likelify as lk
from likelify import zoo
from likelify.data import SourceOptions
from likelify.errors import LikelifyError
from likelify.fitting.checkpoint import Saved, restore
from likelify.fitting.loop import fit
from likelify.fitting.resuming import unfitted
from likelify.fitting.run import Run
from likelify.fitting.scoring.kept import read_numbers
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.fitting.sources import DataChoice, open_data
from likelify.fitting.state import FitState
from likelify.fitting.training import build_optimizer
from likelify.fitting.weights import DIGEST, digest_of
from tests.fuzz import Watch

CONFIG, COURSE, WEIGHTS = "config.json", "course.json", "model.safetensors"
CHECKPOINT, EVALUATION, SCORES = "checkpoint.safetensors", "evaluation.json", "scores/validation-100-draws.safetensors"
WATCH = Watch()
MEGABYTES = 1000


class Killed(BaseException):
    """Ends a fit as nothing that it expects."""


def end(progress):
    if progress.step == 2:
        raise Killed


def begun(folder, hidden):
    """Return a run in the middle of its fit, with everything that a run can have."""
    pixels = torch.randint(0, 4, (60, 1, 4, 4), generator=torch.Generator().manual_seed(0)).numpy()
    file = folder.with_suffix(".npz")
    np.savez(file, x_train=pixels[:40], x_validation=pixels[40:50], x_test=pixels[50:])
    opened = DataChoice(source=str(file), options=SourceOptions(kind="image", levels=4))
    source = open_data(opened)
    model = zoo.MODELS["glow"](event_shape=(1, 4, 4), pixel_levels=4, levels=1, steps=1, hidden=hidden, mixing="1x1")
    fitting = FitSettings(steps=4, batch_size=8, validations=4, checkpoint_seconds=0, lr=1e-3)
    run = Run.create(folder, RunConfig(data=source.facts(), opened=opened, model=model, fit=fitting))
    with lk.seeded(0), pytest.raises(Killed):
        fit(model.build(), source, run=run, on_step=end)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.evaluate(source, elbo_samples=1, iw_samples=2)
    (folder / "scores").mkdir()
    (folder / SCORES).write_bytes(
        save({"values": torch.zeros(10, dtype=torch.float64)}, metadata={"likelify.about": "all"})
    )
    return {name: (folder / name).read_bytes() for name in (CONFIG, COURSE, WEIGHTS, CHECKPOINT, EVALUATION, SCORES)}


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    place = tmp_path_factory.mktemp("tampering")
    files, others = begun(place / "run", 4), begun(place / "other", 6)
    assert len(outcomes(place / "run")) == 7
    assert not [error for error in outcomes(place / "run") if error]
    return place, files, others


def outcomes(folder):
    """Read everything; return for each part None, or the error."""
    found = []
    flows = []
    for read in (
        lambda: flows.append(Run.load(folder).flow()),
        lambda: Run.load(folder).source(),
        lambda: Run.load(folder).course(),
        lambda: Run.load(folder).evaluation(),
        lambda: Run.load(folder).saved(),
        lambda: taken_up(Run.load(folder)),
        lambda: read_numbers(folder / SCORES, "all", (10,)),
    ):
        try:
            read()
            found.append(None)
        except LikelifyError as error:
            found.append(str(error))
    assert all(text is None or (text.isprintable() and len(text) < 1500) for text in found)
    for flow in flows:
        weights = flow.parameters()
        assert all(bool(weight.isfinite().all()) for weight in weights)
        order = flow.state_dict().get("transform.transforms.1.permutation")
        assert order is None or bool((order.sum(0) == 1).all())
    return found


def taken_up(run):
    saved = Saved(run.path)
    flow = unfitted(run, saved)
    state = FitState(flow, build_optimizer(flow, saved.facts.fit), saved.facts.fit)
    if saved.facts.initialized:
        restore(saved, state)


VALUES = st.sampled_from(
    [None, True, -1, 0, 2, 10**18, -(10**18), 1e308, 0.5, "", "x" * 1000, "../../../etc/passwd", "\0", "NaN", [], {}]
    + [[[[[[[]]]]]], [1] * 3000, {"a": {"a": {}}}, "os.system", "glow", "diverged", [65536, 65536, 65536]]
)


def change_values(values, draw):
    """Change something in plain data of any depth, in place."""
    place = values
    while isinstance(place, dict | list) and len(place):
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or draw(st.booleans()):
            break
        place = place[key]
    else:
        return
    way = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
    if way == "replace":
        place[key] = deepcopy(draw(VALUES))
    elif way == "remove":
        del place[key]
    elif isinstance(place, dict):
        place[draw(st.sampled_from(["surprise", "format", "__class__", "../x", "\0"]))] = deepcopy(draw(VALUES))
    else:
        place.append(deepcopy(draw(VALUES)))


def of_json(content, draw):
    values = json.loads(content)
    for _ in range(draw(st.integers(1, 3))):
        change_values(values, draw)
    return json.dumps(values).encode()


def signed(state):
    return save(state, metadata={DIGEST: digest_of(state)})


def of_tensors(content, draw):
    """Change a tensor, and sign the file again."""
    state = load(content)
    name = draw(st.sampled_from(sorted(state)))
    tensor = state[name]
    real = tensor.is_floating_point()
    ways = {
        "fill": lambda: torch.full_like(tensor, draw(st.sampled_from([0, 1, 1e30, -1, 3])) if real else 1),
        "broken": lambda: torch.full_like(tensor, draw(st.sampled_from([float("nan"), float("inf")])) if real else 7),
        "same": lambda: tensor.flatten()[:1].expand(tensor.numel()).reshape(tensor.shape).clone(),
        "turned": lambda: tensor.flatten().roll(1).reshape(tensor.shape),
        "dtype": lambda: tensor.to(draw(st.sampled_from([torch.float64, torch.float16, torch.int64, torch.bool]))),
        "shape": lambda: tensor.reshape(-1, 1),
        "larger": lambda: torch.zeros(draw(st.sampled_from([1, 1000, 10**6]))),
        "empty": lambda: tensor[:0] if tensor.ndim else tensor.reshape(1)[:0],
    }
    way = draw(st.sampled_from([*ways, "rename", "remove"]))
    if way == "remove":
        del state[name]
    elif way == "rename":
        state[draw(st.sampled_from(["../../x", "", "\0", "flow.", "best.a", "optimizer.step.x"]))] = state.pop(name)
    else:
        state[name] = ways[way]()
    return signed({key: value.contiguous() for key, value in state.items()})


def of_facts(content, draw):
    """Change what a checkpoint says of itself, and sign it again."""
    state = load(content)
    facts = json.loads(state["json"].numpy().tobytes())
    for _ in range(draw(st.integers(1, 2))):
        change_values(facts, draw)
    state["json"] = torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8)
    return signed(state)


def of_header(content, draw):
    """Let a header promise what is not there."""
    many = draw(st.sampled_from([2**20, 2**33, 2**40, 2**62, -1]))
    begin, finish = draw(st.sampled_from([(0, 4 * many), (0, 8), (8, 0), (0, len(content)), (-4, 4)]))
    about = {"data_offsets": [begin, finish], "dtype": draw(st.sampled_from(["F32", "U8", "F8_E4M3", "os"]))}
    header = {"json": about | {"shape": [many]}, "a": about | {"shape": [many, 2]}}
    text = json.dumps({draw(st.sampled_from(["json", "a"])): header["json"]}).encode()
    length = draw(st.sampled_from([len(text), 2**62, 0, 2**31]))
    return length.to_bytes(8, "little") + text + bytes(64)


def put(place, name, draw, files, others):
    """Put something in the place of one file of a run; return how."""
    file, content = place / "run" / name, files[name]
    ways = ["link", "special", "cut", "swap", "other", "sparse", "json" if name.endswith("json") else "tensors"]
    ways += ["json", "json"] if name.endswith("json") else ["tensors", "header"]
    ways += ["facts", "facts", "tensors"] if name == CHECKPOINT else []
    way = draw(st.sampled_from(ways))
    file.unlink()
    if way == "link":
        outside = place / "other" / name
        file.symlink_to(draw(st.sampled_from([outside, "/dev/zero", "/etc/passwd", file, "../other/" + name, place])))
    elif way == "special":
        kind = draw(st.sampled_from(["pipe", "folder", "socket"]))
        if kind == "socket":
            # The path of a socket may be no longer than a hundred bytes.
            here = os.open(file.parent, os.O_RDONLY)
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(f"/proc/self/fd/{here}/{file.name}")
            os.close(here)
        else:
            (os.mkfifo if kind == "pipe" else os.mkdir)(file)
    elif way == "sparse":
        file.write_bytes(content)
        os.truncate(file, draw(st.sampled_from([2**31, 2**36])))
    else:
        made = {
            "cut": lambda: content[: draw(st.integers(0, len(content) - 1))],
            "swap": lambda: files[draw(st.sampled_from(sorted(files)))],
            "other": lambda: others[name],
            "json": lambda: of_json(content, draw),
            "tensors": lambda: of_tensors(content, draw),
            "facts": lambda: of_facts(content, draw),
            "header": lambda: of_header(content, draw),
        }
        file.write_bytes(made[way]())
    return way


def clear(file, content):
    if file.is_dir() and not file.is_symlink():
        file.rmdir()
    else:
        file.unlink(missing_ok=True)
    file.write_bytes(content)


def tamper_with(valid, examples):
    place, files, others = valid
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = []

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def law(data):
        names = data.draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=2, unique=True))
        try:
            for name in names:
                put(place, name, data.draw, files, others)
            there = sorted(str(file) for file in (place / "run").rglob("*"))
            faulthandler.dump_traceback_later(120, exit=True)
            WATCH.armed = True
            errors = outcomes(place / "run")
            WATCH.armed = False
            refused.append(any(errors))
            assert sorted(str(file) for file in (place / "run").rglob("*")) == there
            assert not WATCH.seen
        finally:
            WATCH.armed = False
            WATCH.seen.clear()
            faulthandler.cancel_dump_traceback_later()
            for name in names:
                clear(place / "run" / name, files[name])

    law()
    assert len(refused) >= examples * 0.9
    assert 0.3 < sum(refused) / len(refused) < 1
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3 < MEGABYTES


def test_tampered_run_folders(valid):
    tamper_with(valid, 150)


@pytest.mark.slow
def test_many_tampered_run_folders(valid):
    tamper_with(valid, 1000)
