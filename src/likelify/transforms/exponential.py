r"""Exponentials of linear maps as layers: one class, and short factories for the kinds of map."""

import math

import torch
from torch import Tensor, nn

from likelify.errors import ConfigError, UnsupportedError
from likelify.linalg.bounds import round_off_margin
from likelify.linalg.conv import BOUNDS, BoundName, ConvMap, check_odd
from likelify.linalg.expm import exp_action
from likelify.linalg.maps import LinearMap
from likelify.structure import ContextLike, as_context, sum_constant
from likelify.transforms.core import Caching, Transform


class Exponential(Transform, Caching):
    r"""The layer `z = exp(L) x`, with inverse `exp(-L)` and log-determinant `tr L`.

    The inverse costs what the forward costs, the determinant is always positive, and every symmetry of `L` is kept
    (Hoogeboom et al. 2020, equation 3 and theorem 1). Gradients reach the parameters of `source`.

    Args:
        source: a `LinearMap`, which then is a constant, or a module whose call with the context returns one.
        tol: truncation error allowed, as in `exp_action`.
        degree: a fixed degree of the series, as in `exp_action`.

    Raises:
        ConvergenceError: if the tolerance cannot be met (see `exp_action`).

    Example:
        >>> from likelify.linalg.dense import Dense
        >>> layer = Exponential(Dense(torch.eye(2)))
        >>> z, log_det = layer(torch.ones(1, 2))
        >>> z, log_det
        (tensor([[2.7183, 2.7183]]), tensor([2.]))
    """

    def __init__(self, source: LinearMap | nn.Module, *, tol: float | None = None, degree: int | None = None) -> None:
        super().__init__()
        if not isinstance(source, LinearMap | nn.Module):
            raise UnsupportedError(
                f"Exponential takes a LinearMap or a module that returns one, not {type(source).__name__}. "
                "Wrap a linear callable in likelify.Function."
            )
        self.source = ConstantMap(source) if isinstance(source, LinearMap) else source
        self.tol = tol
        self.degree = degree

    def map(self, context: ContextLike = None) -> LinearMap:
        """Build the linear map for this context."""
        given = as_context(context)
        if given.condition is None and given.structure is None:
            return self.cached("map", lambda: self.source(None))
        return self.source(context)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Give `exp(L) x` and `tr L`."""
        return self._flow(x, context, 1.0)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Give `exp(-L) z` and `-tr L`."""
        return self._flow(z, context, -1.0)

    def _flow(self, x: Tensor, context: ContextLike, time: float) -> tuple[Tensor, Tensor]:
        map_ = self.map(context).matching(x)
        value = exp_action(map_, x, time=time, tol=self.tol, degree=self.degree).value
        trace = map_.trace(tuple(x.shape[1:])).to(value.dtype)
        return value, time * sum_constant(trace, x, context)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"tol={self.tol}, degree={self.degree}"


class ConstantMap(nn.Module):
    """A fixed `LinearMap` as a source: its tensors are buffers, so they move and are saved with the model."""

    def __init__(self, map_: LinearMap) -> None:
        super().__init__()
        self._map = map_
        self._names = {name: f"tensor_{i}" for i, name in enumerate(map_.tensors())}
        for name, tensor in map_.tensors().items():
            self.register_buffer(self._names[name], tensor.detach().clone())

    def forward(self, context: ContextLike = None) -> LinearMap:
        """Give the map with the tensors as they are now."""
        return self._map.with_tensors({name: self.get_buffer(attr) for name, attr in self._names.items()})

    def extra_repr(self) -> str:
        """Name the kind of map."""
        return type(self._map).__name__


class ConvKernel(nn.Module):
    r"""A trainable `ConvMap` whose norm has a guaranteed limit.

    The kernel that is applied is `W min(1, limit / bound(W))`, where `bound` is an upper bound of the convolution's
    2-norm: stateless, differentiable, the same in training and evaluation, for any image size.
    """

    def __init__(self, channels: int, kernel_size: int, norm_limit: float | None, bound: BoundName) -> None:
        super().__init__()
        check_odd((kernel_size, kernel_size))
        if bound not in BOUNDS:
            raise ConfigError(f"bound must be one of {', '.join(BOUNDS)}, got {bound!r}.")
        if norm_limit is not None and not 0 < norm_limit < math.inf:
            raise ConfigError(f"norm_limit must be positive and finite, or None for no limit, got {norm_limit}.")
        self.norm_limit = norm_limit
        self.bound: BoundName = bound
        # A norm of about 0.1: near the identity, and no two channels alike.
        scale = 0.05 / (kernel_size * math.sqrt(channels))
        weight = scale * torch.randn(channels, channels, kernel_size, kernel_size)
        # A tenth of a training step's time at 12 and 24 channels (`python -m benchmarks.layout`), and what lets the
        # layers around keep their layout; with many channels it is slower.
        layout = torch.channels_last if channels <= 48 else torch.contiguous_format
        self.weight = nn.Parameter(weight.contiguous(memory_format=layout))

    def forward(self, context: ContextLike = None) -> ConvMap:
        """Build the map."""
        if self.norm_limit is None:
            return ConvMap(self.weight, bound=self.bound)
        # The product is rounded too, so the limit that is aimed at lies a little below the one that is promised.
        limit = self.norm_limit / (1 + round_off_margin(self.weight.dtype, self.weight[0].numel()))
        scale = (limit / BOUNDS[self.bound](self.weight)).clamp(max=1.0)
        return ConvMap(self.weight * scale, bound=self.bound, norm=self.norm_limit)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{tuple(self.weight.shape)}, norm_limit={self.norm_limit}, bound={self.bound!r}"


def conv_exponential(
    channels: int,
    kernel_size: int = 3,
    *,
    norm_limit: float | None = 1.8,
    bound: BoundName = "reshape",
    tol: float | None = None,
    degree: int | None = None,
) -> Exponential:
    r"""Build a convolution exponential: `z = exp(K) x` for a zero-padded convolution `K` that is trained.

    `log |det| = h w sum_c K[c, c, centre]`. A fresh layer is near the identity. The published mixing layer is a 1x1
    convolution followed by this one (Hoogeboom et al. 2020, section 3).

    Args:
        channels: of the images `(rows, channels, h, w)`; any image size.
        kernel_size: odd.
        norm_limit: limit of the bound of `||K||_2`. The reshape bound is about 2x loose, so 1.8 means a true norm
            near the paper's 0.9. With None the norm is free and the engine takes the terms it needs (a host sync per
            call).
        bound: `"reshape"`, or `"torus"`, which is tight and dearer (then the paper's limit is 0.9).
        tol: as in `exp_action`.
        degree: as in `exp_action`.
    """
    return Exponential(ConvKernel(channels, kernel_size, norm_limit, bound), tol=tol, degree=degree)
