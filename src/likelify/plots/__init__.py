"""Pictures: of items of every kind, and of linear maps and their exponentials. The names are loaded when first used."""

from likelify._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
