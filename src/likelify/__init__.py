"""likelify: exact-likelihood density models.

Every linear map can become an invertible layer, and every ordinary network can get a likelihood. What most models need
is here; the rest is under `transforms`, `nets`, `linalg`, `data` and `zoo`. The names of the stub beside this file are
loaded when they are first used, so importing the package costs nothing.
"""

from likelify._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
