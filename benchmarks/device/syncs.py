"""How often every layer makes the host wait for the device, in training and in evaluation."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from tests.cases import LAYERS
from torch import Tensor, nn

import likelify as lk
from benchmarks.report import Entry
from likelify.linalg import Function, GraphMap
from likelify.structure import Context


@contextmanager
def counted_syncs() -> Iterator[list[str]]:
    """Collect a line for each synchronizing operation inside of the block."""
    found: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
    found += [f"{w.filename}:{w.lineno}" for w in caught if "synchronizing" in str(w.message)]


def places(run: Callable[[], object]) -> list[str]:
    """Return where a call waits for the device, after two calls that warm up."""
    for _ in range(2):
        run()
    torch.cuda.synchronize()
    with counted_syncs() as found:
        run()
    return found


def norm_is_declared(layer: nn.Module, x: Tensor, context: Context) -> bool:
    """Tell whether a layer is an exponential whose norm is limited by its settings, so that nothing need be read.

    Those of graphs are left aside: the host finds their coefficients from small matrices, which it gets in one copy.
    """
    if not isinstance(layer, lk.Exponential):
        return False
    map_ = layer.map(context)
    if isinstance(map_, GraphMap):
        return False
    # A function of the user's has no tensors that tell where it works.
    map_ = replace(map_, like=x) if isinstance(map_, Function) else map_
    return isinstance(map_.norm_bound(tuple(x.shape[1:])), float)


def training_call(layer: nn.Module, x: Tensor, context: Context) -> Callable[[], None]:
    """Return a forward and a backward pass."""

    def run() -> None:
        z, contribution = layer(x, context)
        total = z.sum() + contribution.sum()
        if total.requires_grad:
            layer.zero_grad()
            total.backward()

    return run


@torch.no_grad()
def _forward(layer: nn.Module, x: Tensor, context: Context) -> None:
    layer(x, context)


@torch.no_grad()
def _inverse(layer: lk.Transform, z: Tensor, context: Context) -> None:
    layer.inverse(z, context)


def syncs(device: torch.device, end: float, *, quick: bool) -> list[Entry]:
    """Count the syncs of every case; layers with a declared norm must have none in training."""
    declared, totals, raised, left_out = 0, {"training": 0, "evaluation": 0, "inverse": 0}, 0, 0
    print(f"{'layer':<44} training evaluation inverse")
    for name, case in list(LAYERS.items())[:: 8 if quick else 1]:
        if time.monotonic() > end:
            left_out += 1
            continue
        try:
            layer, x, context = case.ready(dtype=torch.float32, scale=0.1, device=device.type)
            with torch.no_grad():
                z = layer(x, context)[0]
            counts = {
                "training": places(training_call(layer, x, context)),
                "evaluation": places(lambda v=(layer, x, context): _forward(*v)),
                "inverse": places(lambda v=(layer, z, context): _inverse(*v)),
            }
            fixed = norm_is_declared(layer, x, context)
        except Exception as error:  # noqa: BLE001 - what is counted
            raised += 1
            print(f"{name:<44} {type(error).__name__}: {str(error)[:120]}")
            continue
        if any(counts.values()):
            numbers = [len(counts[what]) for what in totals]
            print(f"{name:<44} {numbers[0]:>8} {numbers[1]:>10} {numbers[2]:>7}")
        if fixed and counts["training"]:
            print("    in training, though the norm is declared:", *counts["training"])
        declared += len(counts["training"]) if fixed else 0
        totals = {what: totals[what] + len(counts[what]) for what in totals}
    return [
        Entry("host syncs in training, layers with a declared norm", declared, "calls", 0),
        *(Entry(f"host syncs of all cases, {what}", number, "calls") for what, number in totals.items()),
        Entry("cases that raised, syncs", raised, "cases", 0),
        Entry("cases left out, syncs", left_out, "cases", 0),
    ]
