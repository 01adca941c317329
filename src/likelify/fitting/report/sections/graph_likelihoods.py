"""Likelihoods of graphs: per graph and per node, against the number of nodes, and beside those of samples."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from likelify.data.graphs import CENTRED
from likelify.errors import DataError
from likelify.fitting.beside import Baseline
from likelify.fitting.figures import Figure
from likelify.fitting.report.baselines import Split, baselines
from likelify.fitting.report.blocks import Block, Picture, Row
from likelify.fitting.report.drawing import DATA, INK, LINE, MODEL, figure
from likelify.fitting.report.material import Material, Part, as_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS, SHOWN = 40, (0.002, 0.998)
# Sizes that have a box of their own.
MOST_SIZES = 12


def per_node(nats: np.ndarray, part: Part) -> np.ndarray:
    """Return log-likelihoods of graphs in nats for each of their nodes."""
    return nats / nodes_of(part)


def nodes_of(part: Part) -> np.ndarray:
    """Return the number of nodes of each graph.

    Raises:
        DataError: if the items are no graphs.
    """
    if part.batch.structure is None:
        raise DataError("The batch holds no graphs.")
    return part.batch.structure.sizes.cpu().numpy()


def simple_of_nodes(material: Material) -> list[Baseline]:
    """Return simple densities of nodes that know nothing of one another, summed over the nodes of each graph.

    Raises:
        DataError: if positions are centred, so that their densities are of fewer dimensions; as `baselines`.
    """
    parts = (material.train, material.validation, material.held)
    rows = [as_rows(part.batch.x) for part in parts]
    if _are_centred(rows[2], material.held):
        raise DataError(
            "The positions of each graph have mean zero: their density is one of fewer dimensions than nodes have "
            "features, and does not compare with densities of single nodes."
        )
    labels = None
    if material.config.conditional:
        one, other, last = (np.repeat(_labels(part), nodes_of(part)) for part in parts)
        labels = one, other, last
    found = baselines(Split(rows[0], rows[1], rows[2], None, labels))
    return [replace(each, name=f"nodes alone, {each.name}", **_summed(each, material.held)) for each in found]


def _labels(part: Part) -> np.ndarray:
    if part.labels is None:
        raise DataError("The model is told a class, and the data have none.")
    return part.labels


def _are_centred(rows: np.ndarray, part: Part) -> bool:
    sizes = nodes_of(part)
    if sizes.max() == 1:
        return False
    means = np.add.reduceat(rows, np.cumsum(sizes) - sizes) / sizes[:, None]
    return bool(np.abs(means).max() < CENTRED * rows.std())


def _summed(simple: Baseline, part: Part) -> dict[str, np.ndarray | str]:
    if not len(simple.nats):
        return {}
    sizes = nodes_of(part)
    return {
        "nats": np.add.reduceat(simple.nats, np.cumsum(sizes) - sizes),
        "what": f"Nodes of a graph are taken for independent. {simple.what}",
    }


def pictures(material: Material) -> list[Block]:
    """Return how likelihoods per node are distributed, of held-out graphs and of samples, and by number of nodes."""
    held = per_node(material.scores.nats, material.held)
    drawn = material.drawn_per_node
    found = [_histogram(held[np.isfinite(held)], drawn[np.isfinite(drawn)], material)]
    sizes = nodes_of(material.held)
    if len(np.unique(sizes)) > 1:
        found.append(_by_size(held, sizes, material))
    return [Row(tuple(found), width=320)]


def _histogram(held: np.ndarray, drawn: np.ndarray, material: Material) -> Picture:
    if not len(held):
        raise DataError("No held-out graph has a finite likelihood.")
    both = np.concatenate([np.quantile(each, SHOWN) for each in (held, drawn) if len(each)])
    low, high = float(both.min()), float(both.max())
    edges = np.linspace(low, high if high > low else low + 1, min(BINS, max(8, int(len(held) ** 0.5))) + 1)

    def draw(axes: Axes) -> None:
        for values, colour, filled, name in (
            (held, DATA, True, f"{material.split} graphs"),
            (drawn, MODEL, False, "samples"),
        ):
            shares = np.histogram(values, edges)[0] / max(len(values), 1)
            axes.stairs(
                shares, edges, color=colour, fill=filled, alpha=0.45 if filled else 1, linewidth=1.3, label=name
            )
        axes.set_xlabel("nats per node (higher is more likely)")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.legend(loc="best")

    means = f"{held.mean():.3f}" + (f", of {len(drawn):,} samples {drawn.mean():.3f}" if len(drawn) else "")
    caption = (
        f"Log-likelihood per node: the mean of {len(held):,} held-out graphs is {means}. Samples of the true density "
        "would have the distribution of the data; samples that are less likely are where the model has put mass that "
        "the data do not have."
    )
    return figure("per-node", draw, alt="Histograms of log-likelihoods per node.", caption=caption, size=(4.0, 2.7))


def _by_size(held: np.ndarray, sizes: np.ndarray, material: Material) -> Picture:
    from matplotlib.ticker import MaxNLocator

    distinct = np.unique(sizes)
    known = np.isfinite(held)
    jitter = np.random.default_rng(0).uniform(-0.25, 0.25, len(held)) if len(distinct) <= MOST_SIZES else 0.0
    middle = np.array(
        [np.median(held[(sizes == size) & known]) if known[sizes == size].any() else np.nan for size in distinct]
    )

    def draw(axes: Axes) -> None:
        many = len(held) > 500
        axes.scatter((sizes + jitter)[known], held[known], s=7, color=DATA, alpha=0.5, linewidths=0, rasterized=many)
        axes.plot(distinct, middle, color=INK, linewidth=1.2, marker="_", markersize=9, label="median")
        axes.set_xlabel("nodes of the graph")
        axes.set_ylabel("nats per node")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color=LINE, alpha=0.25, linewidth=0.6)
        axes.legend(loc="best")

    alt = "Log-likelihoods per node against the number of nodes."
    caption = (
        f"Log-likelihood per node of {material.split} graphs against their size. A density of more nodes is one of "
        "more dimensions, so graphs of different sizes compare per node at best."
    )
    return figure("by-size", draw, alt=alt, caption=caption, size=(4.0, 2.7))


def figure_per_node(material: Material, nats: np.ndarray) -> Figure:
    """Return the mean over graphs of the log-likelihood per node, with its standard error."""
    return Figure.of(per_node(nats, material.held))
