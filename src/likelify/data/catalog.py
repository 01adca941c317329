"""The list of sources, and how a name becomes one.

The module of a source is imported when the source is opened: an unknown name or a missing file is answered at once.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

from likelify.errors import DataError, unknown_word

if TYPE_CHECKING:
    from likelify.data.source import Source

# Sources that need no files of the user: for each name the module and the function that opens it, and its arguments.
SOURCES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "digits": ("images", "digits", ()),
    "sample-photos": ("images", "sample_photos", ()),
    "fashion-mnist": ("idx", "fashion_mnist", ()),
    **{name: ("tables", "bundled", (name,)) for name in ("iris", "wine", "breast-cancer", "diabetes", "linnerud")},
}
# Sources made of the user's files, named NAME:PLACE: for each name the module and the function that takes the place.
FROM_FILES: dict[str, tuple[str, str]] = {
    "mnist": ("idx", "mnist"),
    "fashion-mnist": ("idx", "fashion_mnist"),
    "cifar-10": ("cifar", "cifar10"),
    "power": ("uci", "power"),
    "gas": ("uci", "gas"),
    "hepmass": ("uci", "hepmass"),
    "miniboone": ("uci", "miniboone"),
    "bsds300": ("uci", "bsds300"),
    "table": ("tables", "table_file"),
}
# Endings of the files that are tables.
TABLE_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".npy")


def open_source(name: str | PathLike[str]) -> Source:
    """Open a source by its name.

    Args:
        name: one of `SOURCES`; or one of `FROM_FILES`, a colon and the folder or file of the user, `mnist:FOLDER`; or
            the path of a table, `rows.csv`, which is short for `table:rows.csv`.

    Raises:
        DataError: if there is none of that name, or its files are missing or not what they should be.

    Example:
        >>> open_source("iris").event_shape
        (4,)
    """
    name = fspath(name) if isinstance(name, PathLike) else name
    if not isinstance(name, str) or "\0" in name:
        raise DataError(f"A source is opened by its name or the path of a file, not by {str(name)[:100]!r}.")
    try:
        return _open(name)
    except OSError as error:
        raise DataError(f"'{name[:200]}' cannot be opened: {error.strerror or error}.") from error


def _open(name: str) -> Source:
    if name in SOURCES:
        module, function, arguments = SOURCES[name]
        return _opener(module, function)(*arguments)
    family, colon, place = name.partition(":")
    if colon and place and family in FROM_FILES:
        return _opener(*FROM_FILES[family])(_place(place))
    if family in FROM_FILES:
        raise DataError(f"'{family}' is made of your own files: say where they are, '{family}:PLACE'.")
    if name.endswith(TABLE_ENDINGS):
        return _opener(*FROM_FILES["table"])(_place(name))
    if _place(name).is_file():
        raise DataError(
            f"'{name}' is a file, but its name does not end in {', '.join(TABLE_ENDINGS)}. Tables are read from CSV "
            "and NPY files; convert it, or rename it if it is one of them."
        )
    own = [f"{family}:PLACE" for family in FROM_FILES if family != "table"]
    raise DataError(unknown_word("source", name, [*SOURCES, *own, "FILE.csv", "FILE.npy"]))


def _place(text: str) -> Path:
    """Return the path that a user wrote, whose home may be a tilde."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise DataError(f"'{text[:200]}' is in the home of somebody who has none here.") from error


def _opener(module: str, function: str) -> Callable[..., Source]:
    return getattr(import_module(f"likelify.data.{module}"), function)
