"""The convolutional encoder and decoder of variational autoencoders: integer images in, logits of pixels out."""

import torch
from torch import Tensor, nn

from likelify.nets.conditioners import Dropout, JoinedNet


class PixelScale(nn.Module):
    """Map integers `0 .. levels - 1` to (-1, 1).

    Args:
        levels: number of values.
        channels: how many hold them; those of a condition behind them stay as they are.
    """

    def __init__(self, levels: int, channels: int) -> None:
        super().__init__()
        self.levels, self.channels = levels, channels

    def forward(self, x: Tensor) -> Tensor:
        """Scale the pixels."""
        scaled = (x[:, : self.channels] + 0.5) * (2 / self.levels) - 1
        return torch.cat([scaled, x[:, self.channels :]], 1)


class PositionBias(nn.Module):
    """Add a trained value at each position, where a convolution has one for each channel."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Add the bias."""
        return x + self.bias


def pixel_encoder(
    image_shape: tuple[int, int, int], levels: int, hidden: int, features: int, context_features: int, dropout: float
) -> JoinedNet:
    """Return a network from integer images to flat features, `features` of them for each position at half the size.

    Args:
        image_shape: `(channels, height, width)`, with even height and width.
        levels: number of values of a pixel.
        hidden: channels of the convolutions.
        features: channels of the output before it is flattened.
        context_features: channels that a condition adds to the image.
        dropout: rate, acting in training steps only.
    """
    channels, height, width = image_shape
    positions = (height // 2) * (width // 2)
    return JoinedNet(
        PixelScale(levels, channels),
        nn.Conv2d(channels + context_features, hidden, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(hidden, hidden, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        Dropout(dropout),
        nn.Linear(hidden * positions, features * positions),
        nn.SiLU(),
        context_features=context_features,
    )


def pixel_decoder(
    latent_shape: tuple[int, int, int],
    image_shape: tuple[int, int, int],
    levels: int,
    hidden: int,
    context_features: int,
    dropout: float,
) -> JoinedNet:
    """Return a network from latent images of half the size to the logits of each pixel's values.

    Args:
        latent_shape: `(channels, height, width)` of the latent.
        image_shape: of the image, twice as high and wide.
        levels: number of values of a pixel, and so of logits for each.
        hidden: channels of the convolutions; the first linear layer has eight times as many units.
        context_features: channels that a condition adds to the latent.
        dropout: rate, acting in training steps only.
    """
    channels, height, width = latent_shape
    outputs = levels * image_shape[0]
    return JoinedNet(
        nn.Flatten(),
        nn.Linear((channels + context_features) * height * width, 8 * hidden),
        nn.SiLU(),
        Dropout(dropout),
        nn.Linear(8 * hidden, hidden * height * width),
        nn.SiLU(),
        nn.Unflatten(1, (hidden, height, width)),
        nn.ConvTranspose2d(hidden, hidden, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(hidden, outputs, 3, padding=1),
        PositionBias((outputs, *image_shape[1:])),
        context_features=context_features,
    )
