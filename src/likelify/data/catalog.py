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
    from likelify.data.options import SourceOptions
    from likelify.data.source import Source

# Processes of points in the unit square.
PATTERNS = ("poisson", "thomas", "matern")
# Sources that need no files of the user: for each name the module and the function that opens it, and its arguments.
SOURCES: dict[str, tuple[str, str, tuple[str | int, ...]]] = {
    "digits": ("images", "digits", ()),
    "sample-photos": ("images", "sample_photos", ()),
    "fashion-mnist": ("idx", "fashion_mnist", ()),
    **{name: ("tables", "bundled", (name,)) for name in ("iris", "wine", "breast-cancer", "diabetes", "linnerud")},
    **{name: ("simulated.source", "SimulatedGraphs", (name,)) for name in ("mog-4", "mog-9", "mog-16", "mog-ring")},
    **{name: ("simulated.configurations", "particles", (name,)) for name in ("dw4", "lj13", "lj13-single")},
    **{
        name: ("simulated.patterns", "patterns", (name,))
        for name in ("points-poisson", "points-thomas", "points-matern")
    },
    "digit-points": ("simulated.examples", "digit_points", ()),
    "atlas": ("simulated.examples", "atlas", ()),
    "karate": ("simulated.examples", "karate", ()),
    **{f"{name}-1000": ("simulated.configurations", "particles", (name, 1000)) for name in ("dw4", "lj13")},
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
    "qm9": ("molecules", "qm9"),
    "table": ("table_files", "table_file"),
    "array": ("array_files", "array_file"),
    "graphs": ("graph_files", "graph_file"),
    "images": ("folder", "image_folder"),
    "hub": ("hub", "hub_source"),
}
# The options that a source of files takes, if any; its function is then given the place and all options.
OPTIONS: dict[str, tuple[str, ...]] = {
    "qm9": ("columns", "labels"),
    "table": ("columns", "drop", "missing", "given", "dependent", "labels"),
    "array": ("kind", "levels", "channels", "columns", "drop", "missing", "given", "dependent", "labels"),
    "graphs": ("graphs", "edges", "columns", "drop", "missing", "labels"),
    "images": ("image_size", "crop", "labels", "skip_unreadable"),
    "hub": (
        "columns",
        "drop",
        "missing",
        "given",
        "dependent",
        "labels",
        "image_size",
        "crop",
        "kind",
        "levels",
        "channels",
    ),
}
# Endings of the names of pictures, whatever their case.
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".bmp")
# Endings of the files of arrays, and of those that are tables.
ARRAY_ENDINGS = (".npy", ".npz")
TABLE_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".feather", ".arrow", ".npy")


def open_source(name: str | PathLike[str], options: SourceOptions | None = None) -> Source:
    """Open a source by its name.

    Args:
        name: one of `SOURCES`; or one of `FROM_FILES`, a colon and the folder or file of the user, `mnist:FOLDER`; or
            the path of a table, `rows.csv`, which is short for `table:rows.csv` (or for `graphs:rows.csv` if options
            say so), of arrays, `series.npy`, or of a folder, short for `images:FOLDER`.
        options: how its files are to be read, where there is more than one way.

    Raises:
        DataError: if there is none of that name, its files are missing or not what they should be, or it has no use for
            an option.

    Example:
        >>> open_source("iris").event_shape
        (4,)
    """
    name = fspath(name) if isinstance(name, PathLike) else name
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"A source is opened by its name or the path of a file, not by {str(name)[:100]!r}.")
    try:
        return _open(name, options)
    except OSError as error:
        raise DataError(f"'{name[:200]}' cannot be opened: {error.strerror or error}.") from error


def _open(name: str, options: SourceOptions | None) -> Source:
    if name in SOURCES:
        _require_use(name, options)
        module, function, arguments = SOURCES[name]
        return _opener(module, function)(*arguments)
    family, colon, place = name.partition(":")
    if colon and place and family in FROM_FILES:
        return _from_files(family, place, options)
    if family in FROM_FILES:
        raise DataError(f"'{family}' is made of your own files: say where they are, '{family}:PLACE'.")
    by_name = _family_of(name, options)
    if by_name is not None:
        return _from_files(by_name, name, options)
    if name.lower().endswith(PICTURE_ENDINGS) and _place(name).is_file():
        raise DataError(
            f"'{name}' is a single picture; a model is fitted to a folder of them: '{_place(name).parent}'."
        )
    if name.endswith("/"):
        raise DataError(f"There is no folder '{name}'.")
    if _place(name).is_file():
        raise DataError(
            f"'{name}' is a file, but its name does not end in {', '.join((*TABLE_ENDINGS, '.npz'))}. Tables and "
            "arrays are read from such files; convert it, or rename it if it is one of them."
        )
    own = [f"{family}:PLACE" for family in FROM_FILES if family not in ("table", "array", "graphs", "images")]
    files = ["FOLDER", "FILE.csv", "FILE.parquet", "FILE.npy"]
    raise DataError(unknown_word("source", name, [*SOURCES, *own, *files]))


def _family_of(name: str, options: SourceOptions | None) -> str | None:
    """Return the family of a file by the end of its name, or of a folder; None if there is none."""
    if name.lower().endswith(TABLE_ENDINGS) and options is not None and (options.graphs or options.edges):
        return "graphs"
    for endings, family in ((ARRAY_ENDINGS, "array"), (TABLE_ENDINGS, "table"), ((".xyz",), "qm9")):
        if name.lower().endswith(endings):
            return family
    return "images" if _place(name).is_dir() else None


def _from_files(family: str, place: str, options: SourceOptions | None) -> Source:
    _require_use(family, options)
    opener = _opener(*FROM_FILES[family])
    return opener(_place(place), options) if family in OPTIONS else opener(_place(place))


def _require_use(family: str, options: SourceOptions | None) -> None:
    """Refuse options that would be without effect."""
    for option in {} if options is None else options.chosen():
        if option not in OPTIONS.get(family, ()):
            users = [f"{other}:PLACE" for other, taken in OPTIONS.items() if option in taken]
            raise DataError(
                f"--{option.replace('_', '-')} has no effect on '{family}'; leave it out. "
                f"It is for {' and '.join(users) or 'other sources'}."
            )


def _place(text: str) -> Path:
    """Return the path that a user wrote, whose home may be a tilde."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise DataError(f"'{text[:200]}' is in the home of somebody who has none here.") from error


def _opener(module: str, function: str) -> Callable[..., Source]:
    return getattr(import_module(f"likelify.data.{module}"), function)
