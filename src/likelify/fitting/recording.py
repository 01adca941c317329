"""A training step's forward and backward pass as one CUDA graph, which the host hands to the device in one go.

A model of many small layers keeps a GPU waiting for the host, which prepares its operations one after the other. A
graph holds them all. It holds what was done once, though: what the host decides, draws or counts in between would be
frozen. So a pass is only recorded once it has shown that it asks nothing of the host, and what a recording gives is
compared with the pass itself when it is new, and again after every validation.
"""

from __future__ import annotations

import gc
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from likelify.data import Batch
from likelify.errors import LikelifyError, LikelifyWarning

# Steps of the same form that are made one by one before a recording, so that what is lazy has happened.
WARM = 10
# Passes beside which a new recording is held, each with another batch and other noise.
PROOFS = 2
# Recordings of one fit; batches of ever new forms are not worth more.
MOST = 3
# How far the losses of a recording may be from those of the pass itself, relative to 1 plus these, and its gradient
# relative to the other's norm: far more than the order of sums on a device does.
LOSSES_APART, GRADIENTS_APART = 1e-4, 1e-2

# Make a forward and a backward pass on a batch, and return its losses.
Run = Callable[[Batch], Tensor]


class Tape(Protocol):
    """Where passes are recorded."""

    def rehearsal(self) -> AbstractContextManager[None]:
        """Return a block in which a pass raises if the host waits for the device in it."""
        ...

    def record(self, run: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Record what makes losses and gradients.

        Returns:
            The tensor of the losses, and what makes losses and gradients again, in the same places.
        """
        ...


class Unrecordable(Exception):
    """A pass cannot be recorded; its words say why."""


class _Kept(NamedTuple):
    """A recording.

    Attributes:
        form: of what it was made for, see `Recording._form`.
        batch: tensors that it reads.
        losses: tensor that it writes.
        grads: of the parameters, which it writes; None of those that take no part.
        replay: makes losses and gradients of what is in `batch`.
    """

    form: Any
    batch: Batch
    losses: Tensor
    grads: list[Tensor | None]
    replay: Callable[[], None]


class Recording:
    """Records the forward and backward pass of training steps on a CUDA device, and replays it.

    Args:
        run: takes a batch and gives its losses, and the parameters their gradients, from none.
        model: whose parameters and buffers it works with.
        tape: where they are recorded; a `CudaTape`.
        why_not: see below.

    Attributes:
        replayed: steps that were replayed so far.
        why_not: why nothing is recorded, or recorded any more; None as long as it may be.
    """

    def __init__(
        self,
        run: Run,
        model: nn.Module,
        tape: Tape,
        *,
        why_not: str | None = None,
    ) -> None:
        self.run, self.model, self.tape, self.why_not = run, model, tape, why_not
        self.replayed = 0
        self._kept: _Kept | None = None
        self._last: Any = None
        self._alike = self._made = self._to_prove = 0

    def losses(self, batch: Batch, seed: int) -> Tensor | None:
        """Return the losses of a batch from the recording, the gradients being those of the parameters then.

        Args:
            batch: of the step.
            seed: of its noise.

        Returns:
            None if the step is to be made by itself.
        """
        if self.why_not is not None or not self._is_there(batch, seed) or self._kept is None:
            return None
        if self._to_prove:
            return self._proved(self._kept, batch, seed)
        self.replayed += 1
        return self._replayed(self._kept, batch, seed)

    def doubt(self) -> None:
        """Hold the recording beside the pass itself in the next step again."""
        self._to_prove = max(self._to_prove, 1)

    def release(self) -> None:
        """Give back the memory of the device, and with it the gradients."""
        if self._kept is not None:
            self._forget()

    def _is_there(self, batch: Batch, seed: int) -> bool:
        """Return whether there is a recording of batches like this one; make it if it is time."""
        form = self._form(batch)
        if self._kept is not None and self._kept.form == form:
            return True
        self._forget()
        self._alike, self._last = (self._alike + 1 if form == self._last else 1), form
        if self._alike <= WARM:
            return False
        self._alike = 0
        try:
            self._kept = self._record(form, batch, seed)
        except Unrecordable as error:
            self.why_not = str(error)
        except (RuntimeError, LikelifyError) as error:
            self.why_not = f"Recording failed: {str(error).splitlines()[0]}"
            self._forget()
        self._to_prove = PROOFS
        return self._kept is not None

    def _form(self, batch: Batch) -> Any:
        """Return what a recording takes for granted: shapes, and which tensors the model works with."""
        parts = [getattr(batch, field.name) for field in fields(batch)]
        shapes = tuple((p.shape, p.dtype, p.device) if isinstance(p, Tensor) else p for p in parts)
        trained = tuple((p.data_ptr(), p.requires_grad) for p in self.model.parameters())
        return shapes, trained, tuple(b.data_ptr() for b in self.model.buffers()), self.model.training

    def _record(self, form: Any, batch: Batch, seed: int) -> _Kept:
        _check(self.model, batch)
        if self._made >= MOST:
            raise Unrecordable(f"Batches or parameters changed their form more than {MOST} times.")
        self._made += 1
        static = _copied(batch)
        self._rehearse(static, seed)
        self._unremembered()
        losses, replay = self.tape.record(lambda: self.run(static))
        return _Kept(form, static, losses, [p.grad for p in self.model.parameters()], replay)

    @torch.no_grad()
    def _unremembered(self) -> None:
        """Make layers forget what they remember of parameters as they are now: a recording would read it for ever."""
        for parameter in self.model.parameters():
            parameter.mul_(1)

    def _rehearse(self, batch: Batch, seed: int) -> None:
        """Make the pass once, and refuse it if the host decides anything in it."""
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        try:
            with self.tape.rehearsal():
                self.run(batch)
        except RuntimeError as error:
            if "synchronizing" not in str(error):
                raise
            raise Unrecordable("The host reads values from the device in a step.") from error
        if not torch.equal(before, torch.random.get_rng_state()):
            raise Unrecordable("The host draws random numbers in a step.")

    def _proved(self, kept: _Kept, batch: Batch, seed: int) -> Tensor:
        """Return the losses of the recording, or of the pass itself if they differ: then the recording is given up."""
        torch.manual_seed(seed)
        expected = self.run(batch)
        grads = [p.grad for p in self.model.parameters()]
        found = self._replayed(kept, batch, seed)
        losses, gradients, sound = _distances(found, expected, kept.grads, grads)
        # What is not finite proves nothing, and ends or sets back the fit soon.
        if not sound or (losses <= LOSSES_APART and gradients <= GRADIENTS_APART):
            self._to_prove -= sound
            self.replayed += 1
            return found
        self.why_not = (
            "A replayed step differed from the step itself, so something changes from step to step that is no tensor: "
            f"losses by {losses:.2g}, gradients by {gradients:.2g}, relative to their size."
        )
        if self.replayed > PROOFS:
            warnings.warn(
                f"{self.why_not} The fit goes on without recording; steps since the last validation followed the "
                "recording, and with cuda_graph=False none does.",
                LikelifyWarning,
                stacklevel=2,
            )
        self._forget()
        for parameter, grad in zip(self.model.parameters(), grads, strict=True):
            parameter.grad = grad
        return expected

    def _replayed(self, kept: _Kept, batch: Batch, seed: int) -> Tensor:
        for into, part in zip(_tensors(kept.batch), _tensors(batch), strict=True):
            into.copy_(part, non_blocking=True)
        torch.manual_seed(seed)
        kept.replay()
        # The steps in between may have put others in their place.
        for parameter, grad in zip(self.model.parameters(), kept.grads, strict=True):
            parameter.grad = grad
        return kept.losses.clone()

    def _forget(self) -> None:
        if self._kept is not None:
            for parameter in self.model.parameters():
                parameter.grad = None
        self._kept = None


def _check(model: nn.Module, batch: Batch) -> None:
    """Refuse what a recording would leave out or freeze.

    Raises:
        Unrecordable: and why.
    """
    if batch.structure is not None:
        raise Unrecordable("Graphs and point sets have other sizes in each batch.")
    if torch.is_autocast_enabled(batch.x.device.type):
        raise Unrecordable("The fit runs under torch.autocast.")
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooked = [type(module).__name__ for module in model.modules() if any(getattr(module, kind) for kind in hooks)]
    hooked += [
        f"the parameter '{name}'"
        for name, parameter in model.named_parameters()
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None)
    ]
    if hooked:
        raise Unrecordable(f"There are hooks, which would not be called: of {hooked[0]}.")


def _tensors(batch: Batch) -> list[Tensor]:
    parts = (getattr(batch, field.name) for field in fields(batch))
    return [part for part in parts if isinstance(part, Tensor)]


def _copied(batch: Batch) -> Batch:
    parts = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: part.clone() for name, part in parts.items() if isinstance(part, Tensor)})


def _distances(
    found: Tensor, expected: Tensor, grads: Sequence[Tensor | None], others: Sequence[Tensor | None]
) -> tuple[float, float, bool]:
    """Return how far losses and gradients are apart, relative to their size; and whether what is expected is finite."""
    zeros = [(torch.zeros_like(o) if g is None else g, o) for g, o in zip(grads, others, strict=True) if o is not None]
    zeros += [(g, torch.zeros_like(g)) for g, o in zip(grads, others, strict=True) if g is not None and o is None]
    size = _norm([o for _, o in zeros])
    apart = ((found - expected).abs() / (1 + expected.abs())).max()
    off = _norm([g - o for g, o in zeros]) / size.clamp(min=torch.finfo(size.dtype).tiny)
    sound = expected.isfinite().all() & size.isfinite()
    numbers = torch.stack([apart.double(), off, sound.double()]).nan_to_num(nan=math.inf).tolist()
    return numbers[0], numbers[1], bool(numbers[2])


def _norm(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([part.double().square().sum() for part in parts]).sum().sqrt()


class CudaTape:
    """Records CUDA graphs on a device.

    Args:
        device: a CUDA device; any other is never used.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @cached_property
    def stream(self) -> torch.cuda.Stream:
        """Where passes are rehearsed and recorded."""
        return torch.cuda.Stream(self.device)

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """See `Tape.rehearsal`."""
        before = torch.cuda.get_sync_debug_mode()
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with warnings.catch_warnings():
            # That it does not find all waits: what it does not find makes the recording fail, or does no harm.
            warnings.simplefilter("ignore", UserWarning)
            torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
            torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def record(self, run: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """See `Tape.record`."""
        with torch.cuda.device(self.device):
            random = torch.cuda.default_generators[torch.cuda.current_device()]
            # A recording that fails leaves the generator in a state in which nothing can be drawn any more.
            sound = random.clone_state()
            graph = torch.cuda.CUDAGraph()
            gc.collect()
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            try:
                with torch.cuda.stream(self.stream):
                    graph.capture_begin(capture_error_mode="thread_local")
                    try:
                        losses = run()
                    finally:
                        graph.capture_end()
            except BaseException:
                random.graphsafe_set_state(sound)
                raise
            torch.cuda.current_stream().wait_stream(self.stream)
        return losses, graph.replay
