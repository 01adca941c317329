"""The one training loop: used by the command line, by the experiments, and by `lk.fit`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from likelify.data import Source, as_source
from likelify.errors import LikelifyError, LikelifyWarning, NonFiniteError, RunError
from likelify.fitting import setbacks
from likelify.fitting.checkpoint import Checkpoints, Saved, restore, restore_start
from likelify.fitting.checks import check_fit, check_flow, read_for
from likelify.fitting.feeding import Feed
from likelify.fitting.figures import Course, Point, Reason, Truncation, Unit
from likelify.fitting.gradients import Gradients
from likelify.fitting.interrupts import Interrupts
from likelify.fitting.locks import locked
from likelify.fitting.mapped import MappedRows, can_map
from likelify.fitting.metrics import dims_of
from likelify.fitting.preparing import begin, check_shares, initialize_layers
from likelify.fitting.process import OneProcess, all_know, processes
from likelify.fitting.settings import FitSettings
from likelify.fitting.state import FitState, State
from likelify.fitting.training import build_optimizer, update
from likelify.fitting.trimming import trimmed
from likelify.fitting.truncation import loosens, measure_truncation
from likelify.fitting.validating import Validation
from likelify.flows import Flow
from likelify.seeding import derived_seed, seeded

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from likelify.fitting.run import Run


# In the words of what ends a fit.
ENDED = "training stopped"


@dataclass(frozen=True)
class Progress:
    """What a fit reports after each step.

    Attributes:
        fraction: how far it is, 0 to 1.
        step: optimizer steps so far.
        seconds: time so far on the clock of the settings.
        last: the latest evaluation on the validation split.
        best: the best one so far.
    """

    fraction: float
    step: int
    seconds: float
    last: Point
    best: Point


def fit(
    flow: Flow,
    data: Any,
    settings: FitSettings | None = None,
    *,
    conditional: bool = False,
    initialize: bool = True,
    run: Run | None = None,
    fabric: Fabric | OneProcess | None = None,
    device: torch.device | str | None = None,
    on_step: Callable[[Progress], None] | None = None,
    on_best: Callable[[State, Course], None] | None = None,
    **changes: Any,
) -> Course:
    """Fit a flow by maximum likelihood; afterwards it holds the weights that were best on the validation split.

    A flow whose last layer is a `ContinuousFlow` that is trained by matching is fitted by the loss of flow matching;
    what is validated is the likelihood.

    Batches and noise are pure functions of (seed, step, process), so a fit without `max_time` gives the same weights
    every time on the same machine. Ctrl-C ends the fit early and keeps the best weights.

    Args:
        flow: the model.
        data: a source; or a tensor, an array, a torch `Dataset` or `DataLoader`, graphs of networkx or of PyTorch
            Geometric, of which `data.as_source` makes one: a tenth of the items validates.
        settings: see `FitSettings`; by default those of the run, if one is given.
        conditional: give the labels to the model as its context.
        initialize: fit the data-dependent layers to a sample of the training split first; False to go on with a flow
            that has been fitted before.
        run: a run folder that keeps the best weights and the course of the fit from the first improvement on.
        fabric: of Lightning (`pip install 'likelify[devices]'`), for several processes or devices, or
            `OneProcess(device)`; by default one process on the accelerator there is, or the CPU.
        device: for one process on this device, such as "cpu" or "cuda:1"; instead of `fabric`.
        on_step: called after every step.
        on_best: called in the first process with the weights after every validation that improved; the first
            validation is before the first step.
        **changes: single settings by name, such as `steps=200`, over those of `settings`.

    Returns:
        How the fit went.

    Raises:
        NonFiniteError: if the loss becomes infinite or NaN; the flow then holds the best weights so far. Also if
            weights are so before.
        DataError: if labels are asked of data without them, or the data are not clear; see `data.as_source`.
        ConfigError: if the flow has no parameters, or a setting is unknown or does not fit.
        UnsupportedError: if it is no flow.
        RunError: if the best weights could not be kept in the run until the end.

    Warns:
        LikelifyWarning: if columns follow from others but for their last digits, the best weights are those before the
            first step, the training loss runs away, weights cannot be written for now, or what `exp_tol` did to the
            objective cannot be measured.
    """
    place = processes(fabric, device)
    with place.together():
        check_flow(flow)
        source = as_source(data)
    if run is not None:
        settings, conditional = settings or run.config.fit, conditional or run.config.conditional
    settings = settings or FitSettings()
    settings = FitSettings.parse(settings.model_dump() | changes) if changes else settings
    with place.together():
        source = trimmed(source, settings.trim)
    with place.at_work(), ExitStack() as held, seeded(settings.seed):
        fitting = _prepared(
            flow, source, settings, place, held, run=run, conditional=conditional, initialize=initialize
        )
        fitting.on_step = on_step
        fitting.on_best = [keep for keep in (None if run is None else run.keep, on_best) if keep is not None]
        course = fitting.measured(fitting.run() if run is None else _kept(run, fitting), run)
    for doubt in course.doubts if place.is_first else ():
        warnings.warn(doubt, LikelifyWarning, stacklevel=2)
    return course


def _prepared(
    flow: Flow,
    source: Source,
    settings: FitSettings,
    place: OneProcess,
    held: ExitStack,
    *,
    run: Run | None,
    conditional: bool,
    initialize: bool,
) -> _Fit:
    """Return a fit that is ready to begin, or to go on; what keeps others out of the folder of a run is then held."""
    checkpoints, saved = None, None
    with place.together():
        check_fit(flow, source, conditional=conditional)
        check_shares(source, settings, place)
        flow.to(place.device)
        if run is not None and place.is_first:
            held.enter_context(locked(run.path, wait=False))
            checkpoints, saved = begin(run, source, settings, place, conditional=conditional, initialize=initialize)
    initialized, initialize = place.from_first(
        (False, initialize) if saved is None else (saved.facts.initialized, saved.facts.initialize)
    )
    with place.together():
        if saved is not None and not initialized:
            restore_start(saved, flow)
        if checkpoints is not None and saved is None:
            checkpoints.save_start(flow)
        if initialize and not initialized:
            initialize_layers(flow, source, settings, conditional=conditional)
    fitting = _Fit(flow, source, settings, place, conditional=conditional)
    fitting.checkpoints, fitting.saved, fitting.goes_on = checkpoints, saved, initialized
    return fitting


def _kept(run: Run, fitting: _Fit) -> Course:
    """Run a fit and write its course; once it has ended its checkpoint goes."""
    try:
        course = fitting.run()
    except NonFiniteError as error:
        # What one process met alone the others know as a word, so that they do not meet here.
        fitting.end(run, fitting.state.course("diverged"), alone=all_know(error))
        raise
    fitting.end(run, course)
    return course


class _Fit:
    """One call of `fit`: what it works with; what it has made so far is its `state`."""

    on_step: Callable[[Progress], None] | None = None
    on_best: list[Callable[[State, Course], None]]
    # Of several processes the first one has these two.
    checkpoints: Checkpoints | None = None
    saved: Saved | None = None
    goes_on = False

    def __init__(
        self, flow: Flow, source: Source, settings: FitSettings, place: OneProcess, *, conditional: bool
    ) -> None:
        self.source, self.settings, self.conditional, self.place = source, settings, conditional, place
        self.flow = flow
        self.feed = Feed(flow, source, settings, share=place.share)
        self.optimizer = build_optimizer(flow, settings)
        objective = {"conditional": conditional, "dims": dims_of(source)}
        self.gradients = Gradients(flow, self.optimizer, settings, place, items=self.feed.batch_size, **objective)
        self.matches = self.gradients.matches
        self.state = FitState(flow, self.optimizer, settings)
        self.validation = Validation(source, settings, place, conditional=conditional, clock=self.state.clock)
        # On the clock of the first process, as of the last step: clocks differ, and all must stop at the same step.
        self.seconds = 0.0
        self.interrupts = Interrupts(place)
        self.unkept: RunError | None = None

    def _go_on(self) -> None:
        """Take up a checkpoint, and make the run hold the best weights that it knows of."""
        with self.place.together():
            if self.saved is not None:
                restore(self.saved, self.state)
        said = self.place.from_first(self.state.portable() if self.place.speaks else None)
        if said is not None and not self.place.is_first:
            self.state.restore(*said)
        self.seconds = self.state.seconds
        if self.state.points:
            self.validation.keep_to(self.state.validation_items)
        if self.state.best:
            self.place.alone(self._keep)

    def end(self, run: Run, course: Course, *, alone: bool = False) -> None:
        """Write how a fit went, and take its checkpoint away unless it can go on."""
        with nullcontext() if alone else self.place.together():
            if self.place.is_first:
                run.save_course(course)
            if self.checkpoints is not None and course.ended:
                self.checkpoints.remove()

    def run(self) -> Course:
        """Train until something ends it."""
        reason = None
        if self.goes_on:
            self._go_on()
        try:
            with self.interrupts:
                try:
                    with self.feed:
                        self._train()
                except KeyboardInterrupt:
                    reason = "interrupted"
                    self._stop()
        finally:
            recorded = self.gradients.end()
            if self.state.best:
                self.flow.load_state_dict(self.state.best)
        course = self.state.course(reason or self._reason()).model_copy(update=recorded)
        with self.place.together():
            if self.unkept is not None:
                self._keep()
            if self.unkept is not None:
                raise self.unkept
        return course

    def measured(self, course: Course, run: Run | None) -> Course:
        """Return the course of a fit that is safe already, with what the tolerance of exponentials did to it."""
        with self.place.together():
            if not (course.ended and self.place.is_first):
                return course
            try:
                course = course.model_copy(update={"truncation": self._truncation()})
                if run is not None and course.truncation is not None:
                    run.save_course(course)
            except (LikelifyError, RuntimeError, MemoryError) as error:
                _warn_unmeasured(" ".join(str(error).split()) or "There was not enough memory.")
            except KeyboardInterrupt:
                # Who ends a run finds all of it in its folder; without one the course would be lost.
                if run is not None:
                    raise
                _warn_unmeasured("It was interrupted.")
        return course

    def _truncation(self) -> Truncation | None:
        tol = self.settings.exp_tol
        if tol is None or self.matches or not loosens(self.flow):
            return None
        batch = read_for(self.flow, self.source, "train", self.feed.indices(0))
        seed = derived_seed(self.settings.seed, "truncation", 0)
        given = {"conditional": self.conditional, "seed": seed, "dims": dims_of(self.source)}
        return measure_truncation(self.flow, batch, tol, **given)

    def _train(self) -> None:
        # Now that the layers are as they stay.
        if can_map(self.flow, self.source, "train"):
            self.feed.mapped = MappedRows(self.flow, self.source, "train")
        fraction = self._fraction()
        self._validate_if_due(fraction)
        self._save_if_due(validated=True)
        # A first step in any case: starting values and the first validation may have taken all the time.
        while ((fraction := self._fraction()) < 1 or not self.state.step) and not self._out_of_patience():
            with self.interrupts.whole():
                try:
                    self._train_step(fraction if self.state.step else 0.0)
                except NonFiniteError as error:
                    self._go_back(error)
                    continue
            after = self._fraction()
            self._save_if_due(validated=self._validate_if_due(after))
            self._report(after)
        self._validate_if_due(fraction)

    def _validate_if_due(self, fraction: float) -> bool:
        """Validate before the first step, after the last, and so many times between them; return whether it was."""
        state = self.state
        passed = int(fraction * self.settings.validations)
        last = state.points[-1].step if state.points else -1
        if not (last < 0 or passed > state.passed or (fraction >= 1 and last < state.step)):
            return False
        self._validate(passed)
        return True

    def _save_if_due(self, *, validated: bool) -> None:
        if self.checkpoints is not None and self.checkpoints.is_due(self.state.step, validated=validated):
            with self.interrupts.whole():
                self.place.alone(self._save)

    def _save(self) -> None:
        if self.checkpoints is not None:
            self.checkpoints.save(self.state)

    def _stop(self) -> None:
        """Save what the user has ended, and do not lose the steps since the last validation; ending again skips it."""
        with suppress(KeyboardInterrupt, NonFiniteError):
            with self.place.together() as numbers:
                numbers.append(float(self.interrupts.broken))
            if numbers[0]:
                return
            if self.checkpoints is not None and self.checkpoints.saved != self.state.step:
                with self.interrupts.whole():
                    self.place.alone(self._save)
            if self.state.losses:
                self._validate(self.state.passed)

    def _reason(self) -> Reason:
        if self._out_of_patience() and self._fraction() < 1:
            return "stopped early"
        return "time is up" if self.state.step < self.settings.steps else "finished"

    def _fraction(self) -> float:
        share = self.state.step / self.settings.steps
        if self.settings.max_time is not None:
            seconds = self.state.seconds if self.place.count == 1 else self.seconds
            share = max(share, seconds / self.settings.max_time)
        return min(share, 1.0)

    def _train_step(self, fraction: float) -> None:
        settings, place, step, before = self.settings, self.place, self.state.step, self.state.setbacks
        # After a setback it rises again as at the start.
        since = step - (before[-1] if before else 0)
        self.state.lr = settings.lr_at(since, fraction) * setbacks.factor(before)
        with place.together() as numbers:
            numbers.append(self.state.seconds if place.is_first else 0.0)
            losses = self.gradients.forward(self.feed.batch(step), step)
        self.seconds = numbers[0]
        bits, nats = place.mean(losses)
        if place.device.type == "cpu":
            # Reading the loss is free here; elsewhere it would stop the device, so it waits for the next validation.
            self._require_finite(bits)
        self.gradients.backward()
        update(self.optimizer, settings)
        self.state.average.update_parameters(self.flow)
        self.state.losses.append((bits, nats))
        self.state.step += 1

    def _validate(self, passed: int) -> None:
        """Add a point to the course, and keep the weights if they are the best so far; go back first if need be."""
        try:
            if self._may_go_back() and self._blew_up():
                self._go_back()
            self._add_point(passed)
        except NonFiniteError as error:
            self._go_back(error)
            self._add_point(passed)

    def _blew_up(self) -> bool:
        losses = torch.stack([bits for bits, _ in self.state.losses]).tolist() if self.state.losses else []
        apart = self.flow.base.stacks
        return not self.matches and setbacks.blew_up(losses, self.state.course(), apart=apart)

    def _may_go_back(self) -> bool:
        """Tell whether there is somewhere to go back to, from which the same did not happen at once."""
        state = self.state
        return bool(state.best) and state.step not in state.setbacks and len(state.setbacks) < setbacks.MOST

    def _go_back(self, error: NonFiniteError | None = None) -> None:
        """Go back to the best weights, or raise the error if there is no going on."""
        # What one process has met by itself ends all: the others do not know of what kind it is.
        if error is not None and (all_know(error) or not self._may_go_back()):
            if self.state.best and ENDED not in str(error):
                said = NonFiniteError(f"{error} At step {self.state.step} {ENDED}; {self._kept_words()}.")
                for note in getattr(error, "__notes__", ()):
                    said.add_note(note)
                raise said from error
            raise error
        setbacks.go_back(self.state)
        self.gradients.doubts.clear()

    def _add_point(self, passed: int) -> None:
        state = self.state
        with self.place.together():
            self.gradients.settle()
        nothing: list[float | None] = [None, None]
        train = nothing
        if state.losses:
            train = [float(torch.stack(values).mean()) for values in zip(*state.losses, strict=True)]
            self._require_finite(torch.tensor(train[0]))
        matching, train = (train[0], nothing) if self.matches else (None, train)
        average: Flow = state.average.module  # pyright: ignore[reportAssignmentType]
        bits, nats = self.validation.figures(average)
        state.validation_items = self.validation.items
        self._require_finite(torch.tensor(bits))
        point = Point(
            step=state.step,
            seconds=state.seconds,
            train_bits=train[0],
            train_nats=train[1],
            validation_bits=bits,
            validation_nats=nats,
            lr=state.lr if state.step else 0.0,
            train_matching=matching,
        )
        with self.interrupts.whole():
            if state.add(point, passed):
                self.place.alone(self._keep)

    def _keep(self) -> None:
        """Hand the best weights on; a disk that is full does not end the fit, for there may be room the next time."""
        if not self.place.is_first:
            return
        before, self.unkept = self.unkept, None
        try:
            for keep in self.on_best:
                keep(self.state.best, self.state.course())
        except RunError as error:
            self.unkept = error
            if before is None:
                message = f"The best weights so far were not kept, and the fit goes on. {error}"
                warnings.warn(message, LikelifyWarning, stacklevel=2)

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.state.stale >= self.settings.patience

    def _report(self, fraction: float) -> None:
        state, tell = self.state, self.on_step
        if tell is not None and (best := state.best_point) is not None:
            progress = Progress(fraction, state.step, state.seconds, state.points[-1], best)
            self.place.alone(lambda: tell(progress))

    def _require_finite(self, loss: Tensor) -> None:
        if math.isfinite(float(loss.detach())):
            return
        raise NonFiniteError(
            f"The loss became {float(loss.detach())} at step {self.state.step}, so {ENDED}; {self._kept_words()}. "
            f"Usual causes: the learning rate is too high (lr={self.settings.lr:g}) or gradients are not clipped "
            f"tightly enough (clip={self.settings.clip}); lower one of them and fit again. An infinite loss can also "
            "mean that items lie outside the support of the model."
        )

    def _kept_words(self) -> str:
        best = self.state.best_point
        if best is None:
            return "the initial weights are kept"
        shown = Unit.of(self.source.kind).show(best.validation_bits, best.validation_nats)
        return f"the weights of step {best.step} are kept (validation {shown})"


def _warn_unmeasured(reason: str) -> None:
    warnings.warn(
        "The fit has ended and is kept; only what its tolerance of exponentials (exp_tol) did to the objective could "
        f"not be measured. {reason}",
        LikelifyWarning,
        stacklevel=4,
    )
