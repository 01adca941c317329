"""Networks as flows: `flowify(module, example)` gives a layer with a likelihood that computes what the module does."""

from likelify.flowification.conversion import Conversion, Layer
from likelify.flowification.convert import Flowified, flowify
from likelify.flowification.options import DATA, Call, Options, rule

__all__ = ["DATA", "Call", "Conversion", "Flowified", "Layer", "Options", "flowify", "rule"]
