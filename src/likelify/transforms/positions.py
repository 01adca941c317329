"""The first layer of models of positions: one unit for all coordinates, and the centre of each graph apart."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from likelify.distributions.centred import graph_means
from likelify.errors import ConfigError, DataError, unknown_word
from likelify.shapes import check_size
from likelify.structure import ContextLike, GraphBatch, as_context
from likelify.transforms.columns import InDouble
from likelify.transforms.core import Transform, derived
from likelify.transforms.rules import FINITE, POSITIVE

CentreName = Literal["dropped", "normal"]
CENTRES = ("dropped", "normal")
LOG_2PI = math.log(2 * math.pi)


class Centre(InDouble, Transform):
    r"""Move the centre of each graph to zero and divide all coordinates by one scale, fitted to data and not trained.

    `z_i = (x_i - c) / s` with the mean position `c` of the graph. Behind it are layers that move no centre and the base
    `CentredNormal`, whose density is by the volume of the `(n - 1) d` dimensions in which the sum of positions is zero.

    | centre | the density is | contribution | drawn |
    | --- | --- | --- | --- |
    | `"dropped"` | of the centred positions, in `(n - 1) d` dimensions | `-(n - 1) d log s` | centre zero |
    | `"normal"` | of the positions, by their volume | the same `+ log N(c; m, u^2) - d/2 log n` | a centre |

    In an orthonormal basis the centre has the coordinates `sqrt(n) c`, where `d/2 log n` comes from. `m` and the
    deviation `u`, one for all coordinates, are fitted too. Everything is computed in float64, whatever the dtype of
    the flow; only `z` has that dtype.

    Args:
        features: coordinates of a position, `d`.
        centre: what becomes of centres: systems without a place in space, such as molecules, have none that means
            anything.

    Raises:
        ConfigError: if there is no such centre.
        ShapeError: without graphs in the context.
        DataError: from `initialize`, if all positions are those of their centres.

    Example:
        >>> from likelify import Context, GraphBatch
        >>> pair = Context(structure=GraphBatch.complete([2]))
        >>> Centre(1)(torch.tensor([[3.0], [5.0]]), pair)[0].flatten()
        tensor([-1.,  1.])
    """

    fills_space = True
    inverse_check = None
    takes_float64 = True
    in_double = ("scale", "mean", "deviation")
    buffer_rules = {"scale": POSITIVE, "mean": FINITE, "deviation": POSITIVE}
    random_inverse = derived(lambda layer: layer.centre == "normal")
    scale: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int, *, centre: CentreName = "dropped") -> None:
        super().__init__()
        features = check_size(features, "The coordinates of a position")
        if centre not in CENTRES:
            raise ConfigError(unknown_word("centre", str(centre), CENTRES))
        self.takes = (features,)
        self.centre: CentreName = centre
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("deviation", torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Take the centres apart."""
        double = x.to(self.mean)
        means = graph_means(double, context)
        z = ((double - means) / self.scale).to(self.like)
        return z, self._contribution(means, context).to(z)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Return positions in float64, round zero or round centres that are drawn."""
        x = self.scale * z.to(self.mean)
        means = torch.zeros_like(x)
        if self.centre == "normal":
            graphs = _graphs(context, x)
            noise = as_context(context).temperature * torch.randn(len(graphs), x.shape[1], device=x.device)
            means = (self.mean + self.deviation * noise.to(x))[graphs.owner]
        return x + means, -self._contribution(means, context)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Return positions round the mean centre, or round zero."""
        x = self.scale * z.to(self.mean)
        return x + self.mean if self.centre == "normal" else x

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Take the scale of the positions and the moments of the centres from the sample."""
        with torch.no_grad():
            double, graphs = x.to(self.mean), _graphs(context, x)
            means = graph_means(double, context)
            free = int((graphs.sizes - 1).clamp_min(0).sum()) * x.shape[1]
            squares = float((double - means).square().sum())
            if not (squares > 0 and math.isfinite(squares)):
                raise DataError(
                    "Centre.initialize needs a sample of graphs with several nodes that are not in one place."
                )
            self.scale.fill_(math.sqrt(squares / free))
            centres = means[(graphs.sizes.cumsum(0) - graphs.sizes)[graphs.sizes > 0]]
            self.mean.copy_(centres.mean(0))
            spread = float((centres - self.mean).square().mean().sqrt())
            self.deviation.fill_(spread if spread > 0 else float(self.scale))
        return super().initialize(x, context)

    def _contribution(self, means: Tensor, context: ContextLike) -> Tensor:
        """Return the contribution of each graph, in double precision; the means are given for each node."""
        graphs, features = _graphs(context, means), means.shape[1]
        sizes = graphs.sizes.to(means)
        lost = -(sizes - 1).clamp_min(0) * features * self.scale.log()
        if self.centre == "dropped":
            return lost
        units = (means - self.mean) / self.deviation
        normal = -0.5 * units.square().sum(1) - features * (self.deviation.log() + 0.5 * LOG_2PI)
        own = normal.new_zeros(len(graphs)).index_add(0, graphs.owner, normal) / sizes.clamp_min(1)
        return lost + own - 0.5 * features * sizes.clamp_min(1).log()

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{len(self.mean)}, centre={self.centre!r}"


def _graphs(context: ContextLike, x: Tensor) -> GraphBatch:
    structure = as_context(context).structure
    if structure is None:
        # With the words of all that asks for centres.
        graph_means(x, context)
        raise AssertionError
    return structure
