import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from likelify.data.pictures import HASHED_PART, HASHED_WHOLE, Target, content_digest, decode, kept_box, look
from likelify.errors import DataError
from tests.data.photographs import crop, save

RNG = np.random.default_rng(0)
PHOTO = crop(RNG, 40, 60)
COLOURS = Target(3, 40, 60, 256)


def written(tmp_path, image, name="a.png", **settings):
    save(image, tmp_path / name, **settings)
    return tmp_path / name


def seen(tmp_path, name="a.png"):
    found = look(tmp_path, name)
    return (found.height, found.width), found.form, found.notes


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.bmp", "a.webp"])
def test_pixels_of_the_size_are_those_of_the_file(tmp_path, name):
    path = written(tmp_path, PHOTO, name, **({"lossless": True} if name == "a.webp" else {}))
    assert np.array_equal(decode(path, COLOURS), np.asarray(PHOTO).transpose(2, 0, 1))
    assert seen(tmp_path, name) == ((40, 60), "colour", ())


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossy = {"a.jpg": {"quality": 100, "subsampling": 0}, "a.webp": {"lossless": True}}
    path = written(tmp_path, PHOTO, name, exif=exif, **lossy.get(name, {}))
    array = np.asarray(PHOTO)
    upright = {
        1: array,
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        5: array.transpose(1, 0, 2),
        6: array.transpose(1, 0, 2)[:, ::-1],
        7: array.transpose(1, 0, 2)[::-1, ::-1],
        8: array.transpose(1, 0, 2)[::-1],
    }[orientation]
    size, _, notes = seen(tmp_path, name)
    assert size == upright.shape[:2]
    assert notes == (() if orientation == 1 else ("turned",))
    pixels = decode(path, Target(3, *size, 256)).transpose(1, 2, 0)
    assert np.abs(pixels.astype(int) - upright).mean() < 3


def test_what_exif_cannot_say_turns_nothing(tmp_path):
    path = written(tmp_path, PHOTO, "a.jpg", orientation=6)
    content = path.read_bytes()
    start = content.index(b"Exif\0\0")
    path.write_bytes(content[: start + 6] + b"\xff" * 8 + content[start + 14 :])
    assert seen(tmp_path, "a.jpg")[0] == (40, 60)
    assert decode(path, COLOURS).shape == (3, 40, 60)


def test_grey_is_one_channel_or_three_equal_ones(tmp_path):
    grey = PHOTO.convert("L")
    path = written(tmp_path, grey)
    assert seen(tmp_path) == ((40, 60), "grey", ())
    assert np.array_equal(decode(path, Target(1, 40, 60, 256))[0], np.asarray(grey))
    assert np.array_equal(decode(path, COLOURS), np.stack([np.asarray(grey)] * 3))


@pytest.mark.parametrize("image", [PHOTO.convert("L").convert("RGB"), PHOTO.convert("L").convert("RGBA")])
def test_colours_with_equal_channels_are_grey_where_that_is_wanted(tmp_path, image):
    path = written(tmp_path, image)
    assert np.array_equal(decode(path, Target(1, 40, 60, 256))[0], np.asarray(PHOTO.convert("L")))
    with pytest.raises(DataError, match="is in colours, where grey pictures are wanted"):
        decode(written(tmp_path, PHOTO), Target(1, 40, 60, 256))


def test_palettes_are_what_their_colours_are(tmp_path):
    palette = PHOTO.quantize(16)
    path = written(tmp_path, palette)
    assert seen(tmp_path)[1] == "colour"
    assert np.array_equal(decode(path, COLOURS), np.asarray(palette.convert("RGB")).transpose(2, 0, 1))
    greys = Image.fromarray(RNG.integers(4, size=(40, 60)).astype(np.uint8), "P")
    greys.putpalette([level for grey in (10, 200, 30, 250) for level in (grey,) * 3])
    path = written(tmp_path, greys)
    assert seen(tmp_path)[1] == "grey"
    assert set(np.unique(decode(path, Target(1, 40, 60, 256)))) == {10, 30, 200, 250}


