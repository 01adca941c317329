"""Cases of stochastic layers."""

from tests.cases.common import LayerCase

LAYERS: dict[str, LayerCase] = {}
