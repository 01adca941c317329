"""How well held-out items are described, beside simple densities on the same items and in the same unit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from likelify.errors import DataError
from likelify.fitting.beside import TRAIN, VALIDATION, Baseline, simple_densities
from likelify.fitting.figures import HEAVY_SHARE, Figure, Score
from likelify.fitting.report.baselines import Split, baselines
from likelify.fitting.report.blocks import Picture, Section, Table, Terms, Text
from likelify.fitting.report.drawing import INK, LINE, MODEL, figure
from likelify.fitting.report.material import Material, Part, of_how_many
from likelify.fitting.report.sections.graph_likelihoods import figure_per_node, simple_of_nodes
from likelify.fitting.report.sections.graph_likelihoods import pictures as graph_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Standard errors by which a difference is one.
CLEAR = 2.0


@dataclass(frozen=True)
class Line:
    """A density's figure on the held-out items, and how far the model is better; of graphs also per node."""

    name: str
    figure: Figure
    gain: Figure | None
    what: str
    per_node: Figure | None = None


def standing(material: Material, section: Section) -> None:
    """Compare the model with simple densities."""
    section.doubts += _outside(material, material.scores.nats)
    try:
        lines, left_out = _as_evaluated(material) or _measured(material)
    except DataError as error:
        section.add(Text(f"No simple densities to compare with: {error}"))
        lines, left_out = [_own(material, material.scores.nats)], []
    section.tiles += _tiles(material, lines)
    section.add(Text(_in_words(material, lines)), *_picture(material, lines), _table(material, lines))
    section.add(Terms((*((line.name, line.what) for line in lines), *left_out)))
    if material.facts.kind == "graph":
        section.add(*graph_pictures(material))
    section.add(*_kept(material))
    section.doubts += [*_heavy(material), *_beaten(material, lines)]


Lines = tuple[list[Line], list[tuple[str, str]]]


def _as_evaluated(material: Material) -> Lines | None:
    """Return the figures that were kept beside the model's, so that a run has one set of them, and what has none."""
    kept = material.evaluation
    if kept is None or not kept.beside:
        return None
    lines = [Line(simple.name, simple.nats, simple.gain, simple.what) for simple in kept.beside]
    own = Line("this model", kept.beside[0].model, None, _what(material))
    return [own, *sorted(lines, key=_gain)], list(kept.not_beside.items())


def _measured(material: Material) -> Lines:
    """Return the figures of the report's own items, and what could not be fitted to them."""
    nats, simple = material.scores.nats, _simple(material)
    lines = sorted((_line(material, nats, each) for each in simple if len(each.nats)), key=_gain)
    left_out = [(each.name, each.what) for each in simple if not len(each.nats)]
    return [_own(material, nats), *lines], left_out


def _own(material: Material, nats: np.ndarray) -> Line:
    return Line("this model", _figure(material, nats), None, _what(material), _per_node(material, nats))


def _per_node(material: Material, nats: np.ndarray) -> Figure | None:
    return figure_per_node(material, nats) if material.facts.kind == "graph" else None


def _simple(material: Material) -> list[Baseline]:
    if material.facts.kind == "graph":
        return simple_of_nodes(material)
    parts = material.train, material.validation, material.held
    labels = (_labels(parts[0]), _labels(parts[1]), _labels(parts[2])) if material.config.conditional else None
    train, validation, held = (part.rows for part in parts)
    if material.facts.kind == "table":
        return simple_densities(material.facts.meaning, train, validation, held, labels)
    return baselines(Split(train, validation, held, material.facts.levels, labels))


def _labels(part: Part) -> np.ndarray:
    if part.labels is None:
        raise DataError("The model is told a class, and the data have none.")
    return part.labels


def _figure(material: Material, nats: np.ndarray) -> Figure:
    return Figure.of(material.in_unit(nats))


def _line(material: Material, nats: np.ndarray, simple: Baseline) -> Line:
    gain = material.in_unit(nats) - material.in_unit(simple.nats)
    gain = gain if material.unit.higher_is_better else -gain
    per_node = _per_node(material, simple.nats)
    return Line(simple.name, _figure(material, simple.nats), Figure.of(gain), simple.what, per_node)


