r"""Layers side by side: parallel branches, and what becomes of residual connections and concatenations.

A branch point repeats its input (`Repeat`), the branches act side by side (`Parallel`), and a sum joins them (`Sum`).
So `x + f(x)` is a bound for any `f`; where `f` contracts, `LipschitzResidual` is exact.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from likelify.errors import ShapeError, UnsupportedError
from likelify.names import NoiseName
from likelify.nets import NetFactory, density_nets
from likelify.shapes import Shape, as_shape
from likelify.structure import ContextLike
from likelify.support import Interval, hull
from likelify.transforms.core import Chain, Composite, Transform
from likelify.transforms.reshape import Identity
from likelify.transforms.surjections.copying import Repeat, Sum


class Parallel(Composite):
    r"""Split the channels, give each part to a layer of its own, and put the results one behind the other.

    The contribution is the sum of the branches' contributions.

    Args:
        branches: the layers; None passes its part on.
        in_channels: channels of the data that each branch gets, in order.
        out_channels: channels of the latent that each branch makes.

    Raises:
        ShapeError: if the sizes do not fit, or the branches give different positions.

    Example:
        >>> from likelify.transforms.elementwise import Affine
        >>> Parallel([None, Affine(scale=2.0)], [1, 2], [1, 2])(torch.ones(1, 3))[0]
        tensor([[1., 2., 2.]])
    """

    def __init__(
        self, branches: Sequence[Transform | None], in_channels: Sequence[int], out_channels: Sequence[int]
    ) -> None:
        super().__init__()
        if not len(branches) == len(in_channels) == len(out_channels) > 0:
            raise ShapeError("Parallel needs a count of channels in and out for each branch, and a branch.")
        for branch, before, after in zip(branches, in_channels, out_channels, strict=True):
            if branch is None and before != after:
                raise ShapeError(f"A branch that passes its part on cannot turn {before} channels into {after}.")
            if branch is not None and not isinstance(branch, Transform):
                raise UnsupportedError(f"Parallel takes Transforms or None, not {type(branch).__name__}.")
        self.in_channels, self.out_channels = list(in_channels), list(out_channels)
        self.takes, self.gives = (sum(in_channels), ...), (sum(out_channels), ...)
        self.branches = nn.ModuleList(Identity() if branch is None else branch for branch in branches)

    @property
    def image(self) -> Interval | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the images of all branches reach over; None if one of them reaches anywhere."""
        return self.carry(None)

    @property
    def takes_integers(self) -> bool:
        """Whether every branch takes integers."""
        return all(branch.takes_integers for branch in self.parts())

    @property
    def takes_float64(self) -> bool:
        """Whether every branch takes float64."""
        return all(branch.takes_float64 for branch in self.parts())

    def parts(self) -> list[Transform]:
        """Return the branches, side by side."""
        return list(self.branches)  # pyright: ignore[reportReturnType]

    def carry(self, support: Interval | None) -> Interval | None:
        """Return what the results of all branches reach over; None if one of them reaches anywhere."""
        found = [branch.carry(support) for branch in self.parts()]
        known = [interval for interval in found if interval is not None]
        return hull(known) if len(known) == len(found) else None

    def confine(self, before: Transform | None) -> Transform | None:
        """Return what keeps the elements of some branch within its image, or else `before` if no branch ends that."""
        own = next((layer for branch in self.parts() if (layer := branch.confine(None)) is not None), None)
        kept = own is None and before is not None and all(branch.confine(before) is not None for branch in self.parts())
        return before if kept else own

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Apply the branches side by side."""
        values, contributions = zip(*self._each("__call__", x, context), strict=True)
        return self._joined(values), sum(contributions)  # pyright: ignore[reportReturnType]

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Undo the branches side by side."""
        values, contributions = zip(*self._each("inverse", z, context), strict=True)
        return self._joined(values), sum(contributions)  # pyright: ignore[reportReturnType]

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Apply the noise-free branches."""
        return self._joined(self._each("mean_forward", x, context))

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Undo the noise-free branches."""
        return self._joined(self._each("mean_inverse", z, context))

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Initialize each branch with its part."""
        return self._joined(self._each("initialize", x, context))

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the shape of the results one behind the other."""
        shapes = [
            branch.out_shape((size, *in_shape[1:])) for branch, size in zip(self.parts(), self.in_channels, strict=True)
        ]
        if [shape[0] for shape in shapes] != self.out_channels or len({shape[1:] for shape in shapes}) > 1:
            raise ShapeError(
                f"The branches of Parallel give events {shapes}; channels {self.out_channels} were declared."
            )
        return (sum(self.out_channels), *shapes[0][1:])

    def _each(self, method: str, x: Tensor, context: ContextLike) -> list[Any]:
        """Call a method of every branch with its part of the channels."""
        sizes = self.out_channels if "inverse" in method else self.in_channels
        pairs = zip(self.branches, x.split(sizes, dim=1), strict=True)
        return [getattr(branch, method)(part, context) for branch, part in pairs]

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        if len({part.shape[2:] for part in parts}) > 1:
            raise ShapeError(f"The branches of Parallel give different positions: {[tuple(p.shape) for p in parts]}.")
        return torch.cat(list(parts), 1)


