"""Hashes of the code that decides what a cell measures, read off the source files without importing them.

The modules that count are those that fitting, measuring and the model of the cell import, and what these import in
turn. A package counts by the modules that its names come from, so a new file beside them changes no hash. Comments,
docstrings, layout and what only a checker of types reads do not count.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from likelify.zoo import MODELS

HOME = Path(__file__).parents[2]
PACKAGE = "likelify"
FITTING = ("likelify.fitting.loop", "likelify.fitting.metrics", "likelify.reproduce.scores")
# Data have fingerprints of their own, and settings are kept in full, so what reads or chooses them plays no part.
UNCOUNTED = ("_version", "data", "fitting.choose", "fitting.recipes", "fitting.sources", "zoo.presets", "zoo.registry")
APART = tuple(f"{PACKAGE}.{name}" for name in UNCOUNTED)
# The true densities of simulated data, which no fingerprint knows of.
KNOWN = ("truths", "permanents", "mixtures", "configurations", "particles")
TRUTH = tuple(f"{PACKAGE}.data.simulated.{name}" for name in KNOWN)


@cache
def code_hashes(model: str, *, truth: bool = False) -> dict[str, str]:
    """Return two hashes: `"code"` of all that a cell with that model needs, `"fitting"` of what all cells share.

    Args:
        model: name of the model.
        truth: the cell compares with the true density of simulated data.
    """
    shared = (*FITTING, *(TRUTH if truth else ()))
    return {"code": hash_of((*shared, MODELS[model].__module__)), "fitting": hash_of(shared)}


def hash_of(roots: Iterable[str], home: Path = HOME) -> str:
    """Return a short hash of some modules and of all that they need; see `modules_of`."""
    digest = hashlib.sha256(repr(sorted(modules_of(roots, home).items())).encode())
    return digest.hexdigest()[:12]


def modules_of(roots: Iterable[str], home: Path = HOME) -> dict[str, str]:
    """Return the modules of the package that some modules need, themselves included, with their bare code.

    Args:
        roots: names of modules; they count in any case.
        home: folder that the package is in.
    """
    found: dict[str, str] = {}
    named = tuple(roots)
    waiting, state = list(named), _state(home)
    while waiting:
        module = waiting.pop()
        if module not in found and (module in named or not module.startswith(APART)):
            found[module], used = _read(module, home, state)
            waiting += used
    return found


def _state(home: Path) -> int:
    """Return a number that changes when a file of the package does."""
    files = sorted(file for ending in ("*.py", "*.pyi") for file in (home / PACKAGE).rglob(ending))
    return hash(tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files))


@cache
def _read(module: str, home: Path, state: int) -> tuple[str, frozenset[str]]:  # noqa: ARG001 - what it was read in
    """Return the bare code of a module, and the modules that it takes names from."""
    tree = _Bare().visit(ast.parse(_file(module, home).read_text()))
    return ast.unparse(tree), frozenset(_used(tree, home))


class _Bare(ast.NodeTransformer):
    """Takes out docstrings and what only a checker of types reads."""

    def visit_If(self, node: ast.If) -> ast.AST | None:  # noqa: N802 - the name of the base class
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:  # noqa: N802
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if text else node


def _used(tree: ast.Module, home: Path) -> set[str]:
    """Return the modules that a module takes names from, directly or through a package: `transforms.Coupling`."""
    imported = _imported(tree)
    found = {_locate(target, home) for target in imported.values() if not _is_package(target, home)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in inner:
            name, _, rest = ast.unparse(node).partition(".")
            target = f"{imported.get(name, '')}.{rest}".strip(".")
            if _is_package(imported.get(name, ""), home):
                # A package that is handed on as it is counts as a whole.
                found |= _inside(target, home) if _is_package(target, home) else {_locate(target, home)}
    return found


def _imported(tree: ast.Module) -> dict[str, str]:
    """Return what import statements take from the package: the name that it gets here, and its full name there."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias for alias in node.names if alias.name.split(".")[0] == PACKAGE]
            found |= {alias.asname or PACKAGE: alias.name if alias.asname else PACKAGE for alias in names}
    return found


def _locate(name: str, home: Path) -> str:
    """Return the module that defines what has this full name; a package's stub says where its names come from."""
    if _file(name, home).is_file():
        return name
    parent, _, last = name.rpartition(".")
    place = _locate(parent, home)
    if not _is_package(place, home):
        return place
    stub = _file(place, home).with_suffix(".pyi")
    public = ast.parse((stub if stub.is_file() else _file(place, home)).read_text())
    return _locate(_imported(public).get(last, place), home)


def _inside(package: str, home: Path) -> set[str]:
    names = (file.relative_to(home).with_suffix("").parts for file in _file(package, home).parent.rglob("*.py"))
    return {".".join(name).removesuffix(".__init__") for name in names}


def _is_package(name: str, home: Path) -> bool:
    return bool(name) and _file(name, home).name == "__init__.py"


def _file(module: str, home: Path) -> Path:
    place = home.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
