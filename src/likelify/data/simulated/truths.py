"""Densities, entropies and energies of simulated data, by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from likelify.data.simulated.configurations import known_system
from likelify.data.simulated.mixtures import MIXTURES, Mixture
from likelify.errors import DataError, unknown_word

if TYPE_CHECKING:
    from torch import Tensor


def true_log_prob(name: str, x: Tensor, sizes: Tensor | None = None) -> Tensor:
    """Return the exact log-density of point sets under the distribution that they are simulated from.

    The difference to the log-density of a model on the same sets estimates the Kullback-Leibler divergence with a
    standard error far below that of either mean.

    Args:
        name: `mog-4`, `mog-9`, `mog-16` or `mog-ring`.
        x: features of all nodes `(nodes, 2)`, those of one graph together; or `(graphs, nodes, 2)`.
        sizes: number of nodes of each graph, for a check; all are alike.

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

    mixture = _mixture(name)
    given = x.detach().cpu().double()
    nodes, shape = mixture.nodes, tuple(given.shape)
    fits = shape[-1:] == (2,) and (
        shape[1:2] == (nodes,) if given.ndim == 3 else given.ndim == 2 and not shape[0] % nodes
    )
    if sizes is not None and fits:
        fits = bool((torch.as_tensor(sizes) == nodes).all()) and len(sizes) * nodes * 2 == given.numel()
    if not fits:
        raise DataError(f"Graphs of '{name}' have {nodes} nodes of 2 features each, got {shape}.")
    return torch.from_numpy(mixture.log_prob(given.reshape(-1, nodes, 2).numpy()))


def entropy(name: str) -> float:
    """Return the entropy of a simulated distribution in nats per graph; divided by the nodes, in nats per node.

    Args:
        name: `mog-4`, `mog-9`, `mog-16` or `mog-ring`.

    Raises:
        DataError: if there is none of that name whose entropy is known.

    Example:
        >>> round(entropy("mog-9") / 9, 4)
        4.2603
    """
    return _mixture(name).entropy()


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
        tensor([-8.4478])
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
        raise DataError(unknown_word("known density", str(name), MIXTURES))
    return MIXTURES[name]
