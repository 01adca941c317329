"""Checkpoints of a fit: one file that holds all of its state, from which it goes on as if nothing had been.

The file is safetensors. Beside weights, moving average, best weights and the moments of the optimizer, a tensor of
bytes holds JSON: where the fit is, its settings, and what it ran on. It is replaced in one instant, so that whenever a
process is killed the old state or the new one is there, whole.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from pydantic import Field
from torch import Tensor

from likelify._version import __version__
from likelify.door import broken_weights
from likelify.errors import ConfigError, LikelifyError, LikelifyWarning, RunError, printable
from likelify.fitting.files import LARGEST_JSON, parse_json, regular, write_atomically
from likelify.fitting.settings import UNDECIDING, BegunFit
from likelify.fitting.state import AVERAGE, BEST, FLOW, LOSSES, OPTIMIZER, FitState, Position, State, of_part
from likelify.fitting.weights import Header, Kinds, check_digest, listed, mismatches, pack, read_header
from likelify.settings import Settings

if TYPE_CHECKING:
    from likelify.flows import Flow

CHECKPOINT, FACTS = "checkpoint.safetensors", "json"
FORMAT = 1
# Saving may take this share of the time of a fit.
SHARE = 0.01
MOMENTS = {"adamw": ("step", "exp_avg", "exp_avg_sq"), "adamax": ("step", "exp_avg", "exp_inf")}


class Machine(Settings):
    """What decides the last digits of a fit beside its settings.

    Attributes:
        torch: version.
        threads: of the CPU.
        device: kind of device.
        processor: instructions that PyTorch uses of the processor.
        processes: that share the batches.
    """

    torch: str
    threads: int = Field(ge=1)
    device: str
    processor: str
    processes: int = Field(ge=1)

    @classmethod
    def now(cls, device: torch.device, processes: int) -> Self:
        """Return what this process runs on."""
        return cls(
            torch=torch.__version__,
            threads=torch.get_num_threads(),
            device=device.type,
            processor=torch.backends.cpu.get_cpu_capability(),
            processes=processes,
        )


class Facts(Settings):
    """What a checkpoint holds beside its tensors.

    Attributes:
        format: version of the layout of the file.
        likelify: version of the library that wrote it.
        machine: what the fit ran on.
        data: fingerprint of the data.
        conditional: whether the labels are given to the model.
        fit: the settings of the fit.
        initialize: whether the data-dependent layers are fitted before the first step.
        initialized: whether that is done; if not, the model's weights are all there is.
        position: where the fit is.
    """

    format: int = FORMAT
    likelify: str = __version__
    machine: Machine
    data: str
    conditional: bool
    fit: BegunFit
    initialize: bool = True
    initialized: bool
    position: Position

    @classmethod
    def meant(cls) -> str:
        """Return what these are, for errors."""
        return "facts of a checkpoint"


class Checkpoints:
    """What writes the checkpoints of one fit into the folder of its run.

    Args:
        folder: of the run.
        facts: of the fit; the position in it plays no part.
    """

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.file, self.facts = folder / CHECKPOINT, facts
        self.saved: int | None = None
        self.cost, self.last = 0.0, time.monotonic()
        self._failed = False

    def is_due(self, step: int, *, validated: bool) -> bool:
        """Tell whether the state after a step is to be saved: after a validation, and after so many seconds.

        Where saving takes long it is less often, so that it takes a hundredth of the time.
        """
        seconds = self.facts.fit.checkpoint_seconds
        gone = time.monotonic() - self.last
        often = gone >= (0.0 if validated else seconds) and gone >= self.cost / SHARE
        return self.saved != step and (often or seconds == 0)

    def save(self, state: FitState) -> None:
        """Write all of a fit's state; what cannot be written is a warning, and the previous checkpoint stays."""
        position, tensors = state.state()
        # What led to it is not worth to be gone on from.
        if not broken_names(state.flow, tensors):
            self._write(self.facts.model_copy(update={"position": position, "initialized": True}), tensors)

    def save_start(self, flow: Flow) -> None:
        """Write the weights that a fit begins with, before anything is done with them."""
        self._write(self.facts, {FLOW + name: tensor for name, tensor in flow.state_dict().items()})

    def _write(self, facts: Facts, tensors: State) -> None:
        begin = time.monotonic()
        try:
            write_atomically(self.file, pack(tensors | {FACTS: _bytes(facts)}))
            self.saved, self._failed = facts.position.step, False
        except RunError as error:
            if not self._failed:
                message = f"The state of the fit was not saved, and the fit goes on. {error}"
                warnings.warn(message, LikelifyWarning, stacklevel=4)
            self._failed = True
        self.last = time.monotonic()
        self.cost = self.last - begin

    def remove(self) -> None:
        """Take the checkpoint away: the fit has ended."""
        remove_checkpoint(self.file.parent)


