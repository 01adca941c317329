"""What the tolerance that exponentials have in training steps does to the objective of a fit."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from likelify.data import Batch
from likelify.fitting.figures import Truncation
from likelify.fitting.mapped import log_likelihoods
from likelify.fitting.metrics import bits_per_dim, mean_dims
from likelify.flows import Flow
from likelify.linalg.bounds import widest
from likelify.linalg.expm import Action, applied
from likelify.linalg.maps import LinearMap
from likelify.nets import regularized
from likelify.seeding import seeded
from likelify.structure import ContextLike, sum_items
from likelify.transforms import Exponential, unchecked

Applied = tuple[Action, LinearMap]


def loosens(flow: Flow) -> bool:
    """Tell whether a flow has exponentials that take the tolerance of a training step."""
    return any(isinstance(m, Exponential) and m.takes_exp_tol for m in flow.modules())


def measure_truncation(
    flow: Flow,
    batch: Batch,
    exp_tol: float,
    *,
    conditional: bool = False,
    seed: int = 0,
    dims: float | None = None,
) -> Truncation | None:
    """Compute the objective of a batch to a tolerance and in full, with the same noise, and what certificates allow.

    Args:
        flow: with the weights to measure.
        batch: as the flow takes it.
        exp_tol: the tolerance.
        conditional: give the labels to the model.
        seed: of the noise.
        dims: as for `Objective`; by default the mean of the batch.

    Returns:
        None if no exponential was computed to another tolerance, as in a float format with a looser one.
    """
    context = batch.context(conditional=conditional)
    dims = float(mean_dims(batch.dims())) if dims is None else dims
    # Of a batch that a layer maps first the gradient at the value is wanted too.
    x = batch.x.detach().requires_grad_() if batch.x.is_floating_point() else batch.x
    batch = replace(batch, x=x)
    with torch.enable_grad(), seeded(seed), regularized(flow, exp_tol=exp_tol), unchecked(), applied() as found:
        loose = log_likelihoods(flow, batch, context)
    with torch.no_grad(), seeded(seed), regularized(flow), unchecked():
        full = log_likelihoods(flow, batch, context)
    found = [(action, map_) for action, map_ in found if action.diagnostics.tolerance == exp_tol]
    if not found:
        return None
    nats, bits = batch.mean(loose), batch.mean(bits_per_dim(loose, dims))
    log_det = sum(_log_det_error(action, batch, context) for action, _ in found)
    value, value_bits = _value_error(found, nats), _value_error(found, bits)
    log_det_bits = log_det / (dims * math.log(2))
    return Truncation(
        exp_tol=exp_tol,
        exponentials=len(found),
        log_det_nats=_finite(log_det),
        value_nats=_finite(value),
        bound_bits=_finite(log_det_bits + value_bits),
        change_bits=float(bits.detach() - batch.mean(bits_per_dim(full, dims))),
        change_nats=float(nats.detach() - batch.mean(full)),
    )


def _log_det_error(action: Action, batch: Batch, context: ContextLike) -> float:
    """Return the mean over the items, as much as each weighs, of certificates of the log-determinant, in nats."""
    bound, rows = widest(torch.as_tensor(action.diagnostics.log_det_error_bound)), len(action.diagnostics.item_norms)
    errors = bound.expand(rows) if bound.numel() == 1 else bound
    if batch.structure is not None and len(errors) == len(batch.structure.owner):
        errors = sum_items(errors, context)
    if len(errors) == len(batch):
        return float(batch.mean(errors))
    # Whose rows they are is not known, so all may be those of the heaviest.
    heaviest = 1.0 if batch.weights is None else float(batch.weights.max())
    return heaviest * float(errors.sum()) / len(batch)


def _value_error(found: list[Applied], objective: Tensor) -> float:
    """Bound to first order how far an objective is off because of errors of the exponentials' values."""
    values = [action.value for action, _ in found]
    if not all(value.requires_grad for value in values):
        # A fixed map at the very front, at whose value nobody can tell the gradient.
        return math.inf
    grads = torch.autograd.grad(objective, values, retain_graph=True, allow_unused=True)
    total = 0.0
    for (action, map_), grad in zip(found, grads, strict=True):
        if grad is not None:
            total += float((widest(map_.item_norms(grad)) * action.diagnostics.error_bound).sum())
    return total


def _finite(value: float) -> float | None:
    """Return None for a bound that is none; a file of JSON has no infinity."""
    return value if math.isfinite(value) else None