def _what(material: Material) -> str:
    likelihood = material.flow.likelihood
    if likelihood == "exact":
        return "Exact likelihoods." if material.facts.levels is None else "Exact probabilities."
    if likelihood == "bound":
        return "Importance-weighted: in expectation a lower bound, which more draws raise."
    return "The mean of random estimates, which are a lower bound in expectation."


def show(number: Figure, digits: int) -> str:
    """Return a figure with its error."""
    if not math.isfinite(number.mean):
        return "not known" if math.isnan(number.mean) else "minus infinity" if number.mean < 0 else "infinite"
    error = (
        ""
        if number.standard_error is None
        else f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{number.standard_error:.{digits}f}"
    )
    return f"{number.mean:.{digits}f}{error}"


def _gain(line: Line) -> float:
    return math.inf if line.gain is None or math.isnan(line.gain.mean) else line.gain.mean


def _tiles(material: Material, lines: list[Line]) -> list[tuple[str, str]]:
    facts, best = material.facts, _best(lines)
    own, error = lines[0].figure, lines[0].figure.standard_error
    spread = "" if error is None else f"± {error:.{material.digits}f} "
    short = show(own.model_copy(update={"standard_error": None}), material.digits)
    each = f" per {facts.item}" if facts.kind == "graph" else ""
    tiles = [(short, f"{spread}{material.unit.name}{each} on held-out {facts.items}")]
    if (node := lines[0].per_node) is not None:
        error = "" if node.standard_error is None else f"± {node.standard_error:.{material.digits}f} "
        tiles.append((show(node.model_copy(update={"standard_error": None}), material.digits), f"{error}nats per node"))
    if best is not None and best.gain is not None and math.isfinite(best.gain.mean):
        better = "better" if best.gain.mean >= 0 else "worse"
        tiles.append(
            (f"{abs(best.gain.mean):.{material.digits}f} {better}", f"than the best simple density, {best.name}")
        )
    return tiles


def _in_words(material: Material, lines: list[Line]) -> str:
    facts, own = material.facts, lines[0].figure
    held = of_how_many(own.count, material.held.of)
    text = (
        f"On {held} {facts.items} of the {material.split} split, which {material.judged}, the model has "
        f"{show(own, material.digits)} {material.unit.name} ({material.better}; errors are standard errors over "
        f"{facts.items})."
    )
    if (node := lines[0].per_node) is not None:
        text += f" Per node, averaged over graphs, these are {show(node, material.digits)} nats."
    best = _best(lines)
    if best is None or best.gain is None or not math.isfinite(best.gain.mean):
        return text
    nats = best.gain.mean * (1 if material.unit.word == "nats" else material.elements * math.log(2))
    times = f"{math.exp(nats):,.3g}" if abs(nats) < 7 else f"10{_raised(round(nats / math.log(10)))}"
    more = "probability" if facts.levels is not None else "density"
    return (
        f"{text} The best of the simple densities, '{best.name}', has {show(best.figure, material.digits)}. The model "
        f"gives a held-out {facts.item} {times} times the {more} that this gives it, in the geometric mean."
    )


def _raised(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))


def _best(lines: list[Line]) -> Line | None:
    return lines[1] if len(lines) > 1 else None


def _beaten(material: Material, lines: list[Line]) -> list[str]:
    best = _best(lines)
    if best is None or best.gain is None or not math.isfinite(best.gain.mean):
        return []
    error = best.gain.standard_error or 0.0
    if best.gain.mean < -CLEAR * error:
        return [
            f"A simple density describes the held-out {material.facts.items} better than this model: '{best.name}', "
            f"by {show(best.gain.model_copy(update={'mean': -best.gain.mean}), material.digits)} {material.unit.name}."
            " Fit longer, or another model."
        ]
    if best.gain.mean < CLEAR * error:
        return [f"On these {material.facts.items} the model cannot be told from a simple density: '{best.name}'."]
    return []


