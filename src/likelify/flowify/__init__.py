"""Networks as flows: `flowify(module, example)` gives a layer with a likelihood that computes what the module does.

`likelify.flowify` is this package, and can be called itself: `likelify.flowify(net, example)`.
"""

import sys
import types
from typing import Any

from likelify.flowify.conversion import Conversion, Layer
from likelify.flowify.convert import Flowified, flowify
from likelify.flowify.options import DATA, Call, Options, rule

__all__ = ["DATA", "Call", "Conversion", "Flowified", "Layer", "Options", "flowify", "rule"]


class _CallablePackage(types.ModuleType):
    """A package with the name of its main function: calling one calls the other."""

    def __call__(self, *args: Any, **kwargs: Any) -> Flowified:
        return flowify(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
