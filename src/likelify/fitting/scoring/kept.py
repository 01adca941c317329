"""Numbers that are kept in a run so that they need not be computed again, with all that they depend on."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np

from likelify.errors import LikelifyWarning, RunError
from likelify.fitting.files import make_folder, regular, write_atomically

FOLDER, ABOUT, NAME = "scores", "likelify.about", "values"
# Of a file beside its numbers, in bytes.
LARGEST_HEADER = 2**16


def read_numbers(file: Path, about: str, shape: tuple[int, ...], *, holes: bool = False) -> np.ndarray | None:
    """Return the numbers of a file if they are those that are meant, else None: they can be made again.

    Args:
        file: of safetensors.
        about: all that the numbers depend on, as it was given to `keep_numbers`.
        shape: that they must have.
        holes: NaN may be among them.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if regular(file).stat().st_size > LARGEST_HEADER + 8 * math.prod(shape):
            return None
        with safe_open(file, framework="numpy") as content:
            if (content.metadata() or {}).get(ABOUT) != about:
                return None
            values = content.get_tensor(NAME)
    except (OSError, RunError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    usual = values.dtype == np.float64 and values.shape == shape and (holes or not np.isnan(values).any())
    return values if usual else None


def keep_numbers(file: Path, values: np.ndarray, about: str) -> None:
    """Write numbers in float64 with all that they depend on.

    Warns:
        LikelifyWarning: if they cannot be written.
    """
    from safetensors.numpy import save

    try:
        make_folder(file.parent)
        content = save({NAME: np.ascontiguousarray(values, dtype=np.float64)}, metadata={ABOUT: about})
        write_atomically(file, content)
    except RunError as error:
        warnings.warn(f"What scoring needs was not kept in the run. {error}", LikelifyWarning, stacklevel=4)
