"""Hashes of the code that decides what a cell measures, read off the source files without importing them.

The modules that count are those that fitting, measuring and the model of the cell import, and what these import in
turn. A package counts by the modules that its names come from, so a new file beside them changes no hash. Comments,
docstrings and layout do not count.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from likelify.zoo import MODELS

HOME = Path(__file__).parents[2]
PACKAGE = "likelify"
FITTING = ("likelify.fitting.loop", "likelify.fitting.metrics")
# Data have fingerprints of their own, and settings are kept in full, so what reads or chooses them plays no part.
UNCOUNTED = ("_version", "data", "fitting.choose", "fitting.recipes", "zoo.presets", "zoo.registry")
APART = tuple(f"{PACKAGE}.{name}" for name in UNCOUNTED)


@cache
def code_hashes(model: str) -> dict[str, str]:
    """Return two hashes: `"code"` of all that a cell with that model needs, `"fitting"` of what all cells share."""
    return {"code": hash_of((*FITTING, MODELS[model].__module__)), "fitting": hash_of(FITTING)}


def hash_of(roots: Iterable[str], home: Path = HOME) -> str:
    """Return a short hash of some modules and of all that they need; see `modules_of`."""
    digest = hashlib.sha256()
    for module in modules_of(roots, home):
        tree = _without_docstrings(_tree(module, home))
        digest.update(f"{module}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:12]


def modules_of(roots: Iterable[str], home: Path = HOME) -> list[str]:
    """Return the modules of the package that some modules need, themselves included, in alphabetical order.

    Args:
        roots: names of modules.
        home: folder that the package is in.
    """
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module not in found and not module.startswith(APART):
            found.add(module)
            waiting += _imports(module, home)
    return sorted(found)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return tree


def _imports(module: str, home: Path) -> frozenset[str]:
    """Return the modules that a module uses itself, at any place but for the checking of types."""
    nodes = list(_used(_tree(module, home)))
    found: set[str] = set()
    packages: dict[str, str] = {}
    for node in nodes:
        for name, target in _targets(node):
            if _is_package(target, home):
                packages[name] = target
            else:
                found.add(_locate(target, home))
    inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in inner:
            name, _, rest = ast.unparse(node).partition(".")
            if name in packages:
                target = f"{packages[name]}.{rest}".rstrip(".")
                # A package that is handed on as it is may be asked for any of its names.
                found |= _inside(target, home) if _is_package(target, home) else {_locate(target, home)}
    return frozenset(found)


def _used(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk through a tree, past what only a checker of types reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from _used(node)


def _targets(node: ast.AST) -> list[tuple[str, str]]:
    """Return what an import statement takes from the package: the name it gets here, and its full name there."""
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
        return [(alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names]
    if isinstance(node, ast.Import):
        names = [alias for alias in node.names if alias.name.split(".")[0] == PACKAGE]
        return [(alias.asname or PACKAGE, alias.name if alias.asname else PACKAGE) for alias in names]
    return []


def _locate(name: str, home: Path) -> str:
    """Return the module that defines what has this full name."""
    if _file(name, home).is_file():
        return name
    parent, _, last = name.rpartition(".")
    place = _locate(parent, home)
    return _locate(_public_names(place, home).get(last, place), home) if _is_package(place, home) else place


def _public_names(package: str, home: Path) -> dict[str, str]:
    """Return the names that a package has from its modules, with their full names there."""
    stub = _file(package, home).with_suffix(".pyi")
    tree = ast.parse((stub if stub.is_file() else _file(package, home)).read_text())
    return dict(pair for node in ast.walk(tree) for pair in _targets(node))


def _inside(package: str, home: Path) -> set[str]:
    names = (file.relative_to(home).with_suffix("").parts for file in _file(package, home).parent.rglob("*.py"))
    return {".".join(name).removesuffix(".__init__") for name in names}


def _is_package(name: str, home: Path) -> bool:
    return _file(name, home).name == "__init__.py"


def _file(module: str, home: Path) -> Path:
    place = home.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _tree(module: str, home: Path) -> ast.Module:
    return ast.parse(_file(module, home).read_text())
