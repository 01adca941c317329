"""What the commands print: held-out figures, lists, and how the program is called."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from likelify.data import Facts, Source
from likelify.data.describing import kind_of, values_of
from likelify.errors import LikelifyWarning, printable
from likelify.fitting.figures import HEAVY_SHARE, Evaluation, Figure, Unit

if TYPE_CHECKING:
    from likelify.fitting.choose import Choice

# Standard errors by which a difference is one.
CLEAR = 2.0
# Of the columns of a table, how many are shown.
MOST_COLUMNS = 40


class Terminal(Console):
    """Where the commands print, tables and bars included: names of users and of files of any origin are plain text.

    Nothing in them is read as markup or as the name of a picture, and control codes do not get to the terminal.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def on_broken_pipe(self) -> None:
        """Go on without a word: whoever read has seen enough, and a fit is not to be lost for it."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return a text as it is printed."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **settings)


console = Terminal(soft_wrap=True)
# Columns where there is no terminal, so that nothing is cut off in a file or a pipe.
WIDE = 200


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal, or wide where there is none; what is too long is folded, not cut off."""
    for column in table.columns:
        column.overflow = "fold"
    (console if console.is_terminal else Terminal(width=WIDE)).print(table)


def program() -> str:
    """Return the command as the user has to type it: its name if the shell finds it, its place otherwise."""
    if shutil.which("likelify"):
        return "likelify"
    module = sys.argv[0].endswith("cli.py")
    return f"{sys.executable} -m likelify.app.cli" if module else sys.argv[0]


def command(*words: object) -> str:
    """Return a command to be copied: what a shell would read otherwise is quoted."""
    return f"{program()} {shlex.join(map(str, words))}"


def say_remarks(choice: Choice) -> None:
    """Print what a model decided because of the shape of the items."""
    for remark in [*choice.model.remarks(), *choice.unread]:
        console.print(f"{choice.model.model}: {remark}")


@contextmanager
def warnings_last() -> Iterator[None]:
    """Show the warnings of a block when it is done, below what it prints."""
    found: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always", LikelifyWarning)
            yield
    finally:
        for each in found:
            warnings.showwarning(each.message, each.category, each.filename, each.lineno)


def show_list(lines: dict[str, str]) -> None:
    """Print names with a line each."""
    width = max(map(len, lines))
    for name, text in lines.items():
        console.print(f"  {name:<{width}}  {text}")


def show_columns(source: Source) -> None:
    """Print what the columns of a table were taken for, and how that was decided; nothing of other data."""
    if source.schema is None:
        return
    missing = source.read_all("train").x.isnan().double().mean(0).tolist()
    table = Table(title=f"The columns of {source.name}")
    for heading in ("column", "taken for", "values", "missing", "decided by"):
        table.add_column(heading, justify="right" if heading == "missing" else "left")
    for column, share in list(zip(source.schema, missing, strict=True))[:MOST_COLUMNS]:
        said = f"{share:.1%}" if share or column.missing else ""
        table.add_row(column.name, kind_of(column), values_of(column), said, column.said)
    print_table(table)
    if len(source.schema) > MOST_COLUMNS:
        console.print(f"And {len(source.schema) - MOST_COLUMNS} more columns, which are in the run's config.json.")
    console.print("Other kinds: --columns 'NAME=real,NAME=category,NAME=integer[0,120]'.")


