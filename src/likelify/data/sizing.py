"""To which form and size the pictures of a folder are brought, decided by their headers, and said in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from likelify.data.options import SourceOptions
from likelify.data.pictures import FORM_WORDS, LEVELS, NOTES, Form, Look, Target
from likelify.errors import DataError

# Pictures of one size are kept as they are up to this side; others are reduced to this shorter side, and a longer one
# that suits their aspect, both multiples of what can be halved twice. A processor fits such images in minutes.
KEPT_SIDE, SHORT_SIDE, LONG_SIDE, MULTIPLE = 64, 32, 64, 4
# Pictures have one aspect if the widest and the narrowest differ by no more than that.
SAME_ASPECT = 1.02
# The share of pictures that may be too small for the size, and are left out.
SMALL_SHARE = 10
# Of files left out, how many are named.
NAMED = 3


@dataclass(frozen=True)
class Sizing:
    """What was decided.

    Attributes:
        target: the form of the items.
        looks: the pictures that are large enough.
        small: the names of those that are not.
    """

    target: Target
    looks: tuple[Look, ...]
    small: tuple[str, ...]

    def said(self) -> list[str]:
        """Return parts of a sentence: what the pictures are, and what is done to them."""
        looks = self.looks
        formats = Counter(look.format for look in looks).most_common()
        said = [f"{len(looks)} pictures ({', '.join(f'{count} {name}' for name, count in formats)})", self._resized()]
        said += self.converted()
        if self.small:
            said.append(f"left out as smaller than that: {named(self.small)}")
        return said

    def changed(self) -> list[str]:
        """Return what is done to the pictures, and no more: nothing where they are taken as they are."""
        size = self.target.height, self.target.width
        kept = all((look.height, look.width) == size for look in self.looks)
        return [*([] if kept else [self._resized()]), *self.converted()]

    def converted(self) -> list[str]:
        """Return what is done to pixels, whatever becomes of the size."""
        looks, target, said = self.looks, self.target, []
        grey = sum(look.form != "colour" for look in looks)
        if target.channels == 1 and grey < len(looks):
            said.append("grey, though in files of colours")
        if target.channels == 3 and grey:
            said.append(f"{grey} grey ones with three equal channels")
        notes = Counter(note for look in looks for note in look.notes)
        return said + [f"{notes[note]} {words}" for note, words in NOTES.items() if notes[note]]

    def _resized(self) -> str:
        target = self.target
        size = f"{target.height}x{target.width}"
        sizes = sorted({(look.height * look.width, look.height, look.width) for look in self.looks})
        if [key[1:] for key in sizes] == [(target.height, target.width)]:
            return f"of {size}, as they are"
        found = [f"{height}x{width}" for _, height, width in (sizes[0], sizes[-1])]
        sizes_found = f"of {found[0]} to {found[1]}" if len(sizes) > 1 else f"of {found[0]}"
        if target.crop == "stretch":
            return f"{sizes_found}, each as a whole reduced to {size} by means over areas, whatever its aspect"
        cut = any(look.height * target.width != look.width * target.height for look in self.looks)
        how = "the middle of each, as large as the aspect allows," if cut else "each"
        return f"{sizes_found}, {how} reduced to {size} by means over areas"


def choose_sizing(folder: Path, looks: Sequence[Look], options: SourceOptions) -> Sizing:
    """Decide what the items are.

    All pictures of one size up to 64x64 stay as they are. Else the shorter side becomes 32 pixels (less where more than
    a tenth of the pictures are smaller) and the longer one follows their aspect if all have the same one; else the
    image is square. Pictures that are smaller than the size are never enlarged: up to a tenth is left out.

    Raises:
        DataError: if pictures of 16 bits are among others, or more than a tenth is too small.
    """
    target = _form(folder, looks)
    height, width = options.image_size or _usual_size(looks)
    target = replace(target, height=height, width=width, crop=options.crop or "centre")
    kept = tuple(look for look in looks if look.height >= height and look.width >= width)
    small = tuple(look.name for look in looks if look.height < height or look.width < width)
    if len(small) * SMALL_SHARE > len(looks):
        raise DataError(
            f"{len(small)} of the {len(looks)} pictures of '{folder}' are smaller than {height}x{width}, such as "
            f"{named(small)}, and would have to be enlarged. Take a smaller --image-size, or take them out."
        )
    if target.levels == 2 and any((look.height, look.width) != (height, width) for look in kept):
        # Means of black and white are grey.
        target = replace(target, levels=LEVELS["grey"])
    return Sizing(target, kept, small)


def named(names: Sequence[str]) -> str:
    """Write the first names of files, and how many more there are."""
    shown = ", ".join(f"'{name[:200]}'" for name in names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


def _form(folder: Path, looks: Sequence[Look]) -> Target:
    """Return the target but for its size."""
    forms: dict[Form, Look] = {look.form: look for look in reversed(looks)}
    if "deep" in forms and len(forms) > 1:
        other = next(look for form, look in forms.items() if form != "deep")
        raise DataError(
            f"'{folder / forms['deep'].name}' has 16 bits a pixel, and '{folder / other.name}' "
            f"{FORM_WORDS[other.form]} of 8 bits or less. Their values mean different things: convert one kind, or "
            "take it out."
        )
    form = next(iter(forms)) if len(forms) == 1 else "grey"
    return Target(3 if "colour" in forms else 1, 0, 0, LEVELS["colour" if "colour" in forms else form])


def _usual_size(looks: Sequence[Look]) -> tuple[int, int]:
    sizes = {(look.height, look.width) for look in looks}
    if len(sizes) == 1 and max(only := next(iter(sizes))) <= KEPT_SIDE:
        return only
    shorter = sorted(min(look.height, look.width) for look in looks)[len(looks) // SMALL_SHARE]
    short = _multiple(min(shorter, SHORT_SIDE))
    aspects = [look.width / look.height for look in looks]
    if max(aspects) > SAME_ASPECT * min(aspects):
        return short, short
    aspect = min(aspects) if aspects[0] >= 1 else 1 / max(aspects)
    long = _multiple(min(max(short, int(short * aspect)), LONG_SIDE))
    return (short, long) if aspects[0] >= 1 else (long, short)


def _multiple(side: int) -> int:
    return side if side < MULTIPLE else side // MULTIPLE * MULTIPLE
