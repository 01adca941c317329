"""Layers that change the dimension of the event."""

from dataclasses import replace

import torch
from torch import Tensor

from likelify.distributions import Distribution
from likelify.errors import InexactLikelihoodError, ShapeError
from likelify.structure import Context, ContextLike, as_context, join_condition, with_condition
from likelify.transforms.core import Shape, Transform


class Slice(Transform):
    r"""Keep the first channels and give the others their final density: the split prior of multi-scale flows.

    `forward` drops `x_2 = x[:, keep:]` with contribution `log p(x_2 | x_1, context)`, exact; `inverse` draws `x_2`
    (Dinh et al. 2017, section 3.6; as a surjection: Nielsen et al. 2020).

    Args:
        keep: number of channels that are kept.
        distribution: of the dropped channels. Its condition is the kept channels, joined by the outer condition along
            the channel axis; a distribution without a condition ignores it.

    Raises:
        InexactLikelihoodError: if the distribution has no exact log-density.
    """

    random_inverse = True

    def __init__(self, keep: int, distribution: Distribution) -> None:
        super().__init__()
        if distribution.likelihood != "exact":
            raise InexactLikelihoodError("Slice needs a distribution with an exact log_prob.")
        self.keep = keep
        self.distribution = distribution

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Drop the last channels; the contribution is their log-density."""
        if x.ndim < 2 or x.shape[1] <= self.keep:
            raise ShapeError(f"Slice(keep={self.keep}) needs more than {self.keep} channels, got {tuple(x.shape)}.")
        kept, dropped = x[:, : self.keep], x[:, self.keep :]
        return kept, self.distribution.log_prob(dropped, self._inner(kept, context))

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw the dropped channels; the contribution is minus their log-density."""
        drawn, log_prob = self.distribution.sample_and_log_prob((), self._inner(z, context))
        return torch.cat([z, drawn], 1), -log_prob

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Fill the dropped channels with their noise-free value (temperature zero)."""
        drawn = self.distribution.sample((), replace(self._inner(z, context), temperature=0.0))
        return torch.cat([z, drawn], 1)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Initialize the distribution with the dropped channels."""
        kept = super().initialize(x, context)
        self.distribution.initialize(x[:, self.keep :], self._inner(kept, context))
        return kept

    def out_shape(self, in_shape: Shape) -> Shape:
        """Give the kept channels' shape."""
        if in_shape[0] <= self.keep:
            raise ShapeError(f"Slice(keep={self.keep}) needs more than {self.keep} channels, got {tuple(in_shape)}.")
        return (self.keep, *in_shape[1:])

    def _inner(self, kept: Tensor, context: ContextLike) -> Context:
        return with_condition(as_context(context), join_condition(kept, context))

    def extra_repr(self) -> str:
        """Show the setting."""
        return f"keep={self.keep}"
