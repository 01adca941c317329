"""The Python examples in the README and the docs run as they stand."""

import re
from pathlib import Path

import pytest

from likelify.flowification.convert import flowify
from likelify.flowification.rules import RULES
from likelify.zoo import MODELS, registry

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = [
    pytest.param(code, id=f"{path.relative_to(ROOT)}-{index}")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for index, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]


@pytest.fixture(autouse=True)
def _registries_stay_as_they_are():
    """Examples register models and rules, which the tests after them in this process must not meet."""
    list(MODELS)
    # Rules register themselves once, when the module of `flowify` is imported.
    assert flowify
    kept = [(known, dict(known)) for known in (registry._REGISTERED, RULES)]
    yield
    for known, before in kept:
        known.clear()
        known.update(before)


def test_files_and_benchmarks_that_pages_name_are_there():
    text = "\n".join(page.read_text() for page in PAGES)
    files = set(re.findall(r"`((?:linalg|transforms|fitting|nets|zoo|data|reproduce|plots)/[a-z_/]+\.py)`", text))
    assert files
    assert [name for name in sorted(files) if not (ROOT / "src/likelify" / name).is_file()] == []
    modules = {name.rstrip(".").replace(".", "/") for name in re.findall(r"python -m (benchmarks\.[a-z_.]+)", text)}
    assert modules
    assert [m for m in sorted(modules) if not ((ROOT / f"{m}.py").is_file() or (ROOT / m).is_dir())] == []


def test_there_are_examples():
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("code", EXAMPLES)
def test_example_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "example", "exec"), {"__name__": "example"})
