"""The page about the transforms of torch says what is true, of a few layers."""

import re
from pathlib import Path

import pytest
from benchmarks.torch_transforms import COMPILED_LAYERS, QUICK_LAYERS, TRIALS

from benchmarks import torch_transforms
from tests.cases import SIZED

PAGE = (Path(__file__).parents[2] / "docs" / "torch-transforms.md").read_text()
COMPILED = [trial for trial in TRIALS if trial.startswith("compile")]


def claims():
    """What the page says of every case and transform."""
    found = {}
    for row in re.findall(r"^\| `(\w+)`(?: \((.*)\))? \| (.*) \|$", PAGE, re.M):
        layer, kinds, cells = row
        names = [f"{layer} {kind}".removesuffix(" plain") for kind in kinds.split(", ")] if kinds else None
        for name in SIZED if names is None else names:
            if name.split()[0] == layer:
                found[name] = dict(zip(TRIALS, cells.split(" | "), strict=True))
    return found


def holds(name, trials):
    results = torch_transforms.tried([name], trials)
    for trial in trials:
        assert torch_transforms.cell(results[name][trial]) == claims()[name][trial].strip(), results[name][trial]


def test_the_page_has_every_layer_and_nothing_broken():
    assert set(claims()) == set(SIZED)
    assert "**broken**" not in PAGE
    assert " 0 are broken" in " ".join(PAGE.split())


@pytest.mark.parametrize("name", QUICK_LAYERS)
def test_its_claims_hold(name):
    holds(name, [trial for trial in TRIALS if trial not in COMPILED])


@pytest.mark.parametrize("name", ["ActNorm", "planar"])
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_its_claims_about_compiled_layers_hold(name):
    holds(name, ["compile, eager"])


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED_LAYERS)
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_its_claims_about_differentiated_compiled_layers_hold(name):
    holds(name, COMPILED[:2])


def test_another_result_or_another_error_is_broken(monkeypatch):
    call = dict(torch_transforms.calls(SIZED["ActNorm"].at(torch_transforms.SIZES)))["forward"]
    monkeypatch.setitem(TRIALS, "wrong", lambda call: ([call.x], [call.x + 1]))
    monkeypatch.setitem(TRIALS, "raises", lambda call: call.layer.nothing)
    assert torch_transforms.outcome("wrong", call).startswith("broken: off by 1")
    assert torch_transforms.outcome("raises", call).startswith("broken: AttributeError")
    assert torch_transforms.cell({"forward": "broken: x", "inverse": "works"}) == "**broken**"
