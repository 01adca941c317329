"""The one training loop: used by the command line, and by everything else that fits a flow."""

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from likelify.data import Source
from likelify.errors import DataError, MissingDependencyError, NonFiniteError
from likelify.fitting.metrics import Unit, bits_per_dim, read_batch
from likelify.fitting.settings import FitSettings
from likelify.flows import Flow
from likelify.nets import regularized
from likelify.seeding import seeded

if TYPE_CHECKING:
    from lightning_fabric import Fabric

State = dict[str, Tensor]
Tensors = tuple[Tensor, ...] | list[Tensor]
Reason = Literal["finished", "time is up", "stopped early", "interrupted"]
# Noise draws of a look: as many as give about this many numbers, so that a small split is not judged by luck.
VALIDATION_NUMBERS = 600
VALIDATION_BATCH = 512


@dataclass(frozen=True)
class Look:
    """One look at the validation split.

    Attributes:
        step: optimizer steps so far.
        seconds: time so far on the clock of the settings, validation included.
        train_bits: mean loss since the last look, bits per dimension; NaN at the first.
        validation_bits: of the averaged weights.
        lr: learning rate at that step.
    """

    step: int
    seconds: float
    train_bits: float
    validation_bits: float
    lr: float


@dataclass
class FitResult:
    """How a fit went; the flow itself holds the best weights."""

    reason: Reason = "finished"
    best_step: int = 0
    best_bits: float = math.inf
    steps: int = 0
    seconds: float = 0.0
    looks: list[Look] = field(default_factory=list, repr=False)

    def rows(self, unit: Unit | None = None) -> list[dict[str, float]]:
        """Return the looks as plain rows, with the figures in a unit, by default bits per dimension."""
        unit = unit or Unit()
        return [
            {
                name.replace("bits", unit.word): value * (unit.factor if name.endswith("_bits") else 1)
                for name, value in asdict(look).items()
            }
            for look in self.looks
        ]


@dataclass(frozen=True)
class Progress:
    """What a fit reports after each step: how far it is (0 to 1), and the latest figures in bits per dimension."""

    fraction: float
    step: int
    seconds: float
    train_bits: float
    best_bits: float


