"""How many threads of the CPU a command takes."""

from likelify.errors import ConfigError


def use_threads(threads: int | None, suitable: int | None) -> None:
    """Set the number of CPU threads: what was asked for, or what suits the data."""
    threads = suitable if threads is None else threads
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads must be at least 1, got {threads}.")
        import torch

        torch.set_num_threads(threads)
