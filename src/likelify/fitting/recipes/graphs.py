"""What suits graphs and point sets: by how many there are, their sizes, and the features of their nodes."""

from collections.abc import Mapping
from dataclasses import replace

from likelify.data import Facts
from likelify.fitting.recipes.base import DROPOUT, Recipe, by_rows
from likelify.settings import Values

USUAL = Recipe("graph-flow", threads=1)
# Positions whose sum is zero have a density in the dimensions that are left, which other models do not know.
CENTRED = Recipe(
    "point-flow", models={"point-flow": {"symmetry": "rotations", "centre": "dropped", "width": 32}}, threads=1
)
# Of many small sets of points the continuous flow learns more in the same time (`benchmarks/tutorial_points.py`: 2,400
# sets); its likelihood costs some sixty calls of a network of all pairs, and it has no dropout.
POINTS = Recipe("point-flow", threads=1)
MOST_POINTS, FEWEST_SETS = 32, 2000
SOURCES = {"mog-ring": Recipe("point-flow", models={"set-canonical": {"order": "angle"}}, threads=1)}
# Training graphs below which a fit has so many steps, and seconds of the processor at most.
GRAPH_EFFORT = ((500, 1500, 60.0), (3000, 5000, 120.0), (20_000, 20_000, 240.0))
MOST_GRAPH_EFFORT = (100_000, 300.0)
# Nodes, and pairs of nodes of complete graphs, in a batch at most.
BATCH_NODES, BATCH_PAIRS = 16_384, 262_144
COUPLED = ("graph-flow", "graph-flat")
# What other models of sets change of that. A likelihood of a continuous flow takes as long as some fifty steps of its
# training, so that a few hundred graphs validate; what is assigned to anchors is learnt within seconds.
SET_FITS: Mapping[str, Values] = {
    "point-flow": {"lr": 1.2e-2, "weight_decay": 0.0, "average": 0.995, "validations": 10, "validation_items": 256},
    "set-autoregressive": {"lr": 3e-3, "average": 0.999, "validations": 20},
    "set-canonical": {"steps": 2000, "max_time": 30.0, "lr": 3e-3, "average": 0.99, "validations": 20},
}


def of_graphs(facts: Facts) -> Recipe:
    """Return the recipe of graphs by how many there are, their sizes and the features of their nodes."""
    graphs = facts.sizes.get("train", 0)
    found = SOURCES.get(facts.family) or _usual_of_graphs(facts, graphs)
    dropout = by_rows(DROPOUT, graphs)
    shared: Values = {"dropout": dropout} if dropout else {}
    # One feature cannot be divided for a coupling; the layers that it gets instead have no dropout.
    own: Values = {"coupling": "sylvester"} if facts.event_shape == (1,) else shared
    models = {"graph-flow": own, "graph-flat": shared}
    models |= {name: {**models.get(name, {}), **values} for name, values in found.models.items()}
    fit = _graph_fit(facts, graphs)
    fits = dict.fromkeys(COUPLED, fit) | {name: {**fit, **values} for name, values in SET_FITS.items()}
    return replace(found, models=models, fits={**fits, **found.fits})


def _usual_of_graphs(facts: Facts, graphs: int) -> Recipe:
    """Return the recipe of graphs that no source has one of its own for."""
    known = facts.graphs
    # On a line there are no rotations; the data are refused, with a remedy.
    if known is not None and known.centred and facts.event_shape != (1,):
        return CENTRED
    points = known is not None and known.complete and known.nodes[1] <= MOST_POINTS and graphs >= FEWEST_SETS
    return POINTS if points else USUAL


def _graph_fit(facts: Facts, graphs: int) -> Values:
    """Return the settings of the fit of couplings on graphs: batches by their sizes, patience if there are few."""
    steps, seconds = next(
        ((steps, seconds) for below, steps, seconds in GRAPH_EFFORT if graphs < below), MOST_GRAPH_EFFORT
    )
    nodes = 1.0 if facts.graphs is None else facts.graphs.mean_nodes
    fitting = BATCH_NODES / nodes
    if facts.graphs is not None and facts.graphs.complete:
        fitting = min(fitting, BATCH_PAIRS / nodes**2)
    return {
        "steps": steps,
        "max_time": seconds,
        "clock": "processor",
        "batch_size": min(128, max(graphs // 8, 8), max(int(fitting), 1)),
        "lr": 1.5e-2 if graphs >= 20_000 else 6e-3,
        "weight_decay": 1e-2 if graphs < 3000 else 1e-4,
        "warmup": 100,
        "average": 0.99,
        "validations": 20 if graphs >= 20_000 else 40,
        "patience": None if graphs >= 20_000 else 10,
    }
