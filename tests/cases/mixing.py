"""Cases of mixing layers."""

from tests.cases.common import LayerCase

LAYERS: dict[str, LayerCase] = {}
