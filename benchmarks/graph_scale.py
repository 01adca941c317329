"""One large graph: seconds and memory of the log-density of a small flow on its nodes, and of its gradient.

    python -m benchmarks.graph_scale --nodes 1000000 --edges 10000000

A random graph with so many undirected edges, in a process of its own: its edges, given once each, are put in pairs
(`GraphBatch.undirected`), the adjacency is normalized, and a flow of a graph exponential, an ActNorm and a coupling
gives the log-density of all nodes together and its gradient by all parameters and by the features. Bytes are those of
the largest resident size of the process above the one before there was a graph, over the number of undirected edges;
a tenth of the graph tells whether they are constant. The memory of the given edges themselves, 16 bytes each, counts.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import likelify as lk
from benchmarks.report import Entry, arguments, report
from benchmarks.timing import MALLOC
from likelify.linalg.graph import normalized_adjacency

# First word of the command line of a process that measures one graph.
WORKER = "--worker"
FEATURES, WIDTH = 4, 16


def resident(name: str) -> int:
    """Return a size of this process in bytes, `VmRSS` now or `VmHWM` at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> None:
    """Let `VmHWM` begin again at the present size."""
    Path("/proc/self/clear_refs").write_text("5")


class Phases:
    """Seconds and largest resident sizes of named phases."""

    def __init__(self) -> None:
        self.base = resident("VmRSS")
        self.found: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure what is in the block."""
        forget_peak()
        start = time.process_time()
        yield
        self.found[f"{name}, seconds"] = time.process_time() - start
        self.found[f"{name}, bytes"] = resident("VmHWM") - self.base


def small_flow() -> lk.Flow:
    """Return a flow of the nodes: a graph exponential, an ActNorm and a coupling of each row by itself."""
    net = lk.nets.MLP(FEATURES // 2, FEATURES, (WIDTH,))
    coupling = lk.Coupling(lk.ChannelSplit(FEATURES), lk.AffineBijector(), net)
    flow = lk.Flow(lk.Normal((FEATURES,)), lk.Chain([lk.ActNorm(FEATURES), lk.graph_exponential(FEATURES), coupling]))
    lk.testing.randomize(flow, scale=0.1)
    return flow


def gradient(flow: lk.Flow, x: torch.Tensor, context: lk.Context) -> None:
    """Compute the log-density and its gradient."""
    x = x.clone().requires_grad_()
    flow.zero_grad()
    flow.log_prob(x, context).sum().backward()
    if x.grad is None or not bool(x.grad.isfinite().all()):
        raise RuntimeError("There is no finite gradient.")


def measure(nodes: int, edges: int) -> dict[str, float]:
    """Measure one random graph in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    flow = small_flow()
    # What is loaded at the first call is not of the graph.
    few = lk.Context(structure=lk.GraphBatch(torch.tensor([3]), torch.tensor([[0, 1], [1, 2]])).undirected())
    gradient(flow, torch.randn(3, FEATURES), few)
    phases = Phases()
    pairs = torch.randint(nodes, (2, edges))
    with phases("pairs"):
        graph = lk.GraphBatch(torch.tensor([nodes]), pairs).undirected()
    del pairs
    with phases("adjacency"):
        normalized_adjacency(graph, torch.float32)
    x, context = torch.randn(nodes, FEATURES), lk.Context(structure=graph)
    with phases("log-density"), torch.no_grad():
        flow.log_prob(x, context)
    with phases("gradient"):
        gradient(flow, x, context)
    loops = int((graph.edge_index[0] == graph.edge_index[1]).sum())
    unchecked = lk.GraphBatch(graph.sizes, graph.edge_index)
    del graph, context
    with phases("adjacency of edges of unknown origin"):
        normalized_adjacency(unchecked, torch.float32)
    return phases.found | {"edges": (unchecked.edge_index.shape[1] + loops) // 2}


def in_process(nodes: int, edges: int) -> dict[str, float]:
    """Measure one random graph in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.graph_scale", WORKER, str(nodes), str(edges)]
    done = subprocess.run(command, env=os.environ | MALLOC, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def entries(nodes: int, edges: int, run: Callable[[int, int], dict[str, float]] = in_process) -> list[Entry]:
    """Measure a graph, and one of a tenth of its size."""
    found, tenth = run(nodes, edges), run(nodes // 10, edges // 10)
    phases = [name.removesuffix(", bytes") for name in found if name.endswith(", bytes")]
    entries = []
    for phase in phases:
        entries.append(Entry(f"{phase}, {nodes:.0e} nodes", found[f"{phase}, seconds"], "s"))
        for name, each in ((f"{nodes:.0e}", found), (f"{nodes // 10:.0e}", tenth)):
            entries.append(Entry(f"{phase}, {name} nodes", each[f"{phase}, bytes"] / each["edges"], "bytes per edge"))
    peak = max(found[f"{phase}, bytes"] for phase in phases)
    at_tenth = max(tenth[f"{phase}, bytes"] for phase in phases)
    entries.append(Entry("largest size above the start", peak / 2**30, "GiB"))
    growth = (peak / found["edges"]) / (at_tenth / tenth["edges"])
    entries.append(Entry("bytes per edge, over those of a tenth of the graph", growth, "times", 1.2, 1.05))
    return entries


def main() -> None:
    """Measure, in this process if it was started for that."""
    if sys.argv[1:2] == [WORKER]:
        print(json.dumps(measure(*map(int, sys.argv[2:4]))))
        return
    sizes = {
        "--nodes": {"type": int, "default": 10**6, "help": "of the graph"},
        "--edges": {"type": int, "default": 10**7, "help": "undirected ones"},
    }
    options: argparse.Namespace = arguments("One large graph.", more=sizes)
    scale = 10 if options.quick else 1
    report(entries(options.nodes // scale, options.edges // scale), options.json)


if __name__ == "__main__":
    main()
