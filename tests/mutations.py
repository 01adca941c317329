"""Ways to spoil a file."""

import gzip
import io
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np

EXTREMES = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
NUMBERS = (b"1e200", b"-1e308", b"1e400", b"nan", b"inf", b"1e-320", b"-0", b"9" * 400, b"1,257", b"0x10", b"1_0", b"")
TOKENS = (
    *(b"\0", b"\n", b"\r", b"\r\n", b'"', b",", b";", b"\t", b"|", b" ", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1a"),
    *(b"PK\x03\x04", b"\x1f\x8b\x08\x00", b"\x93NUMPY\x01\x00", b"\x80\x04\x95", b"\x00\x00\x08\x03", b"ustar\x0000"),
    *(
        b"(",
        b"\x85",
        b"\x86",
        b"]",
        b"}",
        b"0h\x00",
        b"q\x00",
        b"R",
        b"\x93",
        b"b",
        b"u",
        b"s",
        b"e",
        b".",
        b"\x8a\xff",
    ),
    *(b"\x00" * 512, b"../../../etc/passwd", b"\x1b[2J", "\u0663\u202e".encode(), b"I" + b"9" * 5000 + b"\n"),
)
Change = Callable[[bytes, Random, list[bytes], Path], bytes]


def mutate(
    content: bytes, random: Random, others: list[bytes], canary: Path, ways: Sequence[Change] | None = None
) -> tuple[bytes, str]:
    """Spoil a content in one to three ways; return it, and the names of the ways.

    What is packed is often unpacked for it and packed again, so that what lies inside is met too.

    Args:
        content: of a valid file.
        random: what chooses.
        others: contents of valid files beside it.
        canary: a file that hostile contents try to make.
        ways: those that are taken, one after the other; by default one to three at random.
    """
    if ways is None and content[:4] == b"PK\x03\x04" and random.random() < 0.6:
        return _inside_zip(content, random, others, canary)
    inside = ways is None and content[:2] == b"\x1f\x8b" and random.random() < 0.8
    if inside:
        content = gzip.decompress(content)
    names = ["inside"] if inside else []
    count = random.choice((1, 1, 2, 3))
    for change in ways or random.choices(list(CHANGES), weights=list(CHANGES.values()), k=count):
        names.append(change.__name__)
        content = change(content, random, others, canary)
    return (gzip.compress(content, 1) if inside else content), " ".join(names)


def _inside_zip(content: bytes, random: Random, others: list[bytes], canary: Path) -> tuple[bytes, str]:
    """Spoil a member of an archive, so that the archive itself is whole."""
    stream, names = io.BytesIO(), ""
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        chosen = random.choice(old.infolist())
        for member in old.infolist():
            held = old.read(member)
            if member is chosen:
                held, names = mutate(held, random, others, canary)
            new.writestr(member.filename, held, member.compress_type)
    return stream.getvalue(), f"inside {chosen.filename} {names}"


def flip(content: bytes, random: Random, others: list[bytes], canary: Path) -> bytes:
    """Flip some bits."""
    spoiled = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8)) if spoiled else 0):
        # Half of them at the start, where the headers are.
        spoiled[random.randrange(len(spoiled) if random.random() < 0.5 else min(64, len(spoiled)))] ^= (
            1 << random.randrange(8)
        )
    return bytes(spoiled)


def truncate(content: bytes, random: Random, others: list[bytes], canary: Path) -> bytes:
    """Cut the end off."""
    return content[: random.choice((0, 1, 5, len(content) - 1, random.randrange(len(content) + 1)))]


def insert(content: bytes, random: Random, others: list[bytes], canary: Path) -> bytes:
    """Put something in."""
    place = random.randrange(len(content) + 1)
    token = random.choice((*TOKENS, random.randbytes(random.randrange(1, 40)))) * random.choice((1, 1, 1, 2, 300))
    return content[:place] + token + content[place:]


def repeat(content: bytes, random: Random, others: list[bytes], canary: Path) -> bytes:
    """Write a part several times."""
    start = random.randrange(len(content) + 1)
    part = content[start : start + random.choice((1, 10, 100, 5000))]
    return content[:start] + part * random.choice((2, 3, 50)) + content[start:]


def remove(content: bytes, random: Random, others: list[bytes], canary: Path) -> bytes:
    """Leave a part out."""
    start = random.randrange(len(content) + 1)
    return content[:start] + content[start + random.choice((1, 2, 10, 1000)) :]


