"""Emoji as a folder of pictures: flat colours and sharp edges, the opposite of photographs.

    python -m benchmarks.emoji
    likelify fit ~/.cache/likelify/benchmarks/emoji-datasource-google-16.0.0 --image-size 32

The archive `emoji-datasource-google` of the npm registry (MIT; the pictures are Google's Noto Emoji, Apache 2.0) holds
3,786 pictures of 64x64 pixels with an alpha channel. It is downloaded once, with `npm` where there is one, and its
pictures are laid out as folders `train`, `validation` and `test`, which `likelify fit` and `open_source` read: alpha is
laid on white, and 32x32 are means over areas. Nothing of it is run, and nothing is in this repository.

Half of the pictures are others in another colour of skin, and people come as person, woman and man. All pictures of
such a family are in one split, by a hash of what they have in common, and so are copies: a test picture has no twin
among those that were trained on. Clocks and a few others remain that differ by little.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections import Counter
from pathlib import Path

from benchmarks.table_archives import ArchiveError, folder, put_in_place
from likelify.data import Source, SourceOptions, open_source

NAME, VERSION = "emoji-datasource-google", "16.0.0"
ADDRESS = f"https://registry.npmjs.org/{NAME}/-/{NAME}-{VERSION}.tgz"
# SHA-512 that the registry names.
DIGEST = "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A=="
INDEX, PICTURES = "package/emoji.json", "package/img/google/64/"
SECONDS = 600
# Of a hundred families so many validate, and so many test.
VALIDATION, TEST = 10, 12
SIZE = 32
# Code points: colours of skin, signs of gender, the arrow of who faces right, joiner and variant selector.
SKIN = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
VARIANTS = SKIN | {"2640", "2642", "27A1", "200D", "FE0F"}
# A man, a woman, a person; a boy, a girl, a child; and who is older.
PEOPLE: dict[str, str] = {
    **dict.fromkeys(("1F468", "1F469"), "1F9D1"),
    **dict.fromkeys(("1F466", "1F467"), "1F9D2"),
    **dict.fromkeys(("1F474", "1F475"), "1F9D3"),
}


def family(code: str) -> str:
    """Return what an emoji has in common with its variants.

    Args:
        code: its code points, such as `1F469-1F3FB-200D-1F680`, a woman astronaut of light skin.

    Example:
        >>> family("1F469-1F3FB-200D-1F680") == family("1F9D1-200D-1F680")
        True
    """
    points = [PEOPLE.get(point, point) for point in code.upper().split("-")]
    return "-".join(point for point in points if point not in VARIANTS) or code


def split_of(code: str) -> str:
    """Return the split of an emoji, decided by its family alone."""
    place = int.from_bytes(hashlib.sha256(family(code).encode()).digest()[:8], "big") % 100
    return "test" if place < TEST else "validation" if place < TEST + VALIDATION else "train"


def splits(index: list[dict]) -> dict[str, str]:
    """Return for the name of each picture its split.

    Args:
        index: of the archive: emoji, and their variants in other colours of skin, which follow them.
    """
    found = {}
    for emoji in index:
        for variant in (emoji, *emoji.get("skin_variations", {}).values()):
            # Of two people side by side the variants have other code points than the emoji itself.
            found[variant["image"]] = split_of(emoji["unified"])
    return found


def prepared() -> Path:
    """Return the folder of the pictures, downloaded and laid out if it is not there.

    Raises:
        ArchiveError: if the archive cannot be had, or is another than it was.
    """
    target = folder() / f"{NAME}-{VERSION}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        archive = _downloaded(Path(place))
        laid_out(archive, Path(place) / "pictures")
        put_in_place(Path(place) / "pictures", target)
    return target


def laid_out(archive: Path, target: Path) -> None:
    """Write the pictures of an archive into folders of splits.

    Raises:
        ArchiveError: if it is not of that form.
    """
    try:
        with tarfile.open(archive) as packed:
            # An index of a megabyte, and pictures of some kilobytes.
            contents = {member.name: packed.extractfile(member) for member in packed if _is_wanted(member)}
            read = {name: handle.read() for name, handle in contents.items() if handle is not None}
        places = splits(json.loads(read.pop(INDEX)))
    except (tarfile.TarError, KeyError, ValueError, OSError) as error:
        raise ArchiveError(f"'{archive.name}' is not the archive that it was: {error}") from error
    for split in ("train", "validation", "test"):
        (target / split).mkdir(parents=True)
    seen: dict[bytes, str] = {}
    for path, content in sorted(read.items()):
        name = path.removeprefix(PICTURES)
        if name not in places:
            raise ArchiveError(f"'{name}' of '{archive.name}' is not in its index.")
        # The flags of two places can be one.
        split = seen.setdefault(hashlib.sha256(content).digest(), places[name])
        (target / split / name).write_bytes(content)


def emoji(size: int = SIZE) -> Source:
    """Return the emoji as a source of images `(3, size, size)`, 256 levels.

    Raises:
        ArchiveError: if the archive cannot be had.
    """
    return open_source(prepared(), SourceOptions(image_size=(size, size)))


def _is_wanted(member: tarfile.TarInfo) -> bool:
    name = member.name
    picture = name.startswith(PICTURES) and name.endswith(".png") and "/" not in name.removeprefix(PICTURES)
    return member.isfile() and (name == INDEX or picture)


def _downloaded(place: Path) -> Path:
    """Download the archive into a folder, with npm where there is one.

    Raises:
        ArchiveError: if that fails, or it is another.
    """
    archive = place / f"{NAME}-{VERSION}.tgz"
    try:
        if npm := shutil.which("npm"):
            words = [npm, "pack", f"{NAME}@{VERSION}", "--pack-destination", str(place), "--silent"]
            subprocess.run(words, capture_output=True, text=True, check=True, timeout=SECONDS, cwd=place)
        else:
            with urllib.request.urlopen(ADDRESS, timeout=SECONDS) as answer, archive.open("wb") as file:  # noqa: S310
                shutil.copyfileobj(answer, file)
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    except (OSError, subprocess.SubprocessError) as error:
        detail = str(getattr(error, "stderr", None) or error).strip()
        raise ArchiveError(f"{NAME} {VERSION} cannot be downloaded: {detail}") from error
    if digest != DIGEST:
        raise ArchiveError(f"What was downloaded as {NAME} {VERSION} is another archive than the one that is known.")
    return archive


def main() -> None:
    """Prepare the folder, and say what is in it."""
    place = prepared()
    counts = Counter(file.parent.name for file in place.rglob("*.png"))
    print(f"{place}: " + ", ".join(f"{counts[split]} {split}" for split in ("train", "validation", "test")))
    print(f"likelify fit {place} --image-size {SIZE}")


if __name__ == "__main__":
    main()
