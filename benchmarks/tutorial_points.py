"""Stands of trees whose density is known: how near models come to it, how odd ones are told, and what is drawn.

    python -m benchmarks.tutorial_points --pictures docs/images --page docs/tutorials/points.md

writes the tables and pictures of that page. `--write FILE` only writes the stands as a table of nodes, and `--odd FILE`
others of which some are spoilt.
"""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import likelify as lk
from benchmarks.fits import timed
from benchmarks.report import Entry, arguments, report
from benchmarks.tutorial_outliers import Area, Placements
from likelify import plots
from likelify.data import Batch, GraphItems, GraphSource, graph_source
from likelify.fitting.choose import choose
from likelify.fitting.loop import fit

# Metres: how far trees lie around the middle of a stand, and how near to one another they hardly grow.
SPREAD, REACH = 10.0, 8.0
FEWEST, MOST = 4, 10
STANDS, NEW, ODD = 3000, 1000, 0.02
CLOSE = 4.0
# The first is the one that `likelify fit` takes for these stands, and that the pictures are of.
MODELS = ("point-flow", "graph-flow")
TRUTH, ALONE, NEAREST = "true density", "trees alone", "smallest distance"
RATIO = "less trees alone"
DOUBLE, NO_RULE, FAR, ROWS = "a double entry", "no distance kept", "one tree far away", "planted in rows"
# The pictures of the page: the name of their marks, the file, and what it shows.
PICTURES = {
    "drawn picture": ("tutorial-points.png", "Sixteen stands that the model drew beside sixteen new ones"),
    "odd picture": ("tutorial-points-odd.png", "The twelve least likely stands with their ranks"),
    "distances picture": (
        "tutorial-points-distances.png",
        "Distances to the nearest tree: of stands, of samples, and of trees that do not see one another",
    ),
}
Stands = list[np.ndarray]
Score = Callable[[Stands], np.ndarray]


def log_repulsion(stands: np.ndarray) -> np.ndarray:
    """Return `sum_{i<j} log(1 - exp(-|x_i - x_j|^2 / r^2))` of stands `(count, trees, 2)`."""
    one, other = np.triu_indices(stands.shape[1], 1)
    squares = ((stands[:, one] - stands[:, other]) ** 2).sum(2)
    return np.log(-np.expm1(-squares / REACH**2) + 1e-300).sum(1)


def stands_of(trees: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw stands of so many trees, `(count, trees, 2)`: normal places, kept as often as they are far apart."""
    found = [np.empty((0, trees, 2))]
    while sum(map(len, found)) < count:
        places = SPREAD * rng.normal(size=(20_000, trees, 2))
        found.append(places[np.log(rng.random(len(places))) < log_repulsion(places)])
    return np.concatenate(found)[:count]


def stands(count: int, seed: int) -> Stands:
    """Draw stands of 4 to 10 trees, as many of each."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(FEWEST, MOST + 1, count)
    drawn = {trees: iter(stands_of(trees, int((sizes == trees).sum()), rng)) for trees in range(FEWEST, MOST + 1)}
    return [next(drawn[trees]) for trees in sizes]


@cache
def log_constant(trees: int, draws: int) -> tuple[float, float]:
    """Return the logarithm of the share of normal places that is kept, and its standard error.

    Args:
        trees: of a stand.
        draws: tens of thousands of places by which it is estimated.
    """
    rng = np.random.default_rng([trees, 1])
    kept = np.exp(np.concatenate([log_repulsion(SPREAD * rng.normal(size=(10_000, trees, 2))) for _ in range(draws)]))
    return math.log(kept.mean()), float(kept.std() / kept.mean() / math.sqrt(len(kept)))


def true_log_prob(stands: Stands, draws: int = 100) -> np.ndarray:
    """Return the log-density of each stand in nats, up to the error of the constant of its size."""
    normal = [-((x**2).sum() / (2 * SPREAD**2)) - len(x) * math.log(2 * math.pi * SPREAD**2) for x in stands]
    return np.array(
        [
            part + log_repulsion(x[None])[0] - log_constant(len(x), draws)[0]
            for part, x in zip(normal, stands, strict=True)
        ]
    )


def as_batch(stands: Stands) -> Batch:
    """Return stands as a batch of point sets."""
    structure = lk.GraphBatch.complete([len(x) for x in stands])
    return Batch(torch.from_numpy(np.concatenate(stands)), None, structure)


def as_source(stands: Stands) -> GraphSource:
    """Return stands as a source, a tenth of them for validation and a tenth for testing."""
    items = GraphItems(np.concatenate(stands), [len(x) for x in stands])
    return graph_source(items, name="stands", columns=("east", "north"))


def write(stands: Stands, file: Path) -> None:
    """Write stands as a table of nodes."""
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("graph", "node", "east", "north"))
        for number, x in enumerate(stands):
            writer.writerows((number, tree, f"{east:.2f}", f"{north:.2f}") for tree, (east, north) in enumerate(x))


