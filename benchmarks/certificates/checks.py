"""One random case: what is drawn, and each bound that is compared with what happened."""

import math
import random
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import likelify as lk
from benchmarks.certificates.kinds import KINDS, PADDINGS, Kind, Source, normal
from benchmarks.certificates.reference import derivative_norm, item_norms, materialized, of_matrix, reference, sym_norm
from likelify import linalg
from likelify.errors import LikelifyError
from likelify.linalg.expm.action import pose
from likelify.linalg.expm.frozen import apply_formed, form_exponential
from likelify.linalg.maps import LinearMap
from likelify.testing import randomize

# Figures that are compared differ at least by this much, relative to the result, by the reference itself.
REFERENCE = {torch.float64: 4e-16, torch.float32: 4e-16}


@dataclass
class Case:
    """One random case and what was found.

    Attributes:
        name: the kind.
        settings: what was drawn, to be printed.
        found: violated checks with the observed figure and its bound.
        ratios: observed figure over bound of every check.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    found: list[tuple[str, float, float]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    refused: str | None = None

    def check(self, name: str, observed: float, bound: float) -> None:
        """Compare an observed figure with its bound."""
        self.ratios[name] = max(self.ratios.get(name, 0.0), observed / max(bound, 1e-300))
        if not observed <= bound:
            self.found.append((name, observed, bound))


def run(seed: int) -> Case:
    """Draw and check one case."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    name = rng.choice(list(KINDS))
    case = Case(name)
    kind = KINDS[name](rng)
    dtype = rng.choice((torch.float64, torch.float64, torch.float32))
    time = rng.choice((1.0, 1.0, -1.0, 0.3, 6.0))
    norm = math.exp(rng.uniform(math.log(0.01), math.log(kind.largest)))
    shift = rng.choice((0.0, 0.0, 0.0, rng.uniform(-4, 4)))
    tol = 10 ** -rng.uniform(2, 12 if dtype == torch.float64 else 7)
    method = rng.choice(("auto", "series", *kind.methods)) if rng.random() < 0.7 else "auto"
    gradient = rng.choice((None, None, None, linalg.Recompute()))
    gradient = None if name == "function" else gradient
    case.settings = {"dtype": dtype, "time": time, "norm": norm, "shift": shift, "tol": tol, "method": method}

    def rounded(tensor: Tensor) -> Tensor:
        return tensor.to(dtype).double()

    plain = materialized(kind.build(1.0, 0.0, 1, lambda t: t), kind.event)
    size = float(torch.linalg.matrix_norm(plain, 2).max())
    # A mask or a symmetry may leave nothing.
    scale = norm / abs(time) / size if size > 1e-9 else 1.0
    exact_map = kind.build(scale, shift / abs(time), 1, rounded)
    map_ = kind.build(scale, shift / abs(time), 1, lambda t: t.to(dtype))
    exact = materialized(exact_map, kind.event)
    x = draw_input(rng, kind, exact, dtype)
    try:
        check_action(case, kind, map_, exact_map, exact, x, time, tol, method, gradient)
        if method != "frozen":
            check_log_det(case, kind, scale, shift / abs(time), x.dtype, exact, time, tol, method, case.settings)
    except LikelifyError as error:
        case.refused = f"{type(error).__name__}: {error}"
    return case


def draw_input(rng: Source, kind: Kind, exact: Tensor, dtype: torch.dtype) -> Tensor:
    """Draw rows of one size, sometimes one along the most magnified direction, sometimes one of zeros."""
    rows = kind.rows if kind.rows is not None else rng.randint(1, 12)
    x = normal(rows, *kind.event)
    if rng.random() < 0.5 and kind.owner is None:
        matrix = exact if exact.ndim == 2 else exact[0]
        symmetric = (matrix + matrix.T) / 2 if rng.random() < 0.5 else matrix.T @ matrix
        x[0] = torch.linalg.eigh(symmetric)[1][:, rng.choice((0, -1))].reshape(kind.event)
    if rng.random() < 0.1 and rows > 1 and kind.owner is None:
        x[1] = 0
    return (x * 10 ** rng.uniform(-3, 3)).to(dtype)


def act(map_: LinearMap, x: Tensor, time: float, tol: float, method: str, gradient: Any) -> Any:
    """Apply the exponential by the engine, or by what is formed inside `frozen()`."""
    if method != "frozen":
        return lk.exp_action(map_, x, time=time, tol=tol, method=method, gradient=gradient, throw=False)  # pyright: ignore[reportArgumentType]
    made = form_exponential(map_, x, time=time, tol=tol)
    return lk.exp_action(map_, x, time=time, tol=tol, throw=False) if made is None else apply_formed(made, map_, x)


