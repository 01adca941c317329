"""Which noise a graph is paired with in flow matching: an optimal assignment of its points to those of the graph."""

from __future__ import annotations

import torch
from torch import Tensor

from likelify.structure import Context, GraphBatch
from likelify.transforms.continuous.field import places
from likelify.transforms.surjections.order import assignments


def assigned(noise: Tensor, x: Tensor, context: Context) -> Tensor:
    """Permute the rows of noise within each graph so that `sum_i ||noise_i - x_i||^2` is least.

    Only nodes that nothing tells apart change places: graphs must be complete, and nodes with different conditions keep
    to their own noise, which then still is that of the base given the conditions. Other graphs are left as they are.

    Raises:
        MissingDependencyError: without SciPy.
    """
    structure = context.structure
    if structure is None or not structure.is_complete or not len(x):
        return noise
    order = _order(_costs(noise, x, context.condition, structure), structure)
    return noise[order]


def _costs(noise: Tensor, x: Tensor, condition: Tensor | None, graphs: GraphBatch) -> list[Tensor]:
    """Return for each graph the costs `(nodes of data, points of noise)`, on the CPU."""
    sizes = graphs.sizes.tolist()
    rows, points = x.detach().flatten(1), noise.detach().flatten(1)
    if len(set(sizes)) == 1:
        shape = (len(sizes), sizes[0], -1)
        cost = -(rows.reshape(shape) @ points.reshape(shape).mT)
        if condition is not None:
            told = condition.flatten(1).reshape(shape)
            cost = cost + _apart(told, cost)
        return list(cost.cpu())
    parts = [-(one @ other.mT) for one, other in zip(rows.split(sizes), points.split(sizes), strict=True)]
    if condition is not None:
        told = condition.flatten(1).split(sizes)
        parts = [cost + _apart(own, cost) for cost, own in zip(parts, told, strict=True)]
    return [cost.cpu() for cost in parts]


def _apart(told: Tensor, cost: Tensor) -> Tensor:
    """Return a cost that no assignment pays if it can be avoided, where nodes have different conditions."""
    differ = (told[..., :, None, :] != told[..., None, :, :]).any(-1)
    return differ.to(cost.dtype) * (1 + 4 * cost.abs().sum((-1, -2), keepdim=True))


def _order(costs: list[Tensor], graphs: GraphBatch) -> Tensor:
    place = torch.cat(assignments(costs)).to(graphs.sizes.device)
    return torch.arange(len(place), device=place.device) - graphs.derived("places", places) + place


def turned(noise: Tensor, x: Tensor, context: Context) -> Tensor:
    """Rotate or reflect the noise of each graph so that `sum_i ||noise_i - x_i||^2` is least (Procrustes).

    The law of the noise, and with it that of the pairs' ends, is kept where data are taken up to rotations.
    """
    structure = context.structure
    if structure is None or not len(x):
        return noise
    owner, size = structure.owner, x.shape[1]
    products = (noise[:, :, None] * x[:, None, :]).flatten(1)
    sums = products.new_zeros(len(structure), size * size).index_add(0, owner, products)
    left, _, right = torch.linalg.svd(sums.reshape(-1, size, size))
    return (noise[:, None, :] @ (left @ right)[owner])[:, 0]
