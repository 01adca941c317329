"""Samples of a fitted model, and the files that they are written to: pictures of images, CSV of rows."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from likelify.data import Facts
from likelify.errors import ConfigError
from likelify.fitting.cells import as_cell
from likelify.fitting.files import make_folder, write_atomically
from likelify.names import ItemKind

if TYPE_CHECKING:
    from torch import Tensor

    from likelify.flows import Flow

# Kind of item -> what its samples are called, the ending of their file, and how many a run keeps.
FILES: dict[ItemKind, tuple[str, str, int]] = {"image": ("Pictures", ".png", 64), "table": ("Rows", ".csv", 1000)}


def check_draws(number: int, temperature: float) -> None:
    """Refuse a number of samples or a temperature with which nothing can be drawn.

    Raises:
        ConfigError: if the number is not 1, 2, ..., or the temperature is negative or not finite.
    """
    if not isinstance(number, int) or number < 1:
        raise ConfigError(f"The number of samples must be 1, 2, ..., got {number}.")
    if not 0 <= temperature < math.inf:
        raise ConfigError(f"The temperature must be a number that is not negative, got {temperature}.")


def draw(
    flow: Flow,
    number: int,
    *,
    classes: int | None = None,
    label: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Draw from a model.

    Args:
        flow: the model.
        number: of samples.
        classes: number of classes of a class-conditional model, else None.
        label: the class to draw; by default all in turn.
        temperature: below 1 samples are less varied; see `Flow.sample`.
        seed: of the draws.
    """
    import torch

    from likelify.seeding import seeded

    with seeded(seed), flow.frozen():
        if classes is None:
            return flow.sample((number,), temperature=temperature)
        labels = torch.arange(number) % classes if label is None else torch.full((number,), label)
        return flow.sample((), labels, temperature=temperature)


def samples_file(facts: Facts, default: Path, wanted: Path | None = None) -> tuple[Path, int]:
    """Return the file that samples are written to, `default` with the ending of their kind or the one that is wanted.

    With it comes the usual number of samples.

    Raises:
        ConfigError: if samples of that kind cannot be written to a file, or not to one with that ending.
    """
    if facts.kind not in FILES or (facts.kind == "image" and facts.levels is None):
        what = facts.items if facts.kind not in FILES else "images of real numbers"
        raise ConfigError(f"Samples of {what} are not written to files; draw them with run.sample(n).")
    what, ending, number = FILES[facts.kind]
    if wanted is not None and wanted.suffix != ending:
        raise ConfigError(f"{what} are written as {ending[1:].upper()}: name a file in {ending}, not '{wanted}'.")
    return wanted or default.with_suffix(ending), number


def save_samples(file: Path, facts: Facts, panels: dict[str, Tensor]) -> None:
    """Write samples to a file: pixels as a picture, a titled grid for each panel; rows of the first panel as CSV."""
    if facts.kind == "image" and facts.levels is not None:
        content = picture(panels, facts.levels)
    else:
        content = rows_as_csv(facts.columns, next(iter(panels.values())))
    make_folder(file.parent)
    write_atomically(file, content)


def draw_inverses(flow: Flow, number: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Return, for the same latents, the inverse without its noise, and the inverse with it: samples of the model."""
    import torch

    from likelify.seeding import seeded

    with seeded(seed), torch.no_grad(), flow.frozen():
        z = flow.base.sample((number,))
        return {
            "inverse without noise": flow.transform.mean_inverse(z),
            "inverse with noise (samples)": flow.transform.inverse(z)[0],
        }


def picture(panels: dict[str, Tensor], levels: int, *, dpi: int = 150) -> bytes:
    """Return titled grids of images side by side as the content of a PNG file."""
    from likelify.plots import show_images

    content = io.BytesIO()
    columns = 8 if len(panels) > 1 else max(8, round(len(next(iter(panels.values()))) ** 0.5))
    show_images(panels, levels, columns=columns).savefig(content, format="png", dpi=dpi)
    return content.getvalue()


def rows_as_csv(columns: tuple[str, ...] | None, rows: Tensor) -> bytes:
    """Return rows `(n, columns)` as the content of a CSV file, with the names of the columns if they are known.

    A name that a spreadsheet would run as a formula becomes text; see `as_cell`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if columns is not None:
        writer.writerow([as_cell(name) for name in columns])
    # All digits: of a column like 1.7e9 +- 3 nine are not enough.
    writer.writerows(rows.detach().cpu().double().tolist())
    return text.getvalue().encode()