def check_action(
    case: Case,
    kind: Kind,
    map_: LinearMap,
    exact_map: LinearMap,
    exact: Tensor,
    x: Tensor,
    time: float,
    tol: float,
    method: str,
    gradient: Any,
) -> None:
    """Check the bound of the norm, the error, the tolerance, the trace and the gradient."""
    leaves = {n: t.detach().requires_grad_() if t.is_floating_point() else t for n, t in map_.tensors().items()}
    live = map_.with_tensors(leaves)
    action = act(live, x, time, tol, method, gradient)
    found = action.diagnostics
    case.settings |= {"used": found.method, "degrees": found.degrees[:4], "converged": found.converged}
    case.settings |= {"problem": found.problem is not None, "event": kind.event, "rows": len(x)}
    norms = item_norms(kind, x)
    value = reference(kind, exact, x, time)
    error = item_norms(kind, action.value.detach().double() - value)
    own = REFERENCE[x.dtype] * item_norms(kind, value)
    bound = found.error_bound.detach().double() + found.round_off_allowance * norms + own
    for observed, limit in zip(error.tolist(), bound.tolist(), strict=True):
        case.check("error bound", observed, limit)
    if found.converged and found.problem is None:
        for observed, limit in zip(found.error_bound.tolist(), (tol * norms).tolist(), strict=True):
            case.check("tolerance", observed, limit * (1 + 1e-5) + 1e-300)
    posed = pose(map_, x, time=time, tol=tol)
    shift = posed.time * posed.shift / time
    centered = exact - shift * torch.eye(exact.shape[-1], dtype=exact.dtype)
    largest = float(torch.as_tensor(found.norm_bound, dtype=torch.float64).max())
    margin = 0.0 if x.dtype == torch.float64 else 1e-6 * (1 + abs(time * shift))
    true = abs(time) * float(torch.linalg.matrix_norm(centered, 2).max())
    case.check("norm bound", true, largest * (1 + 1e-12) + margin + 1e-14 * abs(time * shift))
    trace = map_.trace(kind.event).double().sum()
    diagonal_ = exact.diagonal(dim1=-2, dim2=-1)
    allowed = 8 * torch.finfo(x.dtype).eps * float(diagonal_.abs().sum() + 1)
    case.check("trace", float((trace - diagonal_.sum()).abs()), allowed)
    # A function has no named tensors, and what is formed inside `frozen()` has no gradient.
    if action.value.requires_grad and found.gradient_error_bound is not None and not found.problem:
        check_gradient(case, kind, leaves, action, exact_map, exact, x, time, norms)


def check_gradient(
    case: Case,
    kind: Kind,
    leaves: dict[str, Tensor],
    action: Any,
    exact_map: LinearMap,
    exact: Tensor,
    x: Tensor,
    time: float,
    norms: Tensor,
) -> None:
    """Compare the parameters' gradient with that of the exponential, along its error and along a random direction."""
    g = torch.randn(x.shape, dtype=torch.float64).to(x.dtype)
    if len(g) > 1 and kind.owner is None:
        g[0] *= 100
    named = {n: t for n, t in leaves.items() if t.requires_grad}
    grads = torch.autograd.grad(action.value, list(named.values()), g.to(action.value.dtype))
    exact_leaves = {n: t.detach().double().requires_grad_() for n, t in named.items()}
    live = exact_map.with_tensors(exact_map.tensors() | exact_leaves)
    matrix = materialized(live, kind.event)
    wanted = torch.autograd.grad(matrix, list(exact_leaves.values()), of_matrix(kind, exact, x, g, time))
    errors = {n: a.double() - b for n, a, b in zip(named, grads, wanted, strict=True)}
    scale = float((norms * item_norms(kind, g)).sum())
    found = action.diagnostics
    growth = math.exp(min(abs(time) * float(sym_norm(exact)), 600.0))
    slack = abs(time) * growth * (4 * found.round_off_allowance + 1e-15)
    worst = {
        n: e / max(math.sqrt(sum(float(d.square().sum()) for d in errors.values())), 1e-300) for n, e in errors.items()
    }
    random_direction = {n: torch.randn_like(t) for n, t in errors.items()}
    # Where the map hardly depends on a direction, rounding of the parameters' own products is all there is.
    tiny = 1e-15 * max(float(t.detach().abs().max()) for t in wanted)
    for name, direction in (("gradient bound, worst direction", worst), ("gradient bound", random_direction)):
        largest = derivative_norm(exact_map, exact_leaves, direction, kind.event)
        observed = abs(float(sum((errors[n] * direction[n]).sum() for n in errors)))
        case.check(name, observed, (found.gradient_error_bound + slack) * scale * largest + tiny)


