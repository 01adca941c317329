"""The registry: a named case for every public LinearMap and Transform. Adding a class means adding a case here."""

from tests.cases import (
    activation,
    converted,
    fibre,
    flowified,
    layers,
    maps,
    mixing,
    pooling,
    residual,
    stochastic,
    triangular,
)
from tests.cases.common import (
    GRAPHS,
    LayerCase,
    MapCase,
    integers,
    normal,
    on_graphs,
    undirected,
    unit,
    weighted_graphs,
)

MAPS = maps.MAPS
LAYERS = (
    layers.LAYERS
    | flowified.LAYERS
    | converted.LAYERS
    | fibre.LAYERS
    | activation.LAYERS
    | pooling.LAYERS
    | mixing.LAYERS
    | triangular.LAYERS
    | residual.LAYERS
    | stochastic.LAYERS
)

__all__ = [
    "GRAPHS",
    "LAYERS",
    "MAPS",
    "LayerCase",
    "MapCase",
    "integers",
    "normal",
    "on_graphs",
    "undirected",
    "unit",
    "weighted_graphs",
]
