"""A normal distribution of points whose centre is at zero."""

import math

import torch
from torch import Tensor

from likelify.distributions.core import Distribution, check_values, has_rows, row_count, with_channels
from likelify.distributions.normal import LOG_SQRT_2PI
from likelify.errors import DomainError, ShapeError
from likelify.shapes import Shape, as_shape
from likelify.structure import ContextLike, as_context, sum_items
from likelify.support import LINE
from likelify.tracing import may_look

# How far a centre may be from zero, in units of the largest position: rounding of as many sums as there are nodes.
OFF = 1e-3


def graph_means(x: Tensor, context: ContextLike) -> Tensor:
    """Return for each node the mean of the values of its graph, `(rows, *event)`.

    Raises:
        ShapeError: if the context has no graphs.
    """
    structure = as_context(context).structure
    if structure is None:
        raise ShapeError(
            "Centres are those of graphs, and the context has none: give Context(structure=GraphBatch.complete(sizes))."
        )
    sums = x.new_zeros(len(structure), *x.shape[1:]).index_add(0, structure.owner, x)
    sizes = structure.sizes.clamp_min(1).to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
    return (sums / sizes)[structure.owner]


class CentredNormal(Distribution):
    r"""A standard normal distribution of the positions of a graph whose sum is zero.

    A graph of `n` nodes in `d` dimensions has `(n - 1) d` degrees of freedom, and the density is by their volume: that
    of coordinates by any orthonormal basis of the subspace,

        log p(x) = -1/2 sum_i ||x_i||^2 - (n - 1) d log(2 pi) / 2.

    For layers that move no centre, such as a `ContinuousFlow` whose network is equivariant under translations.

    Args:
        event_shape: of one node, `(d,)`.

    Raises:
        DomainError: from `log_prob`, if positions are not centred.
        ShapeError: without graphs in the context.

    Source:
        Garcia Satorras et al. 2021 (E(n) normalizing flows), section 3.

    Example:
        >>> from likelify import Context, GraphBatch
        >>> pair = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> CentredNormal((2,)).log_prob(pair, Context(structure=GraphBatch.complete([2])))
        tensor([-2.8379])
    """

    support = LINE
    probe: Tensor

    def __init__(self, event_shape: int | Shape) -> None:
        super().__init__()
        self.event_shape: Shape = with_channels(event_shape, "CentredNormal")  # pyright: ignore[reportIncompatibleVariableOverride]
        self.register_buffer("probe", torch.zeros(()), persistent=False)

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of each graph in nats."""
        check_values(x, self.event_shape, "CentredNormal")
        means = graph_means(x, context)
        if may_look(x) and len(x):
            off, size = means.detach().abs().max(), x.detach().abs().max()
            if bool(off > OFF * (1 + size)):
                raise DomainError(
                    f"CentredNormal is a distribution of positions whose mean is zero in each graph, and one is off by "
                    f"{float(off):.3g}. Subtract the means, or put lk.transforms.Centre in front."
                )
        # The positions count as often as there are nodes, the degrees of freedom of one node not.
        whole = sum_items(-0.5 * x.square() - LOG_SQRT_2PI, context)
        free = LOG_SQRT_2PI * math.prod(self.event_shape)
        structure = as_context(context).structure
        return whole if structure is None else whole + free * (structure.sizes > 0).to(x.dtype)

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw for the graphs of the context; its temperature multiplies the deviation."""
        shape = as_shape(shape)
        if not has_rows(context):
            raise ShapeError("CentredNormal draws for the graphs of a context: sample(shape, Context(structure=...)).")
        rows = row_count(context)
        noise = torch.randn(*shape, rows, *self.event_shape, dtype=self.probe.dtype, device=self.probe.device)
        flat = noise.reshape(math.prod(shape), rows, *self.event_shape)
        centred = [draw - graph_means(draw, context) for draw in flat]
        temperature = as_context(context).temperature
        return temperature * torch.stack(centred).reshape(noise.shape) if len(flat) else noise
