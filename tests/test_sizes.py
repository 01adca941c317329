"""Counts given to layers, networks and maps: what is none is refused in our words, as soon as the thing is built."""

import inspect

import pytest
import torch

import likelify as lk
from likelify import linalg, nets
from likelify.errors import ConfigError, LikelifyError, ShapeError
from likelify.shapes import check_sizes

COUNTS = ("int", "int | None", "<class 'int'>")
# Takes any number that torch takes, and only when it is entered.
OTHERS = ("seeded",)


def is_count(parameter):
    return str(parameter.annotation) in COUNTS


def built_from_counts():
    """Give what needs nothing but counts, with such, and the name of each count that it takes."""
    found = {}
    for module in (lk, nets, linalg):
        for name in dir(module):
            thing = getattr(module, name)
            if name[0] == "_" or name in OTHERS or not (inspect.isclass(thing) or inspect.isfunction(thing)):
                continue
            try:
                parameters = inspect.signature(thing).parameters.values()
            except ValueError:
                continue
            needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
            counts = [p.name for p in parameters if is_count(p)]
            if counts and all(map(is_count, needed)):
                found[name] = (thing, {p.name: 2 if p.name == "dims" else 4 for p in needed}, counts)
    return found


FOUND = built_from_counts()


def test_there_is_something_to_look_at():
    assert {"ActNorm", "conv_exponential", "linear", "MLP", "SequenceNet", "density_net"} <= set(FOUND)


@pytest.mark.parametrize("name", FOUND)
def test_what_is_no_count_is_refused(name):
    build, given, counts = FOUND[name]
    build(**given)
    for count in counts:
        for wrong in (-1, 2.5, "3", torch.ones(2)):
            with pytest.raises((ConfigError, ShapeError)):
                build(**(given | {count: wrong}))


def test_the_refusal_names_the_count():
    with pytest.raises(LikelifyError, match="hidden must be at least 1, got 0"):
        nets.ResidualConvNet(2, 2, hidden=0)
    with pytest.raises(LikelifyError, match="sizes must be odd"):
        nets.SequenceNet(2, 2, kernel_size=4)
    with pytest.raises(LikelifyError, match="reflections= is for method='householder'"):
        lk.linear(4, 4, reflections=4)
    with pytest.raises(ConfigError, match="depth must be a whole number, got True"):
        check_sizes(hidden=3, depth=True)
