r"""Autoregressive layers: each element goes through a bijection whose parameters earlier elements decide.

With affine bijections these are masked autoregressive flows (Papamakarios et al. 2017), with splines the autoregressive
form of neural spline flows (Durkan et al. 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from likelify.calling import CallsNet, call_net, refuse_condition
from likelify.errors import ShapeError, UnsupportedError
from likelify.shapes import check_size
from likelify.structure import ContextLike, sum_items
from likelify.transforms.core import Transform
from likelify.transforms.coupling import Bijector


class Autoregressive(CallsNet, Transform):
    r"""Change each element of a vector by a bijection whose parameters are read off the elements before it.

    `z_i = f(x_i; net_i(x_1, ..., x_{i-1}, context))`, so the Jacobian is triangular and its log-determinant is the sum
    of the elementwise ones. `forward` calls the network once; `inverse` finds one element after the other, with a call
    of the network for each.

    Args:
        features: size of the vectors.
        bijector: `AffineBijector` or `SplineBijector`.
        net: called as `net(x, context)`, or as `net(x)` if its `forward` takes one argument; returns
            `(rows, size * features)`: the first parameter of every element, then the second of each, and so on, those
            of an element functions of earlier elements only. `nets.AutoregressiveNet(features, dims=0, heads=size)` is
            one; with `small_heads=size` the layer starts near the identity.

    Raises:
        UnsupportedError: if the bijector or the network is something else.
        ShapeError: if the network does not fit, or cannot read a condition that is given.
        ConvergenceError: by `inverse`, if the network lets an element read itself or later ones.

    Source:
        Papamakarios et al. 2017; Durkan et al. 2019.

    Example:
        >>> from likelify import nets
        >>> from likelify.transforms import SplineBijector
        >>> bijector = SplineBijector(bins=4)
        >>> net = nets.AutoregressiveNet(3, dims=0, hidden=16, heads=bijector.size)
        >>> layer = Autoregressive(3, bijector, net)
        >>> x = torch.randn(5, 3)
        >>> bool(torch.allclose(layer.inverse(layer(x)[0])[0], x, atol=1e-4))
        True
    """

    fills_space = True

    def __init__(self, features: int, bijector: Bijector, net: nn.Module) -> None:
        super().__init__()
        if not isinstance(bijector, Bijector) or not isinstance(net, nn.Module):
            raise UnsupportedError(
                "Autoregressive takes the number of elements, a bijector (AffineBijector, SplineBijector) and a "
                f"network, in this order; got a {type(bijector).__name__} and a {type(net).__name__}."
            )
        self.takes = (check_size(features, "The features of Autoregressive"),)
        self.features, self.bijector = features, bijector
        self.net = net

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Change all elements at once."""
        value, log_slope = self.bijector.forward(x, self._raw(x, context))
        return value, sum_items(log_slope, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Find one element after the other."""
        found: list[Tensor] = []
        log_slopes: list[Tensor] = []
        for place in range(self.features):
            # What the network sees of this element and later ones does not matter.
            seen = torch.cat([*found, torch.zeros_like(z[:, place:])], 1)
            raw = self._raw(seen, context)[:, :, place : place + 1]
            value, log_slope = self.bijector.inverse(z[:, place : place + 1], raw)
            found.append(value)
            log_slopes.append(log_slope)
        return torch.cat(found, 1), sum_items(torch.cat(log_slopes, 1), context)

    def _raw(self, x: Tensor, context: ContextLike) -> Tensor:
        if self.net_takes_context:
            raw = call_net(self.net, x, context, owner="Autoregressive")
        else:
            refuse_condition(context, "Autoregressive")
            raw = call_net(self.net, x, owner="Autoregressive")
        expected = (len(x), self.bijector.size * self.features)
        if tuple(raw.shape) != expected:
            raise ShapeError(
                f"The network of Autoregressive returned {tuple(raw.shape)}; {self.bijector} needs {expected} "
                f"({self.bijector.size} parameters for each element)."
            )
        return raw.unflatten(1, (self.bijector.size, self.features))

    def extra_repr(self) -> str:
        """Show the size and the bijector."""
        return f"{self.features}, bijector={self.bijector}"
