"""A training step's forward and backward pass as one CUDA graph, which the host hands to the device in one go.

A model of many small layers keeps a GPU waiting for the host, which prepares its operations one after the other. A
graph holds them all. It holds what was done once, though: what the host decides, draws or counts in between would be
frozen. So a pass is only recorded once it has shown that it asks nothing of the host, and what a recording gives is
compared with the pass itself when it is new, and again after every validation.
"""

from __future__ import annotations

import gc
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import fields, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from likelify.data import Batch
from likelify.errors import LikelifyError, LikelifyWarning

# Steps of the same form that are made one by one before a recording, so that what is lazy has happened.
WARM = 10
# Passes beside which a new recording is held, each with another batch and other noise.
PROOFS = 2
# Recordings of one fit; batches of ever new forms are not worth more.
MOST = 3
# How far losses of a recording may be from those of the pass itself, relative to 1 plus these; the gradient of each
# parameter relative to its own norm, and to that of all: far more than the order of sums on a device does.
LOSSES_APART, GRADIENTS_APART, ROUNDING = 1e-4, 1e-2, 1e-5
# Whether the host may wait for a device is said to all of a process at once.
REHEARSING = threading.Lock()

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
        form: of what it was made for: shapes of the batch, and `_Looked.form`.
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

    def __init__(self, run: Run, model: nn.Module, tape: Tape, *, why_not: str | None = None) -> None:
        self.run, self.tape, self.why_not = run, tape, why_not
        self.model = _Looked(model)
        self.replayed = 0
        self._kept: _Kept | None = None
        self._last: Any = None
        # Steps of the same form in a row, recordings, proofs to be made, and steps replayed since the last one.
        self._alike = self._made = self._to_prove = self._trusted = 0

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
        self._trusted += 1
        return self._replayed(self._kept, batch, seed)

    def doubt(self) -> None:
        """Hold the recording beside the pass itself in the next step again."""
        self._to_prove = max(self._to_prove, 1)

    def release(self) -> None:
        """Give back the memory of the device, and with it the gradients; say why there was nothing to give back."""
        if self._kept is None and self.why_not is None:
            self.why_not = f"There were never more than {WARM} steps in a row on the same tensors."
        self._forget()

    def _is_there(self, batch: Batch, seed: int) -> bool:
        """Return whether there is a recording of batches like this one; make it if it is time."""
        form = (_shapes(batch), self.model.form(batch))
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
            self._forget()
            self.why_not = f"Recording failed: {next(iter(str(error).splitlines()), type(error).__name__)}"
        self._to_prove = PROOFS
        return self._kept is not None

    def _record(self, form: Any, batch: Batch, seed: int) -> _Kept:
        if batch.structure is not None:
            raise Unrecordable("Graphs and point sets have other sizes in each batch.")
        self.model.check(batch)
        if self._made >= MOST:
            raise Unrecordable(f"Batches or parameters changed their form more than {MOST} times.")
        self._made += 1
        static = _copied(batch)
        self._rehearse(static, seed)
        self.model.touch()
        losses, replay = self.tape.record(lambda: self.run(static))
        return _Kept(form, static, losses, self.model.gradients(), replay)

    def _rehearse(self, batch: Batch, seed: int) -> None:
        """Make the pass once, and refuse it if the host decides anything in it, or if it is not the same each time."""
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        try:
            with self.model.refusing_changes(), self.tape.rehearsal():
                self.run(batch)
        except RuntimeError as error:
            if "synchronizing" not in str(error):
                raise
            raise Unrecordable("The host reads values from the device in a step.") from error
        if not torch.equal(before, torch.random.get_rng_state()):
            raise Unrecordable("The host draws random numbers in a step.")

    def _proved(self, kept: _Kept, batch: Batch, seed: int) -> Tensor | None:
        """Return the losses of the recording, or of the pass itself if they differ: then the recording is given up."""
        torch.manual_seed(seed)
        try:
            expected = self.run(batch)
        except torch.OutOfMemoryError:
            self.why_not = "The memory of the device holds a recording, and not the pass itself beside it."
            self._forget()
            torch.cuda.empty_cache()
            return None
        grads = self.model.gradients()
        found = self._replayed(kept, batch, seed)
        losses, gradients, sound = _distances(found, expected, kept.grads, grads)
        if losses <= LOSSES_APART and gradients <= 1:
            self.replayed += 1
            self._to_prove, self._trusted = self._to_prove - 1, 0
            return found
        # What is not finite proves nothing, and ends or sets back the fit soon.
        if sound:
            self._give_up(losses, gradients)
        self.model.take(grads)
        return expected

    def _give_up(self, losses: float, gradients: float) -> None:
        self.why_not = (
            "A replayed step differed from the step itself, so something changes from step to step that is no tensor: "
            f"losses by {losses:.2g} of their size, gradients by {gradients:.2g} of what rounding may do."
        )
        if self._trusted:
            warnings.warn(
                f"{self.why_not} The fit goes on without recording; the {self._trusted} steps since the last "
                "validation followed the recording, and with cuda_graph=False none does.",
                LikelifyWarning,
                stacklevel=2,
            )
        self._forget()

    def _replayed(self, kept: _Kept, batch: Batch, seed: int) -> Tensor:
        for into, part in zip(_tensors(kept.batch), _tensors(batch), strict=True):
            into.copy_(part, non_blocking=True)
        torch.manual_seed(seed)
        kept.replay()
        # The steps in between may have put others in their place.
        self.model.take(kept.grads)
        return kept.losses.clone()

    def _forget(self) -> None:
        if self._kept is not None:
            self.model.take([None] * len(self.model.parameters))
        self._kept = None


