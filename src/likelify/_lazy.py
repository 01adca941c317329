"""Public names that are loaded when they are first used, so that importing a package costs nothing.

The names of a package are those of the stub beside its `__init__.py`, the one list that type checkers, editors and this
module read: a line `from likelify.transforms.core import Chain as Chain` there makes `Chain` public, and says where it
is defined; `from likelify import errors as errors` makes a module public.
"""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_names(package: str, init: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return what a package assigns to `__getattr__`, `__dir__` and `__all__`.

    Args:
        package: the package's `__name__`.
        init: the package's `__file__`, an `__init__.py` with an `__init__.pyi` beside it.
    """
    folder = os.path.dirname(init)
    homes = _read_stub(folder)

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'{_nearest(package, folder, name)}")
        home = homes[name]
        value = import_module(f"{home}.{name}") if home == package else getattr(import_module(home), name)
        setattr(import_module(package), name, value)
        return value

    return load, lambda: sorted(homes), list(homes)


def _read_stub(folder: str) -> dict[str, str]:
    """Return for each public name of the package in that folder the module that defines it."""
    homes = {}
    with open(os.path.join(folder, "__init__.pyi"), encoding="utf-8") as stub:
        for line in stub:
            match line.split():
                case ["from", home, "import", name, "as", _]:
                    homes[name] = home
    return homes


def _nearest(package: str, folder: str, name: str) -> str:
    # Python itself asks modules for names with underscores, often, and expects most of them to be missing.
    if name.startswith("_"):
        return ""
    from difflib import get_close_matches

    inner = sorted(part for part in os.listdir(folder) if os.path.exists(os.path.join(folder, part, "__init__.pyi")))
    near = [f"{package}.{part}.{name}" for part in inner if name in _read_stub(os.path.join(folder, part))]
    near = near or get_close_matches(name, _read_stub(folder), n=2)
    return f". Did you mean {' or '.join(near)}?" if near else ""
