"""Where a fit runs: on which device, and in how many processes, which are started here or by `torchrun`.

torch is only imported inside of the functions. A process that is one of several is told so by its environment.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from likelify.app.environment import INTERRUPTED, OWN, STARTED, is_one_of_many, is_silent, number_of
from likelify.app.show import console
from likelify.errors import ConfigError, MissingDependencyError, ProcessError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
    from torch.distributed.launcher.api import LaunchConfig

    from likelify.fitting.process import OneProcess

T = TypeVar("T")
# Seconds that processes have to save after a signal, before they are killed.
GRACE = 600
# Of the first node, which the others must be told.
ADDRESS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


@dataclass(frozen=True)
class Where:
    """Where a fit runs.

    Attributes:
        device: kind of device: cpu, cuda, mps, or auto for what there is.
        processes: on this machine; None for one, or for as many as `torchrun` started.
        nodes: machines that do the same; None as for processes.
    """

    device: str = "auto"
    processes: int | None = None
    nodes: int | None = None

    def __post_init__(self) -> None:
        for option, number in (("--devices", self.processes), ("--nodes", self.nodes)):
            if number is not None and number < 1:
                raise ConfigError(f"{option} must be at least 1, got {number}.")
        if not is_one_of_many():
            return
        started = {"--devices": (self.processes, number_of("LOCAL_WORLD_SIZE")), "--nodes": (self.nodes, _nodes())}
        for option, (given, found) in started.items():
            if given not in (None, found):
                raise ConfigError(f"{option} {given} does not fit: torchrun started {found}. Leave it out.")

    @property
    def must_start(self) -> bool:
        """Whether this program has to start the processes, and is none of them."""
        return not is_one_of_many() and max(self.processes or 1, self.nodes or 1) > 1

    @cached_property
    def place(self) -> OneProcess:
        """The device of this process, and the processes that it is joined with.

        Raises:
            ConfigError: if there is no such device, or there are too few.
        """
        from likelify.fitting.joining import join_processes
        from likelify.fitting.process import OneProcess, chosen_device

        if is_one_of_many():
            return join_processes(self.device, number_of("LOCAL_WORLD_SIZE"), _nodes())
        return OneProcess(chosen_device(self.device))

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Run a block that each process runs by itself, and go on in all, or in none; one process alone needs no torch.

        Raises:
            ProcessError: if another process met an error; what this one meets is raised as it is.
        """
        with self.place.together() if is_one_of_many() else nullcontext():
            yield

    def by_first(self, make: Callable[[], T]) -> T:
        """Return what the first process makes, in all of them."""
        made: Any = None
        with self.agreed():
            if not is_silent():
                made = make()
        return self.place.from_first(made) if is_one_of_many() else made


def _nodes() -> int:
    return number_of("WORLD_SIZE") // number_of("LOCAL_WORLD_SIZE")


@contextmanager
def joined(where: Where) -> Iterator[None]:
    """Join the processes for a block, if this is one of several: the first one speaks and writes for all.

    A program that has to start the processes does that, and ends with them.
    """
    if where.must_start:
        start(where)
    if not is_one_of_many():
        yield
        return
    console.quiet = is_silent()
    console.print(f"Joining {number_of('WORLD_SIZE')} processes.")
    require_fabric()
    # PyTorch tells of what is as it should be.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from likelify.fitting.joining import leave_processes

    try:
        where.place  # noqa: B018 - joined here
        yield
    except Exception as error:
        from likelify.fitting.process import all_know

        if not all_know(error):
            error.add_note(OWN)
        raise
    finally:
        leave_processes()


def require_fabric() -> None:
    """Raise `MissingDependencyError` if Fabric is not installed."""
    if find_spec("lightning_fabric") is None:
        raise MissingDependencyError("lightning-fabric", "devices")


def start(where: Where) -> NoReturn:
    """Run this program, with the same words, in each of the processes, and end as they end.

    The processes are started and watched as `torchrun` does it: if one fails the others are ended, and signals are
    passed on to them.

    Raises:
        ConfigError: if there are several nodes, and the environment does not say where the first one is.
        MissingDependencyError: if Fabric is not installed.
        ProcessError: if a process was killed, or failed without a word.
    """
    require_fabric()
    count, nodes = where.processes or 1, where.nodes or 1
    place = _first_node() if nodes > 1 else ""
    there = f" here, of {count * nodes} on {nodes} nodes" if nodes > 1 else ""
    console.print(f"Starting {count} process{'' if count == 1 else 'es'}{there}.")
    import logging

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    # The processes speak for themselves.
    logging.disable(logging.CRITICAL)
    program = [sys.executable, *sys.orig_argv[1:]]
    try:
        elastic_launch(_launch_config(count, nodes, place), program[0])(*program[1:])
    except SignalException:
        sys.exit(INTERRUPTED)
    except ChildFailedError as error:
        sys.exit(_exit_code(error.failures))
    sys.exit(0)


def _first_node() -> str:
    missing = [name for name in ADDRESS if name not in os.environ]
    if missing:
        raise ConfigError(
            f"With --nodes the same command is run on each of them, and has to be told of the first one: set "
            f"{', '.join(missing)} (MASTER_ADDR: its address; MASTER_PORT: a free port of it, such as 29500; "
            f"NODE_RANK: 0 on the first one, 1 on the next). This machine is '{socket.gethostname()}'."
        )
    return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"


def _launch_config(count: int, nodes: int, place: str) -> LaunchConfig:
    from torch.distributed.launcher.api import LaunchConfig

    alone: dict[str, Any] = {"rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "local_addr": "127.0.0.1"}
    shared = {"rdzv_backend": "static", "rdzv_endpoint": place, "rdzv_configs": {"rank": number_of("NODE_RANK")}}
    return LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=count,
        run_id=STARTED if place else f"{STARTED}-{os.getpid()}",
        max_restarts=0,
        shutdown_timeout=GRACE,
        **(shared if place else alone),
    )


def _exit_code(failures: dict[int, ProcessFailure]) -> int:
    """Return the exit code for processes that failed, of which those that could have said why."""
    codes = {rank: failure.exitcode for rank, failure in sorted(failures.items())}
    if killed := {rank: code for rank, code in codes.items() if code < 0 and code != -signal.SIGTERM}:
        rank, code = next(iter(killed.items()))
        raise ProcessError(
            f"Process {rank} was ended by {signal.Signals(-code).name}, and all others with it; if nobody did that, "
            "there was not enough memory. What was kept until then is complete."
        )
    return INTERRUPTED if INTERRUPTED in codes.values() else max(codes.values())
