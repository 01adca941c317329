"""The benchmark of a device, as far as it can be tried without one."""

import sys
import time

import pytest
import torch
from benchmarks.device import __main__ as program
from benchmarks.device import fits, laws, steps, syncs
from benchmarks.device.timed import timed_fit

import likelify as lk
from likelify.data import as_source
from likelify.fitting.figures import Course, Figure
from likelify.fitting.settings import FitSettings
from tests.cases import LAYERS
from tests.cases.common import LayerCase, normal


class Wrong(lk.Affine):
    """A layer whose log-determinant is not that of what it does, and which does it badly in float32."""

    def forward(self, x, context=None):
        z, contribution = super().forward(x, context)
        return (z if x.dtype == torch.float64 else z + 0.1), contribution + 1


def test_laws_count_what_fails_and_what_is_left_out(monkeypatch, capsys):
    cases = {"right": LAYERS["affine"], "wrong": LayerCase(lambda: Wrong(scale=2.0), lambda: normal(3, 4), Wrong)}
    monkeypatch.setattr(laws, "LAYERS", cases)
    entries = laws.laws(torch.device("cpu"), time.monotonic() + 60, quick=False)
    assert [entry.value for entry in entries] == [1, 0, 1, 0]
    assert "float64_law of wrong" in capsys.readouterr().out
    late = laws.laws(torch.device("cpu"), time.monotonic() - 1, quick=False)
    assert [entry.value for entry in late] == [0, 2, 0, 2]


def test_without_a_device_the_laws_run_and_the_rest_is_said_to_be_left_out(monkeypatch, capsys):
    monkeypatch.setattr(laws, "LAYERS", {"affine": LAYERS["affine"]})
    monkeypatch.setattr(program, "chosen_device", lambda: torch.device("cpu"))
    parts = [word for name in program.PARTS if name not in ("fits", "defaults") for word in ("--part", name)]
    monkeypatch.setattr(sys, "argv", ["device", "--quick", *parts])
    program.main()
    printed = capsys.readouterr().out
    assert all(f"{part}: left out, it needs a CUDA device" in printed for part in ("syncs", "steps", "exponentials"))
    assert "laws in float64, cpu: failures" in printed


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("conv-exponential", True),
        ("conv-exponential-free", False),
        ("orthogonal-convolution", False),
        ("affine", False),
    ],
)
def test_layers_with_a_declared_norm_are_known(name, declared):
    layer, x, context = LAYERS[name].ready(dtype=torch.float32)
    assert syncs.norm_is_declared(layer, x, context) is declared
    syncs.training_call(layer, x, context)()


def test_what_raises_is_counted_with_what_is_left_out(monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("a fault")

    monkeypatch.setattr(syncs, "LAYERS", {"a": LAYERS["affine"], "b": LAYERS["affine"]})
    monkeypatch.setattr(syncs, "places", fail)
    monkeypatch.setattr(steps, "_measured", fail)
    device, quick = torch.device("cpu"), len(steps.MODELS)
    for measure, number, goals in (
        (syncs.syncs, 2, ("cases that raised, syncs", "cases left out, syncs")),
        (steps.steps, quick, ("steps that do not work", "steps left out for lack of time")),
    ):
        for end, expected in ((time.monotonic() + 60, [number, 0]), (time.monotonic() - 1, [0, number])):
            entries = {entry.name: entry for entry in measure(device, end, quick=measure is steps.steps)}
            assert [entries[goal].value for goal in goals] == expected
            assert all(entries[goal].must == 0 for goal in goals)
    assert "RuntimeError: a fault" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:The fit never beat its start")
def test_steps_of_a_fit_are_timed_behind_its_second_validation(monkeypatch):
    monkeypatch.setattr(steps, "ROWS", 2)
    monkeypatch.setattr(steps, "SHAPE", (3, 8, 8))
    monkeypatch.setitem(steps.MODELS, "glow, 1x1", {"model": "glow", "levels": 1, "steps": 1, "hidden": 4})
    flow = steps.build("glow, 1x1", torch.device("cpu"))
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    source = as_source(torch.randint(256, (20, *steps.SHAPE), dtype=torch.uint8), levels=256)
    settings = FitSettings(steps=14, batch_size=2)
    course, seconds = timed_fit(flow, source, settings, torch.device("cpu"))
    after = flow.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert [point.step for point in course.points] == [0, 7, 14]
    # Only two steps lie between the marks, of a fit that has made 14.
    assert 0 < seconds < course.seconds / 2


def test_fits_of_defaults_are_counted_if_they_raise(monkeypatch, capsys):
    monkeypatch.setattr(fits, "DEFAULTS", ("nothing-of-the-kind", "iris"))
    monkeypatch.setattr(
        fits,
        "_fitted",
        lambda source, *_: (Figure(mean=1.0, standard_error=None, count=source.size("train")), Course(), 0.002),
    )
    entries = {
        entry.name: entry.value for entry in fits.defaults(torch.device("cpu"), time.monotonic() + 60, quick=False)
    }
    assert entries["fits of defaults that raised"] == 1
    assert entries["fit of iris, cpu: time of a step"] == 2.0
    assert "fit of nothing-of-the-kind: DataError" in capsys.readouterr().out
    late = {entry.name: entry.value for entry in fits.defaults(torch.device("cpu"), time.monotonic() - 1, quick=False)}
    assert late["fits of defaults left out for lack of time"] == 2
