"""Configurations of the systems of particles, sampled here and kept in the user's folder of caches."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from likelify.data.facts import SPLITS, SplitName
from likelify.data.graphs import GraphItems, GraphSource
from likelify.data.limits import TROUBLE
from likelify.data.simulated.annealing import LogNormalizer, joined
from likelify.data.simulated.annealing import Path as Annealing
from likelify.data.simulated.chains import effective_size, r_hat
from likelify.data.simulated.particles import SYSTEMS, System, centre
from likelify.errors import DataError, LikelifyWarning, unknown_word

# What this module samples, in the names of its files: to be raised by whatever changes the draws.
VERSION = 1
# How many draws are looked at apart in the splits, each with chains of its own.
PARTS: dict[SplitName, int] = {"train": 10_000, "validation": 2_000, "test": 10_000}


@dataclass(frozen=True)
class Sampling:
    """How a system is sampled.

    Attributes:
        levels: of the way on which chains come from normal positions.
        burn_in: trajectories in which the length of the steps is found; what they give is thrown away.
        draws: kept of each chain.
        thin: trajectories from one draw to the next.
        steps: of the integrator in a trajectory.
        seed: of everything.
    """

    levels: int = 300
    burn_in: int = 400
    draws: int = 20
    thin: int = 20
    steps: int = 20
    seed: int = 0


@dataclass(frozen=True)
class Configurations:
    """Draws of a system.

    Attributes:
        splits: positions of each split `(draws, particles, axes)`, in random order, with mean zero.
        r_hat: the largest of those of the energy, the size and the longest distance, over all chains.
        effective: the smallest share of the draws that count as independent ones for the mean of one of these.
    """

    splits: dict[SplitName, np.ndarray]
    r_hat: float
    effective: float


SAMPLINGS = {
    "dw4": Sampling(burn_in=2000, thin=400, steps=10),
    "lj13": Sampling(),
    "lj13-single": Sampling(),
}


def sample(system: System, sampling: Sampling, sizes: Mapping[SplitName, int]) -> Configurations:
    """Draw configurations by Hamiltonian Monte Carlo with many chains at once.

    Chains come from normal positions through a series of other densities (`annealing.Path`), are moved on until the
    length of their steps is found, and are then left alone. The chains of one split are not those of another. Each
    draw is turned, mirrored and its particles are put in another order at random, which leaves the density as it is.

    Args:
        system: what is sampled.
        sampling: how.
        sizes: number of draws of each split, multiples of `sampling.draws`.
    """
    rng = np.random.default_rng(sampling.seed)
    counts = [sizes[split] // sampling.draws for split in SPLITS]
    path = Annealing(system, sampling.levels, rng)
    walkers, _ = path.forward(rng, sum(counts))
    walkers = walkers.at(walkers.x, system.energy, walkers.step)
    for _ in range(sampling.burn_in):
        walkers.move(system.energy, rng, steps=sampling.steps, adapt=True)
    kept, numbers = [], []
    for _ in range(sampling.draws):
        for _ in range(sampling.thin):
            walkers.move(system.energy, rng, steps=sampling.steps)
        kept.append(_anyhow(walkers.x, rng))
        numbers.append(_numbers(walkers.x, walkers.energy))
    draws, watched = np.stack(kept, -1), np.stack(numbers, -1)
    splits: dict[SplitName, np.ndarray] = {}
    for split, part in zip(SPLITS, np.split(draws, np.cumsum(counts)[:-1], axis=2), strict=True):
        whole = part.reshape(*part.shape[:2], -1).transpose(2, 0, 1)
        splits[split] = whole[rng.permutation(len(whole))]
    effective = min(effective_size(each) / each.size for each in watched)
    return Configurations(splits, max(map(r_hat, watched)), effective)


def _numbers(x: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Return the numbers by which chains are compared: energy, size, longest distance."""
    apart = ((x[:, None] - x) ** 2).sum(2)
    return np.stack([energy, np.sqrt((x * x).sum((0, 1))), np.sqrt(apart.max((0, 1)))])


