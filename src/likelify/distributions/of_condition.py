"""Distributions whose parameters a network reads off the condition."""

from torch import Tensor, nn

from likelify.calling import call_net
from likelify.distributions.core import Distribution
from likelify.errors import UnsupportedError
from likelify.structure import Context
from likelify.tracing import raised


class OfCondition(Distribution):
    """A distribution whose parameters a network reads off the condition, called as `net(condition)`."""

    net: nn.Module

    @property
    def reads_condition(self) -> bool:
        """Always: without a condition there is no distribution."""
        return True

    @property
    def reads_outer_condition(self) -> bool:
        """Whether the network was built for more than the elements of a layer, or does not say."""
        return getattr(self.net, "context_features", None) != 0

    def _read(self, context: Context) -> Tensor:
        """Return what the network says of the condition."""
        name = type(self).__name__
        if context.condition is None:
            raise UnsupportedError(f"{name} needs a condition; give context=.")
        return raised(call_net(self.net, context.condition, owner=name))