class Objective(nn.Module):
    """The loss as a module, so that Fabric can wrap it: mean bits per dimension."""

    def __init__(self, flow: Flow, dims: int) -> None:
        super().__init__()
        self.flow = flow
        self.dims = dims

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Draw the noise once and give the mean over the batch."""
        return bits_per_dim(self.flow.elbo(x, context).value, self.dims).mean()


def fit(
    flow: Flow,
    source: Source,
    settings: FitSettings | None = None,
    *,
    conditional: bool = False,
    initialize: bool = True,
    fabric: "Fabric | None" = None,
    on_step: Callable[[Progress], None] | None = None,
    on_best: Callable[[State, FitResult], None] | None = None,
) -> FitResult:
    """Fit a flow by maximum likelihood; afterwards it holds the weights that were best on the validation split.

    Batches and noise are pure functions of (seed, step, process), so a fit without `max_time` gives the same weights
    every time on the same machine. Ctrl-C ends the fit early and keeps the best weights.

    Args:
        flow: the model.
        source: the data.
        settings: see `FitSettings`.
        conditional: give the labels to the model as its context.
        initialize: fit the data-dependent layers to a sample of the training split first; False to go on with a flow
            that has been fitted before.
        fabric: where to run; by default one process on the CPU or the accelerator there is.
        on_step: called after every step.
        on_best: called in the first process with the weights after every look that improved; the first look is before
            the first step.

    Raises:
        NonFiniteError: if the loss becomes infinite or NaN; the flow then holds the best weights so far.
        DataError: if labels are asked of a source without them.
    """
    settings = settings or FitSettings()
    if conditional and source.classes is None:
        raise DataError(f"The source '{source.name}' has no labels, so a class-conditional model cannot be fitted.")
    fabric = fabric or _one_process()
    flow.to(fabric.device)
    with seeded(settings.seed):
        if initialize:
            _initialize(flow, source, settings, conditional=conditional)
        return _Fit(flow, source, settings, conditional, fabric, on_step, on_best).run()


def _one_process() -> "Fabric":
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MissingDependencyError("lightning-fabric", "app") from error
    return Fabric(accelerator="auto", devices=1)


class _Fit:
    """The state of one call of `fit`."""

    def __init__(
        self,
        flow: Flow,
        source: Source,
        settings: FitSettings,
        conditional: bool,  # noqa: FBT001 - private, called once
        fabric: "Fabric",
        on_step: Callable[[Progress], None] | None,
        on_best: Callable[[State, FitResult], None] | None,
    ) -> None:
        self.source, self.settings, self.conditional, self.fabric = source, settings, conditional, fabric
        self.on_step, self.on_best = on_step, on_best
        self.flow = flow
        self.average = AveragedModel(self.flow, multi_avg_fn=_warm_average(settings.average))
        self.objective, self.optimizer = fabric.setup(
            Objective(self.flow, math.prod(source.event_shape)), build_optimizer(self.flow, settings)
        )
        self.result = FitResult()
        self.best: State = {}
        self.losses: list[Tensor] = []
        self.last_bits = math.nan
        self.stale = 0
        self.clock = time.perf_counter if settings.clock == "wall" else time.process_time
        self.start = self.clock()

    def run(self) -> FitResult:
        """Train until something ends it."""
        step = 0
        try:
            self._look(0)
            while True:
                fraction = self._fraction(step)
                if fraction >= 1 or self._tired():
                    break
                self._train_step(step, fraction)
                step += 1
                after = self._fraction(step)
                if int(after * self.settings.validations) > int(fraction * self.settings.validations) or after >= 1:
                    self._look(step)
                self._report(step, after)
            if self._tired() and self._fraction(step) < 1:
                self.result.reason = "stopped early"
            elif step < self.settings.steps:
                self.result.reason = "time is up"
        except KeyboardInterrupt:
            self.result.reason = "interrupted"
            self._last_look(step)
        finally:
            self.result.steps, self.result.seconds = step, self.clock() - self.start
            if self.best:
                self.flow.load_state_dict(self.best)
        return self.result

    def _fraction(self, step: int) -> float:
        share = step / self.settings.steps
        if self.settings.max_time is not None:
            share = max(share, (self.clock() - self.start) / self.settings.max_time)
            if self.fabric.world_size > 1:
                # Clocks differ; all processes must stop at the same step.
                share = self.fabric.broadcast(share)
        return min(share, 1.0)

    def _train_step(self, step: int, fraction: float) -> None:
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr_at(step, fraction)
        x, labels = read_batch(self.flow, self.source, "train", self._batch_indices(step), self.conditional)
        torch.manual_seed(_mix(settings.seed, f"noise {self.fabric.global_rank}", step))
        with regularized(self.flow):
            loss = self.objective(x, labels)
        if self.fabric.device.type == "cpu":
            # Looking at the loss is free here; elsewhere it would stop the device, so it waits for the next look.
            self._require_finite(loss, step)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if settings.clip is not None:
            self.fabric.clip_gradients(self.objective, self.optimizer, max_norm=settings.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.average.update_parameters(self.flow)
        self.losses.append(loss.detach())

    def _batch_indices(self, step: int) -> Tensor:
        """Return this process's part of the batch of that step; each epoch is a fresh permutation."""
        size = self.source.size("train")
        batch = min(self.settings.batch_size, size)
        epoch, index = divmod(step, size // batch)
        order = torch.randperm(size, generator=_generator(self.settings.seed, "order", epoch))
        return order[index * batch : (index + 1) * batch][self.fabric.global_rank :: self.fabric.world_size]

    def _look(self, step: int) -> None:
        train_bits = float(torch.stack(self.losses).mean()) if self.losses else math.nan
        if self.losses:
            self._require_finite(torch.tensor(train_bits), step)
        self.losses.clear()
        bits = self._validate()
        self._require_finite(torch.tensor(bits), step)
        lr = self.optimizer.param_groups[0]["lr"] if step else 0.0
        self.result.looks.append(Look(step, self.clock() - self.start, train_bits, bits, lr))
        self.last_bits = train_bits
        self.stale += 1
        if bits < self.result.best_bits:
            self.stale = 0
            self.result.best_step, self.result.best_bits = step, bits
            self.best = {name: tensor.detach().clone() for name, tensor in self.average.module.state_dict().items()}
            if self.on_best is not None and self.fabric.is_global_zero:
                self.on_best(self.best, self.result)

    def _last_look(self, step: int) -> None:
        """Do not lose the steps since the last look when the user ends the fit; interrupting again skips it."""
        if self.losses and self.fabric.world_size == 1:
            with suppress(KeyboardInterrupt, NonFiniteError):
                self._look(step)

    def _validate(self) -> float:
        """Return the bits per dimension of the averaged weights, with the same noise at every look."""
        flow: Flow = self.average.module  # pyright: ignore[reportAssignmentType]
        size = self.source.size("validation")
        values = []
        with seeded(_mix(self.settings.seed, "validation", 0)), torch.no_grad(), flow.frozen():
            for start in range(0, size, VALIDATION_BATCH):
                indices = torch.arange(start, min(start + VALIDATION_BATCH, size))
                x, labels = read_batch(flow, self.source, "validation", indices, self.conditional)
                values.append(flow.elbo(x, labels, samples=max(1, VALIDATION_NUMBERS // size)).value)
        return float(bits_per_dim(torch.cat(values), math.prod(self.source.event_shape)).mean())

    def _tired(self) -> bool:
        return self.settings.patience is not None and self.stale >= self.settings.patience

    def _report(self, step: int, fraction: float) -> None:
        if self.on_step is not None:
            seconds = self.clock() - self.start
            self.on_step(Progress(fraction, step, seconds, self.last_bits, self.result.best_bits))

    def _require_finite(self, loss: Tensor, step: int) -> None:
        if math.isfinite(float(loss.detach())):
            return
        best = Unit.of(self.source.event_shape, self.source.levels).show(self.result.best_bits)
        kept = f"the weights of step {self.result.best_step}" if self.best else "the initial weights"
        raise NonFiniteError(
            f"The loss became {float(loss.detach())} at step {step}, so training stopped; {kept} are kept "
            f"(validation {best}). Usual causes: the learning rate is too high "
            f"(lr={self.settings.lr:g}) or gradients are not clipped tightly enough (clip={self.settings.clip}); "
            "lower one of them and fit again."
        )


def _initialize(flow: Flow, source: Source, settings: FitSettings, *, conditional: bool) -> None:
    order = torch.randperm(source.size("train"), generator=_generator(settings.seed, "initialize", 0))
    x, labels = read_batch(flow, source, "train", order[: settings.initialize_items], conditional)
    flow.initialize(x, labels)


def build_optimizer(flow: Flow, settings: FitSettings) -> torch.optim.Optimizer:
    """Build the optimizer of the settings; only matrices and kernels have weight decay."""
    matrices = [p for p in flow.parameters() if p.ndim >= 2]
    vectors = [p for p in flow.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamax":
        return torch.optim.Adamax(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)


def _warm_average(factor: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Return the update of a moving average that forgets its start quickly: factor min(factor, (n + 1) / (n + 10))."""

    @torch.no_grad()
    def update(averages: Tensors, current: Tensors, count: Tensor | int) -> None:
        weight = 1 - min(factor, (int(count) + 1) / (int(count) + 10))
        for average, value in zip(averages, current, strict=True):
            average.lerp_(value, weight)

    return update


def _mix(seed: int, purpose: str, step: int) -> int:
    """Turn (seed, purpose, step) into an independent-looking seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _generator(seed: int, purpose: str, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(_mix(seed, purpose, step))
