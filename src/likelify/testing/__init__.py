"""The laws that every map and layer must pass, for users' own classes too.

Each function raises `AssertionError` with the observed value if a law is broken. Call them in double precision, with
parameters away from their initial values (`randomize`): at zero, signs cannot be seen. Then once more where parameters
are at rest (`set_parameters`): there, gradients get lost that are right elsewhere.
"""

from likelify._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
