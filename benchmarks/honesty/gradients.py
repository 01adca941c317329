"""Gradients: hidden tensors, changes between forward and backward, extreme sizes, memory layouts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import likelify as lk
from benchmarks.certificates.reference import frechet
from benchmarks.honesty.hidden import Attribute, Derived, InList, InTuple, WrongAdjoint, read_global
from benchmarks.honesty.judging import DOUBLE, SINGLE, add, exponential, judge
from benchmarks.honesty.maps import BUILDERS, SKEWS, double_matrix, normal, with_norm
from likelify import linalg
from likelify.linalg.maps import LinearMap, Scaled

MAKERS: dict[str, Callable[[Tensor], LinearMap]] = {
    "attribute": Attribute,
    "tuple": lambda m: InTuple((m,)),
    "list": InList,
    "derived": Derived,
    "global": read_global,
    "function": lambda m: lk.Function(lambda x: x @ m.T, norm=2.0),
    "function, probed": lambda m: lk.Function(lambda x: x @ m.T),
    "dense": lk.Dense,
    "sum with a hidden one": lambda m: InTuple((0.5 * m,)) + lk.Dense(0.5 * m),
    "hidden one scaled": lambda m: 1.0 * InTuple((m,)),
    "hidden one by a tensor": lambda m: torch.ones((), dtype=DOUBLE) * InTuple((m,)),
}
STRATEGIES = {
    "default": None,
    "Stored": linalg.Stored(),
    "Recompute": linalg.Recompute(),
    "Unrolled": linalg.Unrolled(),
}


def gradients() -> None:
    """Add maps with hidden tensors, changes between forward and backward, and second backward passes."""
    hidden_tensors()
    for name in BUILDERS | SKEWS:
        changes(name)
        sizes_and_layouts(name)


def hidden_tensors() -> None:
    """Add maps of users that keep their tensors elsewhere, and factors that are no numbers."""
    for name, make in MAKERS.items():
        for title, strategy in STRATEGIES.items():
            for of_x in (True, False):
                add(
                    "gradients",
                    f"{name}, {title}, input {'too' if of_x else 'not'}",
                    lambda m=make, s=strategy, o=of_x: gradient_of(m, s, of_x=o),
                )
        add("gradients", f"{name}, dense method", lambda m=make: gradient_of(m, None, of_x=True, method="dense"))
    add("gradients", "wrong adjoint", lambda: gradient_of(WrongAdjoint, None, of_x=True), informative=True)
    add("gradients", "factor that is a vector", vector_factor)
    add("gradients", "factor that is a column", column_factor)
    add("gradients", "factor that is a vector, skew", lambda: vector_value(lk.Skew(3 * normal(4, 4))))


def changes(name: str) -> None:
    """Add changes of a map, its input or its value between the forward and the backward pass."""
    for strategy in ("default", "Recompute", "Unrolled"):
        title = f"{name}, {strategy}"
        chosen = STRATEGIES[strategy]
        add("gradients", f"input changed before backward: {title}", lambda n=name, s=chosen: changed(n, s, "input"))
        add("gradients", f"map changed before backward: {title}", lambda n=name, s=chosen: changed(n, s, "map"))
        add("gradients", f"value changed before backward: {title}", lambda n=name, s=chosen: changed(n, s, "value"))
        add("gradients", f"backward twice: {title}", lambda n=name, s=chosen: changed(n, s, "twice"), must="accept")
    for zero in (0.0, 1e-30, 2.0):
        title = f"value changed, map of norm {zero:g}, input untouched: {name}"
        add("gradients", title, lambda n=name, z=zero: aliased(n, z), must="accept")
    add("gradients", f"diagnostics read after the input changed: {name}", lambda n=name: late(n))


def sizes_and_layouts(name: str) -> None:
    """Add gradients of extreme sizes, and inputs in other memory layouts."""
    for scale in (1e-30, 1e-15, 1e15, 1e30):
        title = f"gradient for inputs of size {scale:g} in float32: {name}"
        add("gradients", title, lambda n=name, s=scale: extreme_gradient(n, s, 1.0))
        title = f"gradient from gradients of size {scale:g} in float32: {name}"
        add("gradients", title, lambda n=name, s=scale: extreme_gradient(n, 1.0, s))
    for what in LAYOUTS:
        title = f"{what} input: {name}"
        add("layouts", title, lambda n=name, w=what: layout(n, w), must="accept")


def close(found: Tensor | None, wanted: Tensor, tol: float) -> str:
    """Judge a gradient."""
    if found is None:
        return "SILENT: no gradient"
    if not bool(torch.isfinite(found).all()):
        return "SILENT: gradient not finite"
    error = float((found.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-300))
    return "right" if error <= tol else f"SILENT: gradient off by {error:.0e}"


def gradient_of(make: Callable[[Tensor], LinearMap], strategy: Any, *, of_x: bool, **more: Any) -> str:
    """Compare the gradients of a user's map with those of the exponential of its matrix."""
    matrix = with_norm(normal(4, 4), 1.0).requires_grad_()
    x, g = normal(3, 4).requires_grad_(of_x), normal(3, 4)
    value = lk.exp_action(make(matrix), x, gradient=strategy, **more).value
    if not value.requires_grad:
        return "SILENT: no gradient"
    value.backward(g)
    exact = matrix.detach()
    outcome = close(matrix.grad, frechet(exact, g.T @ x.detach(), 1.0), 1e-8)
    return close(x.grad, g @ exponential(exact), 1e-8) if of_x and outcome == "right" else outcome


