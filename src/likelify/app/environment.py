"""What the environment tells a process that was started together with others, by `torchrun` or as it does."""

import os

from likelify.errors import ConfigError, ProcessError

# The exit code of what Ctrl-C has ended.
INTERRUPTED = 130
# How the name of a group of processes begins that `likelify` started.
STARTED = "likelify"
# In the notes of an error that the other processes do not know of.
OWN = "Only this process knows of this error."


def is_one_of_many() -> bool:
    """Tell whether this process was started together with others."""
    return "TORCHELASTIC_RUN_ID" in os.environ and number_of("WORLD_SIZE") > 1


def is_silent() -> bool:
    """Tell whether another process speaks for this one."""
    return is_one_of_many() and number_of("RANK") > 0


def number_of(name: str) -> int:
    """Return a number that the environment holds, such as `RANK`; one if it does not."""
    text = os.environ.get(name, "1")
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"The environment variable {name} must be a whole number, and is '{text}'.") from error


def is_told_by_another(error: BaseException) -> bool:
    """Tell whether another process says what happened: the first one, or the one that started them if one is lost."""
    if not is_one_of_many():
        return False
    own = OWN in getattr(error, "__notes__", ())
    if own and isinstance(error, ProcessError):
        return is_silent() or os.environ["TORCHELASTIC_RUN_ID"].startswith(STARTED)
    return is_silent() and not own
