"""Inputs of wrong shape or type, and graphs that are not undirected."""

import math
from typing import Any

import torch
from torch import Tensor

import likelify as lk
from benchmarks.honesty.judging import SINGLE, add, judge
from benchmarks.honesty.maps import BUILDERS, SKEWS, matrix_of, normal
from likelify import linalg


def shapes() -> None:
    """Add inputs, conditions and masks of wrong shape or type."""
    for name, (build, shape) in (BUILDERS | SKEWS).items():
        inputs(name, build, shape)
    own_rows()
    conditions_and_masks()


def inputs(name: str, build: Any, shape: tuple[int, ...]) -> None:
    """Add inputs of wrong shape or type to a map."""
    wrong = {
        "more channels": (shape[0], shape[1] + 1, *shape[2:]),
        "one channel": (shape[0], 1, *shape[2:]),
        "one axis": (shape[1],),
        "no axis": (),
        "more axes": (*shape, 2, 2),
    }
    if "own rows" in name or "graph" in name:
        wrong |= {
            "other rows": (7, *shape[1:]),
            "one row": (1, *shape[1:]),
            "twice the rows": (2 * shape[0], *shape[1:]),
        }
    for what, other in wrong.items():
        # Dense maps take any number of positions, convolutions any size.
        if what == "more axes" and (
            "dense" in name or "sym" in name or "diag" in name or "skew," in name or "scaled" in name
        ):
            continue
        add("shapes", f"{what}: {name}", lambda b=build, s=other: accepted(b, torch.randn(s)), must="refuse")
    for dtype in (torch.int64, torch.bool, torch.complex64, torch.uint8):
        title = f"{str(dtype)[6:]} input: {name}"
        add("shapes", title, lambda b=build, s=shape, d=dtype: accepted(b, torch.ones(s).to(d)), must="refuse")


def own_rows() -> None:
    """Add parameters for other rows than those of the input."""
    for build, rows in (
        (lambda: linalg.Diagonal(torch.randn(1, 4)), 3),
        (lambda: linalg.SetMap(*torch.randn(2, 1, 4, 4)), 3),
    ):
        add(
            "shapes",
            f"own rows 1 of {rows}",
            lambda b=build, r=rows: accepted(lambda s, d: b(), torch.randn(r, 4, 2)),
            must="refuse",
        )
    for parts in ((2, 3), (3, 1)):

        def mixed(parts: Any = parts) -> str:
            first = lk.ConvMap(0.2 * torch.randn(parts[0], 2, 2, 3), own_rows=True)
            lk.exp_action(first + lk.Dense(0.2 * torch.randn(parts[1], 2, 2)), torch.randn(parts[0], 2, 5))
            return "SILENT: accepted"

        add("shapes", f"sum of maps with {parts[0]} and {parts[1]} rows", mixed, must="refuse")


def conditions_and_masks() -> None:
    """Add conditions of other rows, and masks that do not fit their kernel."""
    layer = lk.dense_exponential(3, context_features=2)
    for rows in (1, 4):
        add(
            "shapes",
            f"condition of {rows} rows for 3",
            lambda r=rows: str(layer(torch.randn(3, 3), torch.randn(r, 2))) and "SILENT: accepted",
            must="refuse",
        )
    for mask in (torch.ones(2, 2), torch.ones(5, 5), torch.ones(3, 2, 3, 3), torch.ones(4)):
        add(
            "shapes",
            f"mask {tuple(mask.shape)}",
            lambda m=mask: str(lk.ConvMap(torch.randn(2, 2, 3, 3), mask=m)) and "SILENT: accepted",
            must="refuse",
        )
    for symmetry in ("symmetric", "skew"):
        add("shapes", f"mask of a {symmetry} convolution is kept", lambda s=symmetry: masked(s))


def accepted(build: Any, x: Tensor) -> str:
    """Run what should be refused."""
    lk.exp_action(build(1.0, SINGLE), x)
    return "SILENT: accepted"


def masked(symmetry: Any) -> str:
    """Look whether taps that the mask closes stay closed."""
    mask = torch.ones(3, 3).tril(1)
    map_ = lk.ConvMap(torch.randn(2, 2, 3, 3), "circular", mask=mask, symmetry=symmetry)
    return "right" if bool((map_.effective[..., mask == 0] == 0).all()) else "SILENT: a masked tap is not zero"


def graphs() -> None:
    """Add graphs that are not undirected, or whose weights are unusable."""
    sizes = torch.tensor([3])
    weights = torch.ones(4)
    index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    bad = {
        "directed": lambda: lk.GraphBatch(sizes, torch.tensor([[0, 1, 1], [1, 0, 2]])),
        "directed cycle": lambda: lk.GraphBatch(sizes, torch.tensor([[0, 1, 2], [1, 2, 0]])),
        "duplicate edges": lambda: lk.GraphBatch(sizes, torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0]])),
        "weights of one edge differ": lambda: lk.GraphBatch(sizes, index, torch.tensor([1.0, 2.0, 1.0, 1.0])),
        "negative weights": lambda: lk.GraphBatch(sizes, index, -weights),
        "NaN weights": lambda: lk.GraphBatch(sizes, index, weights * math.nan),
        "infinite weights": lambda: lk.GraphBatch(sizes, index, weights * math.inf),
        "huge weights": lambda: lk.GraphBatch(sizes, index, weights.double() * 1e308 * 1.7),
        "weights that are trained": lambda: lk.GraphBatch(sizes, index, weights.requires_grad_()),
    }
    for name, make in bad.items():
        for settings in ({}, {"method": "series"}, {"degree": 4}, {"method": "adjacency"}):

            def run(make: Any = make, settings: Any = settings) -> str:
                lk.exp_action(lk.GraphMap(torch.randn(2, 2), torch.randn(2, 2), make()), torch.randn(3, 2), **settings)
                return "SILENT: accepted"

            add("graphs", f"{name}, {settings or 'auto'}", run, must="refuse")
        add(
            "graphs",
            f"{name}, layer",
            lambda m=make: (
                str(lk.graph_exponential(2)(torch.randn(3, 2), lk.Context(structure=m()))) and "SILENT: accepted"
            ),
            must="refuse",
        )
    tiny = lk.GraphBatch(sizes, index, weights.double() * 1e-300)
    add("graphs", "tiny weights", lambda: judge_graph(tiny), must="accept")
    lonely = lk.GraphBatch(torch.tensor([2, 0, 1]), torch.empty(2, 0, dtype=torch.long))
    add("graphs", "no edges, an empty graph", lambda: judge_graph(lonely), must="accept")


def judge_graph(graph: lk.GraphBatch) -> str:
    """Judge a graph."""
    map_ = lk.GraphMap(normal(2, 2), normal(2, 2), graph)
    return judge(map_, matrix_of(map_, (2,)), normal(len(graph.owner), 2))
