"""Which layer is to blame for an inverse that cannot be trusted, and where it is."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from likelify.errors import ConvergenceError, LikelifyError
from likelify.structure import ContextLike
from likelify.transforms.crossing import is_composite
from likelify.transforms.inversion import InverseReport
from likelify.transforms.sessions import INSPECTED, SESSION, Session


def locate(error: ConvergenceError, root: nn.Module) -> None:
    """Say in the error where in `root` the layer is that raised it."""
    if error.layer is None:
        error.layer = root
    error.place = _place(error.layer, root)


def _place(layer: nn.Module, root: nn.Module) -> str:
    if layer is root:
        return ""
    parts = list(root.parts()) if is_composite(root) else list(root.children())  # pyright: ignore
    for number, part in enumerate(parts, 1):
        if any(module is layer for module in part.modules()):
            inside = _place(layer, part)
            if len(parts) == 1 or not is_composite(root):
                return inside
            here = f"layer {number} of {len(parts)} ({type(part).__name__})"
            return f"{here}, in it {inside}" if inside else here
    return ""


def blame(session: Session, root: Any, z: Tensor, context: ContextLike) -> ConvergenceError | None:
    """Return the error for the first layer that cannot be trusted by itself, or for the layers together.

    There is none if only rows have failed that were not finite to begin with.
    """
    failed = next((report for report in session.reports() if not report.trusted), None)
    if failed is None:
        return None
    if not is_composite(failed.layer):
        return error_for(failed, failed.layer, root)
    reports = [report for report in one_by_one(root, z, context) if not is_composite(report.layer)]
    blamed = next((report for report in reports if not report.trusted), None)
    if blamed is not None:
        return error_for(blamed, blamed.layer, root)
    worst = max(reports, key=lambda report: report.condition or 0.0, default=failed)
    return error_for(failed, worst.layer, root)


def one_by_one(root: Any, z: Tensor, context: ContextLike) -> list[InverseReport]:
    """Return reports of all layers, up to the one where the inverse fails if it does."""
    reports: list[InverseReport] = []
    with torch.no_grad(), suppress(LikelifyError):
        inspect_layers(root, z, context, reports)
    return reports


def error_for(report: InverseReport, layer: nn.Module, root: nn.Module) -> ConvergenceError:
    """Return what is raised for a report, with the layer in which most was lost."""
    here = "" if layer is report.layer else f"Most of the digits are lost in {type(layer).__name__}. "
    error = ConvergenceError(f"{report} {here}{report.advice()}", report)
    error.layer = layer
    locate(error, root)
    return error


def inspect_layers(layer: Any, z: Tensor, context: ContextLike, reports: list[InverseReport]) -> tuple[Tensor, Tensor]:
    """Look at every row in every layer, and add what is found to the reports."""
    token, apart = INSPECTED.set(reports), SESSION.set(None)
    try:
        # Layers of users may take no context.
        return layer.inverse(z) if context is None else layer.inverse(z, context)
    finally:
        SESSION.reset(apart)
        INSPECTED.reset(token)
