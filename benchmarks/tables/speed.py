"""Rows per second of scoring, drawing and training: the default model of tables against nflows and zuko.

All have as many parameters as the default model of 30,000 rows (widths of the rivals' networks are chosen so), ten
columns, and one thread; that of 10,000 rows, which has splines too, is timed beside them. Turns are interleaved, and
medians of the processor time of the thread are compared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import zuko
from nflows.distributions import StandardNormal
from nflows.flows import Flow as NFlow
from nflows.flows import MaskedAutoregressiveFlow
from nflows.nn.nets import ResidualNet
from nflows.transforms import (
    CompositeTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    PiecewiseRationalQuadraticCouplingTransform,
    RandomPermutation,
)
from torch import Tensor, nn

import likelify as lk
from benchmarks.report import Entry
from benchmarks.tables.data import Split, split_of
from benchmarks.tables.rivals import source
from benchmarks.timing import medians
from likelify.fitting.choose import choose
from likelify.nets import regularized

COLUMNS, LAYERS, BINS = 10, 5, 8
# Rows of a call.
SCORED, DRAWN, TRAINED = 4096, 1000, 512
OURS, PEER, GOAL = "table-flow", "nflows spline autoregressive", 1.5
# What the default is for fewer rows: four times as large.
SPLINES = "table-flow with splines"


def count(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def rows(number: int) -> np.ndarray:
    """Make rows of ten dependent columns."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(number, COLUMNS)) @ rng.normal(size=(COLUMNS, COLUMNS))
    return np.sinh(0.4 * base) + 0.2 * rng.normal(size=base.shape)


def default(split: Split) -> lk.Flow:
    """Return the default model of rows, ready to be fitted."""
    choice = choose(source(split).facts(), model="table-flow")
    with lk.seeded(0):
        flow = choice.model.build()
    flow.initialize(torch.from_numpy(split.train))
    flow.stack(torch.from_numpy(split.validation))
    return flow


def with_weights(flow: lk.Flow, *weights: float) -> lk.Flow:
    """Give the trained members the weights that they have after a fit: of fresh ones none would ever be drawn."""
    assert isinstance(flow.base, lk.distributions.Mixture)
    left = len(flow.base.members) - len(weights)
    flow.base.log_odds.copy_(torch.tensor([*weights, *[1e-3] * left]).log())
    return flow


def nflows_spline(width: int) -> nn.Module:
    """Return masked autoregressive layers with rational-quadratic splines, of nflows."""
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        settings = {"num_bins": BINS, "tails": "linear", "tail_bound": 5.0}
        layers += [
            RandomPermutation(COLUMNS),
            MaskedPiecewiseRationalQuadraticAutoregressiveTransform(COLUMNS, width, num_blocks=2, **settings),
        ]
    return NFlow(CompositeTransform(layers), StandardNormal([COLUMNS]))


def nflows_coupling(width: int) -> nn.Module:
    """Return spline couplings of nflows."""
    layers: list[nn.Module] = []

    def net(inputs: int, outputs: int) -> nn.Module:
        return ResidualNet(inputs, outputs, width, num_blocks=2)

    for number in range(LAYERS):
        mask = torch.arange(COLUMNS) % 2 == number % 2
        settings = {"num_bins": BINS, "tails": "linear", "tail_bound": 5.0}
        layers += [RandomPermutation(COLUMNS), PiecewiseRationalQuadraticCouplingTransform(mask, net, **settings)]
    return NFlow(CompositeTransform(layers), StandardNormal([COLUMNS]))


def zuko_of(kind: Any, **settings: Any) -> Callable[[int], nn.Module]:
    """Return how a flow of zuko is built from the width of its networks."""
    return lambda width: kind(COLUMNS, transforms=LAYERS, hidden_features=(width, width), randperm=True, **settings)


