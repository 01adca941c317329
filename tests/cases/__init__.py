"""The registry: a named case for every public LinearMap and Transform. Adding a class means adding a case here."""

from tests.cases import (
    activation,
    continuous,
    converted,
    fibre,
    flowified,
    graphs,
    layers,
    maps,
    mixing,
    pooling,
    residual,
    sizes,
    stochastic,
    triangular,
)
from tests.cases.common import (
    GRAPHS,
    LayerCase,
    MapCase,
    integers,
    kinks,
    normal,
    on_graphs,
    undirected,
    unit,
    weighted_graphs,
)

MAPS = maps.MAPS
MORE = (residual, stochastic, graphs, continuous)
FILES = (layers, flowified, converted, fibre, activation, pooling, mixing, triangular, *MORE)
LAYERS = {name: case for file in FILES for name, case in file.LAYERS.items()}
SIZED = sizes.SIZED
# Of two cases with one name, one would be tested by nobody.
assert len(LAYERS) == sum(len(file.LAYERS) for file in FILES)

__all__ = [
    "GRAPHS",
    "LAYERS",
    "MAPS",
    "SIZED",
    "LayerCase",
    "MapCase",
    "integers",
    "kinks",
    "normal",
    "on_graphs",
    "undirected",
    "unit",
    "weighted_graphs",
]