def broken_names(flow: Flow, state: State) -> list[str]:
    """Return what nobody can go on from: weights and moments of gradients that are not finite.

    A second moment may be infinite: its parameter rests. What losses are, the fit itself looks at.
    """
    parts = [of_part(FLOW, state), of_part(BEST, state), of_part(f"{AVERAGE}module.", state)]
    broken = [name for part in parts for name in broken_weights(flow, part)]
    for name, moment in of_part(OPTIMIZER, state).items():
        bad = moment.isnan() if name.startswith("exp_avg_sq.") else ~moment.isfinite()
        broken += [name] * bool(bad.any())
    return broken


def remove_checkpoint(folder: Path) -> None:
    """Take the checkpoint of a run away whose fit has ended: nothing goes on from it.

    Warns:
        LikelifyWarning: if that cannot be done, say since the folder may not be written to any more.
    """
    file = folder / CHECKPOINT
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"The fit has ended, and '{file}', which is not needed any more, was not removed: {reason}."
        warnings.warn(message, LikelifyWarning, stacklevel=4)


def _bytes(facts: Facts) -> Tensor:
    text = json.dumps(facts.model_dump(mode="json"), allow_nan=False).encode()
    if len(text) > LARGEST_JSON:
        raise RunError("A fit with so many validations has no checkpoints; set validations= lower.")
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


class Saved:
    """A checkpoint that was read, checked as far as that goes without the model: its header and its facts.

    Args:
        folder: of the run.

    Raises:
        FileNotFoundError: if there is none.
        RunError: if it is damaged, of a later version, or none.
    """

    def __init__(self, folder: Path) -> None:
        self.file = regular(folder / CHECKPOINT)
        self.header: Header = read_header(self.file)
        self.facts = self._facts()

    def _facts(self) -> Facts:
        from safetensors import safe_open

        shape, dtype = self.header.kinds.get(FACTS, ((), None))
        if dtype != torch.uint8 or len(shape) != 1 or shape[0] > LARGEST_JSON:
            raise self.refused("it does not say what it is of")
        with safe_open(self.file, framework="pt") as content:
            values = parse_json(content.get_tensor(FACTS).numpy().tobytes(), self.file)
        found = values.get("format") if isinstance(values, dict) else None
        if found != FORMAT:
            later = isinstance(found, int) and found > FORMAT
            raise self.refused(f"it has format {printable(str(found)[:40])}", "Upgrade likelify. " if later else "")
        try:
            return Facts.parse(values)
        except ConfigError as error:
            raise self.refused(str(error).removesuffix(".")) from error

    def tensors(self, flow: Flow) -> State:
        """Return the tensors, if they are those of a fit of that flow.

        Raises:
            RunError: if they do not fit it, are not finite, or are not those that were written.
        """
        from safetensors.torch import load_file

        if problems := mismatches(self._expected(flow), self.header.kinds):
            raise self.refused(f"it does not fit the model: {'; '.join(problems)}")
        state = load_file(self.file)
        check_digest(state, self.header, self.file)
        if broken := broken_names(flow, state):
            raise self.refused(f"{listed(broken)} are not finite")
        return state

    def _expected(self, flow: Flow) -> Kinds:
        """Return the tensors of a fit of that flow; those that not every checkpoint has are taken from the header."""
        found, position = self.header.kinds, self.facts.position
        weights: Kinds = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in flow.state_dict().items()}
        expected: Kinds = {FLOW + name: kind for name, kind in weights.items()}
        expected[FACTS] = found[FACTS]
        if not self.facts.initialized:
            return expected
        expected |= {f"{AVERAGE}module.{name}": kind for name, kind in weights.items()}
        expected[f"{AVERAGE}n_averaged"] = ((), torch.int64)
        if position.best is not None:
            expected |= {BEST + name: kind for name, kind in weights.items()}
        for name, parameter in flow.named_parameters():
            kind = (tuple(parameter.shape), parameter.dtype)
            moments: Kinds = {f"{OPTIMIZER}{moment}.{name}": kind for moment in MOMENTS[self.facts.fit.optimizer]}
            moments[f"{OPTIMIZER}step.{name}"] = ((), self._real(f"{OPTIMIZER}step.{name}"))
            # A parameter without a gradient has none.
            expected |= moments if moments.keys() & found.keys() else {}
        since = max(position.points[-1].step if position.points else 0, *position.setbacks, 0)
        steps = position.step - since
        names = (f"{LOSSES}bits", f"{LOSSES}nats") if steps > 0 else ()
        return expected | {name: ((steps,), self._real(name)) for name in names}

    def _real(self, name: str) -> torch.dtype:
        """Return the dtype of a tensor of the file that has none by the model, if it is one of real numbers."""
        dtype = self.header.kinds.get(name, ((), None))[1]
        return dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else torch.float32

    def refused(self, why: str, remedy: str = "") -> RunError:
        """Return the error for a checkpoint that is not taken."""
        return RunError(
            f"'{self.file}' cannot be gone on from: {why}. {remedy}The best weights that the run holds can be used as "
            "they are; to fit from the beginning, take another folder."
        )


