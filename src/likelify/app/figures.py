"""Held-out figures: how many draws they take, how they are kept and shown."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from likelify.app import recipes
from likelify.app.choices import Data
from likelify.data import Source, TableSource
from likelify.fitting.metrics import Evaluation, Figure


@dataclass(frozen=True)
class Draws:
    """The effort of an evaluation.

    Attributes:
        elbo: draws per item for the ELBO.
        iw: draws per item for importance weighting; 0 leaves it out.
        iw_items: items that are weighted, the first of the split; None for all.
        gap: also measure the gap of the bound at growing numbers of draws.
    """

    elbo: int
    iw: int
    iw_items: int | None
    gap: bool = False

    @property
    def ladder(self) -> tuple[int, ...]:
        """Numbers of draws at which the gap is measured: a sixteenth, a quarter and all of those for weighting."""
        return tuple(sorted({max(2, self.iw // part) for part in (16, 4, 1)})) if self.gap else ()

    @staticmethod
    def usual(data: Data) -> "Draws":
        """Return what suits the data."""
        table = data.is_table
        return Draws(*recipes.draws(data.name, table=table), recipes.iw_items(data.name, table=table))


def plain_figures(measured: Evaluation, source: Source) -> dict[str, Any]:
    """Return figures as plain data; for tables in nats only, with what turns them into the units of the file."""
    values = asdict(measured)
    if source.levels is None:
        for score in (values["elbo"], values["iw"]):
            if score is not None:
                del score["bits"]
    if isinstance(source, TableSource):
        values["log_volume"] = source.log_volume
    return values


def show_figures(console: Console, measured: Evaluation, source: Source) -> None:
    """Print figures with what they mean."""
    data = Data.of(source)
    items, item = ("rows", "row") if data.is_table else ("images", "image")
    table = Table(title=f"{measured.source}, {measured.split} split: {measured.elbo.nats.items} {items}")
    headings = ["", *([] if data.is_table else ["bits/dim"]), f"nats per {item}", "draws", items]
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    for name, score in (("ELBO", measured.elbo), ("importance-weighted", measured.iw)):
        if score is not None:
            bits = [] if data.is_table else [_show(score.bits, 4)]
            table.add_row(name, *bits, _show(score.nats, 2), str(score.samples), str(score.nats.items))
    console.print(table)
    if isinstance(source, TableSource):
        console.print(
            "Higher log-densities are better. They are of standardised columns; in the units of the data they are "
            f"{abs(source.log_volume):.2f} nats {'lower' if source.log_volume > 0 else 'higher'}."
        )
    else:
        console.print("Lower bits/dim are better.")
    console.print(f"Errors are standard errors over {items}.")
    if measured.iw is not None:
        console.print(
            f"Median effective sample size of the importance weights: {measured.iw.ess:.1f} of {measured.iw.samples}."
        )
        if measured.gain is not None and measured.iw.nats.items < measured.elbo.nats.items:
            console.print(
                f"The two rows are about different {items}: on the {measured.iw.nats.items} that were weighted, it "
                f"lies {_show(measured.gain, 2)} nats per {item} above their ELBO."
            )
    if measured.gaps is not None:
        each = ", ".join(f"{number} draws {_show(gap, 2)}" for number, gap in measured.gaps.items())
        console.print(
            f"Importance weighting lies above the ELBO by (nats per {item}): {each}. Where that still grows with the "
            "draws, the bound is looser than it shows."
        )


def _show(figure: Figure, digits: int) -> str:
    return f"{figure.mean:.{digits}f} +- {figure.standard_error:.{digits}f}"