def test_what_is_transparent_is_white(tmp_path):
    clear = PHOTO.convert("RGBA")
    clear.putalpha(Image.fromarray(np.repeat([[0, 255, 51]], 40, 0).repeat(20, 1).astype(np.uint8)))
    pixels = decode(written(tmp_path, clear), COLOURS)
    photo = np.asarray(PHOTO).transpose(2, 0, 1).astype(float)
    assert seen(tmp_path)[2] == ("alpha",)
    assert (pixels[:, :, :20] == 255).all()
    assert np.array_equal(pixels[:, :, 20:40], photo[:, :, 20:40])
    assert np.abs(pixels[:, :, 40:] - (0.2 * photo[:, :, 40:] + 0.8 * 255)).max() <= 1
    palette = PHOTO.quantize(8)
    written(tmp_path, palette, transparency=0)
    assert seen(tmp_path)[2] == ("alpha",)
    assert (decode(tmp_path / "a.png", COLOURS)[:, np.asarray(palette) == 0] == 255).all()


def test_black_and_white_has_two_levels_or_those_of_grey(tmp_path):
    bits = PHOTO.convert("1")
    path = written(tmp_path, bits)
    assert seen(tmp_path)[1] == "bits"
    assert np.array_equal(decode(path, Target(1, 40, 60, 2))[0], np.asarray(bits))
    assert np.array_equal(decode(path, Target(1, 40, 60, 256))[0], 255 * np.asarray(bits).astype(int))
    assert decode(path, Target(1, 20, 30, 256)).max() <= 255
    with pytest.raises(DataError, match="black and white cannot be reduced"):
        decode(path, Target(1, 20, 30, 2))
    with pytest.raises(DataError, match="is grey, where black and white are wanted"):
        decode(written(tmp_path, PHOTO.convert("L")), Target(1, 40, 60, 2))


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_sixteen_bits_of_grey_are_kept(tmp_path, name):
    values = RNG.integers(65536, size=(40, 60)).astype(np.uint16)
    path = written(tmp_path, Image.fromarray(values), name)
    assert seen(tmp_path, name)[1] == "deep"
    items = decode(path, Target(1, 40, 60, 65536))
    assert items.dtype == np.int32
    assert np.array_equal(items[0], values)
    means = values.reshape(20, 2, 30, 2).mean((1, 3))
    assert np.abs(decode(path, Target(1, 20, 30, 65536))[0] - means).max() <= 0.51
    with pytest.raises(DataError, match="has 16 bits a pixel, where 8 bits are wanted"):
        decode(path, COLOURS)


