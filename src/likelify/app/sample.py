"""Drawing from a run, once the words of the command are parsed.

What is wrong with the words is said before the model is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from likelify.app.progress import ItemProgress, share_done
from likelify.app.show import console, warnings_last
from likelify.errors import ConfigError
from likelify.fitting.ending import warn_unless_ended
from likelify.fitting.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from likelify.data import Facts
    from likelify.fitting.drawing.inpainting import Completions
    from likelify.fitting.drawing.superresolution import Upscaled

# Items that are remade or completed unless a number is given, and rows of a picture.
REMADE, COMPLETED = 16, 4
MASKS = {
    "image": "--mask left, --mask 4,4,10,10 (left, top, width, height) or a picture",
    "sequence": "--mask 10:20, which are the positions from 10 to 19",
    "table": "the names of columns, --mask age,city",
}


@dataclass(frozen=True)
class Drawing:
    """The words of the command that all its forms share.

    Attributes:
        path: of the run.
        out: the file, or None for a new one in the run.
        number: of items, or None for the usual one.
        labels: classes, numbers or names.
        seed: of the draws.
        force: whether a file that exists is replaced.
    """

    path: Path
    out: Path | None
    number: int | None
    labels: Sequence[str]
    seed: int
    force: bool

    def opened(self) -> Run:
        """Say what is opened, and open it."""
        console.print(f"Drawing from {self.path}")
        run = Run.load(self.path)
        warn_unless_ended(run)
        return run

    def file(self, run: Run, stem: str, read: str | None = None) -> Path:
        """Return the file to write to, which is none that is read."""
        from likelify.fitting.drawing.writing import endings, free_file

        file = self.out or free_file(run.path / stem, endings(run.config.data)[0])
        if read is not None and file.exists() and Path(read).exists() and file.samefile(read):
            raise ConfigError(f"'{file}' is the file that is read; name another one for the result.")
        return file

    def classes(self, run: Run, most: int) -> list[int]:
        """Return the numbers of the classes, for items that have none: so many at most."""
        from likelify.fitting.drawing.draw import class_number

        if len(self.labels) > most:
            raise ConfigError(f"At most {most} --label can be given here.")
        if self.labels and not run.config.conditional:
            raise ConfigError("This run has no classes, and takes no --label.")
        return [class_number(label, run.config.data) for label in self.labels]


def sample_command(drawing: Drawing, temperature: float, given: str | None = None, nodes: int | None = None) -> None:
    """Draw items from a run and write them to a file."""
    run = drawing.opened()
    from likelify.fitting.drawing.conditions import parse_given
    from likelify.fitting.drawing.filling import Worth, columns_of
    from likelify.fitting.drawing.sampling import sample_to

    file, worth = drawing.file(run, "drawn", given), Worth()
    settings = {"label": list(drawing.labels) or None, "temperature": temperature, "seed": drawing.seed}
    settings |= {"nodes": nodes, "given": None if given is None else parse_given(given, columns_of(run))}
    with warnings_last(), share_done(console, "drawing") as show:
        number = sample_to(run, file, drawing.number, force=drawing.force, on_share=show, worth=worth, **settings)
    console.print(f"{number:,} samples: {file}")
    if worth.rows:
        console.print(str(worth))


def impute_command(drawing: Drawing, items: str, draws: int) -> None:
    """Fill in the empty cells of a file of rows, and write all of it."""
    from likelify.fitting.drawing.filling import columns_of, impute_to

    if drawing.number is not None or drawing.labels:
        raise ConfigError("--impute fills in all rows of a file, and takes neither -n nor --label.")
    run = drawing.opened()
    columns_of(run)
    file = drawing.file(run, "filled", items)
    progress = ItemProgress(console, "filling", "rows", None)
    with warnings_last(), progress.bar:
        how = {"draws": draws, "seed": drawing.seed, "force": drawing.force}
        worth = impute_to(run, items, file, on_rows=progress.update, **how)
    times = f", {draws} draws of each row" if draws > 1 else ""
    console.print(f"{worth.filled:,} values of {worth.rows:,} rows filled in{times}: {file}")
    if worth.filled:
        console.print(str(worth))


def reconstruct_command(drawing: Drawing, items: str) -> None:
    """Encode items to the latent and decode them, and write them beside the originals."""
    from likelify.fitting.drawing.writing import check_panels, write_panels

    run = drawing.opened()
    file, facts = drawing.file(run, "reconstructed", items), run.config.data
    check_panels(file, facts, force=drawing.force)
    number = REMADE if drawing.number is None else drawing.number
    found = run.reconstruct(items, limit=_positive(number), labels=_as_labels(drawing.classes(run, 1)))
    panels = {"original": found.original, "reconstructed": found.x}
    if found.from_last is not None and facts.kind == "image":
        panels = {"original": found.original, "from the last latent": found.from_last, "reconstructed": found.x}
    write_panels(file, facts, panels, force=drawing.force)
    console.print(f"{len(found.x)} {facts.items}, original and reconstructed: {file}")
    same = int((found.original == found.x).flatten(1).all(1).sum())
    if facts.levels is not None:
        console.print(f"{same} of {len(found.x)} are as they were, in every element.")
    if found.lossy:
        console.print(
            f"The latent of this model does not keep everything: {', '.join(found.lossy)} drop what the way back fills "
            "with its most likely values."
        )


def interpolate_command(drawing: Drawing, ends: tuple[str, str], steps: int) -> None:
    """Write the items on the way from one to another in the latent."""
    from likelify.fitting.drawing.writing import check_panels, write_panels

    run = drawing.opened()
    file, facts = drawing.file(run, "interpolated"), run.config.data
    check_panels(file, facts, force=drawing.force)
    labels = drawing.classes(run, 2)
    found = run.interpolate(*ends, steps, labels=(labels[0], labels[-1]) if labels else None)
    # What is on one way is in one row.
    write_panels(file, facts, {"way": found}, columns=steps if steps <= 16 else None, force=drawing.force)
    console.print(f"{steps} {facts.items} from {ends[0]} to {ends[1]}: {file}")


def inpaint_command(drawing: Drawing, items: str, mask: str | None, draws: int) -> None:
    """Draw hidden parts of items, and write them beside the originals."""
    from likelify.fitting.drawing.masks import mask_of
    from likelify.fitting.drawing.remaking import inpaint
    from likelify.fitting.drawing.writing import check_panels

    run = drawing.opened()
    file, facts = drawing.file(run, "completed", items), run.config.data
    check_panels(file, facts, force=drawing.force)
    if mask is None:
        raise ConfigError(f"--inpaint needs to know what is hidden: {MASKS.get(facts.kind, '--mask')}.")
    hidden = mask_of(mask, facts)
    limit = _positive(COMPLETED if drawing.number is None else drawing.number)
    settings = {"limit": limit, "labels": _as_labels(drawing.classes(run, 1)), "seed": drawing.seed}
    with warnings_last():
        with share_done(console, "drawing") as show:
            originals, found = inpaint(run, items, hidden, draws, on_share=show, **settings)
        _write_completions(file, run, originals, hidden, found, force=drawing.force)
        console.print(f"{draws} draws for each of {len(originals)} {facts.items}: {file}")
        shown = ", ".join(f"{value:.0f}" for value in found.ess.tolist()[:8])
        more = ", ..." if len(found.ess) > 8 else ""
        of_what = "draws" if found.particles is None else f"{found.particles} particles"
        console.print(f"Effective sample size of their {of_what}: {shown}{more}")


def _write_completions(
    file: Path, run: Run, originals: Tensor, hidden: Tensor, found: Completions, *, force: bool
) -> None:
    """Write originals, what is seen of them, and draws; of pictures a row for each item."""
    import torch

    from likelify.fitting.drawing.writing import write_panels

    facts, draws = run.config.data, found.x.shape[1]
    if facts.kind == "image" and file.suffix.lower() == ".png":
        gray = (facts.levels or 256) // 2
        seen = torch.where(hidden, torch.full_like(originals, gray), originals)
        rows = torch.cat([originals[:, None], seen[:, None], found.x], 1).flatten(0, 1)
        write_panels(file, facts, {"completed": rows}, columns=draws + 2, force=force)
        return
    if file.suffix.lower() == ".npz":
        panels = {"original": originals, "mask": hidden, "completed": found.x, "ess": found.ess}
        _write_arrays(file, panels, force=force)
        return
    panels = {"original": originals.repeat_interleave(draws, 0), "completed": found.x.flatten(0, 1)}
    write_panels(file, facts, panels, force=force)


def upscale_command(drawing: Drawing, items: str, factor: int, draws: int, temperature: float) -> None:
    """Draw fine images around coarse ones, and write a row for each: what is known, the draws, and the original."""
    from likelify.fitting.drawing.superresolution import upscale
    from likelify.fitting.drawing.writing import check_panels

    run = drawing.opened()
    file, facts = drawing.file(run, "upscaled", items), run.config.data
    check_panels(file, facts, force=drawing.force)
    limit = _positive(COMPLETED if drawing.number is None else drawing.number)
    settings = {"limit": limit, "labels": _as_labels(drawing.classes(run, 1)), "seed": drawing.seed}
    settings |= {"factor": factor, "draws": draws, "temperature": temperature}
    with share_done(console, "drawing") as show:
        found = upscale(run, items, on_share=show, **settings)
    _write_upscaled(file, facts, found, force=drawing.force)
    height, width = found.coarse.shape[2:]
    last = "" if found.original is None else ", and the original"
    console.print(
        f"{len(found.x)} {facts.items} of {height}x{width} pixels, {draws} draws of each {found.factor} times as fine"
        f"{last}: {file}"
    )


def _write_upscaled(file: Path, facts: Facts, found: Upscaled, *, force: bool) -> None:
    """Write draws, in pictures and archives beside what they were drawn around."""
    import torch

    from likelify.fitting.drawing.writing import write_panels

    ending, originals = file.suffix.lower(), [] if found.original is None else [found.original]
    if ending == ".npz":
        panels = [("coarse", found.coarse), ("upscaled", found.x), *(("original", original) for original in originals)]
        _write_arrays(file, dict(panels), force=force)
        return
    if ending == ".npy":
        write_panels(file, facts, {"upscaled": found.x.flatten(0, 1)}, force=force)
        return
    height, width = found.x.shape[-2:]
    known = found.coarse.repeat_interleave(found.factor, 2).repeat_interleave(found.factor, 3)[..., :height, :width]
    row = [known[:, None], found.x, *(original[:, None] for original in originals)]
    rows = torch.cat([part.to(found.x.dtype) for part in row], 1)
    write_panels(file, facts, {"upscaled": rows.flatten(0, 1)}, columns=rows.shape[1], force=force)


def _write_arrays(file: Path, arrays: dict[str, Tensor], *, force: bool) -> None:
    from likelify.fitting.drawing.writing import write_arrays

    write_arrays(file, {name: array.numpy() for name, array in arrays.items()}, force=force)


def _positive(number: int) -> int:
    if number < 1:
        raise ConfigError(f"The number of items must be 1, 2, ..., got {number}.")
    return number


def _as_labels(labels: list[int]) -> Tensor | None:
    import torch

    return torch.tensor(labels) if labels else None
