"""Cases of triangular layers."""

from tests.cases.common import LayerCase

LAYERS: dict[str, LayerCase] = {}
