"""One file with a picture: what its header says, and its pixels brought to the form that the items of a source have."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from likelify.data.limits import TROUBLE, reading
from likelify.errors import DataError, needs

if TYPE_CHECKING:
    from PIL.Image import Image

# The formats that are read, whatever the name of a file says.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")
KIND = "a whole PNG, JPEG, WebP, TIFF, GIF or BMP picture"
# Pixels that are decoded: a picture takes up to a dozen bytes for each. JPEG is decoded at a smaller size where that is
# enough, but its coefficients are read at the full one.
MOST_PIXELS, MOST_JPEG_PIXELS, MOST_BYTES = 2**26, 2**27, 2**28
# Of larger files than the first only the beginning, the middle and the end are hashed, each as long as the second.
HASHED_WHOLE, HASHED_PART = 2**18, 2**14
# How files begin whose pixels may stand there as they are: BMP, TIFF and BigTIFF.
PLAIN = (b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags of TIFF, and what the second says of pixels whose zero is white.
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
# What Pillow multiplies grey of few bits by, but not the level that a PNG declares to be transparent.
SPREAD = {"1": 255, "L;2": 85, "L;4": 17}
# How much larger than the target a picture is at least when the shares of pixels on edges are counted.
FINER = 8
# What EXIF calls the orientation, and the orientations that exchange height and width.
ORIENTATION, LYING = 0x0112, (5, 6, 7, 8)
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
COLOUR_MODES = ("RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
WHITE = (255, 255, 255, 255)

Form = Literal["bits", "grey", "deep", "colour"]
Crop = Literal["centre", "stretch"]
# Values of a pixel of each form as it is in the file.
LEVELS: dict[Form, int] = {"bits": 2, "grey": 256, "deep": 65536, "colour": 256}
FORM_WORDS: dict[Form, str] = {
    "bits": "is black and white",
    "grey": "is grey",
    "deep": "has 16 bits a pixel",
    "colour": "is in colours",
}


@dataclass(frozen=True, slots=True)
class Look:
    """What a header says, and a hash of the file.

    Attributes:
        name: path of the file below its folder, with slashes.
        format: PNG, JPEG, ...
        height: of the picture as it is shown, in pixels.
        width: likewise.
        form: what a pixel is: one bit, 8 or 16 bits of grey, or colours of 8 bits each.
        notes: what is done to it that a user would want to know: words of `NOTES`.
        bytes: size of the file.
        digest: hash of that size and of the content; see `content_digest`.
    """

    name: str
    format: str
    height: int
    width: int
    form: Form
    notes: tuple[str, ...]
    bytes: int
    digest: bytes


# What is done to some pictures, as a description says it of several.
NOTES = {
    "turned": "turned as their EXIF says",
    "alpha": "with an alpha channel laid on white",
    "cmyk": "converted from CMYK without colour profiles",
    "frames": "with several frames or pages, of which the first is taken",
}


@dataclass(frozen=True)
class Target:
    """The form that all items have.

    Attributes:
        channels: 1, or 3 of colours; grey pictures then have three equal channels.
        height: in pixels.
        width: in pixels.
        levels: values of a pixel: 2, 256 or 65536.
        crop: how a picture of another size is brought to this one: `centre` cuts off what stands out on both sides when
            the picture just covers the size, `stretch` changes its aspect.
    """

    channels: int
    height: int
    width: int
    levels: int
    crop: Crop = "centre"


@dataclass(frozen=True)
class Held:
    """A picture whose file is held in memory.

    Attributes:
        name: for errors.
        content: of the file.
    """

    name: str
    content: bytes

    def __str__(self) -> str:
        """Return the name."""
        return self.name


def look(folder: Path, name: str) -> Look:
    """Read the header of a picture in a folder; see `look_at`."""
    return look_at(folder / name, name)


def look_at(path: Path | Held, name: str) -> Look:
    """Read the header of a picture.

    Args:
        path: of its file, or what it holds.
        name: as the look has it.

    Raises:
        DataError: if it is no picture of a format that is read, or of pixels that are not; the message names the file.
    """
    with _opened(path) as (handle, image):
        width, height = image.size
        turned = _orientation(image) != 1
        # TIFF has its size after turning.
        if image.format != "TIFF" and _orientation(image) in LYING:
            width, height = height, width
        found = {
            "turned": turned,
            "alpha": _has_alpha(image),
            "cmyk": image.mode == "CMYK",
            "frames": image.format != "MPO" and bool(getattr(image, "is_animated", False)),
        }
        form, size = _form(image, path), handle.seek(0, os.SEEK_END)
        digest = content_digest(handle, size)
    notes = tuple(note for note, true in found.items() if true)
    format_name = "JPEG" if image.format == "MPO" else str(image.format)
    return Look(name, format_name, height, width, form, notes, size, digest)


def decode(path: Path | Held, target: Target) -> np.ndarray:
    """Read a picture as an item `(channels, height, width)`: bytes, or `int32` above 256 levels.

    Where the size differs, each pixel is the mean over the area that it covers, pixels on its edge counting by the
    share that lies inside, rounded. Pictures of more than sixteen times the size are first reduced by whole blocks to
    eight times or more, and JPEG files before that by their decoder, to a half, a quarter or an eighth.

    A file of colours whose channels are all equal is a grey picture, where those are wanted.

    Raises:
        DataError: if it cannot be read, would have to be enlarged, or has colours or levels that the target has not.
    """
    with _opened(path) as (_, image):
        form = _form(image, path)
        require_form(path, form, target)
        channels = 3 if form == "colour" else target.channels
        if image.format in ("JPEG", "MPO"):
            _draft(image, target)
        _require_pixels(path, *image.size)
        # Before the pixels are read, as for the look: what a PNG says behind them is not asked for.
        orientation = _orientation(image)
        _spread_transparency(image)
        image.load()
        pixels = _fitted(path, _flat(_upright(image, orientation), form, channels), target)
    pixels = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
    if target.levels == 2:
        pixels //= 255
    if channels == target.channels:
        return pixels
    if not has_equal_channels(pixels[None]):
        raise DataError(f"'{path}' is in colours, where grey pictures are wanted.")
    return pixels[:1]


def has_equal_channels(items: np.ndarray) -> bool:
    """Tell whether items `(n, 3, height, width)` are grey, for all that they have three channels."""
    return bool((items == items[:, :1]).all())


def content_digest(handle: BinaryIO, size: int) -> bytes:
    """Return 16 bytes of BLAKE2 of the size of a file and its content.

    Of files above 256 KiB the first, middle and last 16 KiB are taken, so that many photographs are known quickly: what
    is changed in a compressed picture hardly ever keeps its size and all of these. Files that may not be
    compressed, BMP and TIFF, are read to the end.
    """
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    handle.seek(0)
    if handle.read(4).startswith(PLAIN) or size <= HASHED_WHOLE:
        handle.seek(0)
        while part := handle.read(2**20):
            digest.update(part)
        return digest.digest()
    for start in (0, (size - HASHED_PART) // 2, size - HASHED_PART):
        handle.seek(start)
        digest.update(handle.read(HASHED_PART))
    return digest.digest()


@contextmanager
def _opened(path: Path | Held) -> Iterator[tuple[BinaryIO, Image]]:
    """Open a picture, of which only the header is read; whatever goes wrong in the block is a `DataError`."""
    with needs("pillow", "app"):
        from PIL import Image
    with reading(path, KIND), warnings.catch_warnings(), _file(path) as handle:
        warnings.simplefilter("ignore")
        # The decoder of WebP takes its memory when the file is opened; the others when pixels are asked for.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        start = handle.read(12)
        handle.seek(0)
        if start[:4] != b"RIFF":
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(handle, formats=FORMATS) as image:
                most = MOST_JPEG_PIXELS if image.format in ("JPEG", "MPO") else MOST_PIXELS
                _require_pixels(path, *image.size, most=most)
                yield handle, image
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(f"'{path}' has far more pixels than the {MOST_PIXELS:,} that are decoded.") from error
        except Image.UnidentifiedImageError as error:
            raise DataError(f"'{path}' is not {KIND}, or is damaged or cut off.") from error
        except RuntimeError as error:
            raise ValueError(str(error)) from error


def _file(path: Path | Held) -> BinaryIO:
    if isinstance(path, Held):
        return io.BytesIO(path.content)
    # Asked before it is opened, since opening a pipe waits for what is written to it.
    size = path.stat().st_size
    if not path.is_file() or not size:
        raise DataError(f"'{path}' is {'empty' if path.is_file() else 'no ordinary file'}.")
    if size > MOST_BYTES:
        raise DataError(f"'{path}' has {size:,} bytes; pictures of at most {MOST_BYTES:,} are read.")
    return open(path, "rb")


def _require_pixels(path: Path | Held, width: int, height: int, *, most: int = MOST_PIXELS) -> None:
    if width * height > most:
        raise DataError(f"'{path}' has {width}x{height} pixels; at most {most:,} are decoded. Reduce it first.")


def _form(image: Image, path: Path | Held) -> Form:
    """Return what a pixel of a picture is.

    Raises:
        DataError: if it is something that would be changed in silence, such as colours of 16 bits.
    """
    if image.mode in DEEP_MODES:
        return "deep"
    if len(image.getbands()) > 1 and _is_deep(image):
        raise DataError(
            f"'{path}' has more than 8 bits for each of several channels, which would be cut off. Convert it to 8 "
            "bits, or to 16 bits of grey."
        )
    if image.mode in ("1", "L", "LA", "La"):
        return "bits" if image.mode == "1" else "grey"
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return "grey" if (palette == palette[:, :1]).all() else "colour"
    if image.mode in COLOUR_MODES:
        return "colour"
    raise DataError(
        f"'{path}' has pixels of the mode {image.mode} of Pillow, whose values are no levels that are known. Convert "
        "it to 8 bits of grey or of colours, or to 16 bits of grey."
    )


def _is_deep(image: Image) -> bool:
    """Tell whether channels of more than 8 bits are cut to 8, or taken for 8, when they are read."""
    if image.format == "TIFF":
        return int(np.max(_tiff_tag(image, BITS_PER_SAMPLE, 1))) > 8
    tiles = getattr(image, "tile", None) if image.format == "PNG" else None
    return any(bits in str(tiles[0][3]) for bits in (";16", ";32", ";64")) if tiles else False


def require_form(path: Path | Held, form: Form, target: Target) -> None:
    """Refuse a picture whose pixels the target cannot hold.

    Raises:
        DataError: naming it, and what is wanted.
    """
    if target.levels == 256 and form != "deep":
        return
    if LEVELS[form] != target.levels:
        wanted = {2: "black and white", 256: "8 bits", 65536: "16 bits of grey"}
        raise DataError(f"'{path}' {FORM_WORDS[form]}, where {wanted[target.levels]} are wanted.")


def _orientation(image: Image) -> int:
    """Return how EXIF says that a picture is to be turned; 1 is not at all, also where it cannot be read."""
    if image.format in ("PNG", "GIF", "BMP") and "exif" not in image.info:
        # Pillow would decode a PNG to look behind its pixels.
        return 1
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except TROUBLE:
        return 1
    return found if found in range(1, 9) else 1


def _tiff_tag(image: Image, tag: int, otherwise: int) -> Any:
    return image.tag_v2.get(tag, otherwise)  # pyright: ignore[reportAttributeAccessIssue]


def _spread_transparency(image: Image) -> None:
    """Bring the level that is transparent to the range of the pixels."""
    tiles, level = getattr(image, "tile", None), image.info.get("transparency")
    if image.format == "PNG" and tiles and isinstance(level, int):
        image.info["transparency"] = level * SPREAD.get(str(tiles[0][3]), 1)


def _upright(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose

    if image.format == "TIFF":
        # Pillow has turned it.
        return image
    methods = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(methods[orientation]) if orientation in methods else image


def _has_alpha(image: Image) -> bool:
    return image.mode in ALPHA_MODES or "transparency" in image.info


def _draft(image: Image, target: Target) -> None:
    """Let a JPEG be decoded at a size that is still much finer than what is needed."""
    height, width = target.height, target.width
    if _orientation(image) in LYING:
        height, width = width, height
    image.draft(image.mode, (FINER * width, FINER * height))


def _flat(image: Image, form: Form, channels: int) -> Image:
    """Return a picture of one channel or of three, without transparency."""
    from PIL import Image as pillow

    if form == "deep":
        return _deep(image)
    if image.mode == "La":
        image = image.convert("LA")
    if _has_alpha(image):
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, WHITE), image)
    # By way of colours, since a palette of greys is no grey yet.
    image = image.convert("RGB") if image.mode in ("P", "PA") else image
    return image.convert("L" if channels == 1 else "RGB")


def _deep(image: Image) -> Image:
    """Return grey of 16 bits with white for what is transparent, and with black as zero."""
    from PIL import Image as pillow

    level = image.info.get("transparency")
    inverted = image.format == "TIFF" and _tiff_tag(image, PHOTOMETRIC, 1) == WHITE_IS_ZERO
    if not inverted and not isinstance(level, int):
        return image
    pixels = np.array(image).astype(np.uint16)
    pixels[pixels == level] = 65535
    return pillow.fromarray(65535 - pixels if inverted else pixels)


def _fitted(path: Path | Held, image: Image, target: Target) -> np.ndarray:
    """Return the pixels `(height, width)` or `(height, width, 3)` of a picture at the size of the target."""
    dtype = np.int32 if target.levels > 256 else np.uint8
    if image.size == (target.width, target.height):
        return np.array(image).astype(dtype)
    if target.levels == 2:
        raise DataError(f"'{path}' has another size than the others; black and white cannot be reduced.")
    if image.width < target.width or image.height < target.height:
        wanted = f"{target.height}x{target.width}"
        raise DataError(f"'{path}' has {image.height}x{image.width} pixels, and would have to be enlarged to {wanted}.")
    box = np.array(kept_box(image.width, image.height, target))
    left, top = np.floor(box[:2]).astype(int).tolist()
    image = image.crop((left, top, *np.ceil(box[2:]).astype(int).tolist()))
    box -= (left, top, left, top)
    # Whole blocks first, which is fast, down to a size at which the shares of pixels on edges are still small.
    block = int(min((box[2] - box[0]) / target.width, (box[3] - box[1]) / target.height) / FINER)
    if block > 1 and target.levels == 256:
        image, box = image.reduce(block), box / block
    pixels = np.asarray(image).astype(np.float32 if target.levels == 256 else np.float64)
    rows = coverage(pixels.shape[0], box[1], box[3], target.height).astype(pixels.dtype)
    columns = coverage(pixels.shape[1], box[0], box[2], target.width).astype(pixels.dtype)
    reduced = np.tensordot(rows, pixels, 1)
    return np.rint(columns @ reduced if reduced.ndim == 3 else reduced @ columns.T).astype(dtype)


def coverage(length: int, start: float, stop: float, parts: int) -> np.ndarray:
    """Return the matrix `(parts, length)` that averages over equal parts of the line from `start` to `stop`.

    Pixel `i` is `[i, i + 1)`; an entry is the share of a part that lies in the pixel.
    """
    edges = np.linspace(start, stop, parts + 1)
    pixels = np.arange(length)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shared = shared.clip(0)
    return shared / shared.sum(1, keepdims=True)


def kept_box(width: int, height: int, target: Target) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of what is kept of a picture of some size."""
    if target.crop == "stretch":
        return (0.0, 0.0, float(width), float(height))
    scale = min(width / target.width, height / target.height)
    left, top = (width - scale * target.width) / 2, (height - scale * target.height) / 2
    # Rounding must not leave the picture.
    return (max(left, 0.0), max(top, 0.0), min(width - left, float(width)), min(height - top, float(height)))
