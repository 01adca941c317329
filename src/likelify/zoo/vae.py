"""Variational autoencoders whose posteriors are flows (our reconstruction of appendix A of Hoogeboom et al. 2020)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from likelify import nets, transforms
from likelify.zoo.images import ImageConfig, require_halves
from likelify.zoo.registry import ReadBy, Size, register

if TYPE_CHECKING:
    from likelify.flows import Flow
    from likelify.transforms.core import Transform

Posterior = Literal["gaussian", "planar", "sylvester", "generalized", "convolutional"]


@register("vae", kind="image", summary="VAE; gaussian, planar or Sylvester posterior (paper: appendix A, our reading)")
class VaeConfig(ImageConfig):
    """A VAE of images with a categorical observation model: log-probabilities of pixels without dequantization.

    Latents are images of half the height and width. Encoder, decoder and the Gaussian that the posterior starts from
    are the same for all posteriors. The encoder gives `features` values for each place of the latent; the amortised
    layers of vectors read all of them, those of images read them at their place. The prior is a standard normal.

    Attributes:
        posterior: `"gaussian"` with independent elements, or that Gaussian pushed through planar flows, original
            Sylvester flows, generalized Sylvester flows of vectors, or convolutional ones.
        flows: layers of the posterior's flow.
        latent_channels: channels of the latent images.
        features: channels of the encoder's output.
        hidden: channels of the encoder's and the decoder's convolutions; the decoder's linear layer has eight times as
            many units.
        dropout: rate in encoder and decoder, acting in training steps only.
        hidden_units: size of the triangular matrices of `"sylvester"`; by default half of the latent's elements.
        reflections: of the basis of each layer of vectors.
        flow_hidden: hidden units of the masked networks of `"generalized"` and `"convolutional"`; as many as these have
            channels at least.
        norm_limit: of the convolution exponentials of `"convolutional"`; their bound is the tight one.

    Example:
        >>> import torch
        >>> flow = VaeConfig(event_shape=(1, 8, 8), pixel_levels=17, posterior="sylvester", flows=2).build()
        >>> flow.iw_log_prob(torch.randint(17, (3, 1, 8, 8)), samples=10).value.shape
        torch.Size([3])
    """

    read_by: ClassVar[ReadBy] = {
        "flows": ("posterior", ("planar", "sylvester", "generalized", "convolutional")),
        "hidden_units": ("posterior", ("sylvester",)),
        "reflections": ("posterior", ("sylvester", "generalized")),
        "flow_hidden": ("posterior", ("generalized", "convolutional")),
        "norm_limit": ("posterior", ("convolutional",)),
    }

    posterior: Posterior = "gaussian"
    flows: int = Field(default=4, ge=1, le=4096)
    latent_channels: Size = 2
    features: Size = 8
    hidden: Size = 32
    dropout: float = Field(default=0.2, ge=0, lt=1)
    hidden_units: Size | None = None
    reflections: Size = 8
    flow_hidden: Size = 128
    norm_limit: float | None = Field(default=0.9, gt=0)

    def build(self) -> Flow:
        """Return the VAE with fresh weights.

        Raises:
            ShapeError: if height or width is odd.
        """
        from likelify.distributions.categorical import ConditionalCategorical
        from likelify.distributions.normal import Normal

        require_halves(self.event_shape, self.model)
        decoder = nets.pixel_decoder(
            self.latent_shape, self.event_shape, self.pixel_levels, self.hidden, self.classes or 0, self.dropout
        )
        observation = ConditionalCategorical(decoder, self.pixel_levels)
        step = transforms.LatentVariable(self._posterior(), observation, self.latent_shape)
        return self._flow(step, Normal(self.latent_shape))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of the latent images."""
        return (self.latent_channels, self.event_shape[1] // 2, self.event_shape[2] // 2)

    def _posterior(self) -> Flow:
        from torch import nn

        from likelify.distributions.normal import ConditionalNormal
        from likelify.flows import Flow

        channels, height, width = self.latent_shape
        elements, seen = math.prod(self.latent_shape), self.features * height * width
        encoder = nets.pixel_encoder(
            self.event_shape, self.pixel_levels, self.hidden, self.features, self.classes or 0, self.dropout
        )
        moments = nn.Linear(seen, 2 * elements)
        layers: list[Transform] = []
        if self.posterior == "convolutional":
            # The same elements as for the others, laid out where they belong.
            encoder.append(nn.Unflatten(1, (self.features, height, width)))
            net = nn.Sequential(nn.Flatten(), moments, nn.Unflatten(1, (2 * channels, height, width)))
            for _ in range(self.flows):
                layers += [self._layer(channels, self.features), transforms.Flip()]
        else:
            net = moments
            if self.posterior != "gaussian":
                layers += [self._layer(elements, seen) for _ in range(self.flows)]
            layers.append(transforms.Reshape((elements,), self.latent_shape))
        return Flow(ConditionalNormal(net), transforms.Inverse(transforms.Chain(layers)), encoder=encoder)

    def _layer(self, size: int, seen: int) -> Transform:
        from likelify.transforms.sylvester_flows.factories import sylvester

        if self.posterior == "planar":
            return transforms.planar(size, context_features=seen)
        if self.posterior == "sylvester":
            units = self.hidden_units or max(1, size // 2)
            return sylvester(size, units, reflections=self.reflections, context_features=seen)
        # A masked network has no fewer units than channels.
        net: dict[str, Any] = {"hidden": max(self.flow_hidden, size), "context_features": seen}
        if self.posterior == "generalized":
            return transforms.generalized_sylvester(size, reflections=self.reflections, **net)
        return transforms.conv_sylvester(size, norm_limit=self.norm_limit, **net)
