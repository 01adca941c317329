"""Joining processes that have been started together: of one machine or of several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from likelify.errors import ConfigError
from likelify.fitting.process import OneProcess, chosen_device, processes

# Until processes wait no longer for one that says nothing, as one does that reads much or saves.
PATIENCE = timedelta(minutes=30)


def join_processes(device: str, local: int, nodes: int = 1) -> OneProcess:
    """Join this process with the others, by Lightning's Fabric, and return its place.

    Args:
        device: kind of device: cpu, cuda, or auto for what there is.
        local: processes of this machine.
        nodes: machines.

    Raises:
        ConfigError: if there is no such device, or there are too few.
    """
    import logging

    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind = chosen_device(device).type
    if kind == "mps":
        raise ConfigError("There is one MPS device, for one process. Leave --devices out, or take --device cpu.")
    chosen_device("cpu" if kind == "cpu" else f"{kind}:{local - 1}")
    fabric = Fabric(accelerator=kind, devices=local, num_nodes=nodes, strategy=DDPStrategy(timeout=PATIENCE))
    fabric.launch()
    return processes(fabric)


@contextmanager
def joined_processes(device: str, local: int) -> Iterator[OneProcess]:
    """Join this process with the others of this machine for a block; see `join_processes`."""
    try:
        yield join_processes(device, local)
    finally:
        leave_processes()


def leave_processes() -> None:
    """Close the connections to the other processes, if there are any.

    A process that ends without that may fail while it does so: threads of the connections are still at work.
    """
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