def show_evaluation(measured: Evaluation, facts: Facts) -> None:
    """Print held-out figures with what they mean."""
    items, unit = facts.items, Unit.of(facts.kind)
    table = Table(title=f"{measured.source}, {measured.split} split: {measured.elbo.nats.count} {items}")
    graphs = measured.elbo.per_node is not None
    own = ["bits/dim"] if unit.word == "bits" else ["nats per node"] if graphs else []
    headings = ["", *own, f"nats per {facts.item}", "draws", items]
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    first = "exact" if measured.exact else "ELBO"
    for name, score in ((first, measured.elbo), ("importance-weighted", measured.iw)):
        if score is not None:
            own = [_show(score.bits, 4)] if unit.word == "bits" else []
            own = own if score.per_node is None else [_show(score.per_node, 4)]
            table.add_row(name, *own, _show(score.nats, 2), str(score.samples), str(score.nats.count))
    print_table(table)
    if unit.higher_is_better:
        console.print("Higher log-densities are better. They are in the units of the data.")
    else:
        console.print("Lower bits/dim are better.")
        best = measured.elbo if measured.iw is None else measured.iw
        if facts.levels is not None and best.bits.mean > math.log2(facts.levels):
            console.print(
                f"That is worse than knowing nothing: were all {facts.levels:,} levels equally likely, it would be "
                f"{math.log2(facts.levels):.4g} bits/dim. The model was fitted for too short, or not to such images."
            )
    console.print(f"Errors are standard errors over {items}.")
    _show_beside(measured)
    _show_weights(measured, facts)
    if measured.gaps is not None:
        each = ", ".join(f"{number} draws {_show(gap, 2)}" for number, gap in measured.gaps.items())
        console.print(
            f"Importance weighting lies above the ELBO by (nats per {facts.item}): {each}. Where that still grows with "
            "the draws, the bound is looser than it shows."
        )


def _show_beside(measured: Evaluation) -> None:
    """Print simple densities of the same rows, and whether the model was worth its fit."""
    for name, why in measured.not_beside.items():
        console.print(f"Not compared with: {name}. {why}")
    if not measured.beside:
        return
    table = Table(title=f"Simple densities of the same training rows, on {measured.beside[0].nats.count} of these rows")
    for heading in ("", "nats per row", "model better by"):
        table.add_column(heading, justify="right" if heading else "left")
    for simple in measured.beside:
        table.add_row(simple.name, _show(simple.nats, 2), _show(simple.gain, 2))
    print_table(table)
    console.print("Differences are taken row by row, and their errors are those of these differences.")
    worst = min(measured.beside, key=lambda simple: simple.gain.mean)
    error = worst.gain.standard_error or 0.0
    if worst.gain.mean < -CLEAR * error:
        console.print(
            f"Warning: '{worst.name}' describes these rows better than the model, so the fit was not worth it: fit "
            "longer (--steps), or another model."
        )
    elif worst.gain.mean < CLEAR * error:
        console.print(f"On these rows the model cannot be told from '{worst.name}'.")


def _show_weights(measured: Evaluation, facts: Facts) -> None:
    if measured.iw is None:
        return
    if measured.iw.left_out:
        console.print(
            f"Warning: {measured.iw.left_out} of the {measured.iw.nats.count} {facts.items} that were weighted have no "
            "weights above zero, or some that are not finite; what is said of importance weights leaves them out."
        )
    if measured.iw.ess is not None:
        console.print(
            f"Median effective sample size of the importance weights: {measured.iw.ess:.1f} of {measured.iw.samples}."
        )
    if measured.iw.heavy is not None and measured.iw.heavy > HEAVY_SHARE:
        console.print(
            f"Warning: the importance weights of {measured.iw.heavy:.0%} of these {facts.items} have heavy tails "
            f"(median shape k = {measured.iw.k:.2f}). Their likelihood is likely underestimated, and the error does "
            f"not show it: take more draws, --iw-samples {10 * measured.iw.samples}."
        )
    if measured.gain is not None and measured.iw.nats.count < measured.elbo.nats.count:
        console.print(
            f"The two rows are about different {facts.items}: on the {measured.iw.nats.count} that were weighted, it "
            f"lies {_show(measured.gain, 2)} nats per {facts.item} above their ELBO."
        )


def _show(figure: Figure, digits: int) -> str:
    error = "?" if figure.standard_error is None else f"{figure.standard_error:.{digits}f}"
    return f"{figure.mean:.{digits}f} +- {error}"