class _Looked:
    """A model as a recording sees it: the tensors that it works with, and what a graph would not know of."""

    def __init__(self, model: nn.Module) -> None:
        # Walks through a model take as long as replaying a small one.
        self.modules = list(model.modules())
        self.names, self.parameters = zip(*model.named_parameters(), strict=True)
        self.homes = [module._buffers for module in self.modules if module._buffers]

    def buffers(self) -> list[Tensor]:
        """Return the buffers that it has now."""
        return [buffer for home in self.homes for buffer in home.values() if buffer is not None]

    def form(self, batch: Batch) -> Any:
        """Return what a recording takes for granted: which tensors there are, modes, and who listens."""
        trained = tuple((_place(p), p.requires_grad) for p in self.parameters)
        modes = tuple(module.training for module in self.modules)
        listening = (*map(_hooks, self.modules), len(_global_forward_hooks), len(_global_forward_pre_hooks))
        cast = torch.is_autocast_enabled(batch.x.device.type)
        return trained, tuple(map(_place, self.buffers())), modes, listening, self._heard(), cast

    def check(self, batch: Batch) -> None:
        """Refuse what a recording would leave out or freeze.

        Raises:
            Unrecordable: and why.
        """
        if torch.is_autocast_enabled(batch.x.device.type):
            raise Unrecordable("The fit runs under torch.autocast.")
        hooked = [type(module).__name__ for module in self.modules if _hooks(module)]
        hooked += [f"the parameter '{name}'" for name, heard in zip(self.names, self._heard(), strict=True) if heard]
        hooked += ["all modules"] * (len(_global_forward_hooks) + len(_global_forward_pre_hooks) > 0)
        if hooked:
            raise Unrecordable(f"There are hooks, which would not be called: of {hooked[0]}.")

    def _heard(self) -> tuple[bool, ...]:
        """Tell of each parameter whether somebody listens to its gradient."""
        return tuple(bool(p._backward_hooks or p._post_accumulate_grad_hooks) for p in self.parameters)

    @contextmanager
    def refusing_changes(self) -> Iterator[None]:
        """Refuse a pass that changes buffers, and put these back: the passes beside a recording would count twice.

        Raises:
            Unrecordable: at the end of the block.
        """
        buffers = self.buffers()
        before = [(buffer._version, buffer.clone()) for buffer in buffers]
        changed = False
        try:
            yield
        finally:
            for buffer, (version, kept) in zip(buffers, before, strict=True):
                if buffer._version != version:
                    changed = True
                    buffer.copy_(kept)
        if changed:
            raise Unrecordable("A step changes buffers of the model.")

    @torch.no_grad()
    def touch(self) -> None:
        """Make layers forget what they remember of parameters as they are now: a recording would read it for ever."""
        for parameter in self.parameters:
            parameter.mul_(1)

    def gradients(self) -> list[Tensor | None]:
        """Return the gradients that the parameters have."""
        return [parameter.grad for parameter in self.parameters]

    def take(self, grads: Sequence[Tensor | None]) -> None:
        """Give the parameters these gradients."""
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = grad


