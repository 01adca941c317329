"""What the machine has for this process."""

import os


def processors() -> int:
    """Return how many processors this process may use, which can be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
