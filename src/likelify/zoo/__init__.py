"""Models by name: for each a frozen configuration that is saved as JSON, and that builds the model."""

from likelify._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