def _hooks(module: nn.Module) -> int:
    kinds = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return sum(map(len, kinds))


def _place(tensor: Tensor) -> int:
    """Return where the numbers of a tensor lie; of a sparse one which object it is."""
    return tensor.data_ptr() if tensor.layout is torch.strided else id(tensor)


def _shapes(batch: Batch) -> Any:
    if batch.structure is not None:
        return None
    parts = [getattr(batch, field.name) for field in fields(batch)]
    return tuple((p.shape, p.dtype, p.device) if isinstance(p, Tensor) else p for p in parts)


def _tensors(batch: Batch) -> list[Tensor]:
    parts = (getattr(batch, field.name) for field in fields(batch))
    return [part for part in parts if isinstance(part, Tensor)]


def _copied(batch: Batch) -> Batch:
    parts = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: part.clone() for name, part in parts.items() if isinstance(part, Tensor)})


def _distances(
    found: Tensor, expected: Tensor, grads: Sequence[Tensor | None], others: Sequence[Tensor | None]
) -> tuple[float, float, bool]:
    """Return how far losses and gradients are apart.

    Args:
        found: losses of the recording.
        expected: of the pass itself.
        grads: of the recording, parameter by parameter.
        others: of the pass itself.

    Returns:
        The largest difference of losses relative to 1 plus their size; the largest one of a parameter's gradient over
        what it may be; and whether what is expected is finite.
    """
    if any((g is None) != (o is None) for g, o in zip(grads, others, strict=True)):
        return 0.0, math.inf, True
    pairs = [(g.double(), o.double()) for g, o in zip(grads, others, strict=True) if g is not None and o is not None]
    sizes = torch.stack([torch.linalg.vector_norm(o) for _, o in pairs])
    off = torch.stack([torch.linalg.vector_norm(g - o) for g, o in pairs])
    # What rounding leaves of a small gradient is small beside the largest ones, of whose parts it is the difference.
    allowed = GRADIENTS_APART * sizes + ROUNDING * torch.linalg.vector_norm(sizes) / len(pairs) ** 0.5
    apart = ((found - expected).abs() / (1 + expected.abs())).max().double()
    ratio = (off / allowed.clamp(min=torch.finfo(allowed.dtype).tiny)).max()
    sound = expected.isfinite().all() & sizes.isfinite().all()
    numbers = torch.stack([apart, ratio, sound.double()]).nan_to_num(nan=math.inf).tolist()
    return numbers[0], numbers[1], bool(numbers[2])


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
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with REHEARSING:
            before = torch.cuda.get_sync_debug_mode()
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
                    except BaseException:
                        # It would only say that there was an error before.
                        with suppress(RuntimeError):
                            graph.capture_end()
                        raise
                    graph.capture_end()
            except BaseException:
                random.graphsafe_set_state(sound)
                raise
            torch.cuda.current_stream().wait_stream(self.stream)
        return losses, graph.replay
