"""Densities, entropies and energies of simulated data, by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def _mixture(name: str) -> Mixture:
    if name not in MIXTURES:
        raise DataError(unknown_word("known density", str(name), MIXTURES))
    return MIXTURES[name]
