"""Rules of the project: imports, names, lengths, folders."""

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import likelify
from benchmarks import house

SOURCE = Path(likelify.__file__).parent
MODULES = sorted(
    ".".join(("likelify", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
)
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Under which names packages are imported that are called otherwise.
IMPORTED = {"pillow": "PIL", "scikit-learn": "sklearn"}
OPTIONAL = sorted(
    IMPORTED.get(name, name.replace("-", "_"))
    for extra in ("app", "devices", "graphs", "hub", "tables", "dev")
    for needed in PROJECT["optional-dependencies"][extra]
    if (name := re.split(r"[>=\[]", needed)[0]) != "likelify"
)

PACKAGES = sorted(
    ".".join(("likelify", *stub.parent.relative_to(SOURCE).parts)) for stub in SOURCE.rglob("__init__.pyi")
)


def python(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_heavy():
    loaded = python("import likelify, sys; print([m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_touching_every_public_name_needs_no_optional_package_and_changes_no_switch():
    output = python(
        "import sys, torch\n"
        "def look():\n"
        "    modes = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()\n"
        "    return *modes, torch.get_rng_state()\n"
        "before = look()\n"
        "validate = torch.distributions.Distribution._validate_args\n"
        "import likelify\n"
        "from importlib import import_module\n"
        f"for package in {PACKAGES!r}:\n"
        "    module = import_module(package)\n"
        # Its bases are scikit-learn's.
        "    for name in set(module.__all__) - {'FlowDensity'}: getattr(module, name)\n"
        "after = look()\n"
        "assert before[:3] == after[:3] and torch.equal(before[3], after[3])\n"
        "assert validate == torch.distributions.Distribution._validate_args\n"
        f"print([m for m in {OPTIONAL!r} if m in sys.modules])"
    )
    assert output.strip() == "[]"


IMPORT_EACH_ALONE = """
import importlib, os, sys, traceback
import torch, numpy, sklearn.base, cyclopts, rich.console
from pydantic import BaseModel
for layer in sys.stdin.read().splitlines():
    for module in layer.split():
        # A fork has imported what is not ours, and of ours what is in lower layers, which know nothing of this one.
        child = os.fork()
        if child == 0:
            try:
                importlib.import_module(module)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            print(module)
    for module in layer.split():
        importlib.import_module(module)
"""


def layers():
    """Return the modules of each layer of the library, the lowest layer first."""
    contracts = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    whole = next(contract for contract in contracts if contract.get("containers") == ["likelify"])["layers"]
    places = {name: place for place, layer in enumerate(reversed(whole)) for name in layer.split(" | ")}
    found = [[] for _ in whole]
    for module in MODULES:
        found[places[module.split(".")[1]] if "." in module else 0].append(module)
    return found


@pytest.mark.slow
def test_each_module_imports_alone():
    assert sorted(sum(layers(), [])) == MODULES
    command = [sys.executable, "-W", "error", "-c", IMPORT_EACH_ALONE]
    done = subprocess.run(command, input="\n".join(map(" ".join, layers())), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stdout, done.stdout + done.stderr


def test_the_command_line_answers_without_torch():
    output = python(
        "import sys\n"
        "sys.argv = ['likelify', '--version']\n"
        "from likelify.app.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    assert output.split() == [likelify.__version__, "False"]


@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        (likelify, "Flwo", r"module 'likelify' has no attribute 'Flwo'\. Did you mean Flow\?"),
        (likelify, "Woodbury", r"Did you mean likelify\.transforms\.Woodbury\?"),
        (likelify.transforms, "Wodbury", r"module 'likelify\.transforms' .* Did you mean Woodbury"),
        (likelify, "zzz", "has no attribute 'zzz'$"),
    ],
)
def test_unknown_names_are_attribute_errors_with_the_nearest_names(module, name, words):
    with pytest.raises(AttributeError, match=words):
        getattr(module, name)


LAZY = sorted(path.parent.relative_to(SOURCE.parent) for path in SOURCE.rglob("__init__.pyi"))


@pytest.mark.parametrize("package", [".".join(path.parts) for path in LAZY])
def test_public_names_are_loaded_when_used_and_hide_no_module(package):
    module = importlib.import_module(package)
    assert set(module.__all__) == set(dir(module))
    modules = {path.stem for path in Path(module.__file__).parent.iterdir()}
    for name in module.__all__:
        assert inspect.ismodule(getattr(module, name)) == (name in modules), name


def test_packages_of_layers_load_no_torch_before_a_name_is_used():
    loaded = python(
        "import sys\nfrom likelify import data, distributions, linalg, nets, transforms\n"
        "print('torch' in sys.modules)\ntransforms.Chain\nprint('torch' in sys.modules)"
    )
    assert loaded.split() == ["False", "True"]


def test_missing_optional_packages_name_their_extra(monkeypatch):
    from likelify.data import images
    from likelify.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingDependencyError, match=r"likelify\[app\]"):
        images.digits()


def test_tests_are_in_the_folder_of_what_they_test():
    """Folders of tests are folders of the package, and a test named after a folder is in it."""
    tests = Path(__file__).parent
    others = {"benchmarks", "cases", "laws"}
    for path in tests.rglob("test_*.py"):
        folder = path.parent.relative_to(tests)
        if not others & set(folder.parts):
            assert (SOURCE / folder).is_dir(), f"{path} tests no folder of the package"
            assert not (SOURCE / folder / path.stem.removeprefix("test_")).is_dir(), f"{path} belongs in a folder below"


@pytest.mark.parametrize("folder", ["src", "benchmarks", "tests"])
def test_files_have_at_most_500_lines(folder):
    long = {str(path): house.file_length(path) for path in house.python_files(folder)}
    assert {path: lines for path, lines in long.items() if lines > 500} == {}


def test_bodies_of_functions_have_at_most_40_lines():
    lengths = {
        name: house.body_length(node)
        for path in house.python_files("src", "benchmarks")
        for name, node in house.functions(path)
    }
    assert {name: lines for name, lines in lengths.items() if lines > 40} == {}


def test_public_functions_are_annotated():
    bare = [
        name
        for path in house.python_files("src", "benchmarks")
        for name, node in house.functions(path)
        if not name.split()[-1].startswith("_") and not house.annotated(node)
    ]
    assert bare == []


def test_only_the_command_line_prints():
    for path in SOURCE.rglob("*.py"):
        if "app" not in path.relative_to(SOURCE).parts:
            lines = path.read_text().splitlines()
            assert not any(line.lstrip().startswith("print(") for line in lines), f"{path} prints"


def test_the_version_is_the_same_wherever_it_is_written():
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert PROJECT["version"] == likelify.__version__ == cited[1].strip('"')


# Benchmarks that need what is not there, and parts of others.
APART = {"against", "cells", "emoji", "layers_mixing", "layers_models", "layers_residual", "layers_sylvester"}


def test_every_benchmark_is_run_by_make_bench():
    mains = [file for file in (ROOT / "benchmarks").rglob("*.py") if 'if __name__ == "__main__"' in file.read_text()]
    names = {".".join(file.relative_to(ROOT / "benchmarks").with_suffix("").parts) for file in mains}
    bench = re.search(r"for name in (.*); do", (ROOT / "Makefile").read_text())
    assert bench is not None
    listed = bench[1].split()
    assert len(set(listed)) == len(listed)
    assert {name.removesuffix(".__main__") for name in names} - APART == set(listed)


@pytest.mark.parametrize("folder", ["fitting", "data"])
def test_the_map_has_every_file_of_the_large_floors(folder):
    said = set(re.findall(r"`(\w+)/?`", (ROOT / "CONTRIBUTING.md").read_text()))
    files = {file.stem for file in (SOURCE / folder).glob("*.py")} - {"__init__"}
    rooms = {file.parent.name for file in (SOURCE / folder).glob("*/__init__.py")}
    assert sorted((files | rooms) - said) == []