def vector_factor() -> str:
    """Scale a matrix by a vector, which is no multiple of it: its adjoint would be wrong."""
    factor, matrix = torch.tensor([0.5, 1.0, 2.0, -1.0], dtype=DOUBLE), with_norm(normal(4, 4), 1.0)
    x, g = normal(3, 4).requires_grad_(), normal(3, 4)
    lk.exp_action(Scaled(lk.Dense(matrix), factor), x).value.backward(g)
    return close(x.grad, g @ exponential(torch.diag(factor) @ matrix), 1e-8)


def column_factor() -> str:
    """Scale each row by a factor of its own."""
    factor, matrix = torch.tensor([[0.5], [1.0], [2.0]], dtype=DOUBLE), with_norm(normal(4, 4), 1.0)
    return judge(Scaled(lk.Dense(matrix), factor), torch.stack([f * matrix for f in factor]), normal(3, 4))


def vector_value(map_: Any) -> str:
    """Scale a skew map by a vector, which makes another map of it."""
    factor = torch.tensor([0.5, 1.0, 2.0, -1.0], dtype=DOUBLE)
    return judge(Scaled(map_, factor), torch.diag(factor) @ map_.effective, normal(3, 4))


def built_gradients(name: str, dtype: torch.dtype = DOUBLE) -> tuple[LinearMap, list[Tensor], Tensor]:
    """Return a map with parameters that require gradients, those, and an input that does."""
    build, shape = (BUILDERS | SKEWS)[name]
    map_ = build(1.0, dtype)
    leaves = {n: t.detach().clone().requires_grad_() if t.is_floating_point() else t for n, t in map_.tensors().items()}
    x = normal(*shape).to(dtype).requires_grad_()
    return map_.with_tensors(leaves), [t for t in leaves.values() if t.requires_grad], x


