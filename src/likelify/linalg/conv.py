"""Convolutions as linear maps, in one, two and three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from likelify.errors import ConfigError, ShapeError, unknown_word
from likelify.linalg.bounds import reshape_bound, root_of_squares, tight_bound, widest
from likelify.linalg.dense import project
from likelify.linalg.maps import LinearMap, Symmetry, check_declared_norm, check_entries, check_symmetry
from likelify.names import NormBoundName
from likelify.shapes import Shape, check_sizes, per_axis
from likelify.tracing import cached_property, is_tracing, may_look

BOUNDS = {"reshape": reshape_bound, "torus": tight_bound}
PaddingName = Literal["zeros", "circular", "reflect"]

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONVOLVE_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

# Up to here a CPU convolves images faster with the channels last, beyond with the channels first (depthwise: always
# last).
CHANNELS_LAST_LIMIT = 48


@dataclass(frozen=True, eq=False)
class ConvMap(LinearMap, vouches=True):
    r"""A convolution of stride 1 that keeps the size, on events `(c, w)`, `(c, h, w)` or `(c, d, h, w)`.

    `y[o, p] = sum_{i, s} kernel[o, i, s] x[i, p + s]` (a cross-correlation, as everywhere in deep learning).

    Args:
        kernel: `(c, c / groups, *taps)` with one, two or three odd numbers of taps. An even kernel has no centre: its
            output would be shifted against its input or have another size, and the exponential needs `L` to map a
            space to itself.
        padding: what lies beyond the border: `"zeros"`, the opposite border (`"circular"`), or the mirror image
            without the border pixel itself (`"reflect"`). Only circular padding commutes with translations.
        bound: which guaranteed norm bound certifies the map: `"reshape"` (cheap, about 2x loose) or `"torus"`.
        norm: a norm bound that is known already, for example because the kernel was normalised to it.
        groups: channels are split into that many groups which do not mix; `groups=c` is a depthwise convolution.
        mask: broadcastable to the kernel; where it is zero, so is the kernel that is applied. Kept as booleans.
        symmetry: apply the symmetric part `(K + K*) / 2` or the skew part `(K - K*) / 2` of the kernel, where `K*` is
            the kernel of the adjoint. Not with reflect padding, whose adjoint has no kernel.
        own_rows: the kernel has one more leading axis, `(rows, c, c / groups, *taps)`: one kernel for each row.

    Raises:
        ShapeError: if the kernel or the mask has another shape; on use, if an axis of the input is too short for the
            padding (circular: shorter than half the kernel; reflect: that or equal).
        ConfigError: for unknown settings, and for a symmetry with reflect padding.

    Example:
        >>> neighbours = ConvMap(torch.tensor([[[1.0, 0.0, 1.0]]]), padding="circular")
        >>> neighbours.apply(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
        tensor([[[6., 4., 6., 4.]]])
    """

    kernel: Tensor
    padding: PaddingName = "zeros"
    bound: NormBoundName = "reshape"
    norm: float | None = None
    groups: int = 1
    mask: Tensor | None = None
    symmetry: Symmetry = None  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    own_rows: bool = False

    def __post_init__(self) -> None:
        self._check_settings()
        self._check_kernel()
        kernel = self.kernel
        if self.mask is not None:
            # As booleans it is no tensor that anybody would differentiate by, or convert to another precision.
            object.__setattr__(self, "mask", self.mask.bool())
            kernel = kernel * self.mask
        if self.symmetry is not None:
            kernel = project(kernel, self._adjoint_kernel(kernel), self.symmetry)
        # At once, with its gradient: what is derived when it is first needed may be derived without one.
        object.__setattr__(self, "_effective", kernel if self.own_rows else self._layout(kernel))

    def _check_settings(self) -> None:
        check_entries(self.kernel, "kernel")
        check_declared_norm(self.norm)
        check_conv_settings(self.padding, self.bound, self.symmetry)

    def _check_kernel(self) -> None:
        shape, groups = tuple(self.kernel.shape), self.groups
        wanted = f"({'rows, ' * self.own_rows}c, c{f' / {groups}' if groups != 1 else ''}, *taps)"
        if self.dims not in CONVOLVE or groups < 1 or shape[-self.dims - 1] * groups != self.channels:
            raise ShapeError(
                f"ConvMap with groups={groups} and own_rows={self.own_rows} needs a kernel {wanted} with one to three "
                f"axes of taps, got shape {shape}."
            )
        check_odd(self.taps)
        if self.mask is not None:
            try:
                self.mask.expand(shape)
            except RuntimeError as error:
                raise ShapeError(
                    f"The mask of shape {tuple(self.mask.shape)} does not fit the kernel of shape {shape}."
                ) from error
            mask = self.mask.bool().expand(shape)
            if self.symmetry is not None and not is_tracing() and not torch.equal(mask, self._adjoint_kernel(mask)):
                raise ConfigError(
                    f"The {self.symmetry} part of a masked kernel is only masked if the mask is symmetric: it must be "
                    "the same after swapping the channels and turning the taps round."
                )

    @cached_property
    def dims(self) -> int:
        """The number of spatial dimensions."""
        return self.kernel.ndim - 2 - self.own_rows

    @cached_property
    def channels(self) -> int:
        """The number of channels."""
        return self.kernel.shape[int(self.own_rows)]

    @cached_property
    def taps(self) -> tuple[int, ...]:
        """The size of the kernel along each spatial axis."""
        return tuple(self.kernel.shape[-self.dims :])

    @property
    def rows(self) -> int | None:
        """How many rows have a kernel of their own."""
        return self.kernel.shape[0] if self.own_rows else None

    @property
    def effective(self) -> Tensor:
        """The kernel that is applied: the given one, masked, or its symmetric or skew part."""
        return self._effective  # pyright: ignore[reportAttributeAccessIssue]

    def apply(self, x: Tensor) -> Tensor:
        """Convolve each row of `x`, `(rows, c, *space)`."""
        self._check_input(x)
        if self.rows == 0:
            # There is no convolution without channels. What is added to no rows keeps the path of the gradients.
            return x + self.effective.sum()
        y = CONVOLVE[self.dims](self._padded(x), self._filters(), padding=self._built_in, groups=self._blocks)
        return y.reshape(x.shape) if self.own_rows else y

    def adjoint(self) -> LinearMap:
        """Swap the channels of the kernel and flip its taps; for reflect padding give a `ReflectAdjoint`."""
        if self.padding == "reflect":
            return ReflectAdjoint(self)
        if self.symmetry == "symmetric":
            return self
        mask = None if self.mask is None else self._adjoint_kernel(self.mask.expand(self.kernel.shape))
        return replace(self, kernel=self._adjoint_kernel(self.kernel), mask=mask)

    def trace(self, event_shape: Shape) -> Tensor:
        r"""Return `sum_s n_s sum_c kernel[c, c, s]`; `n_s` counts the pixels that tap `s` finds at their own place.

        With zeros these are all pixels for the centre tap and none for others; padding can bring a pixel back to
        itself, so that other taps count too.
        """
        self._check_space(event_shape)
        per_tap = self._channel_blocks(self.effective).diagonal(dim1=1, dim2=2).sum(-1)
        for size in reversed(event_shape[1:]):
            per_tap = _count_own_pixel(per_tap, size, self.padding)
        return per_tap.reshape(self._row_groups).sum(-1)

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        r"""Return the declared bound, or compute the chosen one as the largest over the groups.

        With reflect padding the map is a convolution after the padding operator, whose norm is `sqrt(m)` if no pixel
        stands in the padded image more than `m` times.
        """
        self._check_space(event_shape)
        return self.norm if self.norm is not None else self._kernel_bound(self.effective, event_shape)

    def growth_bound(self, event_shape: Shape) -> float | Tensor:
        """Bound the norm of the symmetric part, which has a kernel of its own unless the padding is reflect."""
        if self.norm is not None or self.symmetry is not None or self.padding == "reflect":
            return super().growth_bound(event_shape)
        kernel = self.effective.detach()
        return self._kernel_bound(project(kernel, self._adjoint_kernel(kernel), "symmetric"), event_shape)

    def frobenius_bound(self, event_shape: Shape) -> float | Tensor:
        r"""Return `sqrt(m N) ||kernel||_F` with `N` pixels, if at most `m` taps meet in one pixel (1 with zeros).

        A row of the matrix holds the taps; `m` of them in one place add up to at most `sqrt(m)` times their norm.
        """
        if self.norm is not None:
            return super().frobenius_bound(event_shape)
        self._check_space(event_shape)
        kernel = self.effective.detach()
        entries = math.prod(kernel.shape[0 if self.rows is None else 1 :]) // self.groups
        squares = widest(kernel).square().reshape(*self._row_groups, entries).sum((-2, -1))
        scale = math.prod(event_shape[1:]) * self._multiplicity(event_shape)
        return root_of_squares(squares, kernel.numel()) * math.sqrt(scale) * (1 + 1e-12)

    def centered(self, event_shape: Shape) -> tuple[float | Tensor, LinearMap]:
        """Take off the mean over the channels of the centre tap, unless the norm is declared or rows have their own."""
        if self.norm is not None or self.symmetry == "skew" or self.own_rows:
            return 0.0, self
        per_group = self.channels // self.groups
        centre = (..., *(size // 2 for size in self.taps))
        shift = self._channel_blocks(self.effective.detach())[centre].diagonal(dim1=1, dim2=2).mean()
        if self.mask is not None:
            # A centre that is masked out cannot take the shift in; deciding it on the tensor does not stop a device.
            open_ = self._channel_blocks(self.mask.expand(self.kernel.shape))[centre].diagonal(dim1=1, dim2=2)
            shift = shift * open_.all()
        identity = torch.eye(per_group, dtype=self.kernel.dtype, device=self.kernel.device).repeat(self.groups, 1)
        identity = F.pad(identity.reshape(*identity.shape, *(1,) * self.dims), self._margins)
        return shift, replace(self, kernel=self.kernel - shift * identity)

    def declaring(self, norm: float) -> ConvMap:
        """Return the same map with a norm bound that is known; nothing is derived anew."""
        check_declared_norm(norm)
        twin = object.__new__(type(self))
        for name, value in (vars(self) | {"norm": norm}).items():
            object.__setattr__(twin, name, value)
        return twin

    def sharpened(self) -> ConvMap:
        """Compute the torus bound instead of a declared norm."""
        return replace(self, norm=None, bound="torus")

    def arrange(self, x: Tensor) -> Tensor:
        """Put the channels of images last on a CPU if few are mixed, and first if many are."""
        self._check_input(x)
        return self._layout(x)

    def _layout(self, x: Tensor) -> Tensor:
        if self.dims != 2 or x.device.type != "cpu" or is_tracing():
            return x
        few = self.channels <= CHANNELS_LAST_LIMIT or self.groups == self.channels
        last = few and not self.own_rows
        return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    def pullback(self, u: Tensor, v: Tensor) -> dict[str, Tensor]:
        """Correlate `u` with `v`, then keep the part that the symmetry and the mask let through."""
        if self.rows == 0:
            return {"kernel": torch.zeros_like(self.kernel)}
        ones = [1] * self.dims
        settings = (ones, self._built_in, ones, False, [0] * self.dims, self._blocks, [False, True, False])
        padded, weight = self._padded(u), self._filters().detach()
        v = v.reshape(1, -1, *v.shape[2:]) if self.own_rows else v
        grad = torch.ops.aten.convolution_backward(v, padded, weight, None, *settings)[1].reshape(self.kernel.shape)
        if self.symmetry is not None:
            grad = project(grad, self._adjoint_kernel(grad), self.symmetry)
        return {"kernel": grad if self.mask is None else grad * self.mask}

    @cached_property
    def _blocks(self) -> int:
        """Groups of the convolution that does all rows at once."""
        return self.groups * (self.rows or 1)

    @property
    def _row_groups(self) -> tuple[int, ...]:
        return (self.groups,) if self.rows is None else (self.rows, self.groups)

    @cached_property
    def _built_in(self) -> list[int]:
        """The padding that the convolution does itself."""
        return [size // 2 if self.padding == "zeros" else 0 for size in self.taps]

    @property
    def _margins(self) -> list[int]:
        """Half the kernel, on both sides of each axis, last axis first as `F.pad` wants it."""
        return [size // 2 for size in reversed(self.taps) for _ in range(2)]

    def _filters(self) -> Tensor:
        return self.effective.flatten(0, 1).contiguous() if self.own_rows else self.effective

    def _channel_blocks(self, kernel: Tensor) -> Tensor:
        """Show a kernel as `(rows * groups, c / groups, c / groups, *taps)`."""
        per_group = self.channels // self.groups
        return kernel.reshape(-1, per_group, per_group, *self.taps)

    def _adjoint_kernel(self, kernel: Tensor) -> Tensor:
        """Swap the channels inside each group and flip the taps."""
        blocks = self._channel_blocks(kernel).transpose(1, 2).flip(tuple(range(-self.dims, 0)))
        return blocks.reshape(self.kernel.shape)

    def _padded(self, x: Tensor) -> Tensor:
        """Return the input as one convolution takes it, padded unless that does it itself."""
        if self.own_rows:
            # Contiguous, because torch 2.13 gives wrong gradients of grouped convolutions with mixed layouts on a CPU.
            x = x.reshape(1, -1, *x.shape[2:]).contiguous()
        if self.padding == "reflect":
            return F.pad(x, self._margins, mode="reflect")
        return x if self.padding == "zeros" else _wrap(x, self.taps)

    def _multiplicity(self, event_shape: Shape) -> int:
        """Bound how often one pixel stands in the window of one output pixel."""
        axes = zip(self.taps, event_shape[1:], strict=True)
        return math.prod([_most_copies(taps, size, self.padding) for taps, size in axes])

    def kernel_bound(self, *, enough: float = 0.0) -> Tensor:
        """Bound the norm for every size of image, whatever norm was declared; differentiable, `()` or `(rows,)`.

        Args:
            enough: a bound of at most that need be no better, and has no gradient then. Looked at on a CPU only.
        """
        most = 3 ** sum(size > 1 for size in self.taps) if self.padding == "reflect" else 1
        return self._bound_over_groups(self.effective, enough / math.sqrt(most)) * math.sqrt(most)

    def _kernel_bound(self, kernel: Tensor, event_shape: Shape) -> Tensor:
        norm = self._bound_over_groups(widest(kernel.detach()))
        return norm * math.sqrt(self._multiplicity(event_shape)) if self.padding == "reflect" else norm

    def _bound_over_groups(self, kernel: Tensor, enough: float = 0.0) -> Tensor:
        blocks = self._channel_blocks(kernel)
        if not len(blocks):
            return kernel.new_zeros(self._row_groups[:-1])
        if self.bound == "reshape" or len(blocks) > 1 or not may_look(kernel):
            one = BOUNDS[self.bound]
            norms = one(blocks[0])[None] if len(blocks) == 1 else torch.vmap(one)(blocks)
        else:
            norms = tight_bound(blocks[0], enough=enough)[None]
        return norms.reshape(self._row_groups).amax(-1)

    def _check_input(self, x: Tensor) -> None:
        if x.ndim != self.dims + 2 or x.shape[1] != self.channels or self.rows not in (None, x.shape[0]):
            space = ("w", "h, w", "d, h, w")[self.dims - 1]
            raise ShapeError(
                f"ConvMap with {self.channels} channels needs an input ({self.rows or 'rows'}, {self.channels}, "
                f"{space}), got {tuple(x.shape)}."
            )
        self._check_space(tuple(x.shape[1:]))

    def _check_space(self, event_shape: Shape) -> None:
        if self.padding == "zeros":
            return
        for taps, size in zip(self.taps, event_shape[1:], strict=True):
            if taps // 2 > size - (self.padding == "reflect"):
                raise ShapeError(
                    f"An axis of {size} is too short for {self.padding} padding by {taps // 2} pixels: what is beyond "
                    "the border would have to be wrapped more than once. Use a smaller kernel or padding 'zeros'."
                )


@dataclass(frozen=True, eq=False)
class ReflectAdjoint(LinearMap, vouches=True):
    """The adjoint of a convolution with reflect padding: a transposed convolution that folds its border back.

    Args:
        base: the convolution.
    """

    base: ConvMap

    @property
    def rows(self) -> int | None:
        """As for the convolution."""
        return self.base.rows

    def apply(self, x: Tensor) -> Tensor:
        """Spread each pixel into the padded image by the kernel, then add the margins to the pixels they mirror."""
        conv = self.base
        conv._check_input(x)
        if conv.rows == 0:
            return x + conv.effective.sum()
        flat = x.reshape(1, -1, *x.shape[2:]) if conv.own_rows else x
        y = CONVOLVE_TRANSPOSED[conv.dims](flat, conv._filters(), groups=conv._blocks)
        for axis, taps in enumerate(conv.taps, start=2):
            y = _fold(y, axis, taps // 2)
        return y.reshape(x.shape)

    def adjoint(self) -> ConvMap:
        """Return the convolution."""
        return self.base

    def trace(self, event_shape: Shape) -> Tensor:
        """Return the trace of the convolution."""
        return self.base.trace(event_shape)

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Return the bound of the convolution."""
        return self.base.norm_bound(event_shape)

    def frobenius_bound(self, event_shape: Shape) -> float | Tensor:
        """Return the bound of the convolution."""
        return self.base.frobenius_bound(event_shape)

    def centered(self, event_shape: Shape) -> tuple[float | Tensor, LinearMap]:
        """Center the convolution."""
        shift, rest = self.base.centered(event_shape)
        return shift, rest.adjoint()

    def arrange(self, x: Tensor) -> Tensor:
        """Take the layout of the convolution."""
        return self.base.arrange(x)

    def pullback(self, u: Tensor, v: Tensor) -> dict[str, Tensor]:
        """Use `<v, L* u> = <u, L v>`."""
        return {f"base.{name}": grad for name, grad in self.base.pullback(v, u).items()}


def check_conv_settings(padding: str, bound: str, symmetry: str | None) -> None:
    """Refuse unknown words, and a symmetry that the padding does not allow."""
    if padding not in ("zeros", "circular", "reflect"):
        raise ConfigError(unknown_word("padding", str(padding), ["zeros", "circular", "reflect"]))
    if bound not in BOUNDS:
        raise ConfigError(unknown_word("norm bound", str(bound), BOUNDS))
    check_symmetry(symmetry)
    if symmetry is not None and padding == "reflect":
        raise ConfigError(
            f"A convolution with reflect padding cannot be {symmetry} by its kernel: its adjoint folds the border "
            "back, which is no convolution. Use padding 'zeros' or 'circular', or the sum of the map and its adjoint() "
            "(a difference for a skew one)."
        )


def odd_taps(kernel_size: int | Sequence[int], dims: int, name: str = "kernel_size") -> Shape:
    """Return the numbers of taps of a kernel along each of its 1 to 3 axes, from one number for all or one for each."""
    check_sizes(dims=dims)
    if dims > 3:
        raise ConfigError(f"dims must be 1, 2 or 3, got {dims}.")
    taps = per_axis(kernel_size, dims, name)
    check_odd(taps)
    return taps


def check_odd(kernel_size: tuple[int, ...]) -> None:
    """Refuse kernels without a centre."""
    if math.prod(kernel_size) % 2 == 0:
        raise ShapeError(
            f"The kernel has size {'x'.join(map(str, kernel_size))}; sizes must be odd. An even kernel has no centre "
            "tap, so the convolution would shift the image or change its size, and has no exact trace of this form."
        )


def _count_own_pixel(per_tap: Tensor, size: int, padding: PaddingName) -> Tensor:
    r"""Sum the taps along the last axis, each times the number of pixels `p` that stand at `p + s` on that axis too.

    Circular: all `p` if `s` is a multiple of the size. Reflect: `-(p + s) = p` or `2 (size - 1) - (p + s) = p`, so one
    pixel for each even `s` other than 0.
    """
    centre = per_tap.shape[-1] // 2
    if padding == "zeros":
        return size * per_tap[..., centre]
    if padding == "circular":
        return size * per_tap[..., centre % size :: size].sum(-1)
    return per_tap[..., centre % 2 :: 2].sum(-1) + (size - 1) * per_tap[..., centre]


def _most_copies(taps: int, size: int, padding: PaddingName) -> int:
    """Bound how often one pixel of an axis stands in a window, which is for reflect as often as in the padded axis."""
    if padding == "zeros" or taps == 1:
        return 1
    if padding == "circular":
        return -(-taps // size)
    # A pixel is mirrored at both ends if they are near; the end pixels themselves are not mirrored.
    return 3 if 3 <= size <= taps else 2


def _wrap(x: Tensor, taps: tuple[int, ...]) -> Tensor:
    """Pad circularly; unlike `F.pad` this keeps the memory layout, and its gradient takes half the time."""
    for axis, size in enumerate(taps, start=2):
        if size > 1:
            margin = size // 2
            x = torch.cat([x.narrow(axis, x.shape[axis] - margin, margin), x, x.narrow(axis, 0, margin)], axis)
    return x


def _fold(y: Tensor, axis: int, margin: int) -> Tensor:
    """Apply the adjoint of reflect padding along one axis."""
    size = y.shape[axis] - 2 * margin
    low, inner, high = y.split((margin, size, margin), axis)
    after = [0, 0] * (y.ndim - 1 - axis)
    inner = inner + F.pad(low.flip(axis), [*after, 1, size - 1 - margin])
    return inner + F.pad(high.flip(axis), [*after, size - 1 - margin, 1])
