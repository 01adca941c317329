"""All that a fit has made so far, as plain values and tensors: what a checkpoint holds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor

from likelify.fitting.figures import Course, Point, Reason
from likelify.fitting.settings import FitSettings
from likelify.fitting.training import averaged
from likelify.settings import Settings

if TYPE_CHECKING:
    from likelify.flows import Flow

State = dict[str, Tensor]
FLOW, AVERAGE, BEST, OPTIMIZER, LOSSES = "flow.", "average.", "best.", "optimizer.", "losses."


class Position(Settings):
    """Where a fit is, beside its tensors.

    Attributes:
        step: optimizer steps so far.
        seconds: time so far on the clock of the settings.
        passed: how many of the evenly spaced validations are behind it.
        stale: validations since the best one.
        best: number of the best point, or None before the first.
        lr: learning rate of the last step.
        points: the evaluations on the validation split.
        validation_items: see `Course`.
        setbacks: see `Course`.
    """

    step: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)
    passed: int = Field(default=0, ge=0)
    stale: int = Field(default=0, ge=0)
    best: int | None = Field(default=None, ge=0)
    lr: float = Field(default=0.0, ge=0)
    points: tuple[Point, ...] = ()
    validation_items: int | None = Field(default=None, ge=1)
    setbacks: tuple[int, ...] = ()


class FitState:
    """All that a fit has made so far: `state` gives it as plain values, `restore` goes on from them.

    The order of the batches and all noise are functions of the seed and the step, so there is no generator here.

    Args:
        flow: the model that is trained.
        optimizer: of its parameters; a wrapped one shares the state of what it wraps.
        settings: of the fit.
    """

    def __init__(self, flow: Flow, optimizer: torch.optim.Optimizer, settings: FitSettings) -> None:
        self.flow, self.optimizer, self.settings = flow, optimizer, settings
        self.average = averaged(flow, settings.average)
        self.step = self.passed = self.stale = 0
        self.points: list[Point] = []
        self.validation_items: int | None = None
        self.setbacks: tuple[int, ...] = ()
        self.best_index: int | None = None
        self.best: State = {}
        # Of the steps since the last validation or setback: bits per dimension and nats, each still on the device.
        self.losses: list[tuple[Tensor, Tensor]] = []
        self.clock = time.perf_counter if settings.clock == "wall" else time.process_time
        self.start = self.clock()

    @property
    def seconds(self) -> float:
        """Time so far on the clock of the settings."""
        return self.clock() - self.start

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    @lr.setter
    def lr(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    @property
    def best_point(self) -> Point | None:
        """The best point so far."""
        return None if self.best_index is None else self.points[self.best_index]

    def add(self, point: Point, passed: int) -> bool:
        """Add a point; return whether it is the best so far, whose weights are then remembered."""
        best, self.passed = self.best_point, passed
        self.points.append(point)
        self.losses.clear()
        self.stale += 1
        if best is not None and point.validation_bits >= best.validation_bits:
            return False
        self.stale, self.best_index = 0, len(self.points) - 1
        self.best = {name: tensor.detach().clone() for name, tensor in self.average.module.state_dict().items()}
        return True

    def course(self, reason: Reason = "running") -> Course:
        """Return how the fit went so far."""
        return Course(
            reason=reason,
            steps=self.step,
            best_step=0 if self.best_point is None else self.best_point.step,
            seconds=self.seconds,
            clock=self.settings.clock,
            points=tuple(self.points),
            validation_items=self.validation_items,
            setbacks=self.setbacks,
        )

    def state(self) -> tuple[Position, State]:
        """Return where the fit is, and its tensors; they are those of the fit, and change with its next step."""
        position = Position(
            step=self.step,
            seconds=self.seconds,
            passed=self.passed,
            stale=self.stale,
            best=self.best_index,
            lr=self.lr,
            points=tuple(self.points),
            validation_items=self.validation_items,
            setbacks=self.setbacks,
        )
        losses = dict(zip(("bits", "nats"), zip(*self.losses, strict=True), strict=True)) if self.losses else {}
        return position, {
            **_named(FLOW, self.flow.state_dict()),
            **_named(AVERAGE, self.average.state_dict()),
            **_named(BEST, self.best),
            **_named(OPTIMIZER, self._moments()),
            **_named(LOSSES, {unit: torch.stack(values) for unit, values in losses.items()}),
        }

    def portable(self) -> tuple[Position, State]:
        """Return `state` with the tensors on the CPU, for other processes."""
        position, tensors = self.state()
        return position, {name: tensor.cpu() for name, tensor in tensors.items()}

    def _moments(self) -> State:
        """Return what the optimizer knows of each parameter: `exp_avg.NAME` and so on."""
        known: dict[Any, Any] = self.optimizer.state
        return {
            f"{kind}.{name}": value
            for name, parameter in self.flow.named_parameters()
            for kind, value in known.get(parameter, {}).items()
        }

    def restore(self, position: Position, tensors: State) -> None:
        """Go on from what `state` gave, in a fit of the same flow with the same settings."""
        self.step, self.passed, self.stale = position.step, position.passed, position.stale
        self.points, self.best_index = list(position.points), position.best
        self.validation_items, self.setbacks = position.validation_items, position.setbacks
        self.start, self.lr = self.clock() - position.seconds, position.lr
        self.flow.load_state_dict(of_part(FLOW, tensors))
        self.average.load_state_dict(of_part(AVERAGE, tensors))
        device = next(self.flow.parameters()).device
        self.best = {name: tensor.to(device) for name, tensor in of_part(BEST, tensors).items()}
        losses = of_part(LOSSES, tensors)
        pairs = zip(losses["bits"].to(device), losses["nats"].to(device), strict=True) if losses else ()
        self.losses = list(pairs)
        self._restore_moments(of_part(OPTIMIZER, tensors))

    def _restore_moments(self, moments: State) -> None:
        found: dict[str, dict[str, Tensor]] = {}
        for name, value in moments.items():
            kind, _, parameter = name.partition(".")
            found.setdefault(parameter, {})[kind] = value
        for name, parameter in self.flow.named_parameters():
            for kind, value in found.get(name, {}).items():
                # In the layout of the parameter, in which the optimizer made it; counts of steps are numbers.
                fused = self.settings.optimizer == "adamw"
                like = torch.zeros_like(parameter) if value.shape == parameter.shape and kind != "step" else None
                kept = value.to(parameter.device if fused else "cpu") if like is None else like.copy_(value)
                self.optimizer.state[parameter][kind] = kept


def _named(prefix: str, tensors: State) -> State:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def of_part(prefix: str, tensors: State) -> State:
    """Return the tensors of one part of a state, such as `BEST`, by their names in it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
