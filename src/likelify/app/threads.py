"""How many threads of the CPU a command takes."""

from likelify.app.environment import is_one_of_many, number_of
from likelify.errors import ConfigError
from likelify.machine import processors


def use_threads(threads: int | None, suitable: int | None) -> None:
    """Set the number of CPU threads: what was asked for, or what suits the data, if the processes here have so many."""
    if threads is None:
        threads = suitable
        if is_one_of_many():
            share = max(1, processors() // number_of("LOCAL_WORLD_SIZE"))
            threads = min(suitable or share, share)
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads must be at least 1, got {threads}.")
        import torch

        torch.set_num_threads(threads)
