"""Cases of triangular residuals."""

from typing import Any

import torch

import likelify as lk
from likelify import nets, transforms
from likelify.transforms.sylvester_flows.factories import SylvesterHeads
from likelify.transforms.sylvester_flows.scalar import FreeTanhResidual
from tests.cases.common import LayerCase, normal, on_graphs, undirected, weighted_graphs


def residual(channels: int, **options: Any) -> lk.TriangularResidual:
    """Build a small layer; the method's name may be among the options."""
    method = options.pop("method", "auto")
    net = nets.AutoregressiveNet(channels, **({"hidden": 4 * channels + 1} | options))
    return lk.TriangularResidual(net, method=method)


class ArcResidual(transforms.ScalarResidual):
    """`f(u) = a atan(exp(b) u) + c` with `a >= 0`: an example of a user's own scalar functions."""

    size = 3

    def evaluate(self, u: torch.Tensor, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return value and slope."""
        a, b, c = raw[:, 0].square(), raw[:, 1].exp(), raw[:, 2]
        return a * torch.atan(b * u) + c, a * b / (1 + (b * u) ** 2)


def complete() -> lk.Context:
    """Two complete graphs."""
    return lk.Context(structure=lk.GraphBatch.complete([2, 3]))


LAYERS: dict[str, LayerCase] = {
    "triangular-vector": LayerCase(
        lambda: residual(5, dims=0), lambda: normal(3, 5), lk.TriangularResidual, near_identity=True
    ),
    "triangular-vector-wavefront": LayerCase(
        lambda: residual(5, dims=0, method="wavefront"), lambda: normal(3, 5), lk.TriangularResidual
    ),
    "triangular-sequence": LayerCase(
        lambda: residual(2, dims=1, kernel_size=5, method="wavefront"),
        lambda: normal(2, 2, 7),
        lk.TriangularResidual,
        near_identity=True,
    ),
    "triangular-image": LayerCase(
        lambda: residual(3, method="wavefront"),
        lambda: normal(2, 3, 3, 4),
        lk.TriangularResidual,
        near_identity=True,
    ),
    "triangular-image-newton": LayerCase(
        lambda: residual(3, method="newton"), lambda: normal(2, 3, 4, 2), lk.TriangularResidual
    ),
    "triangular-image-fixed-point": LayerCase(
        lambda: residual(2, method="fixed-point"), lambda: normal(2, 2, 2, 3), lk.TriangularResidual
    ),
    "triangular-image-wide-kernel": LayerCase(
        lambda: residual(2, kernel_size=5, layers=2, method="wavefront"),
        lambda: normal(2, 2, 2, 6),
        lk.TriangularResidual,
    ),
    "triangular-image-norm-limit": LayerCase(
        lambda: residual(2, norm_limit=1.5, method="wavefront"), lambda: normal(2, 2, 3, 3), lk.TriangularResidual
    ),
    "triangular-volume": LayerCase(
        lambda: residual(2, dims=3, method="wavefront"), lambda: normal(2, 2, 2, 3, 2), lk.TriangularResidual
    ),
    "triangular-condition": LayerCase(
        lambda: residual(3, dims=0, context_features=2, layers=0, method="wavefront"),
        lambda: normal(3, 3),
        lk.TriangularResidual,
        lambda: normal(3, 2),
        near_identity=True,
    ),
    "triangular-image-condition": LayerCase(
        lambda: residual(2, context_features=2, method="wavefront"),
        lambda: normal(2, 2, 3, 2),
        lk.TriangularResidual,
        lambda: normal(2, 2, 3, 2),
    ),
    "triangular-own-scalar": LayerCase(
        lambda: lk.TriangularResidual(nets.AutoregressiveNet(4, hidden=9, heads=3, dims=0), ArcResidual()),
        lambda: normal(3, 4),
        lk.TriangularResidual,
    ),
    "triangular-graphs": LayerCase(
        lambda: residual(3, dims="nodes", method="wavefront"),
        lambda: normal(5, 3),
        lk.TriangularResidual,
        on_graphs,
        near_identity=True,
        sees_order=True,
    ),
    "triangular-complete-graphs-condition": LayerCase(
        lambda: residual(2, dims="nodes", context_features=2, method="wavefront"),
        lambda: normal(5, 2),
        lk.TriangularResidual,
        lambda: lk.Context(normal(5, 2), lk.GraphBatch.complete([2, 3])),
        sees_order=True,
    ),
    "triangular-features-graphs": LayerCase(
        lambda: lk.TriangularResidual(nets.AutoregressiveGraphNet(3, hidden=5)),
        lambda: normal(5, 3),
        lk.TriangularResidual,
        lambda: lk.Context(structure=weighted_graphs()),
        near_identity=True,
    ),
    "triangular-original-heads": LayerCase(
        lambda: lk.TriangularResidual(SylvesterHeads(4, 3), FreeTanhResidual()),
        lambda: normal(3, 4),
        lk.TriangularResidual,
    ),
    "planar": LayerCase(lambda: transforms.planar(3), lambda: normal(3, 3), lk.Conjugate),
    "planar-condition": LayerCase(
        lambda: transforms.planar(3, context_features=2), lambda: normal(3, 3), lk.Conjugate, lambda: normal(3, 2)
    ),
    "planar-graphs": LayerCase(
        lambda: transforms.planar(2, context_features=2),
        lambda: normal(5, 2),
        lk.Conjugate,
        lambda: on_graphs(condition=True),
    ),
    "sylvester": LayerCase(lambda: lk.sylvester(4, 2, reflections=3), lambda: normal(3, 4), lk.Conjugate),
    "sylvester-condition": LayerCase(
        lambda: lk.sylvester(4, 3, reflections=2, context_features=2),
        lambda: normal(3, 4),
        lk.Conjugate,
        lambda: normal(3, 2),
    ),
    "sylvester-positions": LayerCase(lambda: lk.sylvester(3, 2), lambda: normal(2, 3, 2, 2), lk.Conjugate),
    "sylvester-graphs": LayerCase(lambda: lk.sylvester(3), lambda: normal(5, 3), lk.Conjugate, on_graphs),
    "generalized-sylvester": LayerCase(
        lambda: lk.generalized_sylvester(4, hidden=9, exponential=True),
        lambda: normal(3, 4),
        lk.Conjugate,
    ),
    "generalized-sylvester-condition": LayerCase(
        lambda: lk.generalized_sylvester(4, hidden=9, reflections=2, context_features=2),
        lambda: normal(3, 4),
        lk.Conjugate,
        lambda: normal(3, 2),
    ),
    "conv-sylvester": LayerCase(lambda: lk.conv_sylvester(2, hidden=5), lambda: normal(2, 2, 3, 3), lk.Conjugate),
    "conv-sylvester-condition": LayerCase(
        lambda: lk.conv_sylvester(2, hidden=5, context_features=3),
        lambda: normal(2, 2, 2, 3),
        lk.Conjugate,
        lambda: normal(2, 3, 2, 3),
    ),
    "graph-sylvester-graphs": LayerCase(
        lambda: lk.graph_sylvester(2, hidden=5), lambda: normal(5, 2), lk.Conjugate, complete
    ),
    "graph-sylvester-graphs-condition": LayerCase(
        lambda: lk.graph_sylvester(2, hidden=5, context_features=3),
        lambda: normal(5, 2),
        lk.Conjugate,
        lambda: lk.Context(normal(5, 3), undirected().structure),
    ),
    "graph-sylvester-nodes-graphs": LayerCase(
        lambda: lk.graph_sylvester(2, hidden=5, order="nodes"),
        lambda: normal(5, 2),
        lk.Conjugate,
        undirected,
        sees_order=True,
    ),
}
