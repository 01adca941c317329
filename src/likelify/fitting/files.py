"""Writing files so that a kill at any instant leaves the old file or the new one, and reading JSON of any origin.

Several processes that write do not meet; what cannot be written is an error that names the file.
"""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import re
import secrets
import stat
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from likelify.errors import ConfigError, RunError

if TYPE_CHECKING:
    from likelify.settings import Settings

# Of a file of JSON, in bytes; parsed it may take some twenty times as much.
LARGEST_JSON = 2**24
DEEPEST_JSON, LONGEST_INTEGER = 64, 20

FULL, FORBIDDEN = (errno.ENOSPC, errno.EDQUOT), (errno.EROFS, errno.EACCES, errno.EPERM)
# Temporary names tell machines and processes apart, so that what a killed process left can be told from what is used.
# Containers may share names and numbers of processes: a token makes the names differ, and what is young is left alone.
MACHINE, OLD = f"{zlib.crc32(platform.node().encode()):08x}", 3600.0


def write_atomically(file: Path, content: bytes) -> None:
    """Replace a file's content in one instant: write beside it, force to disk, rename.

    Raises:
        RunError: if it cannot be written; the file is then as it was.
    """
    with _written_beside(file, content) as temporary:
        _replace(temporary, file)


def _replace(temporary: Path, file: Path) -> None:
    """Put one file in the place of another, to be read by those who could read that."""
    with suppress(OSError):
        os.chmod(temporary, stat.S_IMODE(file.stat().st_mode))
    os.replace(temporary, file)


def write_new(file: Path, content: bytes) -> bool:
    """Write a file that does not exist; return False, and change nothing, if it does: of several processes one wins.

    Raises:
        RunError: if it cannot be written.
    """
    with _written_beside(file, content) as temporary:
        try:
            os.link(temporary, file)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with file.open("xb") as handle:
                    handle.write(content)
            except FileExistsError:
                return False
    return True


@contextmanager
def _written_beside(file: Path, content: bytes) -> Iterator[Path]:
    """Give the block a temporary file of that content, gone afterwards."""
    with beside(file) as temporary:
        temporary.write_bytes(content)
        force_to_disk(temporary)
        yield temporary


@contextmanager
def beside(file: Path) -> Iterator[Path]:
    """Give the block the name of a temporary file beside a file, gone afterwards; first clear what was left behind.

    Raises:
        RunError: for errors of the system in the block.
    """
    temporary = file.with_name(f".{file.name}.{MACHINE}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        _clear(file)
        yield temporary
    except OSError as error:
        refuse_write(file, error)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def force_to_disk(file: Path) -> None:
    """Wait until what was written to a file is on the disk."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def give_name(temporary: Path, file: Path, *, force: bool) -> bool:
    """Give a finished temporary file its name in one instant; return False, and change nothing, if that is taken.

    Args:
        temporary: as `beside` gives it.
        file: its name.
        force: whether a file of that name may be replaced.
    """
    force_to_disk(temporary)
    if not force:
        try:
            os.link(temporary, file)
            return True
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            if file.exists():
                return False
    _replace(temporary, file)
    return True


def is_temporary(file: Path) -> bool:
    """Tell whether a file is one that is being written, or was when its process was killed."""
    return file.name.startswith(".") and file.name.endswith(".part")


def _clear(file: Path) -> None:
    """Remove what killed processes of this machine have left beside a file, once it is an hour old."""
    for left in file.parent.glob(f".{_literal(file.name)}.{MACHINE}.*.part"):
        process = left.name.rsplit(".", 3)[1]
        if process.isdigit() and not _is_alive(int(process)) and _is_old(left):
            left.unlink(missing_ok=True)


def _is_old(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime > OLD
    except FileNotFoundError:
        return False


def _literal(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def refuse_taken(file: Path) -> NoReturn:
    """Raise the error for a file that exists and may not be replaced."""
    raise ConfigError(f"'{file}' exists, and was left as it is. Name another file, or replace it with --force.")


def refuse_write(file: Path, error: OSError) -> NoReturn:
    """Raise the error for a file or folder that cannot be written."""
    if isinstance(error, RunError):
        raise error
    remedy = "See whether the folder is there and may be written to."
    if error.errno in FULL:
        remedy = "Make room there, or name a place on another disk."
    elif error.errno in FORBIDDEN:
        remedy = "Name a place that you may write to, or have the permissions changed."
    raise RunError(f"'{file}' cannot be written: {(error.strerror or str(error)).lower()}. {remedy}") from error


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless they are there.

    Raises:
        RunError: if that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse_write(folder, error)


def as_json(settings: Settings) -> bytes:
    """Return settings as the content of a JSON file.

    Raises:
        RunError: if a number is infinite or NaN, which JSON does not have, or a name no text.
    """
    try:
        text = json.dumps(settings.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"
    except UnicodeEncodeError as error:
        raise RunError("A name, perhaps of a file or a folder, is no text in UTF-8: give it another name.") from error
    except ValueError as error:
        raise RunError("A figure is infinite or not a number, and a file of JSON cannot hold it.") from error


def regular(file: Path) -> Path:
    """Return a file of a run folder after a look at what it is: an ordinary file, or a link to one beside it.

    Raises:
        FileNotFoundError: if there is no such file.
        RunError: if it is a device, a pipe or a folder, or a link that leads out of its folder.
    """
    try:
        inside = file.resolve(strict=True).is_relative_to(file.parent.resolve(strict=True))
        kind = file.stat().st_mode
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise RunError(f"'{file}' cannot be read: {_reason(error)}.") from error
    if not inside:
        raise RunError(f"'{file}' is a link to a place outside of its folder, and was not followed.")
    if not stat.S_ISREG(kind):
        raise RunError(f"'{file}' is not an ordinary file, and was not opened.")
    return file


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return (text or " ".join(str(error).split()) or "for an unknown reason").lower()


def read_json(file: Path) -> Any:
    """Return what a file of JSON holds, in bounded memory and time, whoever wrote it.

    Raises:
        FileNotFoundError: if there is no such file.
        RunError: if it is no JSON, or too large, too deep, or with numbers that are too long or not finite; or no
            ordinary file.
    """
    try:
        with regular(file).open("rb") as handle:
            content = handle.read(LARGEST_JSON + 1)
    except (FileNotFoundError, RunError):
        raise
    except OSError as error:
        raise RunError(f"'{file}' cannot be read: {_reason(error)}.") from error
    return parse_json(content, file)


def parse_json(content: bytes, file: Path) -> Any:
    """Return what JSON holds, in bounded memory and time; the file it is of is for errors.

    Raises:
        RunError: if it is no JSON, or too large, too deep, or with numbers that are too long or not finite.
    """
    if len(content) > LARGEST_JSON:
        raise RunError(f"'{file}' cannot be read: it has more than {LARGEST_JSON // 2**20} MB.")
    try:
        value = json.loads(content.decode(), parse_int=_integer, parse_float=_number, parse_constant=_number)
        _check_depth(value)
    except RecursionError as error:
        raise RunError(f"'{file}' cannot be read: it is nested too deeply.") from error
    except ValueError as error:
        raise RunError(f"'{file}' cannot be read: {' '.join(str(error).split()).removesuffix('.')}.") from error
    return value


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise ValueError(f"it holds an integer of {len(digits)} digits")
    return int(digits)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds a number that is not finite, {text[:20]}")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST_JSON):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise RecursionError


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
