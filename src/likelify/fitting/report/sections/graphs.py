"""Graphs that the model draws beside held-out ones: as pictures, node by node, and how nodes lie to one another."""

from __future__ import annotations

import numpy as np

from likelify.data import Batch, Facts
from likelify.errors import DataError
from likelify.fitting.report.blocks import Block, Card, Cards, Row, Section, Text
from likelify.fitting.report.column_pictures import Pair, marginal, points
from likelify.fitting.report.comparing import compare
from likelify.fitting.report.graph_pictures import beyond, grid, how_many, names_of_features, panels_of
from likelify.fitting.report.material import Material
from likelify.schema import ColumnSchema

MOST_MARGINALS, MOST_PAIRS = 8, 3
# Pairs of nodes that are looked at, of all graphs together.
WORK = 4_000_000


def graphs(material: Material, section: Section) -> None:
    """Show graphs that are drawn beside held-out ones, and compare their nodes."""
    drawn, real = material.drawn_graphs, material.held
    section.add(Text(_in_words(material)), _grids(material, drawn, real.batch))
    section.add(*_marginals(material, drawn, real.batch), *_pairs(material, drawn, real.batch))


def _in_words(material: Material) -> str:
    facts, seed = material.facts, material.config.fit.seed
    classes = " Classes come in turn." if material.config.conditional else ""
    edges = "" if facts.graphs is not None and facts.graphs.complete else ", and their edges"
    return (
        f"{len(material.drawn_graphs)} graphs are drawn (seed {seed}; nothing was picked by hand), with as many nodes "
        f"as training graphs have{edges}: a model of graphs describes the features of the nodes, given the graph."
        f"{classes}{material.slowness}"
    )


def _grids(material: Material, drawn: Batch, real: Batch) -> Block:
    view, pictures = material.view, []
    for batch, which, what in (
        (drawn, "model", "samples of the model"),
        (real, "data", f"graphs of the {material.split} split"),
    ):
        panels = panels_of(batch, np.arange(how_many(batch)))
        caption = f"{len(panels)} {what}. {view.words}"
        if outside := beyond(panels, view):
            lies = "node lies" if outside == 1 else "nodes lie"
            caption += f" {outside} {lies} beyond these limits, hollow at the edge."
        alt = f"A grid of {len(panels)} {what}."
        pictures.append(grid(panels, view, which, f"grid-{which}", alt, caption))
    return Row(tuple(pictures), width=320)


def _marginals(material: Material, drawn: Batch, real: Batch) -> list[Block]:
    names = names_of_features(material.facts)
    rows = [batch.x.detach().cpu().double().numpy().reshape(len(batch.x), -1) for batch in (real, drawn)]
    pairs = [_pair(name, rows[0][:, at], rows[1][:, at]) for at, name in enumerate(names[:MOST_MARGINALS])]
    pairs += _between(real, drawn, material.facts, rows[0])
    cards = [
        Card((marginal(pair, f"nodes-{at}", f"Histograms of {pair.name}: data against samples."),), (_distance(pair),))
        for at, pair in enumerate(pairs)
    ]
    some = f" Of {len(names)} features the first {MOST_MARGINALS} are shown." if len(names) > MOST_MARGINALS else ""
    note = (
        "Filled: held-out graphs; line: samples. D is the largest difference of the distribution functions "
        "(Kolmogorov-Smirnov); nodes of one graph are not independent, so that chance alone makes it larger than it "
        f"would be for as many rows. How nodes lie to one another is what single features do not show.{some}"
    )
    return [Cards("Node by node, and node to node", tuple(cards), width=165), Text(note)]


def _pair(name: str, real: np.ndarray, drawn: np.ndarray) -> Pair:
    # A bad fit may draw infinities; they count as far away.
    far = np.finfo(float).max
    return Pair(ColumnSchema(name=name), name, real, np.clip(np.nan_to_num(drawn, nan=far), -far, far))


def _distance(pair: Pair) -> str:
    real, drawn = (rows[np.isfinite(rows)] for rows in (pair.real, pair.drawn))
    return f"D = {compare(real, drawn).distance:.3f}" if len(real) and len(drawn) else ""


def _between(real: Batch, drawn: Batch, facts: Facts, rows: np.ndarray) -> list[Pair]:
    """Return how far nodes lie from the nearest other one, and from those that they have an edge to."""
    spread = rows.std(0)
    comparable = rows.shape[1] in (2, 3) and spread.max() < 5 * spread.min()
    scale = np.ones(rows.shape[1]) if comparable else np.where(spread > 0, spread, 1.0)
    unit = "" if comparable or rows.shape[1] == 1 else ", in deviations"
    found = []
    nearest = [nearest_distances(batch, scale) for batch in (real, drawn)]
    if all(map(len, nearest)):
        found.append(_pair(f"to the nearest node{unit}", *nearest))
    if facts.graphs is None or not facts.graphs.complete:
        along = [edge_lengths(batch, scale) for batch in (real, drawn)]
        found += [_pair(f"along edges{unit}", *along)] if all(map(len, along)) else []
    return found


def nearest_distances(batch: Batch, scale: np.ndarray) -> np.ndarray:
    """Return how far each node lies from the nearest other node of its graph, of as many graphs as is quick.

    Args:
        batch: of graphs; nodes that are alone are left out.
        scale: by which features are divided.
    """
    if batch.structure is None:
        raise DataError("The batch holds no graphs.")
    found, work = [], 0
    for panel in panels_of(batch):
        work += len(panel.features) ** 2
        if len(panel.features) > 1 and (work <= WORK or not found):
            places = (panel.features / scale)[: int(WORK**0.5)]
            squares = ((places[:, None] - places[None]) ** 2).sum(2)
            np.fill_diagonal(squares, np.inf)
            found.append(np.sqrt(squares.min(1)))
    return np.concatenate(found) if found else np.empty(0)


def edge_lengths(batch: Batch, scale: np.ndarray) -> np.ndarray:
    """Return how far nodes lie from those that they have an edge to."""
    if batch.structure is None or batch.structure.is_complete:
        return np.empty(0)
    start, end = batch.structure.edge_index.cpu().numpy()[:, :WORK]
    rows = batch.x.detach().cpu().double().numpy().reshape(len(batch.x), -1) / scale
    apart = start != end
    return np.sqrt(((rows[start] - rows[end]) ** 2).sum(1))[apart]


def _pairs(material: Material, drawn: Batch, real: Batch) -> list[Block]:
    """Return the features that go together most, of nodes of all graphs."""
    names = names_of_features(material.facts)
    rows = [batch.x.detach().cpu().double().numpy().reshape(len(batch.x), -1) for batch in (real, drawn)]
    if len(names) < 2:
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        together = np.abs(np.nan_to_num(np.corrcoef(rows[0].T)))
    order = sorted(zip(*np.triu_indices(len(names), 1), strict=True), key=lambda pair: -together[pair])
    cards = []
    for one, other in order[:MOST_PAIRS]:
        across, up = (_pair(names[at], rows[0][:, at], rows[1][:, at]) for at in (one, other))
        pictures = tuple(points(across, up, which, f"nodes-{one}-{other}-{which}") for which in ("real", "drawn"))
        cards.append(Card(pictures, (f"{across.name} and {up.name}",)))
    some = "All pairs" if len(cards) == len(order) else f"The {len(cards)} of {len(order)} pairs that go together most"
    return [Cards(f"{some} of features, of nodes of all graphs", tuple(cards), width=330)]