def restore(saved: Saved, state: FitState) -> None:
    """Go on from a checkpoint.

    Raises:
        RunError: if it does not fit.
    """
    position = saved.facts.position
    if position.best is not None and position.best >= len(position.points):
        raise saved.refused("its best validation is none of those that it lists")
    _load(saved, lambda tensors: state.restore(position, tensors), state.flow)


def restore_start(saved: Saved, flow: Flow) -> None:
    """Put the weights that a fit began with into a flow.

    Raises:
        RunError: if they do not fit.
    """
    _load(saved, lambda tensors: flow.load_state_dict(of_part(FLOW, tensors)), flow)


def _load(saved: Saved, take: Callable[[State], object], flow: Flow) -> None:
    tensors = saved.tensors(flow)
    try:
        take(tensors)
    except (LikelifyError, RuntimeError) as error:
        raise saved.refused(" ".join(str(error).split())[:300].removesuffix(".")) from error


def check_same(saved: Saved, facts: Facts) -> None:
    """Refuse to go on with other settings or data than those of a checkpoint.

    Raises:
        RunError: naming what differs.

    Warns:
        LikelifyWarning: if what it ran on differs, so that the last digits may.
    """
    before = saved.facts
    if before.data != facts.data:
        raise RunError(
            f"The data are not those that the fit in '{saved.file.parent}' began with (fingerprint {facts.data}, "
            f"expected {before.data}), so it cannot go on. Give it the data as they were, or fit in another folder."
        )
    old, new = before.fit.model_dump(), facts.fit.model_dump()
    old["conditional"], new["conditional"] = before.conditional, facts.conditional
    differ = [name for name in old if old[name] != new[name] and name not in UNDECIDING]
    if differ:
        words = "; ".join(f"{name} is {old[name]}, not {new[name]}" for name in differ)
        raise RunError(
            f"The fit in '{saved.file.parent}' began with other settings: {words}. It goes on with its own "
            "ones; leave these out, or fit in another folder."
        )
    was, now = before.machine.model_dump(), facts.machine.model_dump()
    if changed := [f"{name} {was[name]} -> {now[name]}" for name in was if was[name] != now[name]]:
        message = (
            f"The fit goes on under other conditions ({', '.join(changed)}), so its result may differ in the last "
            "digits from that of a fit without a break."
        )
        warnings.warn(message, LikelifyWarning, stacklevel=4)
