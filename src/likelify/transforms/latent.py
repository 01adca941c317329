r"""Layers that draw in both directions: the steps of variational autoencoders."""

from dataclasses import replace

import torch
from torch import Tensor

from likelify.distributions.core import Distribution
from likelify.errors import InexactLikelihoodError, ShapeError
from likelify.shapes import Shape, as_shape
from likelify.structure import Context, ContextLike, as_context, join_condition
from likelify.transforms.core import Transform, inner_reads


class LatentVariable(Transform):
    r"""A latent variable with an approximate posterior: one step of a VAE as a layer.

    `forward` draws `z ~ q(z | x)` with contribution `log p(x | z) - log q(z | x)`; `inverse` draws `x ~ p(x | z)` with
    minus that. With a prior `p(z)` on top, `log p(z) + contribution` is the logarithm of an importance weight whose
    mean is `p(x)`, so its own mean is the ELBO. A VAE is `Flow(prior, LatentVariable(...))`; bijections behind this
    layer make the prior a flow, and several of these layers in a chain are a hierarchical VAE.

    `q` can be any distribution that reads `x` as its condition. For a flow, write its layers inside `Inverse`: then
    drawing from it, which training does, runs them forward, and only the contribution of `inverse` has to undo them.

    Args:
        posterior: `q(z | x)`. Its condition is `x` in a floating dtype, joined by the outer condition along the channel
            axis; it must draw differentiably.
        observation: `p(x | z)`. Its condition is `z`, joined by the outer condition.
        latent_shape: shape of `z`.

    Raises:
        InexactLikelihoodError: if one of the two has no exact log-density.

    Source:
        Kingma and Welling 2014, Rezende and Mohamed 2015; as a layer: Nielsen et al. 2020 (SurVAE flows).

    Example:
        >>> from torch import nn
        >>> from likelify.distributions import ConditionalNormal, Normal
        >>> from likelify.flows import Flow
        >>> step = LatentVariable(ConditionalNormal(nn.Linear(3, 4)), ConditionalNormal(nn.Linear(2, 6)), (2,))
        >>> vae = Flow(Normal((2,)), step)
        >>> vae.likelihood, vae.elbo(torch.zeros(5, 3)).value.shape
        ('bound', torch.Size([5]))
    """

    random_forward = True
    random_inverse = True
    takes_integers = True
    keeps_autocast = True
    reads_condition = inner_reads
    probe: Tensor

    def __init__(self, posterior: Distribution, observation: Distribution, latent_shape: int | Shape) -> None:
        super().__init__()
        for role, distribution in (("posterior", posterior), ("observation", observation)):
            if distribution.likelihood != "exact":
                raise InexactLikelihoodError(
                    f"The {role} of LatentVariable needs an exact log_prob; this {type(distribution).__name__} has "
                    f"{distribution.likelihood}s only. Put layers that draw at random behind this one in a Chain."
                )
        self.posterior = posterior
        self.observation = observation
        self.gives = self.latent_shape = as_shape(latent_shape)
        # Integers carry no floating dtype; this empty buffer moves with the model and tells which one to use.
        self.register_buffer("probe", torch.empty(0), persistent=False)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw the latent from the posterior."""
        z, log_q = self.posterior.sample_and_log_prob((), self._seen(x, context))
        if tuple(z.shape[1:]) != self.latent_shape:
            raise ShapeError(f"latent_shape is {self.latent_shape}, the posterior draws {tuple(z.shape[1:])}.")
        return z, self.observation.log_prob(x, self._inner(z, context)) - log_q

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw the data from the likelihood."""
        x, log_p = self.observation.sample_and_log_prob((), self._inner(z, context))
        return x, self.posterior.log_prob(z, self._seen(x, context)) - log_p

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the posterior's noise-free value (temperature zero)."""
        return self.posterior.sample((), replace(self._seen(x, context), temperature=0.0))

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Return the likelihood's noise-free value (temperature zero)."""
        return self.observation.sample((), replace(self._inner(z, context), temperature=0.0))

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Initialize the likelihood with the data and draws of the posterior."""
        with torch.no_grad():
            z = self.posterior.sample((), self._seen(x, context))
            self.observation.initialize(x, self._inner(z, context))
        return z

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the shape of the latent."""
        return self.latent_shape

    def _seen(self, x: Tensor, context: ContextLike) -> Context:
        seen = x if x.is_floating_point() else x.to(self.probe.dtype)
        # The posterior belongs to the likelihood, so the temperature of the samples is not its own.
        return Context(join_condition(seen, context), as_context(context).structure, must_be_read=False)

    def _inner(self, z: Tensor, context: ContextLike) -> Context:
        return replace(as_context(context), condition=join_condition(z, context), must_be_read=False)