def _anyhow(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return each configuration turned, mirrored and in another order, all uniformly."""
    particles, axes, count = x.shape
    order = rng.random((particles, count)).argsort(0)
    x = np.take_along_axis(x, order[:, None], 0)
    x = np.concatenate([x[:, :1] * np.where(rng.random(count) < 0.5, -1.0, 1.0), x[:, 1:]], axis=1)
    # Of normal numbers, by operations that are the same to the last bit everywhere.
    if axes == 2:
        a, b = _unit(rng.standard_normal((2, count)))
        turn = np.array([[a, -b], [b, a]])
    else:
        w, i, j, k = _unit(rng.standard_normal((4, count)))
        turn = np.array(
            [
                [1 - 2 * (j * j + k * k), 2 * (i * j - k * w), 2 * (i * k + j * w)],
                [2 * (i * j + k * w), 1 - 2 * (i * i + k * k), 2 * (j * k - i * w)],
                [2 * (i * k - j * w), 2 * (j * k + i * w), 1 - 2 * (i * i + j * j)],
            ]
        )
    return centre((turn * x[:, None]).sum(2))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt((vectors * vectors).sum(0))


def configurations(name: str) -> Configurations:
    """Return the draws of a system, from the user's folder of caches; they are sampled the first time.

    The folder is `likelify` in `$XDG_CACHE_HOME`, or else in `~/.cache`; what is in it can be deleted.

    Args:
        name: `dw4`, `lj13` or `lj13-single`.

    Raises:
        DataError: if there is no such system.
    """
    system = known_system(name)
    place = cache_folder() / f"{name}-{_settings_hash(name)}.npz"
    found = _kept(place)
    if found is not None:
        return found
    said = f"'{name}' is sampled now, which takes a minute or two, and kept in '{place}'."
    warnings.warn(said, LikelifyWarning, stacklevel=2)
    found = sample(system, SAMPLINGS[name], PARTS)
    _keep(found, place)
    return found


def particles(name: str, train: int | None = None) -> GraphSource:
    """Open a system of particles as a source of complete graphs, with the positions of particles as features of nodes.

    Args:
        name: `dw4`, `lj13` or `lj13-single`.
        train: number of training configurations, the first of 10,000; by default all.

    Raises:
        DataError: if there is no such system, or there are fewer configurations.
    """
    system, found = known_system(name), configurations(name)
    if train is not None and not 1 <= train <= len(found.splits["train"]):
        raise DataError(f"'{name}' has 1 to {len(found.splits['train'])} training configurations, not {train}.")
    splits: dict[SplitName, np.ndarray] = {**found.splits, "train": found.splits["train"][:train]}
    sizes = " / ".join(str(len(part)) for part in splits.values())
    described = (
        f"simulated: {system.said}, centred; {sizes} by Hamiltonian Monte Carlo "
        f"(R-hat {found.r_hat:.3f}, {found.effective:.0%} of the draws count as independent)"
    )
    items: dict[SplitName, GraphItems] = {
        split: GraphItems(part.reshape(-1, system.axes), np.full(len(part), system.particles))
        for split, part in splits.items()
    }
    called = name if train is None else f"{name}-{train}"
    return GraphSource(called, items, columns=("x", "y", "z")[: system.axes], description=described)


def log_normalizer(name: str, *, chains: int = 1000, levels: int = 1000, seed: int = 1) -> LogNormalizer:
    r"""Return the logarithm of the normalizer of a system of particles with its standard error.

    `E U + ln Z` is its entropy: what the mean of `-log p` of held-out configurations is for the density that they come
    from, in nats per configuration.

    Args:
        name: `dw4`, `lj13` or `lj13-single`.
        chains: in each direction; those away from the system begin at test configurations.
        levels: of the way between normal positions and the system; the error falls with it.
        seed: of the chains.

    Raises:
        DataError: if there is no such system, or there are more chains than test configurations.
    """
    system, test = known_system(name), configurations(name).splits["test"]
    if not 20 <= chains <= len(test) or levels < 1:
        raise DataError(f"A normalizer needs 20 to {len(test)} chains and a level, got {chains} and {levels}.")
    rng = np.random.default_rng(seed)
    path = Annealing(system, levels, rng)
    _, forth = path.forward(rng, chains)
    return joined(path, forth, path.backward(test[:chains].transpose(1, 2, 0), rng))


def known_system(name: str) -> System:
    """Return a system by its name.

    Raises:
        DataError: if there is none.
    """
    if name not in SYSTEMS:
        raise DataError(unknown_word("system of particles", str(name), SYSTEMS))
    return SYSTEMS[name]


def cache_folder() -> Path:
    """Return where things are kept that can be made again."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # A relative path is none, by the rule of that variable.
    root = Path(given) if os.path.isabs(given) else Path("~/.cache").expanduser()
    return root / "likelify"


def _settings_hash(name: str) -> str:
    return hashlib.sha256(repr((VERSION, name, asdict(SAMPLINGS[name]), PARTS)).encode()).hexdigest()[:12]


def _hash(splits: dict[SplitName, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(np.ascontiguousarray(splits[split]).tobytes())
    return digest.hexdigest()


def _kept(place: Path) -> Configurations | None:
    """Return what a file keeps; None if it is not there, or is damaged and has to be made again."""
    try:
        with place.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            splits: dict[SplitName, np.ndarray] = {split: file[split] for split in SPLITS}
            whole = str(file["hash"]) == _hash(splits)
            return Configurations(splits, float(file["r_hat"]), float(file["effective"])) if whole else None
    except TROUBLE:
        return None


def _keep(found: Configurations, place: Path) -> None:
    """Write a file beside its place and move it there, so that nobody reads half of it."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".npz", delete=False) as file:
            numbers = {"r_hat": found.r_hat, "effective": found.effective, "hash": _hash(found.splits)}
            np.savez(file, **found.splits, **numbers)  # pyright: ignore[reportArgumentType]
        os.replace(file.name, place)
    except OSError as error:
        said = error.strerror or error
        warnings.warn(f"'{place}' cannot be written: {said}. It is sampled anew each time.", LikelifyWarning, 2)
