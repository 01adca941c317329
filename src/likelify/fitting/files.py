"""Writing files so that a kill at any instant leaves the old file or the new one."""

import os
from pathlib import Path


def write_atomically(file: Path, content: bytes) -> None:
    """Replace a file's content in one instant: write beside it, force to disk, rename."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
