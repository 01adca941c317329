"""The processes of a fit: one, or several that torch.distributed joins, each with a device of its own.

Several processes hold the same weights and take shares of each batch. What one of them meets alone, an error or a
signal, it says to the others before any of them waits for it, so that all end in the same way at the same step.
Lightning's Fabric starts and joins processes; it is only imported where it is asked for.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from likelify.errors import ConfigError, LikelifyWarning, ProcessError, UnsupportedError, unknown_word

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")
DEVICES = ("auto", "cpu", "cuda", "mps")
# Numbers that a block of `together` may add up.
SUMS = 4
# In the notes of an error that all processes have been told of, so that one of them is enough to show it.
KNOWN = "All processes of the fit know of this error."
BROKEN = re.compile(r"gloo|NCCL|connection (closed|reset|refused)|timed? ?out", re.IGNORECASE)


class OneProcess:
    """A fit in one process, on one device.

    Args:
        device: to run on; by default the accelerator there is, or the CPU.

    Attributes:
        rank: number of this process, from 0.
        count: how many there are.
        device: of this process.
    """

    rank = 0
    count = 1

    def __init__(self, device: torch.device | str | None = None) -> None:
        self.device = chosen_device() if device is None else torch.device(device)

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    @property
    def speaks(self) -> bool:
        """Whether this process has something to say to others: it is the first of several."""
        return self.is_first and self.count > 1

    def join(self, module: nn.Module) -> nn.Module:
        """Move a module to the device; of several processes its weights become those of the first, gradients means."""
        return module.to(self.device)

    def share(self, items: Tensor) -> Tensor:
        """Return this process's part of the items of a batch; together the parts are all of them, each once."""
        return items[self.rank :: self.count]

    def weight(self, part: int, whole: int) -> float:
        """Return the factor of the mean over a part with which the mean over processes is that over the whole batch."""
        return part * self.count / whole

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the loss to the parameters; of several processes the means of theirs."""
        loss.backward()

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all processes, without waiting for a device."""
        return values

    def alone(self, run: Callable[[], None]) -> None:
        """Run what this process does for itself between two blocks of `together`: the next one raises its errors."""
        run()

    @contextmanager
    def together(self) -> Iterator[list[float]]:
        """Run a block that each process runs by itself, and go on in all, or in none.

        The block gets a list. Up to four numbers that it adds are sums over all processes after it.

        Raises:
            KeyboardInterrupt: in all processes, if one of them got a signal to end.
            ProcessError: if another process met an error, or was lost; what this one meets is raised as it is.
        """
        yield []

    def gather(self, value: T) -> list[T]:
        """Return what each process gives, in their order."""
        return [value]

    def from_first(self, value: T) -> T:
        """Return what the first process gives."""
        return value

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Of several processes let only the first one warn."""
        yield

    def wants_to_end(self) -> bool:
        """Say that the user wants to end; return whether the next block of `together` sees to it."""
        return False


class ManyProcesses(OneProcess):
    """One of several processes that `torch.distributed` has joined already.

    Args:
        device: of this process.

    Raises:
        UnsupportedError: if such devices cannot work together.
    """

    def __init__(self, device: torch.device | str) -> None:
        super().__init__(device)
        if self.device.type not in ("cpu", "cuda"):
            raise UnsupportedError(f"Several processes work on CPUs or on CUDA devices, not on '{self.device}'.")
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        # Words between hosts go by the CPU, so that they wait for no device.
        self.channel: Any = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
        self.ending = False
        self.failure: Exception | None = None

    def join(self, module: nn.Module) -> nn.Module:
        """Return the module with the weights of the first process, and gradients that are means over all."""
        module = module.to(self.device)
        return DistributedDataParallel(
            module,
            device_ids=None if self.device.type == "cpu" else [self.device],
            # No layer changes its buffers in training, so that a forward pass waits for nobody.
            forward_sync_buffers=False,
            # A step may leave parameters alone, such as those of a branch that none of the items of a share takes.
            find_unused_parameters=True,
        )

    def backward(self, loss: Tensor) -> None:
        """Add the means of the gradients of all processes."""
        with _connected():
            loss.backward()

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all processes."""
        values = values / self.count
        with _connected():
            dist.all_reduce(values)
        return values

    def alone(self, run: Callable[[], None]) -> None:
        """See `OneProcess.alone`."""
        try:
            run()
        except KeyboardInterrupt:
            self.ending = True
        except Exception as error:  # noqa: BLE001 - raised again once the others know
            self.failure = self.failure or error

    @contextmanager
    def together(self) -> Iterator[list[float]]:
        """See `OneProcess.together`."""
        numbers: list[float] = []
        try:
            yield numbers
        except KeyboardInterrupt:
            self.ending = True
        except Exception as error:  # noqa: BLE001 - raised again below, once the others know
            self.failure = self.failure or error
        failure, self.failure = self.failure, None
        given = [*numbers, *[0.0] * (SUMS - len(numbers))] if failure is None else [0.0] * SUMS
        failed, ending, *sums = self._sum([float(failure is not None), float(self.ending), *given])
        if failed:
            self._fail(failure)
        if ending:
            self.ending = False
            raise KeyboardInterrupt
        numbers[:] = sums[: len(numbers)]

    def gather(self, value: T) -> list[T]:
        """Return what each process gives, in their order."""
        found: list[Any] = [None] * self.count
        with _connected():
            dist.all_gather_object(found, value, group=self.channel)
        return found

    def from_first(self, value: T) -> T:
        """Return what the first process gives."""
        said = [value]
        with _connected():
            dist.broadcast_object_list(said, src=0, group=self.channel)
        return said[0]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """See `OneProcess.at_work`."""
        with warnings.catch_warnings():
            if not self.is_first:
                warnings.simplefilter("ignore", LikelifyWarning)
            yield

    def wants_to_end(self) -> bool:
        """Say that the user wants to end; again, before the others know, it is for the caller to see to it."""
        known, self.ending = self.ending, True
        return not known

    def _sum(self, numbers: list[float]) -> list[float]:
        total = torch.tensor(numbers, dtype=torch.float64)
        with _connected():
            dist.all_reduce(total, group=self.channel)
        return total.tolist()

    def _fail(self, failure: Exception | None) -> None:
        """Raise what this process met, or what the first process met that met anything."""
        said = self.gather(None if failure is None else _as_words(failure))
        if failure is None:
            rank, words = next((rank, text) for rank, text in enumerate(said) if text is not None)
            failure = ProcessError(f"Process {rank} of 0..{self.count - 1} stopped, and all others with it. {words}")
        failure.add_note(KNOWN)
        raise failure


