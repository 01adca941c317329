"""Graphs and graph convolutions that tests share."""

import torch

import likelify as lk
from tests.cases import normal, weighted_graphs


def random_graph(nodes=7, density=0.4, *, weighted=False, loops=False):
    dense = torch.rand(nodes, nodes).lt(density).triu(0 if loops else 1).double()
    if weighted:
        dense = dense * torch.rand(nodes, nodes).double()
    dense = dense + dense.triu(1).T
    edges = dense.nonzero().T
    return lk.GraphBatch(torch.tensor([nodes]), edges, dense[tuple(edges)] if weighted else None)


def random_map(graph, features=3, norm=0.45):
    thetas = (norm * m / torch.linalg.matrix_norm(m, 2) for m in normal(2, features, features))
    return lk.GraphMap(*thetas, graph)


def kinds():
    return {
        "plain": random_graph(),
        "weighted": random_graph(weighted=True, loops=True),
        "batch": weighted_graphs(),
        "complete": lk.GraphBatch.complete([3, 1, 0, 2, 3]),
        "complete of one size": lk.GraphBatch.complete([4, 4]),
        "complete of one large size": lk.GraphBatch.complete([25, 25]),
        "single nodes": lk.GraphBatch.complete([1, 1, 1]),
    }
