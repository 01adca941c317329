"""The laws of derivatives: first and second order, reverse and forward mode, of a layer in both directions.

The reference is always a central difference of what is one order below, along one random direction in everything that
has a gradient: the input, the condition and the parameters. Where an order is not supported, a layer must say so with
an error of likelify that names it: these laws return such refusals, and nothing counts as silently zero.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call

from likelify.errors import LikelifyError
from likelify.seeding import seeded
from likelify.structure import Context, ContextLike, as_context
from likelify.testing.law import require
from likelify.transforms.core import Transform
from likelify.transforms.inverted import Inverse

Direction = Literal["forward", "inverse"]
BOTH: tuple[Direction, ...] = ("forward", "inverse")

# Names of what is differentiated beside the parameters.
INPUT, CONDITION = "the input", "the condition"

Leaves = dict[str, Tensor]


def check_gradients(
    transform: Transform,
    x: Tensor,
    context: ContextLike = None,
    *,
    tol: float = 1e-6,
    directions: Sequence[Direction] = BOTH,
    held: Collection[str] = (),
) -> None:
    """Check the gradients of both directions against differences of their values, wherever the parameters are.

    No gradient may be missing that is not zero: at zero maps, at multiples of the identity and in fresh layers as
    elsewhere (see `set_parameters`).

    Args:
        transform: the layer, in double precision.
        x: data rows, at least two, in double precision (or integers for dequantization).
        context: if the layer needs one.
        tol: allowed deviation of a slope, relative to the norms of gradient and direction.
        directions: those to look at; a layer may say that what it draws in its inverse has no gradients.
        held: names of parameters that are left out, such as those at which the layer has a kink.
    """
    for view in _views(transform, x, context, directions, held):
        found = view.gradients(view.leaves)
        _at_either_width(view, lambda at, found=found: _compare_slopes(at, found, list(at.leaves), tol))


def check_second_order(
    transform: Transform,
    x: Tensor,
    context: ContextLike = None,
    *,
    tol: float = 1e-5,
    directions: Sequence[Direction] = BOTH,
    held: Collection[str] = (),
) -> list[str]:
    """Check Hessian-vector products of both directions, by double backward, against differences of gradients.

    Args:
        transform: the layer, in double precision.
        x: data rows, at least two, in double precision (or integers for dequantization).
        context: if the layer needs one.
        tol: allowed deviation, relative to the largest entry.
        directions: those to look at.
        held: names of parameters that are left out.

    Returns:
        What was refused, a sentence for each direction that was; empty if all second derivatives are right.
    """
    views = _views(transform, x, context, directions, held)
    return _refusals(transform, views, lambda view: _at_either_width(view, lambda at: _check_hessian(at, tol)))


def check_forward_mode(
    transform: Transform,
    x: Tensor,
    context: ContextLike = None,
    *,
    tol: float = 1e-6,
    directions: Sequence[Direction] = BOTH,
    held: Collection[str] = (),
) -> list[str]:
    """Check the tangents of both directions in forward mode (`torch.autograd.forward_ad`) against differences.

    Once for tangents of the input alone, once for tangents of everything.

    Args:
        transform: the layer, in double precision.
        x: data rows, at least two, in double precision (or integers for dequantization).
        context: if the layer needs one.
        tol: allowed deviation, relative to the largest entry.
        directions: those to look at.
        held: names of parameters that are left out.

    Returns:
        What was refused, a sentence for each direction that was; empty if all tangents are right.
    """
    views = _views(transform, x, context, directions, held)
    return _refusals(transform, views, lambda view: _at_either_width(view, lambda at: _check_tangents(at, tol)))


@dataclass(frozen=True)
class _View:
    """One direction of a layer as a function of all that has a gradient.

    Differences are taken in steps of a size, or, if `wide`, in steps as large as a value is large.
    """

    name: str
    layer: Transform
    x: Tensor
    context: Context
    leaves: Leaves
    wide: bool = False

    def direction(self, names: Iterable[str]) -> Leaves:
        """Draw a direction in some of the leaves, always the same one."""
        with seeded(4):
            return {name: _step(self.leaves[name], wide=self.wide) for name in names}

    def outputs(self, leaves: Leaves) -> list[Tensor]:
        """Return value and contribution; without the contribution if it is an estimate, without integers."""
        parameters = {name: leaf for name, leaf in leaves.items() if name not in (INPUT, CONDITION)}
        context = Context(leaves.get(CONDITION, self.context.condition), self.context.structure)
        with seeded(3):
            value, contribution = functional_call(self.layer, parameters, (leaves.get(INPUT, self.x), context))
        found = [value] if self.layer.noisy_log_det else [value, contribution]
        return [tensor for tensor in found if tensor.is_floating_point()]

    def loss(self, leaves: Leaves) -> Tensor:
        """Return a fixed random combination of the outputs."""
        outputs = self.outputs(leaves)
        with seeded(5):
            return torch.stack([(torch.randn_like(tensor) * tensor).sum() for tensor in outputs]).sum()

    def gradients(self, leaves: Leaves, *, graph: bool = False) -> Leaves:
        """Return the gradient of the loss; zero where there is none."""
        fresh = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
        return _gradients(self.loss(fresh), fresh, graph=graph)

    def moved(self, step: float, direction: Leaves) -> Leaves:
        """Return the leaves moved along a direction."""
        return {
            name: leaf + step * direction[name] if name in direction else leaf for name, leaf in self.leaves.items()
        }


def _views(
    transform: Transform, x: Tensor, context: ContextLike, directions: Sequence[Direction], held: Collection[str]
) -> Iterator[_View]:
    context = as_context(context)
    held = {f"{prefix}{name}" for name in held for prefix in ("", "transform.")}
    with seeded(1), torch.no_grad():
        z = transform(x, context)[0]
    for name, layer, value in (("forward", transform, x), ("inverse", Inverse(transform), z)):
        leaves = {n: p.detach() for n, p in layer.named_parameters() if p.requires_grad and n not in held}
        # At an atom, which is where a latent may be, there is no derivative, and none between integers.
        apart = transform.has_atoms or (transform.keeps_integers and not x.is_floating_point())
        if value.is_floating_point() and not (name == "inverse" and apart):
            leaves[INPUT] = value.detach()
        if context.condition is not None and context.condition.is_floating_point():
            leaves[CONDITION] = context.condition.detach()
        if leaves and name in directions:
            yield _View(name, layer, value, context, leaves)


def _refusals(transform: Transform, views: Iterable[_View], check: Callable[[_View], None]) -> list[str]:
    refused = []
    for view in views:
        try:
            check(view)
        except LikelifyError as error:
            # A network inside of a layer has a name that says nothing about where it is.
            layers = {type(part).__name__ for part in transform.modules() if isinstance(part, Transform)}
            named = any(re.search(rf"\b{name}\b", str(error)) for name in layers)
            require(named, f"{view.name}: refused without naming the layer: {error}")
            refused.append(f"{view.name}: {error}")
        except RuntimeError as error:
            # Some operations of PyTorch have no derivatives of a kind, which is no fault of a layer.
            if not (isinstance(error, NotImplementedError) or "not implemented" in str(error)):
                raise
            refused.append(f"{view.name}: PyTorch has no such derivative ({str(error).splitlines()[0]})")
    return refused


def _gradients(loss: Tensor, leaves: Leaves, *, graph: bool = False) -> Leaves:
    if not loss.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(loss, list(leaves.values()), create_graph=graph, allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), found, strict=True)
    }


def _at_either_width(view: _View, check: Callable[[_View], None]) -> None:
    """Compare with differences of small steps or, where values are large, of steps that are not lost to rounding.

    Of a layer of large values small steps are rounding, and of one that bends sharply large steps are no derivative. A
    derivative that is wrong fits neither.
    """
    try:
        check(view)
    except AssertionError:
        if max((float(leaf.abs().max()) for leaf in view.leaves.values() if leaf.numel()), default=0.0) <= 1:
            raise
        try:
            check(replace(view, wide=True))
        except AssertionError:
            pass
        else:
            return
        raise


def _step(like: Tensor, *, wide: bool) -> Tensor:
    drawn = torch.randn_like(like)
    size = float(like.abs().max()) if wide and like.numel() else 1.0
    return drawn / drawn.norm() * max(1.0, size)


def _compare_slopes(view: _View, found: Leaves, names: list[str], tol: float) -> None:
    """Compare a gradient with the difference quotient along a direction in those leaves, and then in each alone."""
    direction = view.direction(names)
    with torch.no_grad():
        slope = float(_difference(lambda step: {"": view.loss(view.moved(step, direction))})[""])
    expected = sum(float((found[name] * direction[name]).sum()) for name in names)
    sizes = [float(found[name].norm() * direction[name].norm()) for name in names]
    allowed = tol * (math.hypot(*sizes) + abs(slope) + 1)
    if abs(slope - expected) <= allowed:
        return
    for name in names if len(names) > 1 else []:
        _compare_slopes(view, found, [name], tol)
    observed = f"gives the slope {expected:.6g}, observed {slope:.6g}"
    require(False, f"{view.name}: the gradient by {', '.join(names)} {observed}")  # noqa: FBT003 - said above


def _check_hessian(view: _View, tol: float) -> None:
    fresh = {name: leaf.detach().requires_grad_() for name, leaf in view.leaves.items()}
    first = _gradients(view.loss(fresh), fresh, graph=True)
    direction = view.direction(view.leaves)
    along = torch.stack([(first[name] * direction[name]).sum() for name in first]).sum()
    products = _gradients(along, fresh)
    expected = _difference(lambda step: view.gradients(view.moved(step, direction)))
    _compare(view, products, expected, tol, "the second derivative by")


def _check_tangents(view: _View, tol: float) -> None:
    for names in ([INPUT], list(view.leaves)):
        direction = view.direction(name for name in names if name in view.leaves)
        if not direction:
            continue
        with warnings.catch_warnings(), forward_ad.dual_level():
            # PyTorch's own rules of forward mode are compiled by what it calls deprecated.
            warnings.filterwarnings("ignore", ".torch.jit.script. is deprecated", DeprecationWarning)
            duals = {name: forward_ad.make_dual(view.leaves[name], direction[name]) for name in direction}
            found = [forward_ad.unpack_dual(tensor) for tensor in view.outputs(view.leaves | duals)]
            tangents = [torch.zeros_like(value) if tangent is None else tangent for value, tangent in found]
        with torch.no_grad():
            expected = _difference(lambda step, d=direction: _named(view.outputs(view.moved(step, d))))
        _compare(view, _named(tangents), expected, tol, "the tangent of")


def _named(outputs: list[Tensor]) -> Leaves:
    return {f"output {number}": tensor for number, tensor in enumerate(outputs)}


def _difference(function: Callable[[float], Leaves], step: float = 2e-6) -> Leaves:
    """Return the derivative of a function of a number at zero, by central differences of two widths."""
    far, near = ((function(width), function(-width)) for width in (2 * step, step))
    return {
        name: (8 * (near[0][name] - near[1][name]) - (far[0][name] - far[1][name])) / (12 * step) for name in near[0]
    }


def _compare(view: _View, found: Leaves, expected: Leaves, tol: float, what: str) -> None:
    scale = 1 + max(float(tensor.detach().abs().max()) for tensor in expected.values())
    for name, tensor in expected.items():
        gap, size = float((found[name] - tensor).detach().abs().max()), float(tensor.detach().abs().max())
        message = f"{view.name}: {what} {name} is off by {gap:.3g} where differences reach {size:.3g}"
        require(gap <= tol * scale, message)
