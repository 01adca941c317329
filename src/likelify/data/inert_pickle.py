"""Reads plain data out of a pickle without running it.

A pickle is a program; the usual reader runs it, and whoever wrote it may run anything. Here its instructions are walked
through by hand: texts, numbers, lists, tuples and dicts are built, names of functions become inert notes, and nothing
is ever looked up, imported or called. Instructions that plain data do not need are refused.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from likelify.errors import DataError

MARK = object()


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle names; only the name."""

    module: str
    name: str


@dataclass(eq=False)
class PickledCall:
    """A call that a pickle asks for, and the state it then sets; neither was done."""

    function: Any
    arguments: Any
    state: Any = None


@dataclass
class _Machine:
    """The stack and memory of the pickle's program."""

    stack: list[Any] = field(default_factory=list)
    memory: dict[int, Any] = field(default_factory=dict)

    def since_mark(self) -> list[Any]:
        """Take what was put on the stack since the last mark."""
        marks = [index for index, value in enumerate(self.stack) if value is MARK]
        if not marks:
            raise IndexError("a mark is missing")
        taken = self.stack[marks[-1] + 1 :]
        del self.stack[marks[-1] :]
        return taken

    def take(self, count: int) -> list[Any]:
        """Take that many from the top of the stack."""
        if count > len(self.stack):
            raise IndexError("the stack is empty")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken


def read_plain(content: bytes, what: str) -> Any:
    """Read a pickle of plain data.

    Args:
        content: the pickle.
        what: the file's name, for errors.

    Returns:
        Dicts, lists, tuples, texts, numbers, `bytes`, None; a `PickledCall` where the pickle asks for one. Texts of
        Python 2 are given as `str` of Latin-1, one character per byte.

    Raises:
        DataError: if it is not a pickle, ends early, or holds instructions that plain data do not need.
    """
    machine = _Machine()
    try:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name == "STOP":
                return machine.take(1)[0]
            _step(machine, operation.name, argument, what)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"'{what}' is not a complete pickle ({error}): it is cut off, damaged or another file."
        ) from error
    raise DataError(f"'{what}' is not a complete pickle: it has no end.")


def _step(machine: _Machine, name: str, argument: Any, what: str) -> None:
    if name in VALUES:
        machine.stack.append(argument)
    elif name in CONSTANTS:
        machine.stack.append(CONSTANTS[name]())
    elif name in REMEMBER:
        place = len(machine.memory) if name == "MEMOIZE" else argument
        machine.memory[place] = machine.stack[-1]
    elif name in RECALL:
        machine.stack.append(machine.memory[argument])
    elif name in ACTIONS:
        ACTIONS[name](machine)
    elif name == "GLOBAL":
        machine.stack.append(Name(*argument.split(" ", 1)))
    elif name not in NOTHING:
        raise DataError(f"'{what}' holds the pickle instruction {name}, which plain data do not need: it is refused.")


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Return the dict of keys and values that follow each other."""
    return dict(zip(items[::2], items[1::2], strict=True))


# What is taken off the stack is an argument, so that it is gone when the dict or list on top of the rest is changed.
def _update(machine: _Machine, items: list[Any]) -> None:
    machine.stack[-1].update(_pairs(items))


def _extend(machine: _Machine, values: list[Any]) -> None:
    machine.stack[-1].extend(values)


def _build(machine: _Machine) -> None:
    (state,) = machine.take(1)
    if not isinstance(machine.stack[-1], PickledCall):
        raise ValueError("a state is set on something that was not made by a call")
    machine.stack[-1].state = state


# Instructions that put their own argument on the stack.
VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINBYTES", "SHORT_BINBYTES"),
}
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: MARK,
}
REMEMBER = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
RECALL = {"GET", "BINGET", "LONG_BINGET"}
NOTHING = {"PROTO", "FRAME"}
ACTIONS: dict[str, Callable[[_Machine], None]] = {
    "TUPLE": lambda machine: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine: machine.stack.append(tuple(machine.take(1))),
    "TUPLE2": lambda machine: machine.stack.append(tuple(machine.take(2))),
    "TUPLE3": lambda machine: machine.stack.append(tuple(machine.take(3))),
    "LIST": lambda machine: machine.stack.append(machine.since_mark()),
    "DICT": lambda machine: machine.stack.append(_pairs(machine.since_mark())),
    "SETITEM": lambda machine: _update(machine, machine.take(2)),
    "SETITEMS": lambda machine: _update(machine, machine.since_mark()),
    "APPEND": lambda machine: _extend(machine, machine.take(1)),
    "APPENDS": lambda machine: _extend(machine, machine.since_mark()),
    "STACK_GLOBAL": lambda machine: machine.stack.append(Name(*machine.take(2))),
    "REDUCE": lambda machine: machine.stack.append(PickledCall(*machine.take(2))),
    "BUILD": _build,
}
