"""A distribution of real numbers as one of the cells of a table."""

import torch
from torch import Tensor

from likelify.distributions.core import Distribution, Likelihood
from likelify.errors import UnsupportedError
from likelify.shapes import Shape, check_event
from likelify.structure import ContextLike


class OfReals(Distribution):
    r"""A distribution of `(rows, d)` real numbers, as one of the cells `(rows, 3, d)` of a table without anything else.

    Its numbers are the scores of the cells. A row with a cell in another state than the first has density zero: so the
    table must have real columns only (`ColumnSchema.is_plain`), none of which is a condition.

    Args:
        base: the distribution: a flow, a `GaussianMixture`.

    Example:
        >>> from likelify.distributions import Normal
        >>> OfReals(Normal(2)).log_prob(torch.zeros(1, 3, 2))
        tensor([-1.8379])
    """

    # The state of a cell is one of several; here the first has all of the probability.
    has_atoms = True

    def __init__(self, base: Distribution) -> None:
        super().__init__()
        self.base = base
        shape = base.event_shape
        if shape is not None and len(shape) != 1:
            raise UnsupportedError(f"OfReals takes a distribution of vectors, not of events of shape {shape}.")
        self.event_shape = None if shape is None else (3, *shape)

    @property
    def likelihood(self) -> Likelihood:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the distribution."""
        return self.base.likelihood

    @property
    def stacks(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the distribution has weights that `stack` sets."""
        return self.base.stacks

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of each row in nats."""
        found = self.base.log_prob(self._scores(x), context)
        return torch.where((x[:, 0] == 0).all(1), found, -torch.inf)

    def initialize(self, x: Tensor, context: ContextLike = None) -> None:
        """Fit what depends on data to the scores of a sample."""
        self.base.initialize(self._scores(x), context)

    def stack(self, x: Tensor, context: ContextLike = None) -> None:
        """Set the weights of mixtures in the distribution."""
        self.base.stack(self._scores(x), context)

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw so that gradients reach the parameters, where the distribution can."""
        return self._cells(self.base.rsample(shape, context))

    def sample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw cells without width in the first state."""
        return self._cells(self.base.sample(shape, context))

    def sample_and_log_prob(self, shape: int | Shape = (), context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw, and return the log-density of what was drawn."""
        drawn, log_prob = self.base.sample_and_log_prob(shape, context)
        return self._cells(drawn), log_prob

    def to_noise(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the noise that the distribution makes the scores of."""
        return self.base.to_noise(self._scores(x), context)

    def from_noise(self, noise: Tensor, context: ContextLike = None) -> Tensor:
        """Return the cells that noise becomes."""
        return self._cells(self.base.from_noise(noise, context))

    def _scores(self, x: Tensor) -> Tensor:
        check_event(x.shape[1:], (3, "columns"), "OfReals")
        return x[:, 1]

    def _cells(self, z: Tensor) -> Tensor:
        """Return scores `(..., d)` as cells `(..., 3, d)` of their continuous state."""
        weights = next(self.base.parameters(), None)
        # Layers in front may give float64 whatever the dtype of the others, and members of a mixture must agree.
        z = z if weights is None else z.to(weights.dtype)
        nothing = torch.zeros_like(z)
        return torch.stack([nothing, z, nothing], -2)
