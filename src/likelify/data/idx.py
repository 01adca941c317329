"""MNIST and Fashion-MNIST from their IDX files, packed by gzip or not."""

import math
from pathlib import Path

import numpy as np

from likelify.data.limits import reading
from likelify.data.source import CLASSES, Source, hold_out
from likelify.data.unpacking import opened, read_up_to
from likelify.errors import DataError

# Where Debian's package dataset-fashion-mnist puts the four files.
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
UNSIGNED_BYTE = 8
# Twenty times MNIST; the files of larger sets of this layout (EMNIST) have half of it.
LARGEST = 2**30
FILES = {
    "training images": "train-images-idx3-ubyte",
    "training labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}


def fashion_mnist(folder: str | Path | None = None) -> Source:
    """Return Zalando's Fashion-MNIST: 28x28, 256 grey levels, 10 classes.

    Args:
        folder: with the four IDX files; by default that of Debian's package `dataset-fashion-mnist`.

    Raises:
        DataError: if files are missing or damaged; see `idx_source`.
    """
    place = DEBIAN_FASHION if folder is None else Path(folder)
    hint = "Install Debian's package dataset-fashion-mnist, or name a folder: 'fashion-mnist:FOLDER' with the four "
    hint += "files of https://github.com/zalandoresearch/fashion-mnist."
    return idx_source("fashion-mnist" if folder is None else f"fashion-mnist:{place.resolve()}", place, hint)


def mnist(folder: str | Path) -> Source:
    """Return MNIST from a folder of the user: 28x28, 256 grey levels, 10 classes.

    Raises:
        DataError: if files are missing or damaged; see `idx_source`.
    """
    place = Path(folder)
    hint = "The four files of MNIST are at https://yann.lecun.com/exdb/mnist and in many mirrors of it."
    return idx_source(f"mnist:{place.resolve()}", place, hint)


def idx_source(name: str, folder: Path, hint: str) -> Source:
    """Read the four files of a data set of MNIST's layout.

    The training files are cut into training and validation by `hold_out`; the test files are the test split.

    Args:
        name: of the source.
        folder: with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the two files `t10k-...`, each as it is or
            with `.gz` at the end; a dot for the second dash is understood too.
        hint: where to get the files, for the error if one is missing.

    Raises:
        DataError: if a file is missing, truncated or of another kind, or two do not belong together.
    """
    paths = {role: _find(folder, file, name, hint) for role, file in FILES.items()}
    train, test = (read_idx(paths[f"{part} images"], 3) for part in ("training", "test"))
    labels = {part: read_idx(paths[f"{part} labels"], 1) for part in ("training", "test")}
    for part, images in (("training", train), ("test", test)):
        _check_pair(images, labels[part], paths[f"{part} images"], paths[f"{part} labels"])
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"'{paths['training images']}' has images {_sides(train)} and '{paths['test images']}' {_sides(test)}: "
            "they are not of one data set."
        )
    images, classes = np.concatenate([train, test])[:, None], np.concatenate([labels["training"], labels["test"]])
    return hold_out(name, images, classes, len(test), f"{_sides(train)}, 256 grey levels")


def read_idx(path: str | Path, axes: int) -> np.ndarray:
    """Read a file of unsigned bytes in the IDX format, packed by gzip or not.

    An IDX file is two zero bytes, a byte for the kind of number (8: unsigned byte), a byte for the number of axes, the
    axes' lengths as big-endian 32-bit integers, and the values. Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST
    database of handwritten digits".

    Args:
        path: of the file.
        axes: that it must have.

    Returns:
        An array of `uint8`.

    Raises:
        DataError: if it is something else, ends too early or too late, or holds more than 2^30 values. No more is read
            than its header announces.
    """
    path = Path(path)
    with reading(path, "an IDX file"), opened(path) as handle:
        shape = _shape(bytes(read_up_to(handle, 4 + 4 * axes)), path, axes)
        size = math.prod(shape)
        content = read_up_to(handle, min(size, LARGEST) + 1)
    if len(content) > LARGEST:
        raise DataError(f"'{path}' holds more than {LARGEST} values, which is more than is read.")
    if len(content) != size:
        has = "more" if len(content) > size else f"only {len(content)}"
        raise DataError(
            f"'{path}' announces {_times(shape)} = {size} values and holds {has}: it is cut off or damaged. Download "
            "it again."
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _find(folder: Path, file: str, name: str, hint: str) -> Path:
    """Return the path of a file, in whichever of its usual names is there."""
    for candidate in (f"{stem}{end}" for stem in (file, file.replace("-idx", ".idx")) for end in ("", ".gz")):
        if (folder / candidate).is_file():
            return folder / candidate
    what = "There is no folder" if not folder.is_dir() else "Nothing of that name is in"
    raise DataError(f"{name.partition(':')[0]} needs the file {file} or {file}.gz. {what} '{folder}'. {hint}")


def _shape(header: bytes, path: Path, axes: int) -> tuple[int, ...]:
    if len(header) < 4 or header[:2] != b"\0\0":
        raise DataError(f"'{path}' is not an IDX file: it starts with {header[:4]!r}, not with two zero bytes.")
    kind, found = header[2], header[3]
    if kind != UNSIGNED_BYTE or found != axes:
        raise DataError(
            f"'{path}' is an IDX file of another kind: number kind {kind} with {found} axes; expected unsigned bytes "
            f"({UNSIGNED_BYTE}) with {axes}. Perhaps images and labels are exchanged."
        )
    if len(header) < 4 + 4 * axes:
        raise DataError(f"'{path}' ends inside its header: it is cut off. Download it again.")
    shape = tuple(int(n) for n in np.frombuffer(header, dtype=">u4", offset=4))
    if 0 in shape:
        raise DataError(f"'{path}' holds nothing: its header says {_times(shape)}.")
    return shape


def _check_pair(images: np.ndarray, labels: np.ndarray, image_path: Path, label_path: Path) -> None:
    if len(images) != len(labels):
        raise DataError(
            f"'{image_path}' has {len(images)} images and '{label_path}' {len(labels)} labels: they do not belong "
            "together."
        )
    if labels.max() >= CLASSES:
        raise DataError(f"'{label_path}' holds the label {labels.max()}; labels of this data set are 0..{CLASSES - 1}.")


def _sides(images: np.ndarray) -> str:
    return f"{images.shape[1]}x{images.shape[2]}"


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
