"""What a file may cost: how much is read of it, and errors that name it whatever goes wrong inside."""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from tokenize import TokenError
from zipfile import BadZipFile

from likelify.errors import DataError, LikelifyError

# A larger value has no square that float64 can carry, and no scale of a column can be computed from it.
LARGEST_VALUE = 1e150
# What to do about values that are missing or infinite.
REMEDY = "Fill such values in or drop their rows before fitting."
# Text without an end of line, and a line of more cells, are not rows of a table.
LONGEST_LINE = 2**21
MOST_COLUMNS = 2**16
# A table of 10 million rows of 8 columns is read without asking; what is larger is read where the user says so.
MOST_VALUES = 2**27
VARIABLE = "LIKELIFY_MAX_VALUES"
# Numbers shrink to a third when they are packed, the pixels of drawings to a tenth, bombs to a thousandth.
MOST_SHRINKING, FREE = 30, 2**25
# What a reader of damaged content can stumble over: text, numbers, packing, structure, size.
TROUBLE = (
    *(ValueError, LookupError, TypeError, ArithmeticError, AttributeError, SyntaxError, TokenError),
    *(OSError, EOFError, zlib.error, struct.error, MemoryError, RecursionError, BadZipFile, NotImplementedError),
)


@contextmanager
def reading(path: object, what: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into a `DataError` that names the file and what it should have been.

    Args:
        path: of the file, or whatever names it.
        what: the kind of file, `"a numpy file of numbers"`.

    Raises:
        DataError: for any error of reading; errors of likelify pass as they are.
    """
    try:
        yield
    except LikelifyError:
        raise
    except MemoryError as error:
        raise DataError(f"'{path}' needs more memory than there is.") from error
    except TROUBLE as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"'{path}' cannot be read: {error.strerror}.") from error
        raise DataError(f"'{path}' is not {what}, or is damaged or cut off: {_brief(error)}.") from error


def require_values(name: str, count: int) -> None:
    """Refuse a table of more values than are read without asking.

    Args:
        name: of the table, for the error: the path of a file in quotes.
        count: of its values.

    Raises:
        DataError: if there are more than `LIKELIFY_MAX_VALUES` of the environment, by default 2^27.
    """
    most = most_values()
    if count > most:
        raise DataError(
            f"{name} holds more than {most:,} values, which take {8 * most / 2**30:.1f} GiB. If this is meant and "
            f"there is memory for it several times over, set {VARIABLE} in the environment to the number of values."
        )


def most_values() -> int:
    """Return how many values a table may have.

    Raises:
        DataError: if the variable of the environment is no whole number above zero.
    """
    given = os.environ.get(VARIABLE, str(MOST_VALUES))
    if not (given.isascii() and given.isdigit() and len(given) < 19 and int(given)):
        raise DataError(f"{VARIABLE} must be a whole number of values above 0, got '{given}'.")
    return int(given)


def _brief(error: BaseException) -> str:
    """Return the first line of what an error says, which can quote a file at length."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
    return "".join(letter if letter.isprintable() else "?" for letter in said)