def overwrite(content: bytes, random: Random, others: list[bytes], canary: Path) -> bytes:
    """Put an extreme number over some bytes."""
    width = random.choice((1, 2, 4, 8))
    number = (random.choice(EXTREMES) % 2 ** (8 * width)).to_bytes(width, random.choice(("big", "little")))
    place = random.randrange(max(1, min(len(content), random.choice((16, 200, len(content) or 1)))))
    return content[:place] + number + content[place + width :]


def renumber(content: bytes, random: Random, others: list[bytes], canary: Path) -> bytes:
    """Put another number in place of one that is written in digits."""
    places = list(re.finditer(rb"[0-9.]+", content[:20_000]))
    if not places:
        return content
    place = random.choice(places)
    return content[: place.start()] + random.choice(NUMBERS) + content[place.end() :]


def exchange(content: bytes, random: Random, others: list[bytes], canary: Path) -> bytes:
    """Take another file of the same set."""
    return random.choice(others) if others else content


def pack(content: bytes, random: Random, others: list[bytes], canary: Path) -> bytes:
    """Pack it, perhaps twice, or into an archive."""
    kind = random.randrange(4)
    if kind < 2:
        return gzip.compress(content if kind else gzip.compress(content))
    stream = io.BytesIO()
    if kind == 2:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("../data_batch_1", content)
        return stream.getvalue()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        member = tarfile.TarInfo("../../data_batch_1")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def poison(content: bytes, random: Random, others: list[bytes], canary: Path) -> bytes:
    """Put in, or take, a pickle that would make a file."""
    command = f"open({str(canary)!r}, 'w').close()".encode()
    pickles = (
        b"\x80\x02cbuiltins\nexec\nX" + struct.pack("<I", len(command)) + command + b"\x85R",
        b"\x80\x02clikelify_canary\nit\n)R",
        b"\x80\x04\x8c\x10likelify_canary\x8c\x02it\x93)R",
        b"\x80\x02(clikelify_canary\nit\no",
        b"\x80\x02(ilikelify_canary\nit\n",
        b"\x80\x02clikelify_canary\nit\n)\x81}b",
        b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR",
    )
    chosen = random.choice(pickles)
    place = random.choice((0, 2, random.randrange(len(content) + 1)))
    return random.choice((chosen + b".", content[:place] + chosen[2:] + content[place:]))


def entangle(content: bytes, random: Random, others: list[bytes], canary: Path) -> bytes:
    """Take a pickle, or put in its steps, that nests without end."""
    shared = b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * random.choice((10, 60, 3000))
    deep = b"\x80\x02)" + b"\x85" * random.choice((40, 1000, 150_000)) + b"q\x00"
    chosen = random.choice((shared, deep))
    endings = (
        b".",
        b"}h\x00K\x01s.",
        b"h\x00h\x00\x93.",
        b"}X\x06\x00\x00\x00labelsh\x00sX\x04\x00\x00\x00datah\x00s.",
    )
    return random.choice((chosen + random.choice(endings), content[:-1] + chosen[2:] + content[-1:]))


def explode(content: bytes, random: Random, others: list[bytes], canary: Path) -> bytes:
    """Let it unpack to a gigabyte, or a quarter of one in an archive."""
    if content[:4] == b"PK\x03\x04":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open("images.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(
                    member, {"descr": "|u1", "fortran_order": False, "shape": (250, 1, 1000, 1000)}
                )
                for _ in range(250):
                    member.write(bytes(10**6))
        return stream.getvalue()
    filling = random.choice((b"\0", b"\n", b"1", b"0,0\n", b"1;", b'"', b"9 9\n"))
    start = random.choice((content, b"", content[: len(content) // 2]))
    if start[:2] == b"\x1f\x8b":
        start = gzip.decompress(start) if start is content else b""
    return gzip.compress(start) + _million(filling) * 1500


def stretch(content: bytes, random: Random, others: list[bytes], canary: Path) -> bytes:
    """Put in some million bytes that are all alike."""
    place = random.randrange(len(content) + 1)
    filling = random.choice((b"\0", b"\n", b"1", b",", b"0,0\n", b'"', b"(", b"N", b"]", b"\x85"))
    return content[:place] + filling * (3_000_000 // len(filling)) + content[place:]


def _million(filling: bytes) -> bytes:
    return gzip.compress(filling * (2**20 // len(filling)))


# Each way, and how often it is taken.
CHANGES: dict[Change, float] = {
    **{flip: 6, truncate: 3, insert: 6, repeat: 4, remove: 4, overwrite: 6, renumber: 5},
    **{exchange: 1, pack: 2, poison: 3, entangle: 1, stretch: 0.15},
}
