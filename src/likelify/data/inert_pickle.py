"""Reads plain data out of a pickle without running it.

A pickle is a program; the usual reader runs it, and whoever wrote it may run anything. Here its instructions are walked
through by hand: texts, numbers, lists, tuples and dicts are built, names of functions become inert notes, and nothing
is ever looked up, imported or called. Instructions that plain data do not need are refused.
"""

import pickletools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from likelify.data.limits import TROUBLE
from likelify.errors import DataError

# A batch of CIFAR-10 takes 40,000 instructions, and holds 20,000 values three levels deep. Values can be shared, so
# that a few instructions make structures without end: what counts is what a reader of all of them meets.
MOST_INSTRUCTIONS, MOST_OBJECTS, DEEPEST = 500_000, 500_000, 50
# A longer whole number is no datum, and slow to write out.
LONGEST_NUMBER = 2**128


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


# Values that are looked up without looking into them.
KEYS = (str, bytes, int, float, type(None), PickledCall)


@dataclass
class _Machine:
    """The stacks and the memory of the pickle's program: a mark puts the stack aside and begins a new one."""

    stack: list[Any] = field(default_factory=list)
    aside: list[list[Any]] = field(default_factory=list)
    memory: dict[int, Any] = field(default_factory=dict)

    def mark(self) -> None:
        """Put the stack aside."""
        self.aside.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        """Take what was put on the stack since the last mark."""
        taken, self.stack = self.stack, self.aside.pop()
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
        DataError: if it is not a pickle, ends early, holds instructions that plain data do not need, or is longer,
            larger or deeper than data are.
    """
    try:
        with warnings.catch_warnings():
            # Damaged texts can hold odd escapes.
            warnings.simplefilter("ignore", DeprecationWarning)
            made = _walk(content, what)
    except DataError:
        raise
    except TROUBLE as error:
        raise DataError(
            f"'{what}' is not a complete pickle ({error}): it is cut off, damaged or another file."
        ) from error
    _require_bounded(made, what)
    return made


def _walk(content: bytes, what: str) -> Any:
    """Go through the instructions; return what is on the stack at the end."""
    machine = _Machine()
    for number, (operation, argument, _) in enumerate(pickletools.genops(content)):
        if number == MOST_INSTRUCTIONS:
            raise DataError(f"'{what}' is a pickle of more than {MOST_INSTRUCTIONS} instructions: it is refused.")
        if operation.name == "STOP":
            return machine.take(1)[0]
        _step(machine, operation.name, argument, what)
    raise DataError(f"'{what}' is not a complete pickle: it has no end.")


def _require_bounded(made: Any, what: str) -> None:
    """Walk through all values, shared ones as often as they are met, without recursion."""
    waiting, met = [(made, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        inside: Sequence[Any] = ()
        if isinstance(value, list | tuple):
            inside = value
        elif isinstance(value, dict):
            inside = [*value, *value.values()]
        elif isinstance(value, PickledCall):
            inside = (value.function, value.arguments, value.state)
        met += len(inside)
        if depth > DEEPEST or met > MOST_OBJECTS:
            raise DataError(f"'{what}' is a pickle of values nested or shared as data never are: it is refused.")
        waiting.extend((each, depth + 1) for each in inside)


def _step(machine: _Machine, name: str, argument: Any, what: str) -> None:
    if name in VALUES:
        if isinstance(argument, int) and abs(argument) > LONGEST_NUMBER:
            raise ValueError("a whole number of more than 128 bits")
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
        machine.stack.append(_name(*argument.split(" ", 1)))
    elif name not in NOTHING:
        raise DataError(f"'{what}' holds the pickle instruction {name}, which plain data do not need: it is refused.")


def _name(module: Any, name: Any) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("a name that is no text")
    return Name(module, name)


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Return the dict of keys and values that follow each other; a tuple as a key could be as deep as it likes."""
    if not all(isinstance(key, KEYS) for key in items[::2]):
        raise ValueError("a key that is no text or number")
    return dict(zip(items[::2], items[1::2], strict=True))


# What is taken off the stack is an argument, so that it is gone when the dict or list on top of the rest is changed.
def _update(machine: _Machine, items: list[Any]) -> None:
    machine.stack[-1].update(_pairs(items))


def _extend(machine: _Machine, values: list[Any]) -> None:
    machine.stack[-1].extend(values)


# The stack is another one after the mark is gone, so it is looked up last.
def _tuple(machine: _Machine) -> None:
    values = tuple(machine.since_mark())
    machine.stack.append(values)


def _list(machine: _Machine) -> None:
    values = machine.since_mark()
    machine.stack.append(values)


def _dict(machine: _Machine) -> None:
    values = _pairs(machine.since_mark())
    machine.stack.append(values)


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
}
REMEMBER = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
RECALL = {"GET", "BINGET", "LONG_BINGET"}
NOTHING = {"PROTO", "FRAME"}
ACTIONS: dict[str, Callable[[_Machine], None]] = {
    "MARK": _Machine.mark,
    "TUPLE": _tuple,
    "TUPLE1": lambda machine: machine.stack.append(tuple(machine.take(1))),
    "TUPLE2": lambda machine: machine.stack.append(tuple(machine.take(2))),
    "TUPLE3": lambda machine: machine.stack.append(tuple(machine.take(3))),
    "LIST": _list,
    "DICT": _dict,
    "SETITEM": lambda machine: _update(machine, machine.take(2)),
    "SETITEMS": lambda machine: _update(machine, machine.since_mark()),
    "APPEND": lambda machine: _extend(machine, machine.take(1)),
    "APPENDS": lambda machine: _extend(machine, machine.since_mark()),
    "STACK_GLOBAL": lambda machine: machine.stack.append(_name(*machine.take(2))),
    "REDUCE": lambda machine: machine.stack.append(PickledCall(*machine.take(2))),
    "BUILD": _build,
}
