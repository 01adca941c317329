"""Pictures as other programs write them, byte by byte: what Pillow reads otherwise than it looks."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from likelify.data.pictures import Target, decode, look
from likelify.errors import DataError
from tests.data.photographs import crop

SHORT, LONG = 3, 4
LYING = struct.pack("<4sIHHHIHHI", b"II*\0", 8, 1, 0x0112, SHORT, 1, 6, 0, 0)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(pixels, depth, *, before=b"", behind=b""):
    """Return the bytes of a grey picture, with chunks before the pixels and behind them."""
    height, width = pixels.shape
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in pixels]
    else:
        bits = ((pixels[..., None] >> np.arange(depth)[::-1]) & 1).reshape(height, -1)
        rows = [np.packbits(row.astype(bool)).tobytes() for row in bits]
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + body + behind + chunk(b"IEND", b"")


def tiff(planes, bits, photometric, *, samples=1, extra=()):
    """Return the bytes of an uncompressed picture, whose samples lie together in one plane or apart in several."""
    height, width = planes[0].shape[:2]
    parts = [plane.tobytes() for plane in planes]
    starts = [8 + sum(map(len, parts[:i])) for i in range(len(parts))]
    end = 8 + sum(map(len, parts))
    tail = b""

    def values(tag, kind, numbers):
        nonlocal tail
        packed = struct.pack("<" + {SHORT: "H", LONG: "I"}[kind] * len(numbers), *numbers)
        if len(packed) <= 4:
            place = packed.ljust(4, b"\0")
        else:
            place = struct.pack("<I", end + len(tail))
            tail += packed
        return struct.pack("<HHI", tag, kind, len(numbers)) + place

    entries = [
        (256, LONG, [width]),
        (257, LONG, [height]),
        (258, SHORT, [bits] * samples),
        (259, SHORT, [1]),
        (262, SHORT, [photometric]),
        (273, LONG, starts),
        (277, SHORT, [samples]),
        (278, LONG, [height]),
        (279, LONG, [len(part) for part in parts]),
        (284, SHORT, [2 if len(parts) > 1 else 1]),
        *extra,
    ]
    directory = b"".join(values(*entry) for entry in sorted(entries))
    body = b"".join(parts) + tail
    return (
        struct.pack("<4sI", b"II*\0", 8 + len(body))
        + body
        + struct.pack("<H", len(entries))
        + directory
        + struct.pack("<I", 0)
    )


def opened(tmp_path, content, levels=256, channels=1, name="a"):
    """Return the notes of a picture, and its pixels."""
    (tmp_path / name).write_bytes(content)
    found = look(tmp_path, name)
    target = Target(channels, found.height, found.width, levels)
    return found.notes, decode(tmp_path / name, target)


@pytest.mark.parametrize("planes", [1, 3])
def test_colours_of_sixteen_bits_are_refused_however_they_lie(tmp_path, planes):
    pixels = np.arange(48, dtype="<u2").reshape(4, 4, 3) * 1300
    parts = [pixels] if planes == 1 else [np.ascontiguousarray(pixels[..., i]) for i in range(3)]
    with pytest.raises(DataError, match="more than 8 bits for each of several channels"):
        opened(tmp_path, tiff(parts, 16, 2, samples=3), channels=3)


def test_colours_in_planes_are_those_of_the_file(tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    parts = [np.ascontiguousarray(pixels[..., i]) for i in range(3)]
    _, found = opened(tmp_path, tiff(parts, 8, 2, samples=3), channels=3)
    assert np.array_equal(found, pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(("bits", "levels"), [(8, 256), (16, 65536)])
def test_where_zero_is_white_pixels_are_turned_at_all_depths(tmp_path, bits, levels):
    pixels = np.array([[0, 10], [200, 2**bits - 1]], dtype=f"<u{bits // 8}")
    _, found = opened(tmp_path, tiff([pixels], bits, 0), levels)
    assert np.array_equal(found[0], levels - 1 - pixels.astype(int))
    _, found = opened(tmp_path, tiff([pixels], bits, 1), levels)
    assert np.array_equal(found[0], pixels)


@pytest.mark.parametrize("kind", [1, 2])
def test_grey_with_alpha_lies_on_white_whichever_kind_of_alpha_it_is(tmp_path, kind):
    pixels = np.array([[[10, 255], [0, 0]]], dtype=np.uint8)
    notes, found = opened(tmp_path, tiff([pixels], 8, 1, samples=2, extra=[(338, SHORT, [kind])]))
    assert notes == ("alpha",)
    assert found[0].tolist() == [[10, 255]]


@pytest.mark.parametrize(("depth", "levels"), [(1, 2), (2, 256), (4, 256), (8, 256), (16, 65536)])
def test_the_level_that_is_transparent_is_white(tmp_path, depth, levels):
    pixels = np.array([[0, 1, 2**depth - 1]])
    level = chunk(b"tRNS", struct.pack(">H", 0 if depth == 1 else 1))
    notes, found = opened(tmp_path, png(pixels, depth, before=level), levels)
    assert notes == ("alpha",)
    white = levels - 1
    assert found[0].tolist() == [[white, white, white] if depth == 1 else [0, white, white]]


@pytest.mark.parametrize("size", [(64, 64), (32, 128)])
def test_a_look_and_the_pixels_agree_on_what_stands_behind_the_pixels(tmp_path, size):
    pixels = np.arange(size[0] * size[1]).reshape(size) % 251
    notes, found = opened(tmp_path, png(pixels, 8, behind=chunk(b"eXIf", LYING)))
    assert notes == ()
    assert np.array_equal(found[0], pixels)
    notes, found = opened(tmp_path, png(pixels, 8, before=chunk(b"eXIf", LYING)))
    assert notes == ("turned",)
    assert np.array_equal(found[0], np.rot90(pixels, -1))


@pytest.mark.parametrize("settings", [{"big_tiff": True}, {}])
def test_pictures_that_differ_in_the_middle_are_not_taken_for_copies(tmp_path, settings):
    numbers = np.random.default_rng(0)
    first = numbers.integers(0, 256, (400, 400)).astype(np.uint8)
    digests = set()
    for _ in range(3):
        changed = first.copy()
        changed[60:170] = numbers.integers(0, 256, (110, 400))
        Image.fromarray(changed).save(tmp_path / "a.tif", **settings)
        digests.add(look(tmp_path, "a.tif").digest)
    assert len(digests) == 3


@pytest.mark.parametrize(("name", "settings"), [("a.jpg", {"quality": 90}), ("a.webp", {"lossless": True})])
def test_compressed_pictures_of_the_same_size_are_told_apart(tmp_path, name, settings):
    noise = np.asarray(crop(np.random.default_rng(0), 300, 300)).copy()
    noise += np.random.default_rng(1).integers(0, 60, noise.shape).astype(np.uint8)
    found = []
    for level in (150, 106):
        changed = noise.copy()
        changed[130:160, 40:260] = level
        Image.fromarray(changed).save(tmp_path / name, **settings)
        found.append(look(tmp_path, name))
    assert found[0].digest != found[1].digest