RIVALS: dict[str, Callable[[int], nn.Module]] = {
    "nflows affine autoregressive": lambda width: MaskedAutoregressiveFlow(COLUMNS, width, LAYERS, 2),
    "nflows spline autoregressive": nflows_spline,
    "nflows spline coupling": nflows_coupling,
    "zuko affine autoregressive": zuko_of(zuko.flows.MAF),
    "zuko spline autoregressive": zuko_of(zuko.flows.NSF, bins=BINS),
    "zuko spline coupling": zuko_of(zuko.flows.NSF, bins=BINS, passes=2),
}


def of_size(build: Callable[[int], nn.Module], parameters: int) -> nn.Module:
    """Return the model whose number of parameters is nearest, of all widths."""
    with lk.seeded(0):
        narrow, wide = COLUMNS, 1024
        while wide - narrow > 1:
            middle = (narrow + wide) // 2
            narrow, wide = (middle, wide) if count(build(middle)) <= parameters else (narrow, middle)
        return min((build(width) for width in (narrow, wide)), key=lambda model: abs(count(model) - parameters))


@dataclass(frozen=True)
class Calls:
    """What is timed of one model."""

    score: Callable[[], object]
    draw: Callable[[], object]
    train: Callable[[], object]


def _training(model: nn.Module, log_prob: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        log_prob().mean().neg().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    return step


def our_calls(flow: lk.Flow, x: Tensor) -> Calls:
    """Return the calls of the default model: `frozen` is how `likelify score` and `sample` call it."""

    def score() -> object:
        with torch.no_grad(), flow.frozen():
            return flow.log_prob(x)

    def draw() -> object:
        with torch.no_grad(), flow.frozen():
            return flow.sample((DRAWN,))

    def loss() -> Tensor:
        with regularized(flow):
            return flow.log_prob(x[:TRAINED])

    return Calls(score, draw, _training(flow, loss))


def their_calls(model: nn.Module, x: Tensor) -> Calls:
    """Return the calls of a rival."""
    score: Callable[[Tensor], Tensor]
    if isinstance(model, NFlow):
        score, sample = model.log_prob, lambda: model.sample(DRAWN)
    else:
        score, sample = (lambda part: model().log_prob(part)), (lambda: model().sample((DRAWN,)))

    def without_gradient(call: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            model.eval()
            with torch.no_grad():
                return call()

        return run

    train = _training(model, lambda: score(x[:TRAINED]))
    return Calls(without_gradient(lambda: score(x)), without_gradient(sample), train)


def speed(*, quick: bool) -> list[Entry]:
    """Compare rows per second."""
    split, smaller = split_of(rows(30_000), 0), split_of(rows(10_000), 0)
    flow, larger = default(split), with_weights(default(smaller), 0.25, 0.75)
    parameters = count(flow)
    x = torch.from_numpy(split.test)[:SCORED]
    z = torch.from_numpy(split.standardized().test)[:SCORED].float()
    models = {name: of_size(build, parameters) for name, build in RIVALS.items()}
    calls = {OURS: our_calls(flow, x), SPLINES: our_calls(larger, x)}
    calls |= {name: their_calls(model, z) for name, model in models.items()}
    entries = [
        Entry(f"{name}: parameters", count(ours), "parameters") for name, ours in ((OURS, flow), (SPLINES, larger))
    ]
    entries += [Entry(f"{name}: parameters", count(model), "parameters") for name, model in models.items()]
    for what, number in (("score", SCORED), ("draw", DRAWN), ("train", TRAINED)):
        times = medians({name: getattr(call, what) for name, call in calls.items()}, 3 if quick else 15)
        rates = {name: number / seconds for name, seconds in times.items()}
        entries += [Entry(f"{what}, {name}", rate, "rows/s", better="higher") for name, rate in rates.items()]
        goal = GOAL if what == "score" else None
        entries.append(Entry(f"{what}: {OURS} over {PEER}", rates[OURS] / rates[PEER], "x", goal, better="higher"))
    return entries
