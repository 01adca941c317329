"""The list of sources, and how a name becomes one."""

from collections.abc import Callable
from pathlib import Path

from likelify.data.cifar import cifar10
from likelify.data.idx import fashion_mnist, mnist
from likelify.data.images import digits, sample_photos
from likelify.data.source import Source
from likelify.data.tables import BUNDLED, ENDINGS, table_file
from likelify.data.uci import bsds300, gas, hepmass, miniboone, power
from likelify.errors import DataError

# Sources that need no files of the user.
SOURCES: dict[str, Callable[[], Source]] = {
    "digits": digits,
    "sample-photos": sample_photos,
    "fashion-mnist": fashion_mnist,
    **BUNDLED,
}
# Sources made of the user's files, named NAME:PLACE.
FROM_FILES: dict[str, Callable[[str | Path], Source]] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar-10": cifar10,
    "power": power,
    "gas": gas,
    "hepmass": hepmass,
    "miniboone": miniboone,
    "bsds300": bsds300,
    "table": table_file,
}


def open_source(name: str) -> Source:
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
    if name in SOURCES:
        return SOURCES[name]()
    family, colon, place = name.partition(":")
    if colon and place and family in FROM_FILES:
        return FROM_FILES[family](Path(place).expanduser())
    if family in FROM_FILES:
        raise DataError(f"'{family}' is made of your own files: say where they are, '{family}:PLACE'.")
    if name.endswith(ENDINGS):
        return table_file(Path(name).expanduser())
    if Path(name).expanduser().is_file():
        raise DataError(
            f"'{name}' is a file, but its name does not end in {', '.join(ENDINGS)}. Tables are read from CSV and NPY "
            "files; convert it, or rename it if it is one of them."
        )
    raise DataError(
        f"There is no source '{name}'; the sources are {', '.join(SOURCES)}; with files of yours "
        f"{', '.join(f'{family}:PLACE' for family in FROM_FILES if family != 'table')}; and tables, FILE.csv, FILE.npy."
    )
