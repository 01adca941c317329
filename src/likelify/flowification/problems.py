"""What stands in the way of a conversion, gathered into one error."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from likelify.errors import UnsupportedError


@dataclass(frozen=True)
class Problem:
    """A construct that cannot be converted.

    Attributes:
        where: dotted path of the module, or name of the call and its place.
        what: what it is and why it does not work.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass
class Problems:
    """All problems found so far, in order, each once."""

    found: list[Problem] = field(default_factory=list)

    def add(self, where: str, what: str) -> None:
        """Note a problem."""
        problem = Problem(where, what)
        if problem not in self.found:
            self.found.append(problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Note several."""
        for problem in problems:
            self.add(problem.where, problem.what)

    def raise_if_any(self, name: str) -> None:
        """Raise one `UnsupportedError` that lists them all."""
        if not self.found:
            return
        count = f"{len(self.found)} constructs" if len(self.found) > 1 else "one construct"
        lines = "".join(f"\n  - {problem}" for problem in self.found)
        raise UnsupportedError(f"flowify cannot convert this {name}, because of {count}:{lines}")


class NotConvertibleError(UnsupportedError):
    """A step cannot be converted; caught by `flowify`, which reports all such steps together."""