def spoilt(stands: Stands, how: str, seed: int) -> Stands:
    """Return stands of the same sizes with something wrong with each."""
    rng = np.random.default_rng(seed)
    return [_SPOILING[how](x.copy(), rng) for x in stands]


def _double(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Enter the first tree twice, the second time in place of another one and a metre beside."""
    turn = rng.uniform(0, 2 * math.pi)
    x[1] = x[0] + (math.cos(turn), math.sin(turn))
    return x


def _no_rule(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return SPREAD * rng.normal(size=x.shape)


def _far(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    turn = rng.uniform(0, 2 * math.pi)
    x[0] = 4 * SPREAD * np.array((math.cos(turn), math.sin(turn)))
    return x


def _rows(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Plant the trees on a grid with a tree every 8 metres, as near to the middle as there is room."""
    grid = 8.0 * np.stack(np.meshgrid(np.arange(-3, 4), np.arange(-3, 4)), -1).reshape(-1, 2)
    turn = rng.uniform(0, 2 * math.pi)
    turned = grid @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    nearest = turned[np.argsort((turned**2).sum(1))[: len(x)]]
    return nearest + 0.5 * rng.normal(size=x.shape)


_SPOILING: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    DOUBLE: _double,
    NO_RULE: _no_rule,
    FAR: _far,
    ROWS: _rows,
}


def fitted(name: str, source: GraphSource, seconds: float, seed: int) -> lk.Flow:
    """Fit a model with the settings that the command line takes, for so many seconds of a processor."""
    choice = choose(source.facts(), model=name)
    with lk.seeded(seed):
        flow = choice.model.build()
    fit(flow, source, timed(choice.fit.model_dump(exclude={"steps", "max_time", "clock", "seed"}), seconds, seed))
    return flow


def log_prob(flow: lk.Flow, stands: Stands) -> np.ndarray:
    """Return the log-likelihood of each stand in nats."""
    found = []
    with torch.no_grad(), flow.frozen():
        for start in range(0, len(stands), 250):
            batch = as_batch(stands[start : start + 250])
            x = batch.x if flow.transform.takes_float64 else batch.x.float()
            found.append(flow.log_prob(x, batch.context()).double())
    return torch.cat(found).numpy()


def alone(source: GraphSource) -> Score:
    """Return the log-likelihood of trees that know nothing of one another: one normal distribution of all."""
    rows = source.read_all("train").x
    normal = torch.distributions.MultivariateNormal(rows.mean(0), rows.T.cov())
    return lambda stands: np.array([float(normal.log_prob(torch.from_numpy(x)).sum()) for x in stands])


def smallest_distance(stands: Stands) -> np.ndarray:
    """Return the distance of the two nearest trees of each stand."""
    return np.array([nearest(x).min() for x in stands])


def nearest(x: np.ndarray) -> np.ndarray:
    """Return the distance of each tree of a stand from the nearest other one."""
    apart = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return apart.min(1)


def per_tree(score: Score) -> Score:
    """Return a log-likelihood divided by the number of trees, by which stands of several sizes compare."""
    return lambda stands: score(stands) / np.array([len(x) for x in stands])