def all_know(error: BaseException) -> bool:
    """Tell whether an error was raised in all processes, so that the first one can speak for all."""
    return KNOWN in getattr(error, "__notes__", ())


def processes(fabric: Fabric | OneProcess | None, device: torch.device | str | None = None) -> OneProcess:
    """Return the processes of a fit: those of a Fabric, or those that torch.distributed has joined, or this one.

    Raises:
        ConfigError: if there are others and they are not joined, for a device that is not there, and for both a device
            and a Fabric.
        UnsupportedError: for a Fabric of another strategy than DDP, or of other than full precision.
    """
    if device is not None:
        if fabric is not None:
            raise ConfigError("A fit takes device= or fabric=, which has devices of its own, not both.")
        return OneProcess(chosen_device(str(device)))
    if isinstance(fabric, OneProcess):
        return fabric
    if fabric is not None:
        _check_fabric(fabric)
        if fabric.world_size == 1:
            return OneProcess(fabric.device)
    if dist.is_available() and dist.is_initialized():
        if dist.get_world_size() == 1:
            return OneProcess(None if fabric is None else fabric.device)
        return ManyProcesses(_own_device() if fabric is None else fabric.device)
    if fabric is not None:
        raise ConfigError("The processes of this Fabric have not been started: call fabric.launch() before fit.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
        raise ConfigError(
            f"This is process {os.environ['RANK']} of the {os.environ['WORLD_SIZE']} that were started together, and "
            "they are not joined yet. Give fit a Fabric that is launched, or call "
            "torch.distributed.init_process_group() before it; fabric=OneProcess() fits in each process alone."
        )
    return OneProcess()


def _check_fabric(fabric: Fabric) -> None:
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.strategies.single_device import SingleDeviceStrategy

    if not isinstance(fabric.strategy, DDPStrategy | SingleDeviceStrategy):
        raise UnsupportedError(
            f"A fit works in one process or with strategy='ddp', where each process holds the whole flow; this Fabric "
            f"has {type(fabric.strategy).__name__}."
        )
    if fabric.strategy.precision.precision != "32-true":
        raise UnsupportedError(
            f"This Fabric has precision='{fabric.strategy.precision.precision}', and a log-density needs all digits: "
            "leave precision= out. A flow computes in the dtype of its weights; flow.double() makes it one of float64."
        )


def _own_device() -> torch.device:
    """Return the device of this process among those of its machine."""
    if dist.get_backend() != "nccl":
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))


def chosen_device(word: str = "auto") -> torch.device:
    """Return the device of a word: `cpu`, `cuda`, `mps`, a numbered one such as `cuda:1`, or `auto`: what there is.

    Raises:
        ConfigError: if there is no such device here.
    """
    kind, _, number = word.partition(":")
    if kind not in DEVICES or (number and not (kind == "cuda" and number.isdecimal())):
        raise ConfigError(unknown_word("device", word, DEVICES))
    if kind == "auto":
        kind = next((name for name in ("cuda", "mps") if _devices(name)), "cpu")
    there = _devices(kind)
    if int(number or 0) >= there:
        found = ", ".join(name for name in DEVICES[1:] if _devices(name))
        numbered = f" Of {kind} there are {there}, from 0." if there else ""
        raise ConfigError(
            f"There is no device '{word}' here; there is: {found}.{numbered} Leave it to --device auto, or see whether "
            f"this PyTorch ({torch.__version__}) was built for it and its driver works."
        )
    return torch.device(kind) if kind == "cpu" else torch.device(kind, int(number or 0))


def _devices(kind: str) -> int:
    """Return how many devices of a kind there are; of CPUs as many as are wanted."""
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    return int(kind == "cpu" or torch.backends.mps.is_available())


@contextmanager
def _connected() -> Iterator[None]:
    """Say it in words if other processes are gone."""
    try:
        yield
    except RuntimeError as error:
        raise lost(error) from error


def lost(error: RuntimeError) -> RuntimeError:
    """Return an error of PyTorch as one that says that other processes are gone, if that is what it means."""
    if not BROKEN.search(str(error)):
        return error
    return ProcessError(
        "The connection to the other processes of this fit is lost: one of them was killed, for instance for lack of "
        f"memory, or did not answer. What was kept until then is complete. ({str(error).splitlines()[0][:200]})"
    )


def _as_words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if type(error).__module__.startswith("likelify") else f"{type(error).__name__}: {text}"
