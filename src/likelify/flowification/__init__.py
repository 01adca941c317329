"""Networks as flows: `flowify(module, example)` gives a layer with a likelihood that computes what the module does."""

from likelify._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