def check_log_det(
    case: Case,
    kind: Kind,
    scale: float,
    shift: float,
    dtype: torch.dtype,
    exact: Tensor,
    time: float,
    tol: float,
    method: str,
    settings: dict[str, Any],
) -> None:
    """Apply the exponential to all unit vectors at once and compare the determinant with the trace."""
    size = exact.shape[-1]
    own = kind.rows is not None
    copies = size if own else 1
    map_ = kind.build(scale, shift, copies, lambda t: t.to(dtype))
    eye = torch.eye(size, dtype=dtype)
    if kind.owner is not None:
        x = eye.reshape(size * len(kind.owner), *kind.event)
    else:
        x = eye.reshape(size, *kind.event).repeat(kind.rows or 1, *(1,) * len(kind.event))
    used = "auto" if method == "auto" else method
    action = act(map_, x, time, tol, used, None)
    found = action.diagnostics
    if found.problem is not None:
        return
    applied = action.value.detach().double().reshape(-1, size, size).mT
    traces = time * exact.diagonal(dim1=-2, dim2=-1)
    bound = torch.as_tensor(found.log_det_error_bound, dtype=torch.float64).flatten()
    if kind.owner is not None:
        features = size // len(kind.owner)
        member = kind.owner.repeat_interleave(features)
        for graph in range(int(member.max()) + 1):
            inside = member == graph
            block = applied[0][inside][:, inside]
            compare_log_det(case, block, traces[inside].sum(), bound.expand(max(graph + 1, len(bound)))[graph], found)
        return
    every = traces.sum(-1).expand(len(applied))
    limits = bound.expand(len(applied) * copies)[::copies] if bound.numel() > 1 else bound.expand(len(applied))
    for block, trace, limit in zip(applied, every, limits, strict=True):
        compare_log_det(case, block, trace, limit, found)


def compare_log_det(case: Case, block: Tensor, trace: Tensor, limit: Tensor, found: Any) -> None:
    """Compare one determinant; rounding enters by `|tr(P^-1 dP)| <= ||P^-1||_F ||dP||_F`."""
    singular = torch.linalg.svdvals(block)
    inverse = float((1 / singular.clamp_min(1e-300)).square().sum().sqrt())
    rounding = inverse * math.sqrt(len(block)) * (found.round_off_allowance + 1e-16 * float(singular[0]))
    rounding += 1e-15 * (float(singular.log().abs().sum()) + len(block))
    if rounding > 0.1:
        return
    observed = abs(float(torch.linalg.slogdet(block)[1]) - float(trace))
    case.check("log-determinant", observed, float(limit) + 2 * rounding)


def flow_case(seed: int) -> Case:
    """Compare the certificate of a random flow with the determinant of its Jacobian."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    case = Case("flow", {"seed": seed})
    tol = 10 ** -rng.uniform(1, 5)
    shape = (2, 3, 3)
    padding = rng.choice(PADDINGS)
    layers = [
        lk.conv_exponential(2, norm_limit=rng.choice((None, 1.8, 4.0)), padding=padding, tol=tol),
        lk.dense_exponential(2, tol=tol),
        lk.orthogonal_convolution(2, tol=tol),
        lk.Inverse(lk.conv_exponential(2, 3, tol=tol)),
        lk.conv_exponential(2, context_features=2, tol=tol, norm_limit=rng.choice((None, 1.8))),
        lk.linear_exponential(torch.nn.Conv2d(2, 2, 3, padding=1, bias=False), tol=tol),
        lk.ActNorm(2),
    ]
    chain = randomize(lk.Chain(rng.sample(layers, 3)), scale=0.5, seed=seed).double()
    # All unit vectors and zero in one batch, so that each is mapped by the same polynomials: what the layers apply.
    size = math.prod(shape)
    x = torch.cat([torch.eye(size, dtype=torch.float64), torch.zeros(1, size, dtype=torch.float64)])
    x, context = x.reshape(-1, *shape), normal(1, 2).expand(size + 1, 2)
    flow = lk.Flow(lk.Normal(shape), chain).double()
    case.settings |= {"tol": tol, "layers": [type(layer).__name__ for layer in chain]}
    try:
        found = flow.certificate(x, context)
        with torch.no_grad():
            value, reported = chain(x, context)
    except LikelifyError as error:
        case.refused = f"{type(error).__name__}: {error}"
        return case
    applied = (value[:-1] - value[-1:]).flatten(1).mT
    observed = float((torch.linalg.slogdet(applied)[1] - reported).abs().max())
    case.check("flow certificate", observed, float(found.nats.min()) + 1e-11)
    return case
