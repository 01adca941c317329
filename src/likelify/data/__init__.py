"""Sources of data behind one contract; they know nothing of models. The names are loaded when they are first used."""

from likelify._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