def residual(
    main: Transform | None,
    in_shape: int | Shape,
    shortcut: Transform | None = None,
    *,
    noise: NoiseName = "normal",
    net_factory: NetFactory | None = None,
    posterior_factory: NetFactory | None = None,
) -> Chain:
    r"""Build `z = main(x) + shortcut(x)` for any two layers: repeat, apply side by side, add up; a bound.

    Args:
        main: the layer beside the shortcut; None is the identity.
        in_shape: of the data.
        shortcut: the identity by default.
        noise: of the repetition, `"normal"` or `"uniform"`.
        net_factory: makes the network for the density of what the sum forgets given `z`.
        posterior_factory: makes a network for learned noise of the repetition, see `OrthogonalDensity`.

    Source:
        Mate et al. 2022, section 3.3.

    Example:
        >>> residual(None, 2).mean_forward(torch.tensor([[1.0, 2.0]]))
        tensor([[2., 4.]])
    """
    in_shape = as_shape(in_shape)
    channels = in_shape[0]
    shapes = [in_shape if layer is None else layer.out_shape(in_shape) for layer in (shortcut, main)]
    if shapes[0] != shapes[1]:
        raise ShapeError(f"The two sides of a sum give events {shapes[0]} and {shapes[1]}; they must be alike.")
    out = shapes[0][0]
    return Chain(
        [
            Repeat(channels, 2, blocks=True, noise=noise, posterior_factory=posterior_factory),
            Parallel([shortcut, main], [channels, channels], [out, out]),
            Sum(out, 2, blocks=True, net_factory=net_factory or density_nets(len(shapes[0]) - 1)),
        ]
    )


def concat(
    branches: Sequence[Transform | None],
    in_shape: int | Shape,
    *,
    noise: NoiseName = "normal",
    posterior_factory: NetFactory | None = None,
) -> Chain:
    r"""Build `z = cat([branch(x) for each branch], 1)`: repeat, and apply side by side; a bound.

    Args:
        branches: the layers; None is the identity.
        in_shape: of the data.
        noise: of the repetition, `"normal"` or `"uniform"`.
        posterior_factory: makes a network for learned noise of the repetition, see `OrthogonalDensity`.
    """
    in_shape = as_shape(in_shape)
    channels, count = in_shape[0], len(branches)
    out = [channels if branch is None else branch.out_shape(in_shape)[0] for branch in branches]
    side_by_side = Parallel(branches, [channels] * count, out)
    side_by_side.out_shape((channels * count, *in_shape[1:]))
    copies = Repeat(channels, count, blocks=True, noise=noise, posterior_factory=posterior_factory)
    return Chain([copies, side_by_side])
