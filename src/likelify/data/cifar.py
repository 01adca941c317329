"""CIFAR-10 from the files of its authors, without running the pickles they come in."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from likelify.data.inert_pickle import Name, PickledCall, read_plain
from likelify.data.limits import TROUBLE, reading
from likelify.data.source import CLASSES, Source, hold_out
from likelify.data.tar import members
from likelify.data.unpacking import opened, read_up_to
from likelify.errors import DataError

TRAINING = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
FOLDERS = ("", "cifar-10-batches-py", "cifar-10-batches-bin")
ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")
SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
# The files of the authors have 31 MB, their archives 186; what is far larger is another file.
LARGEST, LARGEST_ARCHIVE = 2**26, 2**29
HINT = (
    "Get cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and name it, or a folder that holds "
    "it or its unpacked files: 'cifar-10:PLACE'."
)
# What a pickled array of bytes names; numpy's modules moved over the years.
RECONSTRUCT = [Name(module, "_reconstruct") for module in ("numpy.core.multiarray", "numpy._core.multiarray")]
DTYPE = Name("numpy", "dtype")
BYTE_KINDS = ("u1", "|u1")


def cifar10(place: str | Path) -> Source:
    """Return CIFAR-10: 32x32 colour images, 256 levels, 10 classes.

    Both versions of the files are read, the one for Python (`data_batch_1`, ...) and the binary one
    (`data_batch_1.bin`, ...), unpacked or straight from the archive. Pickles are read by `inert_pickle`, which runs
    nothing. The five training files are cut into training and validation by `hold_out`; the test file is the test
    split.

    Args:
        place: a folder with the files or with an archive, or an archive.

    Raises:
        DataError: if files are missing, damaged or of another data set.
    """
    place = Path(place)
    batches = {name: _batch(name, content) for name, content in _files(place)}
    missing = [name for name in (*TRAINING, TEST) if name not in batches]
    if missing:
        raise DataError(f"cifar-10: '{place}' lacks {', '.join(missing)}. {HINT}")
    events, labels = (np.concatenate([batches[name][part] for name in (*TRAINING, TEST)]) for part in (0, 1))
    name, test = f"cifar-10:{place.resolve()}", len(batches[TEST][0])
    return hold_out(name, events, labels, test, "32x32 colours, 256 levels")


def _files(place: Path) -> Iterator[tuple[str, bytes]]:
    """Find the batches; return the name of each, without an ending but for `.bin`, and its content."""
    for ending, folder in product(("", ".bin"), FOLDERS):
        paths = {name: place / folder / f"{name}{ending}" for name in (*TRAINING, TEST)}
        if paths[TRAINING[0]].is_file():
            yield from ((name, _content(path)) for name, path in paths.items() if path.is_file())
            return
    for archive in (place, *(place / name for name in ARCHIVES)):
        if archive.is_file():
            yield from _from_archive(archive)
            return
    what = "There is no file or folder" if not place.exists() else "No such file is in"
    raise DataError(f"cifar-10 needs {TRAINING[0]}, {TRAINING[0]}.bin or {ARCHIVES[0]}. {what} '{place}'. {HINT}")


def _content(path: Path) -> bytes:
    if path.stat().st_size > LARGEST:
        raise DataError(f"'{path}' has {path.stat().st_size} bytes; a batch of CIFAR-10 has 31 million.")
    with reading(path, "a batch of CIFAR-10"):
        return path.read_bytes()


def _from_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """Read the batches out of an archive; nothing is unpacked to the disk."""
    wanted = {f"{name}{ending}": name for name in (*TRAINING, TEST) for ending in ("", ".bin")}
    with reading(path, "a .tar.gz archive"), opened(path) as handle:
        for member in members(handle, str(path), LARGEST_ARCHIVE):
            name = wanted.pop(member.name, None)
            if name is None:
                continue
            if member.size > LARGEST:
                raise DataError(f"'{member.name}' in '{path}' has {member.size} bytes: not a batch of CIFAR-10.")
            yield name, bytes(read_up_to(member.content, member.size))


def _batch(name: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return images `(n, 3, 32, 32)` and labels `(n,)` of a batch of either version."""
    # A pickle of the authors starts with the instruction PROTO, a binary record with a label 0..9.
    images, labels = _from_pickle(name, content) if content[:1] == b"\x80" else _from_records(name, content)
    if len(labels) == 0 or labels.max() >= CLASSES:
        raise DataError(
            f"'{name}' holds {len(labels)} labels up to {labels.max(initial=0)}; CIFAR-10 has 0..{CLASSES - 1}."
        )
    return images.reshape(-1, *SHAPE), labels


def _from_records(name: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    if len(content) % (PIXELS + 1) or not content:
        raise DataError(
            f"'{name}' is not a batch of CIFAR-10: it is no pickle, and its {len(content)} bytes are not a multiple of "
            f"{PIXELS + 1}, a label and {PIXELS} pixels. It is cut off or another file."
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, PIXELS + 1)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _from_pickle(name: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    found = read_plain(content, name)
    entries = {_text(key): value for key, value in found.items()} if isinstance(found, dict) else {}
    if "fine_labels" in entries:
        raise DataError(f"'{name}' is of CIFAR-100, not of CIFAR-10.")
    if not {"data", "labels"} <= set(entries):
        raise DataError(f"'{name}' is not a batch of CIFAR-10: it has no entries 'data' and 'labels'.")
    title = _text(entries.get("batch_label"))
    if title and title.startswith("testing") != (name == TEST):
        raise DataError(f"'{name}' calls itself '{title[:40]}': the files are mixed up.")
    images, labels = _array(name, entries["data"]), entries["labels"]
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise DataError(f"The labels in '{name}' are not a list of whole numbers.")
    if len(images) != len(labels):
        raise DataError(f"'{name}' has {len(images)} images and {len(labels)} labels.")
    return images, np.array(labels, dtype=np.int64)


def _array(name: str, made: Any) -> np.ndarray:
    """Return the array of bytes that a pickle describes: shape, kind of number, order, content."""
    try:
        if not isinstance(made, PickledCall) or made.function not in RECONSTRUCT:
            raise ValueError("no array")
        _, (count, pixels), kind, fortran, content = made.state
        if kind.function != DTYPE or kind.arguments[0] not in BYTE_KINDS or fortran or pixels != PIXELS:
            raise ValueError("another kind, order or shape")
        return np.frombuffer(_bytes(content), dtype=np.uint8).reshape(count, PIXELS)
    except TROUBLE as error:
        raise DataError(
            f"The pixels in '{name}' are not a numpy array of bytes of shape (n, {PIXELS}) ({error}); the file is "
            "damaged or another one."
        ) from error


def _bytes(content: Any) -> Any:
    """Return the bytes of a text of Python 2, or of bytes as old protocols of Python 3 spell them; else the value."""
    if isinstance(content, PickledCall) and content.function == Name("_codecs", "encode"):
        content = content.arguments[0]
    return content.encode("latin-1") if isinstance(content, str) else content


def _text(key: Any) -> str:
    """Return a name as text of one character per byte, or nothing if it is none."""
    try:
        return _bytes(key).decode("latin-1")
    except TROUBLE:
        return ""
