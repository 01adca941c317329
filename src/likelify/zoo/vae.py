"""Variational autoencoders whose posteriors are flows (our reconstruction of appendix A of Hoogeboom et al. 2020)."""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from likelify.distributions import ConditionalCategorical, ConditionalNormal, Normal
from likelify.flows import Flow
from likelify.nets import Dropout, OneHot
from likelify.transforms.core import Chain, Inverse, Transform
from likelify.transforms.latent import LatentVariable
from likelify.transforms.reshape import Flip, Reshape
from likelify.transforms.sylvester.factories import conv_sylvester, generalized_sylvester, planar, sylvester
from likelify.zoo.settings import ImageConfig, Size, require_halves

Posterior = Literal["gaussian", "planar", "sylvester", "generalized", "convolutional"]


class VaeConfig(ImageConfig):
    """A VAE of images with a categorical observation model: log-probabilities of pixels without dequantization.

    Latents are images of half the height and width. Encoder, decoder and the Gaussian that the posterior starts from
    are the same for all posteriors. The encoder gives `features` numbers for each place of the latent; the amortised
    layers of vectors read all of them, those of images read them at their place. The prior is a standard normal.

    Attributes:
        model: name of the model.
        posterior: `"gaussian"` with independent numbers, or that Gaussian pushed through planar flows, original
            Sylvester flows, generalized Sylvester flows of vectors, or convolutional ones.
        flows: layers of the posterior's flow.
        latent_channels: channels of the latent images.
        features: channels of the encoder's output.
        hidden: channels of the encoder's and the decoder's convolutions; the decoder's linear layer has eight times as
            many units.
        dropout: rate in encoder and decoder, acting in training steps only.
        hidden_units: size of the triangular matrices of `"sylvester"`; by default half of the latent's numbers.
        reflections: of the basis of each layer of vectors.
        flow_hidden: hidden units of the masked networks of `"generalized"` and `"convolutional"`.
        norm_limit: of the convolution exponentials of `"convolutional"`; their bound is the tight one.

    Example:
        >>> flow = VaeConfig(event_shape=(1, 8, 8), pixel_levels=17, posterior="sylvester", flows=2).build()
        >>> flow.iw_log_prob(torch.randint(17, (3, 1, 8, 8)), samples=10).value.shape
        torch.Size([3])
    """

    summary: ClassVar[str] = "VAE; posterior gaussian, planar or a Sylvester flow (paper: appendix A, our reading)"

    model: Literal["vae"] = "vae"
    posterior: Posterior = "gaussian"
    flows: int = Field(default=4, ge=1)
    latent_channels: Size = 2
    features: Size = 8
    hidden: Size = 32
    dropout: float = Field(default=0.2, ge=0, lt=1)
    hidden_units: Size | None = None
    reflections: Size = 8
    flow_hidden: Size = 128
    norm_limit: float | None = Field(default=0.9, gt=0)

    def build(self) -> Flow:
        """Build the VAE with fresh weights.

        Raises:
            ShapeError: if height or width is odd.
        """
        require_halves(self.event_shape, 1, f"the model '{self.model}'")
        observation = ConditionalCategorical(self._decoder(), self.pixel_levels)
        step = LatentVariable(self._posterior(), observation, self.latent_shape)
        encoder = None if self.classes is None else OneHot(self.classes)
        return Flow(Normal(self.latent_shape), step, encoder=encoder, event_shape=self.event_shape)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of the latent images."""
        return (self.latent_channels, self.event_shape[1] // 2, self.event_shape[2] // 2)

    def _encoder(self) -> nn.Sequential:
        _, height, width = self.latent_shape
        return nn.Sequential(
            _Scale(self.pixel_levels),
            nn.Conv2d(self.event_shape[0] + (self.classes or 0), self.hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(self.hidden, self.hidden, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            Dropout(self.dropout),
            nn.Linear(self.hidden * height * width, self.features * height * width),
            nn.SiLU(),
        )

    def _decoder(self) -> nn.Sequential:
        channels, height, width = self.latent_shape
        inputs, outputs = channels + (self.classes or 0), self.pixel_levels * self.event_shape[0]
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(inputs * height * width, 8 * self.hidden),
            nn.SiLU(),
            Dropout(self.dropout),
            nn.Linear(8 * self.hidden, self.hidden * height * width),
            nn.SiLU(),
            nn.Unflatten(1, (self.hidden, height, width)),
            nn.ConvTranspose2d(self.hidden, self.hidden, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(self.hidden, outputs, 3, padding=1),
            _PixelBias((outputs, *self.event_shape[1:])),
        )

    def _posterior(self) -> Flow | ConditionalNormal:
        channels, height, width = self.latent_shape
        numbers, seen = math.prod(self.latent_shape), self.features * height * width
        encoder, moments = self._encoder(), nn.Linear(seen, 2 * numbers)
        if self.posterior == "convolutional":
            # The same numbers as for the others, laid out where they belong.
            encoder.append(nn.Unflatten(1, (self.features, height, width)))
            net = nn.Sequential(nn.Flatten(), moments, nn.Unflatten(1, (2 * channels, height, width)))
            layers: list[Transform] = []
            for _ in range(self.flows):
                layers += [self._layer(channels, self.features), Flip()]
            return Flow(ConditionalNormal(net), Inverse(Chain(layers)), encoder=encoder)
        reshape = Reshape((numbers,), self.latent_shape)
        layers = [] if self.posterior == "gaussian" else [self._layer(numbers, seen) for _ in range(self.flows)]
        return Flow(ConditionalNormal(moments), Inverse(Chain([*layers, reshape])), encoder=encoder)

    def _layer(self, size: int, seen: int) -> Transform:
        if self.posterior == "planar":
            return planar(size, context_features=seen)
        if self.posterior == "sylvester":
            units = self.hidden_units or max(1, size // 2)
            return sylvester(size, units, reflections=self.reflections, context_features=seen)
        if self.posterior == "generalized":
            return generalized_sylvester(
                size, hidden=self.flow_hidden, reflections=self.reflections, context_features=seen
            )
        return conv_sylvester(size, hidden=self.flow_hidden, norm_limit=self.norm_limit, context_features=seen)


class _Scale(nn.Module):
    """Map integers `0 .. levels - 1` to (-1, 1)."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        return (x + 0.5) * (2 / self.levels) - 1


class _PixelBias(nn.Module):
    """A trained number for each place, where a convolution has one for each channel."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias
