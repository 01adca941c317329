"""Scoring items of a file with a run, once the words of the command are parsed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

from likelify.app.progress import ItemProgress, share_done
from likelify.app.show import console, print_table
from likelify.app.signals import ended_like_ctrl_c
from likelify.data import Facts, SplitName
from likelify.errors import ConfigError
from likelify.fitting.ending import warn_unless_ended
from likelify.fitting.figures import HEAVY_SHARE, Unit
from likelify.fitting.files import make_folder, refuse_taken, write_atomically
from likelify.fitting.run import CONFIG, Run

if TYPE_CHECKING:
    from likelify.fitting.scoring.scoring import Scoring
    from likelify.fitting.scoring.summary import Summary
    from likelify.flows import Flow

ReferenceName = Literal["validation", "test", "none"]
# Oddest items that are printed, and shown in a picture, unless a number is given; columns of them, and names of files.
PRINTED, SHOWN, CARRIED, NAMED = 10, 20, 4, 5
# Whole pictures that are shown.
WHOLE = 2
# Columns that are printed, of images and the like and of rows, with their digits; and all that are ours.
OURS = ("bits_per_dim", "nats", "nats_per_node", "standard_error", "rank")
OURS_OF_ROWS = ("outlier", "outlier_rank", "nats", "standard_error", "blame")
DIGITS = {
    "bits_per_dim": 3,
    "nats": 2,
    "nats_per_node": 3,
    "standard_error": 2,
    "rank": 4,
    "outlier": 2,
    "outlier_rank": 4,
}
NAMES = {*OURS, *OURS_OF_ROWS, "is_outlier", "reliable"}


@dataclass(frozen=True)
class Words:
    """What a user says to `likelify score`, beside run and file.

    Attributes:
        out: file of all scores.
        split: of a source.
        top: number of the oddest items to show.
        draws: per item.
        reference: what items are ranked among.
        contamination: mark rows with such an outlier rank.
        blame: whether columns are blamed.
        picture: file of a picture of the least likely images.
        heat: file of a picture that also says where.
        surprise: file of a picture that says where, pixel by pixel.
        jobs: processes.
        skip_unreadable: leave out pictures that cannot be read.
        tiles: cut large pictures into tiles.
        edges: file of the edges of graphs.
        force: replace files that exist.
    """

    out: Path | None = None
    split: SplitName = "test"
    top: int | None = None
    draws: int | None = None
    reference: ReferenceName = "validation"
    contamination: float | None = None
    blame: bool = False
    picture: Path | None = None
    heat: Path | None = None
    surprise: Path | None = None
    jobs: int | None = None
    skip_unreadable: bool = False
    tiles: bool = False
    edges: str | None = None
    force: bool = False

    @property
    def shown(self) -> int:
        """How many of the oddest items are shown."""
        usual = SHOWN if self.picture or self.heat or self.surprise else PRINTED
        return usual if self.top is None else self.top


def keep_reference(run: Run, flow: Flow) -> None:
    """Score the held-out items that new ones are ranked among, and keep that in the run."""
    from likelify.fitting.scoring.reference import keep_for_scoring

    with share_done(console, f"scoring held-out {run.config.data.items}") as show:
        keep_for_scoring(run, flow, on_batch=show)


def score_command(path: Path, file: str | None, words: Words) -> None:
    """Score the items of a file, or those that the run was fitted to; print what there is to know, and keep all."""
    if (path / CONFIG).is_file():
        # Before what takes long is imported.
        name = f"the {words.split} split of its data" if file is None else f"'{file}'"
        console.print(f"Scoring {name} with '{path}'.")
    run = Run.load(path)
    _check(run, file, words)
    warn_unless_ended(run)
    import torch

    from likelify.fitting.scoring.scorer import Wanted
    from likelify.fitting.scoring.scoring import Scoring, items_of
    from likelify.transforms.core import require_writer

    # With more the last digits of sums would depend on their number; more processes are faster than more threads.
    torch.set_num_threads(1)
    how = {"skip_unreadable": words.skip_unreadable, "tiles": words.tiles, "edges": words.edges}
    items = items_of(run, file, split=words.split, **how)
    if left_out := getattr(items, "left_out", ()):
        more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
        console.print(f"Left out (unreadable, too small or of other pixels): {', '.join(left_out[:NAMED])}{more}.")
    reference = None if words.reference == "none" else words.reference
    wanted = Wanted(draws=words.draws, reference=reference, contamination=words.contamination, blame=words.blame)
    with ended_like_ctrl_c():
        scoring = Scoring(run, items, wanted, jobs=words.jobs)
        if words.surprise is not None:
            require_writer(
                scoring.scorer.flow.transform, "Where images are unlikely shows --heat, for all models of images."
            )
        _say_how(scoring)
        summary = _score(scoring, words)
        if summary is None:
            console.print(f"'{words.out}' was whole already; what was left of its making is removed.")
            return
        _show(summary, run.config.data, scoring)
        _draw(scoring, summary, words)
    console.print("To keep all scores, name a file: -o scores.csv" if words.out is None else f"Scores: {words.out}")


def _check(run: Run, file: str | None, words: Words) -> None:
    """Refuse what cannot be done before anything that takes long is imported or read."""
    from likelify.fitting.scoring.parts import check_out

    _check_numbers(words)
    if words.out is not None:
        check_out(words.out, force=words.force)
        if file is not None and words.out.exists() and Path(file).exists() and words.out.samefile(file):
            raise ConfigError(f"'{words.out}' is the file that is scored; name another one for the scores.")
    files = [file.absolute() for file in (words.picture, words.heat, words.surprise) if file is not None]
    if len(set(files)) < len(files):
        raise ConfigError("--picture, --heat and --surprise write a file each; give them different names.")
    for option, picture in (("--picture", words.picture), ("--heat", words.heat), ("--surprise", words.surprise)):
        if picture is None:
            continue
        of_graphs = run.config.data.kind == "graph" and option == "--picture"
        endings = (".png", ".svg") if of_graphs else (".png",)
        if picture.suffix.lower() not in endings:
            raise ConfigError(f"{option} writes a picture in {' or '.join(endings)}; '{picture}' is none.")
        if picture.exists() and not words.force:
            refuse_taken(picture)
        if run.config.data.kind != "image" and not of_graphs:
            kinds = "images and graphs" if option == "--picture" else "images"
            raise ConfigError(f"{option} is for {kinds}, and '{run.path}' is a model of {run.config.data.items}.")
        if not words.shown:
            raise ConfigError(f"{option} shows the least likely {run.config.data.items}; --top 0 leaves none.")


def _check_numbers(words: Words) -> None:
    if words.shown < 0:
        raise ConfigError(f"--top must be 0, 1, 2, ..., got {words.top}.")
    if words.contamination is not None and not 0 < words.contamination < 1:
        raise ConfigError(f"--contamination is a share between 0 and 1, such as 0.01, got {words.contamination:g}.")


def _score(scoring: Scoring, words: Words) -> Summary | None:
    from likelify.fitting.scoring.scoring import score_file, summarize

    items = scoring.run.config.data.items
    progress = ItemProgress(console, "scoring", items, scoring.items.count)
    try:
        with progress.bar:
            if words.out is None:
                return summarize(scoring, top=words.shown, on_items=progress.update)
            return score_file(scoring, words.out, force=words.force, top=words.shown, on_items=progress.update)
    except KeyboardInterrupt:
        kept = "Nothing is kept without a file: -o scores.csv."
        if words.out is not None:
            kept = f"What is done is kept in '{words.out}.parts'; the same command goes on with it."
        console.print(f"Interrupted after {progress.done:,} {items}. {kept}")
        raise


def _say_how(scoring: Scoring) -> None:
    effort, facts = scoring.scorer.effort, scoring.run.config.data
    how = {
        "exact": "exact log-likelihoods",
        "bound": f"log-likelihoods by importance weighting of {effort.draws} draws",
        "estimate": f"log-likelihoods estimated from {effort.draws} draws",
    }[effort.likelihood]
    if effort.likelihood == "exact" and scoring.wanted.draws is not None:
        how += ", for which --draws changes nothing"
    among = ""
    if scoring.reference is not None:
        among = f", ranked among {len(scoring.reference):,} {scoring.wanted.reference} {facts.items}"
    if scoring.items.said:
        console.print(f"{scoring.items.name}: {scoring.items.said}.")
    console.print(f"{scoring.items.name}: {how}{among}.")


def _show(summary: Summary, facts: Facts, scoring: Scoring) -> None:
    unit, mean = Unit.of(facts.kind), summary.mean
    inside = summary.count - summary.outside
    line = f"{summary.count:,} {facts.items}"
    if inside:
        line += f", on average {unit.show(mean.get('bits', 0.0), mean['nats'])}"
        line += f" of a graph, {mean['per_node']:.3f} nats per node" if "per_node" in mean else ""
    console.print(f"{line}.")
    if summary.outside:
        console.print(
            f"{summary.outside:,} of them lie outside the support of the model: their likelihood is zero, and the "
            "average leaves them out."
        )
    if summary.rare is not None:
        found = ", ".join(
            f"{count / summary.count:.1%} have {_rank_of(facts)} of at most {at}" for at, count in summary.rare.items()
        )
        console.print(f"{found}; of {facts.items} like the held-out ones at most 1 % and 5 % would.")
        _say_smallest_rank(facts, 0 if scoring.reference is None else len(scoring.reference))
    if summary.marked is not None:
        share = scoring.wanted.contamination
        console.print(
            f"{summary.marked:,} of them are marked as outliers: at most {share:g} of the held-out {facts.items} are "
            "as odd."
        )
    if summary.heavy is not None and summary.heavy > HEAVY_SHARE * summary.count:
        console.print(
            f"Warning: the importance weights of {summary.heavy / summary.count:.0%} of them have heavy tails (not "
            "'reliable'). Their likelihood is likely underestimated, and the standard error does not show it; ranks "
            "stay valid. More draws help: --draws."
        )
    _show_oddest(summary, facts)


def _rank_of(facts: Facts) -> str:
    return "an outlier rank" if facts.kind == "table" else "a rank"


def _say_smallest_rank(facts: Facts, held_out: int) -> None:
    """Say so where there are too few held-out items for a rank of one in a hundred."""
    if (smallest := 1 / (1 + held_out)) > 0.01:
        console.print(
            f"Among {held_out} held-out {facts.items} no rank is below {smallest:.2g}: rarer ones cannot be told."
        )


def _show_oddest(summary: Summary, facts: Facts) -> None:
    if summary.oddest is None or not len(summary.oddest):
        return
    found, of_rows = summary.oddest, facts.kind == "table"
    # Of rows the rank of their likelihood is in the file; two ranks side by side would only be mistaken for each other.
    shown = OURS_OF_ROWS if of_rows else OURS
    ours = [name for name in shown if name in found.column_names]
    carried = [name for name in found.column_names if name not in NAMES and not name.startswith("blame_")]
    table = Table(title=f"The {len(found)} {'oddest' if of_rows else 'least likely'} {facts.items}")
    for name in [*carried[: CARRIED + 1], *ours]:
        table.add_column(name.replace("_", " "), justify="left" if name in carried[1:] else "right")
    for row in found.to_pylist():
        table.add_row(*(_cell(name, row[name]) for name in [*carried[: CARRIED + 1], *ours]))
    print_table(table)


def _cell(name: str, value: Any) -> str:
    digits = DIGITS.get(name)
    text = "" if value is None else f"{value:.{digits}f}" if digits else str(value)
    return " ".join(text.split())[:40]


def _draw(scoring: Scoring, summary: Summary, words: Words) -> None:
    from likelify.fitting.scoring.pictures import HeatKind, look_at, picture_of

    if summary.oddest is None:
        return
    rows, levels = summary.oddest.to_pylist(), scoring.run.config.data.levels or 0
    numbers = [row["item"] for row in rows]
    titles = [f"{row['item']}" + (f": {row['rank']:.3f}" if "rank" in row else "") for row in rows]
    if words.picture is not None and scoring.run.config.data.kind == "graph":
        _draw_graphs(scoring, words.picture, numbers, titles)
        return
    surprise = None if words.tiles else words.surprise
    kinds: tuple[tuple[Path | None, HeatKind | None], ...] = (
        (words.picture, None),
        (words.heat, "replaced"),
        (surprise, "surprise"),
    )
    for file, heat in kinds:
        if file is None:
            continue
        with share_done(console, "looking where" if heat else "drawing") as show:
            shown = look_at(scoring, numbers, titles, heat=heat, on_share=show)
        make_folder(file.parent)
        write_atomically(file, picture_of(shown, levels))
        ranked = ", with their ranks" if rows and "rank" in rows[0] else ""
        console.print(f"{'Where they are unlikely' if heat else 'The least likely'}{ranked}: {file}")
    if words.tiles and words.surprise is not None:
        _draw_whole(scoring, words.surprise)


def _draw_graphs(scoring: Scoring, file: Path, numbers: list[int], titles: list[str]) -> None:
    from likelify.fitting.scoring.graph_pictures import picture_of_graphs

    make_folder(file.parent)
    write_atomically(file, picture_of_graphs(scoring, numbers, titles, file.suffix.lower()))
    console.print(f"The least likely, with their ranks: {file}")


def _draw_whole(scoring: Scoring, file: Path) -> None:
    """Say how likely whole pictures are, and draw the first of them with the surprise of their pixels."""
    from likelify.fitting.scoring.pictures import picture_of_surprises
    from likelify.fitting.scoring.surprise import picture_surprises

    shown = []
    with share_done(console, "looking where") as show:
        how = {"flow": scoring.scorer.flow, "on_share": show}
        found = picture_surprises(scoring.run, scoring.items, **how)
        lines = []
        for each in found:
            height, width = each.bits.shape
            lines.append(
                f"{each.name}, {height}x{width}: {each.bits_per_dim:.3f} bits/dim ({each.nats:,.0f} nats), "
                f"as {each.tiles} independent tiles."
            )
            shown += [each] if len(shown) < WHOLE else []
    for line in lines:
        console.print(line)
    console.print("Of tiles that overlap the pixels count that are in none before.")
    make_folder(file.parent)
    write_atomically(file, picture_of_surprises(shown, scoring.run.config.data.levels or 0))
    console.print(f"How surprising their pixels are: {file}")
