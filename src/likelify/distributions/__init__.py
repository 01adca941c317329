"""Distributions: bases, split priors, noise and observations behind one contract (`core.Distribution`)."""

from likelify._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