def colours_of_sixteen_bits(path):
    """Write a PNG of 2x2 colours with 16 bits each, which Pillow cannot write."""

    def chunk(kind, content):
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    rows = b"".join(b"\0" + bytes(12) for _ in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def test_what_would_be_cut_off_in_silence_is_refused_by_name(tmp_path):
    colours_of_sixteen_bits(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png' has more than 8 bits for each of several channels"):
        look(tmp_path, "deep.png")
    Image.fromarray(RNG.normal(size=(4, 4)).astype(np.float32)).save(tmp_path / "real.tiff")
    with pytest.raises(DataError, match=r"real\.tiff' has pixels of the mode F of Pillow"):
        look(tmp_path, "real.tiff")


def test_cmyk_is_converted_and_of_several_frames_the_first_is_taken(tmp_path):
    written(tmp_path, PHOTO.convert("CMYK"), "a.jpg", quality=95)
    assert seen(tmp_path, "a.jpg")[1:] == ("colour", ("cmyk",))
    assert np.abs(decode(tmp_path / "a.jpg", COLOURS) - np.asarray(PHOTO).transpose(2, 0, 1).astype(int)).mean() < 5
    other = Image.new("RGB", PHOTO.size, "red")
    for name in ("a.gif", "b.webp", "b.tiff", "b.png"):
        settings = {"lossless": True} if name == "b.webp" else {}
        PHOTO.save(tmp_path / name, save_all=True, append_images=[other], **settings)
        assert "frames" in seen(tmp_path, name)[2], name
        assert np.abs(decode(tmp_path / name, COLOURS) - np.asarray(PHOTO).transpose(2, 0, 1).astype(int)).mean() < 6


def test_reducing_takes_means_over_areas(tmp_path):
    path = written(tmp_path, PHOTO)
    means = np.asarray(PHOTO).reshape(20, 2, 30, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(decode(path, Target(3, 20, 30, 256)) - means).max() <= 0.51
    middle = np.asarray(PHOTO)[:, 10:50].reshape(10, 4, 10, 4, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(decode(path, Target(3, 10, 10, 256)) - middle).max() <= 1
    whole = np.asarray(PHOTO).reshape(10, 4, 10, 6, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(decode(path, Target(3, 10, 10, 256, "stretch")) - whole).max() <= 1


def test_large_jpeg_files_are_reduced_as_any_others(tmp_path):
    photo = crop(RNG, 400, 600)
    exact = decode(written(tmp_path, photo), Target(3, 16, 16, 256)).astype(int)
    drafted = decode(written(tmp_path, photo, "a.jpg", quality=95), Target(3, 16, 16, 256))
    assert np.abs(exact - drafted).max() <= 8
    assert np.abs(exact - drafted).mean() < 1.5


@pytest.mark.parametrize(("width", "height"), [(640, 427), (33, 1000), (32, 48), (7919, 6007)])
@pytest.mark.parametrize("target", [Target(3, 32, 32, 256), Target(3, 32, 48, 256), Target(1, 5, 3, 256)])
def test_what_is_kept_lies_inside_in_the_middle_and_has_the_aspect(width, height, target):
    left, top, right, bottom = kept_box(width, height, target)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert (right - left) * target.height == pytest.approx((bottom - top) * target.width)
    assert (left + right, top + bottom) == (pytest.approx(width), pytest.approx(height))
    assert min(left, top) == pytest.approx(0)


def test_pictures_are_never_enlarged(tmp_path):
    with pytest.raises(DataError, match="has 40x60 pixels, and would have to be enlarged to 41x10"):
        decode(written(tmp_path, PHOTO), Target(3, 41, 10, 256))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff", "a.gif", "a.bmp"])
def test_a_file_that_is_cut_off_is_named(tmp_path, name):
    path = written(tmp_path, PHOTO.convert("P") if name == "a.gif" else PHOTO, name)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    # Whatever the header says, the pixels are not there.
    with pytest.raises(DataError, match=rf"{name}' (is not a whole PNG|cannot be read)"):
        decode(path, COLOURS)


def test_what_is_no_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"a\.png' is not a whole PNG, JPEG, WebP, TIFF, GIF or BMP picture"):
        look(tmp_path, "a.png")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.png' is empty"):
        look(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png' is no ordinary file"):
        look(tmp_path, "pipe.png")
    with pytest.raises(DataError, match=r"gone\.png' cannot be read: No such file"):
        look(tmp_path, "gone.png")


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.gif", "a.webp"])
def test_a_small_file_of_very_many_pixels_is_refused_before_they_are_made(tmp_path, name):
    size = (16000, 16000) if name == "a.webp" else (40000, 40000)
    head = Image.new("1" if name != "a.webp" else "RGB", (16, 16))
    path = written(tmp_path, head, name, **({"lossless": True} if name == "a.webp" else {}))
    content = bytearray(path.read_bytes())
    if name == "a.png":
        content[16:24] = struct.pack(">II", *size)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif name == "a.gif":
        content[6:10] = struct.pack("<HH", *size)
    elif name == "a.webp":
        bits = (size[0] - 1) | (size[1] - 1) << 14
        content[21:25] = struct.pack("<I", bits)
    else:
        for tag in (256, 257):
            content = content.replace(struct.pack("<HHIHH", tag, 4, 1, 16, 0), struct.pack("<HHII", tag, 4, 1, size[0]))
            content = content.replace(
                struct.pack("<HHIHH", tag, 3, 1, 16, 0), struct.pack("<HHIHH", tag, 3, 1, 40000, 0)
            )
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"pixels; at most 67,108,864|far more pixels than the 67,108,864"):
        look(tmp_path, name)


def test_digests_tell_files_apart_by_size_beginning_middle_and_end(tmp_path):
    path = tmp_path / "a"

    def digest(content):
        path.write_bytes(content)
        with open(path, "rb") as handle:
            return content_digest(handle, len(content))

    large = bytes(2 * HASHED_WHOLE)
    spoiled = [large[:place] + b"x" + large[place + 1 :] for place in (0, len(large) // 2, len(large) - 1)]
    small = bytearray(HASHED_WHOLE)
    small[2 * HASHED_PART] = 1
    contents = [b"", b"a", b"b", bytes(HASHED_WHOLE), bytes(small), bytes(HASHED_WHOLE + 1), large, *spoiled]
    assert len({digest(content) for content in contents}) == len(contents)
    assert digest(large) == digest(large)


@pytest.mark.parametrize("start", [b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"])
def test_pixels_that_stand_in_a_file_as_they_are_all_count(start):
    plain = start + bytes(2 * HASHED_WHOLE)
    changed = bytearray(plain)
    changed[2 * HASHED_PART] = 1
    digests = [content_digest(io.BytesIO(content), len(plain)) for content in (plain, bytes(changed))]
    assert digests[0] != digests[1]
