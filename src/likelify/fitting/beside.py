"""Simple densities of a table beside a model of it, on the same held-out rows: whether the model was worth its fit.

They are fitted behind marginals of their own, in seconds and without a step of training, and are exact for columns of
every kind, so that their figures are in the unit of the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from likelify.data import Source, SplitName, subset
from likelify.errors import LikelifyError, needs
from likelify.fitting.feeding import by_weight
from likelify.fitting.figures import Figure, Simple
from likelify.fitting.scoring.likelihoods import score_source
from likelify.schema import ColumnSchema, all_plain
from likelify.seeding import seeded

if TYPE_CHECKING:
    from likelify.distributions import Distribution
    from likelify.fitting.run import Run
    from likelify.flows import Flow
    from likelify.transforms import MixedColumns

    Snap = Callable[[Tensor, int], tuple[Tensor, Tensor]]
    Make = Callable[[Tensor, Tensor], Distribution]

# Classes of the rows that densities are fitted to, chosen on and measured on.
Labels = tuple[np.ndarray, ...]
# Rows that simple densities are fitted to, chosen on and measured on; of more, as many are taken.
TRAIN, VALIDATION, HELD = 20_000, 5000, 10_000
# Rows of a class that are enough to fit to.
FEWEST = 20
# Groups of rows of a mixture for columns of any kind, and normal distributions of one for real columns.
GROUPS, NORMALS = 8, 16
# Rounds that refine the groups, and rows that are worked on at a time.
ROUNDS, PASS = 5, 2048


@dataclass(frozen=True, eq=False)
class Baseline:
    """What a simple density says of held-out items.

    Attributes:
        name: of the density.
        what: a sentence on what it is, and whether its figures are exact or bounds.
        nats: of each held-out item; empty if it was left out.
        validation: mean of the validation items, by which its settings were chosen.
    """

    name: str
    what: str
    nats: np.ndarray
    validation: float = float("nan")


def beside(
    run: Run, flow: Flow, source: Source, split: SplitName = "test"
) -> tuple[tuple[Simple, ...], dict[str, str]]:
    """Compare the model of a run with simple densities of its training rows, row by row on a split.

    Return their figures; and of those that could not be fitted, by name, why. Of large splits some rows are taken, see
    `data.subset`.

    Args:
        run: a run of a table.
        flow: its model.
        source: its data.
        split: that is measured.
    """
    most: dict[SplitName, int] = {"train": TRAIN, "validation": VALIDATION, split: HELD}
    few = subset(source, **{name: min(source.size(name), count) for name, count in most.items() if source.size(name)})
    config = run.config
    model = score_source(flow, few, split, facts=config.data, conditional=config.conditional).nats
    (train, seen, held), labels = _rows(few, ("train", "validation", split), told=config.conditional)
    counts = few.item_weights(split)
    weights = None if counts is None else counts.numpy()
    densities = simple_densities(config.data.meaning, train, seen, held, labels)
    figures = tuple(
        Simple(
            name=each.name,
            what=each.what,
            nats=Figure.of(each.nats, weights),
            model=Figure.of(model, weights),
            gain=Figure.of(model - each.nats, weights),
        )
        for each in densities
        if len(each.nats)
    )
    return figures, {each.name: each.what for each in densities if not len(each.nats)}


def _rows(source: Source, splits: Sequence[SplitName], *, told: bool) -> tuple[list[np.ndarray], Labels | None]:
    """Return the rows of some splits, and their classes if the model is told them; but for the last as they weigh."""
    batches = [source.read(split, torch.arange(source.size(split))) for split in splits]
    batches = [*map(by_weight, batches[:-1]), batches[-1]]
    labels = [batch.labels.numpy() for batch in batches if batch.labels is not None] if told else []
    return [batch.x.numpy() for batch in batches], tuple(labels) or None


def simple_densities(
    schema: Sequence[ColumnSchema],
    train: np.ndarray,
    validation: np.ndarray,
    held: np.ndarray,
    labels: Labels | None = None,
) -> list[Baseline]:
    """Fit independent columns, a Gaussian copula and a mixture to rows, and measure held-out rows with each.

    Args:
        schema: what the columns mean.
        train: rows to fit to, `(n, columns)` in float64.
        validation: rows by which each is mixed with independent columns, so that no row is impossible.
        held: rows to measure.
        labels: classes of the three, if the rows are to be told apart by class.

    Returns:
        One for each density; one that was not possible has no figures, and says why.

    Example:
        >>> from likelify.schema import real_columns
        >>> rows = np.random.default_rng(0).normal(size=(300, 2)) @ [[1.0, 0.9], [0.0, 0.1]]
        >>> found = simple_densities(real_columns(2), rows[:200], rows[200:250], rows[250:])
        >>> [each.name for each in found], bool(found[1].nats.mean() > found[0].nats.mean() + 1)
        (['independent columns', 'Gaussian copula', 'Gaussian mixture'], True)
    """
    parts = (train, validation, held)
    if labels is None:
        return _densities(tuple(schema), *parts)
    nats: dict[str, np.ndarray] = {}
    found: list[Baseline] = []
    for label in np.unique(labels[2]):
        own = [rows[of == label] for rows, of in zip(parts, labels, strict=True)]
        # Of a class of a few rows there is nothing to fit to, so that all rows stand in.
        few, seen = (rows if len(rows) >= FEWEST else whole for rows, whole in zip(own[:2], parts[:2], strict=True))
        found = _densities(tuple(schema), few, seen, own[2])
        for each in found:
            if len(each.nats):
                nats.setdefault(each.name, np.full(len(held), np.nan))[labels[2] == label] = each.nats
    whole = {name: values for name, values in nats.items() if not np.isnan(values).any()}
    return [
        replace(each, what=f"For each class: {each.what}", nats=whole.get(each.name, np.empty(0))) for each in found
    ]


def _densities(
    schema: tuple[ColumnSchema, ...], train: np.ndarray, validation: np.ndarray, held: np.ndarray
) -> list[Baseline]:
    from likelify.transforms import MixedColumns

    marginals = MixedColumns(schema)
    rows, chosen, measured = (torch.as_tensor(part, dtype=torch.float64) for part in (train, validation, held))
    found = []
    with torch.no_grad(), seeded(0):
        cells = marginals.initialize(rows)
        seen, (known, contribution) = _mapped(marginals, chosen)[0], _mapped(marginals, measured)
        for name, what, make in _kinds(schema, marginals.snap):
            try:
                nats = _nats(make(cells, seen), known) + contribution
                found.append(Baseline(name, what, nats.double().numpy()))
            except (LikelifyError, torch.linalg.LinAlgError) as error:  # pyright: ignore[reportPrivateImportUsage]
                found.append(Baseline(name, f"Left out: {error}", np.empty(0)))
    return found


def _mapped(marginals: MixedColumns, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cells of rows, and what mapping them contributes."""
    parts = [marginals(part) for part in rows.split(PASS)]
    return torch.cat([cells for cells, _ in parts]), torch.cat([contribution for _, contribution in parts])


