"""Layers: bijections, surjections and stochastic maps behind one contract (`core.Transform`)."""

from likelify._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