def less(score: Score, other: Score) -> Score:
    """Return the difference of two scores: the logarithm of a ratio of densities."""
    return lambda stands: score(stands) - other(stands)


def gains(score: Score, x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return for each tree how much a stand gains if that tree stands somewhere else, in nats.

    `log mean_k p(stand with the tree at places[k]) / p(stand)`: how much denser stands like it are in the mean.
    """
    moved = [np.concatenate([x[:tree], place[None], x[tree + 1 :]]) for tree in range(len(x)) for place in places]
    values = score([x, *moved])
    others = values[1:].reshape(len(x), len(places))
    return np.logaddexp.reduce(others, 1) - math.log(len(places)) - values[0]


@dataclass(frozen=True)
class Found:
    """What one seed has: scores by name, and the models."""

    scores: dict[str, Score]
    flows: dict[str, lk.Flow]


def prepared(source: GraphSource, seconds: float, seed: int, draws: int) -> Found:
    """Fit the models of one seed."""
    flows = {name: fitted(name, source, seconds, seed) for name in MODELS}
    scores: dict[str, Score] = {name: lambda stands, flow=flow: log_prob(flow, stands) for name, flow in flows.items()}
    return Found({TRUTH: lambda stands: true_log_prob(stands, draws), **scores, ALONE: alone(source)}, flows)


def distances(found: Found, new: Stands) -> list[Entry]:
    """Return how far the density of each model lies below the true one on new stands, per stand and per tree."""
    sizes, true, entries = np.array([len(x) for x in new]), found.scores[TRUTH](new), []
    for name, score in found.scores.items():
        nats = score(new)
        entries.append(Entry(f"{name}, nats per tree", float((nats / sizes).mean()), "nats", better="higher"))
        if name != TRUTH:
            below = true - nats
            entries.append(Entry(f"{name}, below the truth", float(below.mean()), "nats per stand"))
            error = float(below.std(ddof=1) / math.sqrt(len(below)))
            entries.append(Entry(f"{name}, below the truth, standard error", error, "nats per stand"))
    return entries


def areas(found: Found, new: Stands) -> list[Entry]:
    """Return how well each score tells spoilt stands from new ones: AUROC with half of its 95 % interval."""
    scores = {name: per_tree(score) for name, score in found.scores.items()} | {NEAREST: smallest_distance}
    for name in (TRUTH, MODELS[0]):
        scores[f"{name}, {RATIO}"] = less(per_tree(found.scores[name]), scores[ALONE])
    entries = []
    for name, score in scores.items():
        own = torch.from_numpy(score(new))
        for how in _SPOILING:
            placed = Placements.of(own, torch.from_numpy(score(spoilt(new, how, seed=5))))
            area = Area.of([placed], paired=True)
            entries.append(Entry(f"{how}: {name}", area.value, "AUROC", better="higher"))
            entries.append(Entry(f"{how}: {name}, half of the 95 % interval", area.half_width, "AUROC"))
    return entries


def blamed(found: Found, new: Stands, places: np.ndarray) -> list[Entry]:
    """Return how often the tree that a stand gains most without is one of the two that were entered twice."""
    doubled, entries = spoilt(new, DOUBLE, seed=5), []
    for name in (TRUTH, MODELS[0], ALONE):
        right = [int(np.argmax(gains(found.scores[name], x, places))) < 2 for x in doubled]
        entries.append(Entry(f"the doubled tree is found: {name}", float(np.mean(right)), "share", better="higher"))
    return entries


def crowded(stands: Stands) -> float:
    """Return the share of trees that have another one within four metres."""
    return float(np.mean(np.concatenate([nearest(x) for x in stands]) < CLOSE))


def drawn(flow: lk.Flow, like: Stands, seed: int) -> Stands:
    """Draw stands of the same numbers of trees."""
    batch = as_batch(like)
    with lk.seeded(seed), flow.frozen():
        x: Tensor = flow.sample((), batch.context())
    return np.split(x.double().numpy(), np.cumsum([len(each) for each in like])[:-1])


def measured(found: Found, new: Stands, samples: dict[str, Stands], places: np.ndarray, few: int) -> list[Entry]:
    """Return all figures of one seed; `few` stands are asked for the tree that is odd."""
    close = {"new stands": new, **samples, ALONE: spoilt(new, NO_RULE, seed=6)}
    entries = [Entry(f"trees closer than {CLOSE:g} m: {name}", crowded(of), "share") for name, of in close.items()]
    return distances(found, new) + areas(found, new) + blamed(found, new[:few], places) + entries


def draw(found: Found, new: Stands, samples: Stands, folder: Path) -> None:
    """Draw stands beside drawn ones, the least likely of stands of which some are spoilt, and distances of trees."""
    view = plots.View.of(_panels(new), ("east (m)", "north (m)"))
    figure = plots.graphs_of({"drawn by the model": _panels(samples[:16]), "stands": _panels(new[:16])}, view=view)
    (folder / "tutorial-points.png").write_bytes(plots.png_of(figure, dpi=110))
    half = len(new) // 2
    mixed, wrong = with_odd(new[:half], seed=7)
    score = per_tree(found.scores[MODELS[0]])
    values, usual = score(mixed), np.sort(score(new[half:]))
    least = np.argsort(values)[:12]
    ranks = (1 + np.searchsorted(usual, values, side="right")) / (1 + len(usual))
    titles = [f"rank {ranks[at]:.3f}" + (": spoilt" if at in wrong else "") for at in least]
    batch = as_batch([mixed[at] for at in least])
    assert batch.structure is not None
    figure = plots.graphs_of({"": plots.graph_panels(batch.x, batch.structure, titles)}, view=view, columns=6)
    (folder / "tutorial-points-odd.png").write_bytes(plots.png_of(figure, dpi=110))
    _draw_distances(new, samples, folder / "tutorial-points-distances.png")


def _panels(stands: Stands) -> list[plots.GraphPanel]:
    return [plots.GraphPanel(x) for x in stands]


def with_odd(stands: Stands, seed: int) -> tuple[Stands, set[int]]:
    """Return stands of which two in a hundred have a double entry, and the numbers of these."""
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(stands), max(1, round(ODD * len(stands))), replace=False)
    doubled = spoilt(stands, DOUBLE, seed)
    return [doubled[at] if at in wrong else x for at, x in enumerate(stands)], set(wrong.tolist())


def _draw_distances(new: Stands, samples: Stands, file: Path) -> None:
    from likelify.plots.files import new_figure

    figure = new_figure(5.2, 2.4)
    axes = figure.subplots()
    edges = np.linspace(0, 16, 49)
    independent = spoilt(new, NO_RULE, seed=6)
    for stands, colour, name, filled in (
        (new, "#d4772c", "stands", True),
        (samples, "#2f74b5", "drawn by the model", False),
        (independent, "#8d99a6", "trees that do not see one another", False),
    ):
        shares = np.histogram(np.concatenate([nearest(x) for x in stands]), edges, density=True)[0]
        axes.stairs(shares, edges, fill=filled, alpha=0.4 if filled else 1, color=colour, label=name, linewidth=1.4)
    axes.set(xlabel="metres to the nearest other tree", yticks=[], xlim=(0, 16))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    file.write_bytes(plots.png_of(figure, dpi=110))


def filled(page: str, tables: dict[str, str]) -> str:
    """Return a page with what stands between its marks replaced."""
    for name, text in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = page.partition(start)
        page = before + start + text + end + rest.partition(end)[2]
    return page


def tables(values: dict[str, float], seconds: float, seeds: int) -> dict[str, str]:
    """Return the tables of the page by the names of their marks."""
    names = (TRUTH, *MODELS, ALONE)
    rows = ["| density | nats per tree | below the truth, nats per stand |", "| --- | --- | --- |"]
    for name in names:
        below = (
            ""
            if name == TRUTH
            else (
                f"{values[f'{name}, below the truth']:.3f} +- {values[f'{name}, below the truth, standard error']:.3f}"
            )
        )
        rows.append(f"| {name} | {values[f'{name}, nats per tree']:.3f} | {below} |")
    of = (*names, f"{TRUTH}, {RATIO}", f"{MODELS[0]}, {RATIO}", NEAREST)
    odd = [f"| what is odd | {' | '.join(of)} |", f"| --- |{' --- |' * len(of)}"]
    for how in _SPOILING:
        cells = [
            f"{values[f'{how}: {name}']:.3f} +- {values[f'{how}: {name}, half of the 95 % interval']:.3f}"
            for name in of
        ]
        odd.append(f"| {how} | {' | '.join(cells)} |")
    shares = {name.partition(": ")[2]: value for name, value in values.items() if name.startswith("the doubled tree")}
    told = ", ".join(f"{name} {value:.0%}" for name, value in shares.items())
    close = {name.partition(": ")[2]: value for name, value in values.items() if name.startswith("trees closer")}
    crowd = ", ".join(f"{name} {value:.1%}" for name, value in close.items())
    many = "one seed" if seeds == 1 else f"means of {seeds} seeds"
    how = f"\nEach model was fitted for {seconds:g} seconds of one processor; {many}.\n"
    return {
        "densities": "\n".join(rows) + "\n" + how,
        "odd": "\n".join(odd) + "\n",
        "blame": f"The tree with the largest gain is one of the two: {told}.\n",
        "crowd": f"Trees with another one within four metres: {crowd}.\n",
    }


def shown_pictures() -> dict[str, str]:
    """Return the lines that show the pictures of the page, by the names of their marks."""
    return {name: f"![{alt}](../images/{file})\n" for name, (file, alt) in PICTURES.items()}


def means(seeds: Sequence[list[Entry]]) -> list[Entry]:
    """Return the entries of several seeds as their means."""
    values = [{entry.name: entry.value for entry in entries} for entries in seeds]
    return [
        Entry(each.name, float(np.mean([of[each.name] for of in values])), each.unit, each.must, each.aim, each.better)
        for each in seeds[0]
    ]


def main() -> None:
    """Fit, measure, and write page and pictures."""
    more = {
        "--seconds": {"type": float, "default": 120.0, "help": "of a processor, for each fit"},
        "--pictures": {"type": Path, "help": "write the pictures of the page to this folder"},
        "--page": {"type": Path, "help": "write the tables to this page"},
        "--write": {"type": Path, "help": "only write the stands to this file"},
        "--odd": {"type": Path, "help": "only write stands of which some are spoilt to this file"},
    }
    options = arguments(__doc__ or "", seeds=2, more=more)
    if options.write or options.odd:
        if options.write:
            write(stands(STANDS, seed=0), options.write)
        if options.odd:
            write(with_odd(stands(400, seed=2), seed=7)[0], options.odd)
        return
    quick = options.quick
    count, fresh, seconds, few = (300, 120, 2.0, 4) if quick else (STANDS, NEW, options.seconds, 60)
    draws, seeds = (2, 1) if quick else (400, options.seeds)
    source, new = as_source(stands(count, seed=0)), stands(fresh, seed=1)
    places, runs = source.read_all("validation").x.numpy()[:100], []
    for seed in range(seeds):
        found = prepared(source, seconds, seed, draws)
        samples = {name: drawn(flow, new, seed) for name, flow in found.flows.items()}
        runs.append(measured(found, new, samples, places, few))
        if seed == 0 and options.pictures is not None:
            draw(found, new, samples[MODELS[0]], options.pictures)
    largest = max(log_constant(trees, draws)[1] for trees in range(FEWEST, MOST + 1))
    entries = [*means(runs), Entry("standard error of the true density", largest, "nats per stand")]
    if options.page is not None:
        values = {entry.name: entry.value for entry in entries}
        shown = {} if options.pictures is None else shown_pictures()
        options.page.write_text(filled(options.page.read_text(), {**tables(values, seconds, seeds), **shown}))
    report(entries, options.json)


if __name__ == "__main__":
    main()