def _nats(density: Distribution, cells: Tensor) -> Tensor:
    return torch.cat([density.log_prob(part) for part in cells.split(PASS)])


def _kinds(schema: tuple[ColumnSchema, ...], snap: Snap) -> list[tuple[str, str, Make]]:
    """Return name, description and maker of each density; a maker takes cells to fit to, and cells to choose on."""
    from likelify.distributions import AutoregressiveColumns, GaussianMixture, Mixture, OfReals

    def alone() -> Distribution:
        return AutoregressiveColumns(schema, linear=False, snap=snap)

    def independent(cells: Tensor, seen: Tensor) -> Distribution:  # noqa: ARG001 - as all makers are called
        density = alone()
        density.initialize(cells)
        return density

    def mixed(cells: Tensor, seen: Tensor, *members: Distribution) -> Distribution:
        mixture = Mixture(members, apart=True)
        mixture.initialize(cells)
        mixture.stack(seen)
        return mixture

    def gaussian(cells: Tensor, seen: Tensor) -> Distribution:
        return mixed(cells, seen, *AutoregressiveColumns.simple(schema, snap))

    def normals(cells: Tensor, seen: Tensor) -> Distribution:
        return mixed(cells, seen, alone(), OfReals(GaussianMixture(len(schema), _components(len(cells), NORMALS))))

    def groups(cells: Tensor, seen: Tensor) -> Distribution:
        return _groups(cells, seen, alone, _components(len(cells), GROUPS))

    behind = "behind fitted marginals"
    found: list[tuple[str, str, Make]] = [
        ("independent columns", "Each column alone, by its fitted marginal.", independent),
        ("Gaussian copula", f"A linear autoregression of the columns {behind}.", gaussian),
    ]
    if all_plain(schema):
        return [*found, ("Gaussian mixture", f"A mixture of normal distributions {behind}.", normals)]
    return [*found, ("groups of rows", f"Groups of rows, in each of which columns are independent, {behind}.", groups)]


def _components(rows: int, most: int) -> int:
    """Return how many components so many rows can fill."""
    return max(1, min(most, rows // 50))


def _groups(cells: Tensor, seen: Tensor, alone: Callable[[], Distribution], count: int) -> Distribution:
    """Fit groups of rows with independent columns: from k-means, rows then go to the group that describes them best."""
    from likelify.distributions import Mixture

    groups = _first_groups(cells, count)
    members: list[Distribution] = []
    for _ in range(ROUNDS):
        members = []
        for group in groups.unique():
            members.append(alone())
            members[-1].initialize(cells[groups == group])
        groups = torch.stack([_nats(member, cells) for member in members]).argmax(0)
    overall = alone()
    overall.initialize(cells)
    mixture = Mixture([*members, overall], apart=True)
    mixture.stack(seen)
    return mixture


def _first_groups(cells: Tensor, count: int) -> Tensor:
    """Return the number of a group for each row: by k-means on z-scores, and on states in units of their spread."""
    with needs("scikit-learn", "app"):
        from sklearn.cluster import KMeans

    points = torch.cat([cells[:, 1], torch.nn.functional.one_hot(cells[:, 0].long()).flatten(1)], 1)
    found: Any = KMeans(count, max_iter=30, random_state=0).fit_predict(points.double().numpy())
    return torch.from_numpy(found)