def _heavy(material: Material) -> list[str]:
    """Say so where importance weights have heavy tails, which makes likelihoods too small without showing it."""
    kept = material.evaluation
    share = None if kept is None or kept.iw is None else kept.iw.heavy
    if share is None or share <= HEAVY_SHARE:
        return []
    return [
        f"The importance weights of {share:.0%} of the held-out {material.facts.items} have heavy tails. Their "
        "likelihood is likely underestimated, and the standard error does not show it. More draws help: likelify "
        "evaluate --iw-samples."
    ]


def _outside(material: Material, nats: np.ndarray) -> list[str]:
    outside = int(np.isneginf(nats).sum())
    if not outside:
        return []
    return [
        f"{outside} of {len(nats)} held-out {material.facts.items} lie outside the support of the model: their "
        "likelihood is zero, and the mean of the logarithms minus infinity."
    ]


def _table(material: Material, lines: list[Line]) -> Table:
    sign = "bits/dim" if material.unit.word == "bits" else f"nats per {material.facts.item}"
    nodes = ["nats per node"] if lines[0].per_node is not None else []
    rows = [
        (
            line.name,
            show(line.figure, material.digits),
            *([] if line.per_node is None else [show(line.per_node, material.digits)]),
            "" if line.gain is None else show(line.gain, material.digits),
        )
        for line in lines
    ]
    train, validation = len(material.train), len(material.validation)
    if _as_evaluated(material) is not None:
        train, validation = min(material.train.of, TRAIN), min(material.validation.of, VALIDATION)
    caption = (
        f"The same {lines[0].figure.count:,} held-out {material.facts.items} for all, fitted to {train:,}"
        f" training {material.facts.items}, chosen on {validation:,} of validation"
        + (", for each class by itself, since the model is told the class." if material.config.conditional else ".")
    )
    return Table(("", sign, *nodes, "model better by"), rows, caption, strong=(0,))


def _picture(material: Material, lines: list[Line]) -> list[Picture]:
    shown = [line for line in lines if math.isfinite(line.figure.mean)]
    if len(shown) < 2:
        return []

    def draw(axes: Axes) -> None:
        for place, line in enumerate(shown):
            colour = INK if line.gain is not None else MODEL
            error = CLEAR * (line.figure.standard_error or 0.0)
            axes.errorbar(line.figure.mean, place, xerr=error, fmt="o", color=colour, capsize=3, markersize=6)
        axes.set_yticks(range(len(shown)), [line.name for line in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel(f"{material.unit.name} ({material.better})")
        axes.grid(axis="y", color=LINE, alpha=0.3, linewidth=0.6)
        axes.tick_params(axis="y", length=0)

    words = "; ".join(f"{line.name} {line.figure.mean:.{material.digits}f}" for line in shown)
    caption = f"Held-out {material.facts.items}: dots are means, bars two standard errors. {_sentence(material)}"
    size = (4.2, 0.75 + 0.3 * len(shown))
    return [figure("standing", draw, alt=f"Means in {material.unit.name}: {words}.", caption=caption, size=size)]


def _sentence(material: Material) -> str:
    return "Further left is better." if not material.unit.higher_is_better else "Further right is better."


def _kept(material: Material) -> list[Table]:
    """Return the figures that `evaluate` kept, if it did."""
    kept = material.evaluation
    if kept is None:
        return []
    both = {"exact" if kept.exact else "ELBO": kept.elbo, "importance-weighted": kept.iw}
    of_integers = material.facts.levels is not None
    rows = [_row(name, score, of_integers=of_integers) for name, score in both.items() if score is not None]
    caption = f"As 'likelify evaluate' measured the {material.split} split"
    item = material.facts.item
    # Bits per dimension of densities depend on units, and of graphs on how many dimensions their positions have.
    own = ["bits/dim"] if of_integers else ["nats per node"] if kept.elbo.per_node is not None else []
    return [Table(("", *own, f"nats per {item}", "draws", material.facts.items), rows, caption, folded=True)]


def _row(name: str, score: Score, *, of_integers: bool) -> tuple[str, ...]:
    own = score.bits if of_integers else score.per_node
    shown = [] if own is None else [show(own, 4)]
    return name, *shown, show(score.nats, 2), str(score.samples), f"{score.nats.count:,}"
