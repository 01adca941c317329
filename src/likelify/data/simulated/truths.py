"""Densities, entropies and energies of simulated data, by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from likelify.data.simulated.configurations import known_system
from likelify.data.simulated.mixtures import MIXTURES, Mixture
from likelify.errors import DataError, unknown_word

if TYPE_CHECKING:
    from torch import Tensor

# Points that are uniform in a square of area one.
UNIFORM = "points-poisson"


def true_log_prob(name: str, x: Tensor, sizes: Tensor | None = None) -> Tensor:
    """Return the exact log-density of point sets under the distribution that they are simulated from.

    The difference to the log-density of a model on the same sets estimates the Kullback-Leibler divergence with a
    standard error far below that of either mean.

    Args:
        name: `mog-4`, `mog-9`, `mog-16`, `mog-ring` or `points-poisson`; of the last the density of the points given
            how many there are.
        x: features of all nodes `(nodes, 2)`, those of one graph together; or `(graphs, nodes, 2)`.
        sizes: number of nodes of each graph; where all are alike it is only checked.

    Returns:
        Nats `(graphs,)` in float64 on the CPU, without a gradient.

    Raises:
        DataError: if there is no density of that name, or the graphs have other numbers of nodes or features.

    Example:
        >>> from likelify.data import open_source
        >>> batch = open_source("mog-4").read_all("test")
        >>> log_prob = true_log_prob("mog-4", batch.x, batch.structure.sizes)
        >>> abs(-log_prob.mean() - entropy("mog-4")) < 0.2
        tensor(True)
    """
    import torch

    given, shape = x.detach().cpu().double(), tuple(x.shape)
    if name == UNIFORM:
        return _log_prob_of_uniform(given, sizes)
    mixture = _mixture(name)
    nodes = mixture.nodes
    fits = shape[-1:] == (2,) and (
        shape[1:2] == (nodes,) if given.ndim == 3 else given.ndim == 2 and not shape[0] % nodes
    )
    if sizes is not None and fits:
        fits = bool((torch.as_tensor(sizes) == nodes).all()) and len(sizes) * nodes * 2 == given.numel()
    if not fits:
        raise DataError(f"Graphs of '{name}' have {nodes} nodes of 2 features each, got {shape}.")
    return torch.from_numpy(mixture.log_prob(given.reshape(-1, nodes, 2).numpy()))


def _log_prob_of_uniform(x: Tensor, sizes: Tensor | None) -> Tensor:
    import torch

    if sizes is None and x.ndim == 3:
        sizes, x = torch.full((x.shape[0],), x.shape[1]), x.flatten(0, 1)
    if sizes is None or x.ndim != 2 or x.shape[1] != 2 or len(x) != int(torch.as_tensor(sizes).sum()):
        raise DataError(f"Patterns of '{UNIFORM}' have points of 2 coordinates, and sizes= that add up to them.")
    outside = ~((x >= 0) & (x <= 1)).all(1)
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.as_tensor(sizes).cpu())
    count = torch.zeros(len(sizes), dtype=torch.float64).index_add(0, owner, outside.double())
    return torch.where(count > 0, -torch.inf, 0.0).double()


def entropy(name: str) -> float:
    """Return the entropy of a simulated distribution in nats per graph; divided by the nodes, in nats per node.

    Args:
        name: `mog-4`, `mog-9`, `mog-16`, `mog-ring` or `points-poisson`, whose points have none, given how many there
            are.

    Raises:
        DataError: if there is none of that name whose entropy is known.

    Example:
        >>> round(entropy("mog-9") / 9, 4)
        4.2603
    """
    return 0.0 if name == UNIFORM else _mixture(name).entropy()


def energy(name: str, x: Tensor) -> Tensor:
    r"""Return energies `U` of a system of particles, whose density is `exp(-U(x)) / Z`; see `particles`.

    Gradients go through. `log_normalizer` estimates `ln Z`.

    Args:
        name: `dw4`, `lj13` or `lj13-single`.
        x: positions of all particles `(nodes, axes)`, those of one configuration together; or
            `(graphs, particles, axes)`. Moving all particles of a configuration together changes nothing.

    Returns:
        Energies in `kT`, `(graphs,)`.

    Raises:
        DataError: if there is no such system, or positions have another shape.

    Example:
        >>> import torch
        >>> square = torch.tensor([[0.0, 0.0], [0.0, 4.0], [4.0, 4.0], [4.0, 0.0]])
        >>> energy("dw4", square)
        tensor([-8.3966])
    """
    import torch

    system = known_system(name)
    count, axes, shape = system.particles, system.axes, tuple(x.shape)
    if shape[-1:] != (axes,) or not (shape[1:2] == (count,) if x.ndim == 3 else x.ndim == 2 and not shape[0] % count):
        raise DataError(f"Configurations of '{name}' have {count} particles with {axes} coordinates each, got {shape}.")
    x = x.reshape(-1, count, axes)
    first, second = torch.triu_indices(count, count, 1, device=x.device)
    pairs = system.pair((x[:, first] - x[:, second]).square().sum(-1))[0].sum(1)
    return pairs + system.spring / 2 * (x - x.mean(1, keepdim=True)).square().sum((1, 2))


def _mixture(name: str) -> Mixture:
    if name not in MIXTURES:
        raise DataError(unknown_word("known density", str(name), [*MIXTURES, UNIFORM]))
    return MIXTURES[name]
