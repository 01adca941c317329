"""Every error that likelify raises on purpose.

Each message says what happened, why, and what to do about it. All inherit from `LikelifyError`, so
``except LikelifyError`` catches every refusal of the library and nothing else; most inherit from the
built-in error a caller would expect as well.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

# Of what an error repeats of the user's words.
LONGEST_WORD = 80
# How alike a word must be to one that may have been meant.
NEAR = 0.6


class LikelifyError(Exception):
    """Base class of all errors that likelify raises on purpose."""


class LikelifyWarning(UserWarning):
    """What a user should know although the work went on; the command line prints it as a line of its own."""


class HeavyTailWarning(LikelifyWarning):
    """Importance weights have tails so heavy that their mean, and the interval about it, cannot be believed."""


class ShapeError(LikelifyError, ValueError):
    """A tensor has a shape that the layer or map cannot work on."""


class DomainError(LikelifyError, ValueError):
    """An input lies outside the set on which a layer is defined, or is not finite."""


class ConvergenceError(LikelifyError, ArithmeticError):
    """An iteration or series could not reach the accuracy that was asked for.

    Attributes:
        diagnostics: what the method reported when it gave up.
        layer: the layer in which it happened, if it was in one.
        place: where that layer is in the one that was called, such as `"layer 3 of 12 (Conv1x1)"`; empty for itself.
    """

    def __init__(self, message: str, diagnostics: Any = None) -> None:
        super().__init__(message)
        self.diagnostics = diagnostics
        self.layer: Any = None
        self.place = ""

    def __str__(self) -> str:
        message = super().__str__()
        return f"In {self.place}: {message}" if self.place else message


class NonFiniteError(LikelifyError, ArithmeticError):
    """A loss or gradient became infinite or NaN."""


class InexactLikelihoodError(LikelifyError, TypeError):
    """An exact log-likelihood was asked of a model that only has a bound or an estimate of it."""


class UnsupportedError(LikelifyError, TypeError):
    """The object is of a kind that this function cannot handle."""


class StateError(LikelifyError, RuntimeError):
    """The call came at the wrong time, for example a parameter was changed inside ``frozen()``."""


class ConfigError(LikelifyError, ValueError):
    """A setting has an unknown name or a value outside its range."""


class DataError(LikelifyError, ValueError):
    """A source of data is unknown, unreadable or does not hold what it should."""


class RunError(LikelifyError, OSError):
    """A run folder is missing, incomplete or does not fit."""


class ProcessError(LikelifyError, RuntimeError):
    """Another process of a fit in several processes met an error, or is lost."""


class MissingDependencyError(LikelifyError, ImportError):
    """An optional package is needed and not installed; the message names the extra."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"This needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'likelify[{extra}]'"
        )


@contextmanager
def needs(package: str, extra: str) -> Iterator[None]:
    """Turn an import in the block that fails into the error that names the package, and the extra that installs it.

    Args:
        package: as pip calls it.
        extra: of likelify.

    Raises:
        MissingDependencyError: then.

    Example:
        >>> with needs("pillow", "app"):
        ...     from PIL import Image
    """
    try:
        yield
    except MissingDependencyError:
        raise
    except ImportError as error:
        raise MissingDependencyError(package, extra) from error


def unknown_word(kind: str, word: str, known: Iterable[str], most: int | None = None) -> str:
    """Return the sentences for a word that is not among the known ones: the nearest of them first, then all.

    Args:
        kind: what the word should name, such as `"model"`.
        word: what was given.
        known: the words there are.
        most: how many of them are listed; by default all.

    Example:
        >>> unknown_word("model", "glwo", ["glow", "vae"])
        "There is no model 'glwo'. Did you mean 'glow'? Known are: glow, vae."
    """
    known, word = list(known), _shortened(word)
    near = _near(word, known)
    question = f" Did you mean {near}?" if near else ""
    return f"There is no {kind} '{word}'.{question} Known are: {_listed(known, most)}."


def unknown_words(kind: str, words: Sequence[str], known: Iterable[str], most: int | None = None) -> str:
    """Return the sentences for words that are not among the known ones, each with what is near it; see `unknown_word`.

    Example:
        >>> unknown_words("column", ["agge", "zz"], ["age", "size"])
        "There is no column 'agge' (did you mean 'age'?), 'zz'. Known are: age, size."
    """
    known = list(known)
    if len(words) == 1:
        return unknown_word(kind, words[0], known, most)
    shown = [_shortened(word) for word in words[:most]]
    said = [f"'{word}'{f' (did you mean {near}?)' if (near := _near(word, known)) else ''}" for word in shown]
    return f"There is no {kind} {', '.join(said)}. Known are: {_listed(known, most)}."


def _shortened(word: str) -> str:
    return printable(word if len(word) <= LONGEST_WORD else f"{word[:LONGEST_WORD]}...")


def _near(word: str, known: Sequence[str]) -> str:
    return " or ".join(f"'{match}'" for match in get_close_matches(word, known, n=2, cutoff=NEAR))


def _listed(known: Sequence[str], most: int | None) -> str:
    return ", ".join([*known[:most], *(["..."] if most is not None and len(known) > most else [])])


def printable(text: str) -> str:
    r"""Return a text that any terminal can show, in a line, such as a name that a file of any origin holds.

    White space becomes spaces, and control codes, which a terminal would obey, question marks.

    Example:
        >>> printable("red: \x1b[31m\t!")
        'red: ?[31m !'
    """
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in text)
