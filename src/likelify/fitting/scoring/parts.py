"""Parts of a file that is being made: whole at any instant, in a folder beside it, put together at the end."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from likelify.data.arrow import pyarrow
from likelify.errors import ConfigError, RunError
from likelify.fitting.files import (
    as_json,
    give_name,
    is_temporary,
    read_json,
    refuse_taken,
    refuse_write,
    write_atomically,
)
from likelify.fitting.locks import LOCK
from likelify.fitting.scoring.likelihoods import Effort
from likelify.fitting.scoring.passes import read_part, rows_of, write_part
from likelify.fitting.scoring.summary import Summary
from likelify.fitting.scoring.tables import ENDINGS, as_schema, common_schema, unique_of
from likelify.fitting.table_files import write_tables
from likelify.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T", bound=Settings)
# Version of what is in a folder of parts.
FORMAT = 1
ASKED, MADE, WHOLE, PART = "asked.json", "made.json", "whole.part", re.compile(r"\d{8,}\.part")


class Asked(Settings):
    """What a folder of parts belongs to: all that the scores depend on.

    Attributes:
        format: version of the layout.
        items: fingerprint of the items.
        weights: digest of the weights of the run.
        effort: how items are scored.
        passes: of each part.
        reference: digest of the likelihoods that items are ranked among, or None.
        contamination: from what rank on rows are marked, or None.
        blame: whether columns are blamed.
    """

    format: int = FORMAT
    items: str
    weights: str | None
    effort: Effort
    passes: int
    reference: str | None
    contamination: float | None
    blame: bool

    def differences(self, other: Asked) -> list[str]:
        """Return in words what differs."""
        words = {
            "format": "the version of likelify",
            "items": "the items",
            "weights": "the weights of the run",
            "effort": "the draws",
            "passes": "the size of the parts",
            "reference": "the held-out items that ranks are among",
            "contamination": "the contamination",
            "blame": "whether columns are blamed",
        }
        return [text for name, text in words.items() if getattr(self, name) != getattr(other, name)]


class Made(Settings):
    """The whole file, noted before it gets its name: a kill right after that is recognised.

    Attributes:
        size: in bytes.
        digest: SHA-256 of its content.
    """

    size: int
    digest: str


def folder_of(out: Path) -> Path:
    """Return the folder of the parts of a file."""
    return out.with_name(f"{out.name}.parts")


def check_out(out: Path, *, force: bool = False) -> None:
    """Refuse a file that scores cannot be written to, before any work is done.

    Args:
        out: the file.
        force: whether one that exists may be replaced.

    Raises:
        ConfigError: if it has another ending, is a folder, or exists and its parts are gone.
        MissingDependencyError: without pyarrow.
    """
    if out.suffix.lower() not in ENDINGS:
        raise ConfigError(f"Scores are written to files in {' or '.join(ENDINGS)}; '{out}' is none of them.")
    if out.is_dir():
        raise ConfigError(f"'{out}' is a folder; name a file.")
    pyarrow()
    if out.exists() and not force and not folder_of(out).is_dir():
        refuse_taken(out)


class Parts:
    """The folder of the parts of a file; whoever works with it has locked it.

    Args:
        out: the file.
        asked: what it is made of.
    """

    def __init__(self, out: Path, asked: Asked) -> None:
        self.out, self.asked, self.folder = out, asked, folder_of(out)
        self.size = asked.passes * asked.effort.items

    def begin(self, *, force: bool = False) -> bool:
        """Look at what is there, and note what is asked for; return True if the file is made but for tidying up.

        Raises:
            ConfigError: if the file exists and may not be replaced.
            RunError: if the folder belongs to something else.
        """
        made, other = _read(Made, self.folder / MADE), _read(Asked, self.folder / ASKED)
        kept = any(PART.fullmatch(file.name) for file in self.folder.iterdir())
        if made is not None and other == self.asked and made == _look(self.out):
            return True
        if self.out.exists() and not force:
            if not kept:
                self._leave()
            refuse_taken(self.out)
        self._refuse_foreign()
        # Without parts there is nothing to lose.
        if kept and other != self.asked and not force:
            self._refuse(other)
        if other != self.asked:
            self._clear()
            write_atomically(self.folder / ASKED, as_json(self.asked))
        return False

    def _refuse(self, other: Asked | None) -> NoReturn:
        """Refuse to go on with the parts of something else, or to lose them."""
        begun = f"'{self.folder}' holds parts of a scoring that was interrupted, and"
        if other is None:
            raise RunError(
                f"{begun} what they belong to ({ASKED}) is missing, damaged, or of another version of likelify; "
                "nothing was changed. Go on with the version that made them, name another file, or start again with "
                "--force."
            )
        raise RunError(
            f"{begun} this one differs in {', '.join(self.asked.differences(other))}. Give the words of that one to go "
            "on with it, name another file, or start again with --force."
        )

    def _refuse_foreign(self) -> None:
        for file in self.folder.iterdir():
            if not (_is_ours(file) or file.name.startswith(".")):
                raise RunError(
                    f"'{self.folder}' is where parts of '{self.out.name}' are kept, and holds '{file.name}', which is "
                    "none. Move it away, or name another file."
                )

    def _leave(self) -> None:
        """Remove the folder if there is nothing in it that anybody could want."""
        if all(_is_ours(file) or file.name == LOCK for file in self.folder.iterdir()):
            self.remove()

    def _clear(self) -> None:
        """Remove all parts, and at last what they belong to."""
        for file in sorted(self.folder.iterdir(), key=lambda file: file.name in (MADE, ASKED)):
            if _is_ours(file):
                file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder, but for what others have put there."""
        self._clear()
        if any(file.name != LOCK for file in self.folder.iterdir()):
            return
        (self.folder / LOCK).unlink(missing_ok=True)
        self.folder.rmdir()

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:08d}.part"

    def done(self) -> int:
        """Return how many parts are there and whole, from the first; only the last may have fewer items."""
        number = 0
        while (rows := rows_of(self._file(number))) is not None:
            if rows != self.size and self._file(number + 1).exists():
                break
            number += 1
        return number

    def keep(self, number: int, tables: Iterable[pa.Table]) -> None:
        """Write a part, the tables of its passes as they come; it is there in one instant."""
        write_part(self._file(number), tables)

    def finish(self, top: int, *, force: bool = False) -> Summary:
        """Put the parts together to the file, and remove them.

        Args:
            top: number of the least likely items that the summary has.
            force: replace a file that exists.

        Raises:
            ConfigError: if the file was made by someone else meanwhile.
            RunError: if it cannot be written, or a part is damaged.
        """
        files = [self._file(number) for number in range(self.done())]
        schema, summary = common_schema(table.schema for table in _tables(files)), Summary(top)
        whole = self.folder / WHOLE
        try:
            tables = _counted(_tables(files), schema, summary)
            write_tables(whole, self.out.suffix.lower(), schema, tables, unique=unique_of(schema))
            made = _look(whole)
            if made is not None:
                write_atomically(self.folder / MADE, as_json(made))
            if not give_name(whole, self.out, force=force):
                refuse_taken(self.out)
            self.remove()
        except OSError as error:
            refuse_write(self.out, error)
        return summary


def _is_ours(file: Path) -> bool:
    return bool(PART.fullmatch(file.name)) or file.name in (ASKED, MADE, WHOLE) or is_temporary(file)


def _tables(files: Iterable[Path]) -> Iterator[pa.Table]:
    for file in files:
        yield from read_part(file)


def _counted(tables: Iterable[pa.Table], schema: pa.Schema, summary: Summary) -> Iterator[pa.Table]:
    for table in tables:
        fitting = as_schema(table, schema)
        summary.add(fitting)
        yield fitting


def _read(kind: type[T], file: Path) -> T | None:
    try:
        return kind.parse(read_json(file))
    except (OSError, RunError, ConfigError):
        return None


def _look(file: Path) -> Made | None:
    """Return size and digest of a file, or None if there is none."""
    try:
        with file.open("rb") as handle:
            return Made(size=file.stat().st_size, digest=hashlib.file_digest(handle, "sha256").hexdigest())
    except OSError:
        return None
