"""Networks inside layers: what reads one part of an event, and the condition.

`conditioners` are ordinary networks, called as `net(x, context)`; `density` makes those of conditional densities.
"""

from likelify._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
