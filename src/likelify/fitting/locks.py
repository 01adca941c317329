"""One process at a time in a folder. A lock is gone with the process that holds it, however that ends."""

from __future__ import annotations

import fcntl
import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from likelify.errors import LikelifyWarning, RunError
from likelify.fitting.files import make_folder, refuse_write

LOCK = ".lock"
# Who only asks whether a folder is locked has it for an instant; in seconds.
ASKING = 0.1
# The locks of this process by folder and thread; a thread that has a folder gets it again.
_held: dict[tuple[Path, int], int] = {}


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Make a folder if need be, and keep out other processes and threads that lock it too.

    Where the file system has no locks, a warning says so and the block goes on without.

    Args:
        folder: the folder; in the block it holds a file `.lock`.
        wait: until another lets go of it.

    Raises:
        RunError: if another has it and this one does not wait, or the folder cannot be written to.
    """
    make_folder(folder)
    key = folder.resolve(), threading.get_ident()
    if key in _held:
        yield
        return
    handle = _held[key] = _acquire(folder / LOCK, wait=wait)
    try:
        yield
    finally:
        # A process that was forked meanwhile and leaves the block has let go already.
        if _held.pop(key, None) is not None:
            # While it is held: whoever waits for this file sees that it is not the one in the folder any more.
            with suppress(OSError):
                (folder / LOCK).unlink(missing_ok=True)
            os.close(handle)


def is_locked(folder: Path) -> bool:
    """Tell whether another process or thread is at work in a folder; nothing is written for it."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        # Those who ask do not see each other.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(handle)
    return False


def _acquire(file: Path, *, wait: bool) -> int:
    until = time.monotonic() + ASKING
    while True:
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            refuse_write(file, error)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(file)):
                return handle
        except BlockingIOError as error:
            os.close(handle)
            if time.monotonic() < until:
                time.sleep(ASKING / 10)
                continue
            raise RunError(
                f"Another process is at work in '{file.parent}'. Wait until it has ended, or end it; what it has kept "
                "by then stays there."
            ) from error
        except FileNotFoundError:
            pass
        except OSError as error:
            message = f"Nothing keeps other processes out of '{file.parent}': {(error.strerror or str(error)).lower()}."
            warnings.warn(message, LikelifyWarning, stacklevel=4)
            return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _let_go() -> None:
    """Close the locks of a process in what is forked of it: else a worker that outlives it would hold them on."""
    for handle in _held.values():
        with suppress(OSError):
            os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
