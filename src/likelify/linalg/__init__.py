"""Linear maps that can be applied but need not be formed, and their exponentials. No probability here."""

from likelify._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
