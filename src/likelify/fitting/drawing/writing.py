"""Where items are written: which file fits them, that nothing is overwritten in silence, and that files are whole."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count as counting
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from likelify.data import Batch, Facts
from likelify.errors import ConfigError
from likelify.fitting.drawing.draw import as_stored
from likelify.fitting.drawing.formats import ARRAYS, PICTURE, TABLES, Writer, column_names, write_folder
from likelify.fitting.drawing.graph_files import (
    edges_file,
    write_graph_arrays,
    write_graph_drawing,
    write_graph_picture,
    write_graph_tables,
)
from likelify.fitting.files import (
    beside,
    give_name,
    make_folder,
    refuse_taken,
    refuse_write,
    write_atomically,
    write_new,
)
from likelify.names import ItemKind
from likelify.plots import MOST_GRAPHS, MOST_IMAGES, MOST_SEQUENCES, lines_of, pairs_of, picture

if TYPE_CHECKING:
    from torch import Tensor

PICTURES_OF_GRAPHS: dict[str, Writer] = {".png": write_graph_picture, ".svg": write_graph_drawing}
# What samples of each kind can be written to, the usual first.
FORMATS: dict[ItemKind, dict[str, Writer]] = {
    "image": PICTURE | ARRAYS,
    "table": TABLES | ARRAYS | PICTURE,
    "sequence": PICTURE | ARRAYS | TABLES,
    "graph": PICTURES_OF_GRAPHS | TABLES | {".npz": write_graph_arrays},
}
# How many samples a run keeps of a kind.
USUAL_NUMBER: dict[ItemKind, int] = {"image": 64, "table": 1000, "sequence": 24, "graph": 24}


def endings(facts: Facts) -> list[str]:
    """Return the endings of files that samples can be written to, the usual one first."""
    # Colours of real numbers are not known.
    return list(ARRAYS if facts.kind == "image" and facts.levels is None else FORMATS[facts.kind])


def check_file(file: Path, facts: Facts, count: int = 1, *, force: bool = False) -> None:
    """Refuse a file that samples cannot be written to, before any work is done.

    Args:
        file: or, for images, a folder.
        facts: of the data.
        count: of the items.
        force: whether a file that exists may be replaced.

    Raises:
        ConfigError: if it has another ending than those that fit, exists, or is a picture that cannot show so many.
    """
    known = endings(facts)
    if _is_folder(file, facts):
        if file.exists() and not file.is_dir():
            raise ConfigError(f"'{file}' is a file; name a new folder for single pictures, or a file in {_or(known)}.")
        if file.is_dir() and any(file.iterdir()):
            raise ConfigError(f"The folder '{file}' is not empty, and was left as it is. Name a new folder.")
        return
    if file.suffix.lower() not in known:
        folder = ", or a folder for single pictures" if _has_pictures(facts) else ""
        raise ConfigError(
            f"{facts.items.capitalize()} are written to files in {_or(known)}{folder}; '{file}' is none of them."
        )
    most = {"image": MOST_IMAGES, "sequence": MOST_SEQUENCES, "graph": MOST_GRAPHS}.get(facts.kind, count)
    if file.suffix.lower() in PICTURES_OF_GRAPHS and count > most:
        others = _or([ending for ending in known if ending not in PICTURES_OF_GRAPHS])
        raise ConfigError(f"A picture shows at most {most:,} {facts.items}, not {count:,}; name a file in {others}.")
    if file.is_dir():
        raise ConfigError(f"'{file}' is a folder; name a file.")
    if file.exists() and not force:
        refuse_taken(file)
    if facts.kind == "graph" and file.suffix.lower() in TABLES and edges_file(file).exists() and not force:
        refuse_taken(edges_file(file))


def free_file(stem: Path, ending: str) -> Path:
    """Return the first file of that stem that there is not yet: `drawn.png`, `drawn-2.png`, ..."""
    names = (stem.with_name(stem.name + (f"-{number}" if number > 1 else "") + ending) for number in counting(1))
    return next(file for file in names if not file.exists())


def write_items(file: Path, facts: Facts, count: int, batches: Iterable[Batch], *, force: bool = False) -> None:
    """Write items to a file, or images to a folder, in one instant: until all are there, there is nothing.

    Args:
        file: its ending says how.
        facts: of the data.
        count: of the items.
        batches: of the items, written as they come.
        force: replace a file that exists.

    Raises:
        ConfigError: as `check_file`.
        RunError: if it cannot be written.
    """
    check_file(file, facts, count, force=force)
    make_folder(file.parent)
    if _is_folder(file, facts):
        with _new_folder(file) as folder:
            write_folder(folder, facts, count, batches)
        return
    if facts.kind == "graph" and file.suffix.lower() in TABLES:
        write_graph_tables(file, facts, batches, force=force)
        return
    with beside(file) as temporary:
        FORMATS[facts.kind][file.suffix.lower()](temporary, facts, count, batches)
        if not give_name(temporary, file, force=force):
            refuse_taken(file)


def write_panels(
    file: Path,
    facts: Facts,
    panels: Mapping[str, Tensor],
    *,
    columns: int | None = None,
    force: bool = False,
) -> None:
    """Write several versions of the same items beside one another.

    Pictures have a titled grid for each, tables the columns of each; `.npz` an array for each, `.npy` the last one.

    Args:
        file: its ending says how.
        facts: of the data.
        panels: for each title its items.
        columns: images in a row of each grid; by default what suits their number.
        force: replace a file that exists.

    Raises:
        ConfigError: as `check_file`, or if they cannot be shown beside one another in such a file.
        RunError: if it cannot be written.
    """
    check_panels(file, facts, force=force)
    ending = file.suffix.lower()
    if ending == ".npz":
        write_arrays(file, {title: _as_array(items, facts) for title, items in panels.items()}, force=force)
        return
    if facts.kind == "table" and ending in TABLES:
        together = Batch(_beside_one_another(list(panels.values())))
        names = [
            name if number == 0 else f"{name} ({title})"
            for number, title in enumerate(panels)
            for name in column_names(facts)
        ]
        schema = facts.schema
        if schema is not None:
            schema = tuple(
                column.model_copy(update={"name": name})
                for column, name in zip(schema * len(panels), names, strict=True)
            )
        wide = facts.model_copy(update={"columns": tuple(names), "schema": schema, "event_shape": (len(names),)})
        write_items(file, wide, len(together), [together], force=force)
        return
    _write(file, _panels_as(ending, facts, panels, columns), force=force)


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray], *, force: bool = False) -> None:
    """Write arrays as one file of numpy.

    Raises:
        ConfigError: if the file exists.
        RunError: if it cannot be written.
    """
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **{title.replace(" ", "_"): array for title, array in arrays.items()})
    _write(file, content.getvalue(), force=force)


def _write(file: Path, content: bytes, *, force: bool) -> None:
    make_folder(file.parent)
    if force:
        write_atomically(file, content)
    elif not write_new(file, content):
        refuse_taken(file)


def check_panels(file: Path, facts: Facts, *, force: bool = False) -> None:
    """Refuse a file that versions of items beside one another cannot be written to; see `check_file`."""
    known = [ending for ending in endings(facts) if facts.kind == "table" or ending not in TABLES]
    if file.suffix.lower() not in known:
        raise ConfigError(f"{facts.items.capitalize()} beside one another are written to a file in {_or(known)}.")
    check_file(file, facts, force=force)


def _panels_as(ending: str, facts: Facts, panels: Mapping[str, Tensor], columns: int | None) -> bytes:
    arrays = {title: _as_array(items, facts) for title, items in panels.items()}
    if ending in PICTURE:
        if facts.kind == "image":
            return picture(arrays, facts.levels or 256, columns=columns)
        return lines_of(arrays) if facts.kind == "sequence" else pairs_of(arrays, facts.columns, facts.meaning)
    content = io.BytesIO()
    np.save(content, list(arrays.values())[-1])
    return content.getvalue()


def _as_array(items: Tensor, facts: Facts) -> np.ndarray:
    return as_stored(items.detach().cpu(), facts).numpy()


def _beside_one_another(rows: list[Tensor]) -> Tensor:
    import torch

    return torch.cat([part.double() for part in rows], 1)


def _has_pictures(facts: Facts) -> bool:
    return facts.kind == "image" and facts.levels is not None


def _is_folder(file: Path, facts: Facts) -> bool:
    return _has_pictures(facts) and (not file.suffix or file.is_dir())


def _or(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give the block a folder that gets its name when the block has ended well, and is gone otherwise."""
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        os.rename(temporary, folder)
    except OSError as error:
        refuse_write(folder, error)
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