def changed(name: str, strategy: Any, what: str) -> str:
    """Change something between forward and backward; the gradient must be that of the forward pass, or an error."""
    map_, leaves, x = built_gradients(name)
    g = normal(*x.shape)
    # What a map derives from its tensors has a history, which a backward pass frees; so each use gets a map of its own.
    first = map_.with_tensors(map_.tensors())
    wanted = torch.autograd.grad(lk.exp_action(first, x, gradient=strategy).value, [x, *leaves], g)
    if what == "twice":
        value = lk.exp_action(map_, x, gradient=strategy).value
        torch.autograd.grad(value, [x, *leaves], g, retain_graph=True)
        return worst(torch.autograd.grad(value, [x, *leaves], g), wanted)
    # Not leaves themselves, so that they may be changed in place.
    inner = {n: t * 1.0 if t.is_floating_point() else t for n, t in map_.tensors().items()}
    y = x * 1.0
    value = lk.exp_action(map_.with_tensors(inner), y, gradient=strategy).value
    with torch.no_grad():
        for tensor in {"input": [y], "map": [t for t in inner.values() if t.is_floating_point()], "value": [value]}[
            what
        ]:
            tensor.mul_(1.5)
    try:
        return worst(torch.autograd.grad(value, [x, *leaves], g), wanted)
    except RuntimeError as error:
        if "modified by an inplace operation" in str(error):
            return "refused"
        raise


def worst(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> str:
    """Judge several gradients."""
    outcomes = [close(a, b, 1e-8) for a, b in zip(found, wanted, strict=True)]
    return next((outcome for outcome in outcomes if outcome != "right"), "right")


def aliased(name: str, norm: float) -> str:
    """Change the value in place and see whether the input is still what it was."""
    build, shape = (BUILDERS | SKEWS)[name]
    x = normal(*shape)
    before = x.clone()
    lk.exp_action(build(norm, DOUBLE), x).value.add_(1)
    return "right" if torch.equal(x, before) else "SILENT: the value shares memory with the input"


def late(name: str) -> str:
    """Read the error bound after the input was changed in place."""
    build, shape = (BUILDERS | SKEWS)[name]
    map_, x = build(1.0, DOUBLE), normal(*shape)
    early = lk.exp_action(map_, x).diagnostics.error_bound.clone()
    action = lk.exp_action(map_, x)
    x.mul_(1e-6)
    same = torch.allclose(action.diagnostics.error_bound, early, rtol=1e-6, atol=0)
    return "right" if same else "SILENT: the error bound is that of another input"


def extreme_gradient(name: str, of_x: float, of_g: float) -> str:
    """Compare gradients at extreme scales with those at scale one, which are linear in input and gradient."""
    map_, leaves, x = built_gradients(name, SINGLE)
    g = normal(*x.shape).float()
    first = map_.with_tensors(map_.tensors())
    wanted = torch.autograd.grad(lk.exp_action(first, x).value, [x, *leaves], g)
    y = (of_x * x).detach().requires_grad_()
    found = torch.autograd.grad(lk.exp_action(map_, y).value, [y, *leaves], of_g * g)
    scales = [of_g] + [of_x * of_g] * len(leaves)
    outcomes = [close(a.double() / s, b, 1e-4) for a, b, s in zip(found, wanted, scales, strict=True)]
    return next((outcome for outcome in outcomes if outcome != "right"), "right")


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "strided": lambda x: torch.stack([x, x], -1)[..., 0],
    "flipped": lambda x: x.flip(1).contiguous().flip(1),
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "offset": lambda x: torch.cat([x.flatten(), x.flatten()])[x.numel() :].view(x.shape),
    "expanded": lambda x: x[:1].expand(x.shape),
}


def layout(name: str, what: str) -> str:
    """Judge value and gradients for an input in another memory layout, and for gradients in it."""
    map_, leaves, x = built_gradients(name)
    y = LAYOUTS[what](x.detach())
    g = LAYOUTS[what](normal(*x.shape))
    plain, other = y.clone(memory_format=torch.contiguous_format).requires_grad_(), y.requires_grad_()
    first = map_.with_tensors(map_.tensors())
    wanted = torch.autograd.grad(lk.exp_action(first, plain).value, [plain, *leaves], g.contiguous())
    found = torch.autograd.grad(lk.exp_action(map_, other).value, [other, *leaves], g)
    outcome = worst(found, wanted)
    detached = map_.with_tensors({n: t.detach() for n, t in map_.tensors().items()})
    value = judge(detached, double_matrix(detached, tuple(x.shape[1:])), LAYOUTS[what](x.detach()))
    return value if outcome == "right" else outcome
