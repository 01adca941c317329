"""The layers and image models of the flowification paper, computed as its published code computes them.

A plain re-implementation, only here to be measured against: rotations are matrix exponentials of unscaled normal
matrices, formed anew at every use; the spline of a layer is worked out for every element; the noise of the tiles is
drawn as a radius and a direction. `model(name)` builds "mlp", "conv1" or "conv2" for 28 x 28 images.

The published widths of the conditional networks follow thresholds that are not documented. Those of `HIDDEN` and
`KERNEL_HIDDEN` are chosen for the published number of parameters, to 0.5 %, with three hidden layers after a linear
layer and, as published, 6 + 6 per-pixel layers around two 3 x 3 convolutions after a convolution. Initial scales are
close to one, and the noise starts with scale one, where the published code draws them; no time depends on that.

Source:
    Mate, Klein, Golling and Fleuret 2022, appendices B, F and G.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 28
# Parameters of the published code for MNIST's shape.
PUBLISHED = {"mlp": 5_496_529, "conv1": 1_936_354, "conv2": 1_676_713}
WIDTHS = (784, 512, 256, 128, 64, 32, 8)
TAIL = (*(64,) * 7, *(32,) * 7, 8)
# Channels in and out, kernel, stride; each image is padded so that the patches fit.
CONVOLUTIONS = {
    "conv1": ((1, 16, 3, 2), (16, 24, 2, 2), (24, 32, 3, 2), (32, 48, 2, 1), (48, 64, 2, 1)),
    "conv2": ((1, 4, 2, 2), (4, 16, 2, 2), (16, 32, 2, 2), (32, 48, 2, 2), (48, 64, 2, 2)),
}
# Hidden widths of the conditional networks, by the width of what they see.
HIDDEN = {512: 880, 256: 608, 128: 320, 64: 192, 32: 104, 8: 64}
KERNEL_HIDDEN = {24: 76, 32: 128, 48: 128, 64: 128}
HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


class Rotation(nn.Module):
    """Multiply rows by `exp(a - a^T)`; every call forms the exponential."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.free = nn.Parameter(torch.randn(size, size))

    def forward(self, x: Tensor) -> Tensor:
        """Turn the last axis."""
        return x @ torch.matrix_exp(self.free - self.free.mT)

    def inverse(self, z: Tensor) -> Tensor:
        """Turn the last axis back, by a second exponential."""
        return z @ torch.matrix_exp(self.free.mT - self.free)


class Linear(nn.Module):
    """Rotation, scales and rotation on the last axis: the last coordinates are kept, uniform ones are added."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.dropped, self.added = max(inputs - outputs, 0), max(outputs - inputs, 0)
        self.turn_in, self.turn_out = Rotation(inputs), Rotation(outputs)
        self.log_scale = nn.Parameter(0.01 * torch.randn(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.net = self.conditional(outputs) if self.dropped else nn.Identity()

    def conditional(self, outputs: int) -> nn.Module:
        """Build the network that gives mean and log-scale of the dropped coordinates."""
        hidden = HIDDEN.get(outputs, outputs)
        return dense_net([outputs, hidden, hidden, hidden, 2 * self.dropped])

    def fibre(self, kept: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-scale of the dropped coordinates."""
        mean, log_std = self.net(kept).chunk(2, -1)
        return mean, log_std

    def forward(self, x: Tensor, *, noise: bool = True) -> tuple[Tensor, Tensor]:
        """Return the output and one contribution per row."""
        y = self.turn_in(x)
        if self.added:
            drawn = torch.rand(*y.shape[:-1], self.added).sub(0.5) * noise
            y = torch.cat([y, drawn], -1)
        kept = y[..., self.dropped :] * self.log_scale.exp()
        z = self.turn_out(kept) + self.bias
        gain = self.log_scale.sum().expand(y.shape[:-1])
        if self.dropped:
            mean, log_std = self.fibre(kept, z)
            away = (y[..., : self.dropped] - mean) * torch.exp(-log_std)
            gain = gain - (0.5 * away**2 + log_std + HALF_LOG_2_PI).sum(-1)
        return z, gain.flatten(1).sum(1) if gain.ndim > 1 else gain

    def inverse(self, z: Tensor, *, noise: bool = True) -> Tensor:
        """Undo the map; the dropped coordinates are drawn, or their mean without noise."""
        kept = self.turn_out.inverse(z - self.bias)
        y = kept * torch.exp(-self.log_scale)
        if self.dropped:
            mean, log_std = self.fibre(kept, z)
            y = torch.cat([mean + log_std.exp() * torch.randn_like(mean) * noise, y], -1)
        return self.turn_in.inverse(y[..., : self.inputs])


class Kernel(Linear):
    """The linear layer of a convolution, on tiles `(rows, places, inputs)`; its network sees the whole output map."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__(inputs, outputs)
        self.side = side

    def conditional(self, outputs: int) -> nn.Module:
        """Build 6 per-pixel layers, two 3 x 3 convolutions and 6 per-pixel layers."""
        hidden = KERNEL_HIDDEN.get(outputs, outputs)
        kernels = [1] * 6 + [3] * 2 + [1] * 6
        widths = [outputs, *[hidden] * 13, 2 * self.inputs]
        layers = [nn.Conv2d(*pair, k, padding=k // 2) for pair, k in zip(pairs(widths), kernels, strict=True)]
        return between(layers)

    def fibre(self, kept: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-scale of the dropped coordinates: both are predicted for the tiles, and turned."""
        found = self.net(z.mT.unflatten(-1, (self.side, self.side))).flatten(2).mT
        mean, log_std = found.chunk(2, -1)
        return self.turn_in(mean)[..., : self.dropped], self.turn_in(log_std)[..., : self.dropped]


class Pad(nn.Module):
    """Add rows below and columns on the right, of normal noise with a learned scale."""

    def __init__(self, side: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.side = side
        self.extra = (stride - (side - kernel) % stride) % stride
        self.log_std = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, *, noise: bool = True) -> tuple[Tensor, Tensor]:
        """Return the larger image and one contribution per row."""
        side = self.side + self.extra
        drawn = torch.randn(*x.shape[:2], side, side) * noise
        z = drawn * self.log_std.exp()
        z[..., : self.side, : self.side] = x
        drawn = drawn.clone()
        drawn[..., : self.side, : self.side] = 0
        count = x.shape[1] * (side**2 - self.side**2)
        return z, count * (self.log_std + HALF_LOG_2_PI) + 0.5 * (drawn**2).flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        """Crop."""
        return z[..., : self.side, : self.side]


class Tile(nn.Module):
    """Copy each pixel into the patches that contain it, and move the copies apart by normal noise around their mean.

    The noise has a uniform direction, from a normal draw that is centred and scaled pixel by pixel, and a radius from
    the chi-squared distribution; `1e-6` guards the division.
    """

    count: Tensor

    def __init__(self, channels: int, side: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.side = side
        self.patches = {"kernel_size": kernel, "stride": stride}
        self.log_std = nn.Parameter(torch.zeros(()))
        self.register_buffer("count", self.fold(self.unfold(torch.ones(1, channels, side, side))))
        self.squared_radius = torch.distributions.Chi2((self.count[0] - 1).clamp_min(1))

    def unfold(self, x: Tensor) -> Tensor:
        """Return the patches, `(rows, channels * taps, places)`."""
        return functional.unfold(x, **self.patches)

    def fold(self, tiles: Tensor) -> Tensor:
        """Sum what belongs to the same pixel."""
        return functional.fold(tiles, (self.side, self.side), **self.patches)

    def forward(self, x: Tensor, *, noise: bool = True) -> tuple[Tensor, Tensor]:
        """Return tiles `(rows, places, channels * taps)` and one contribution per row."""
        shared = self.count > 1
        direction = torch.randn_like(self.unfold(x))
        direction = direction - self.unfold(self.fold(direction) / self.count)
        direction = direction / (self.unfold(self.fold(direction**2)) + 1e-6).sqrt()
        squares = self.squared_radius.sample(x.shape[:1]) * shared
        radius = self.unfold(squares.sqrt() * self.count.sqrt() * shared)
        tiles = self.unfold(x) + direction * radius * self.log_std.exp() * noise
        spare = self.count - 1
        gain = 0.5 * self.count * self.count.log() + spare * (self.log_std + HALF_LOG_2_PI) + 0.5 * squares
        return tiles.mT, (gain * shared).flatten(1).sum(1)

    def inverse(self, tiles: Tensor) -> Tensor:
        """Average the copies."""
        return self.fold(tiles.mT) / self.count


class Convolution(nn.Module):
    """Pad, tile and multiply by a kernel."""

    def __init__(self, channels: int, outputs: int, kernel: int, stride: int, side: int) -> None:
        super().__init__()
        self.pad = Pad(side, kernel, stride)
        padded = side + self.pad.extra
        self.side = (padded - kernel) // stride + 1
        self.tile = Tile(channels, padded, kernel, stride)
        self.kernel = Kernel(channels * kernel**2, outputs, self.side)

    def forward(self, x: Tensor, *, noise: bool = True) -> tuple[Tensor, Tensor]:
        """Return the output map and one contribution per row."""
        padded, first = self.pad(x, noise=noise)
        tiles, second = self.tile(padded, noise=noise)
        z, third = self.kernel(tiles, noise=noise)
        return z.mT.unflatten(-1, (self.side, self.side)), first + second + third

    def inverse(self, z: Tensor, *, noise: bool = True) -> Tensor:
        """Undo the map."""
        tiles = self.kernel.inverse(z.flatten(2).mT, noise=noise)
        return self.pad.inverse(self.tile.inverse(tiles))


class Spline(nn.Module):
    """One rational-quadratic spline for all units, the identity outside `[-2, 2]`; its knots are formed per element."""

    def __init__(self, bins: int = 10, bound: float = 2.0) -> None:
        super().__init__()
        self.bins, self.bound = bins, bound
        self.raw = nn.Parameter(torch.rand(3 * bins - 1))

    def forward(self, x: Tensor, *, noise: bool = True) -> tuple[Tensor, Tensor]:
        """Return the output and one contribution per row."""
        value, log_slope = self.evaluate(x, inverse=False)
        return value, log_slope.flatten(1).sum(1)

    def inverse(self, z: Tensor, *, noise: bool = True) -> Tensor:
        """Undo the spline."""
        return self.evaluate(z, inverse=True)[0]

    def evaluate(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Return value and log-slope at every element, in either direction."""
        inside = (x >= -self.bound) & (x <= self.bound)
        raw = self.raw.expand(*x.shape, -1)[inside]
        value, log_slope = x.clone(), torch.zeros_like(x)
        value[inside], log_slope[inside] = self.piece(x[inside], raw, inverse=inverse)
        return value, log_slope

    def piece(self, x: Tensor, raw: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Evaluate the elements `(count,)` inside the bound, with raw parameters `(count, 3 bins - 1)`."""
        across, up = self.knots(raw[:, : self.bins]), self.knots(raw[:, self.bins : 2 * self.bins])
        slopes = functional.pad(1e-3 + functional.softplus(raw[:, 2 * self.bins :]), (1, 1), value=1.0)
        index = ((x[:, None] >= (up if inverse else across)).sum(-1, keepdim=True) - 1).clamp(0, self.bins - 1)
        left, width = at(across, index), at(across.diff(), index)
        low, height = at(up, index), at(up.diff(), index)
        start, end = at(slopes, index), at(slopes, index + 1)
        mean, bend = height / width, start + end - 2 * height / width
        if inverse:
            rise = x - low
            a, b = height * (mean - start) + rise * bend, height * start - rise * bend
            part = 2 * mean * rise / (b + (b**2 + 4 * a * mean * rise).sqrt())
        else:
            part = (x - left) / width
        mixed = part * (1 - part)
        below = mean + bend * mixed
        slope = mean**2 * (end * part**2 + 2 * mean * mixed + start * (1 - part) ** 2) / below**2
        value = left + part * width if inverse else low + height * (mean * part**2 + start * mixed) / below
        return value, slope.log()

    def knots(self, raw: Tensor) -> Tensor:
        """Return the ends of the bins, each at least a thousandth of the whole wide."""
        share = 1e-3 + (1 - 1e-3 * self.bins) * raw.softmax(-1)
        ends = functional.pad(share.cumsum(-1), (1, 0))
        return self.bound * (2 * ends - 1)


class Flatten(nn.Module):
    """Make rows of images, or the reverse."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor, *, noise: bool = True) -> tuple[Tensor, Tensor]:
        """Flatten; the contribution is zero."""
        return x.flatten(1), x.new_zeros(len(x))

    def inverse(self, z: Tensor, *, noise: bool = True) -> Tensor:
        """Return the images their shape again."""
        return z.unflatten(1, self.shape)


class Model(nn.Module):
    """Uniform dequantization of pixels `0..255`, the layers, and a standard normal."""

    def __init__(self, layers: list[nn.Module], latents: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.latents = latents

    def forward(self, pixels: Tensor) -> Tensor:
        """Return a bound of the log-probability of each image in nats, by one draw of the noise."""
        x = pixels / 255 + torch.rand(pixels.shape) / 256
        total = torch.full((len(x),), -x[0].numel() * math.log(256))
        for layer in self.layers:
            x, gain = layer(x)
            total = total + gain
        return total - (0.5 * x**2 + HALF_LOG_2_PI).sum(1)

    def sample(self, rows: int, *, noise: bool = True) -> Tensor:
        """Draw images in units of the dequantized pixels."""
        x = torch.randn(rows, self.latents)
        for layer in reversed(self.layers):
            x = layer.inverse(x, noise=noise)
        return x


def model(name: str) -> Model:
    """Build "mlp", "conv1" or "conv2"; the spline also follows the last layer of the convolutional models."""
    if name == "mlp":
        layers = [Flatten(1, SIDE, SIDE)]
        for sizes in pairs(WIDTHS):
            layers += [Linear(*sizes), Spline()]
        return Model(layers[:-1], WIDTHS[-1])
    layers, side = [], SIDE
    for channels, outputs, kernel, stride in CONVOLUTIONS[name]:
        convolution = Convolution(channels, outputs, kernel, stride, side)
        layers += [convolution, Spline()]
        side = convolution.side
    layers.append(Flatten(outputs, side, side))
    for sizes in pairs(TAIL):
        layers += [Linear(*sizes), Spline()]
    return Model(layers, TAIL[-1])


def dense_net(widths: list[int]) -> nn.Sequential:
    """Build a network of linear layers with ReLU between them."""
    return between([nn.Linear(*pair) for pair in pairs(widths)])


def between(layers: list[nn.Module]) -> nn.Sequential:
    """Put ReLU between layers."""
    mixed = [part for layer in layers for part in (layer, nn.ReLU())]
    return nn.Sequential(*mixed[:-1])


def pairs(widths: list[int] | tuple[int, ...]) -> list[tuple[int, int]]:
    """Return neighbours."""
    return list(zip(widths[:-1], widths[1:], strict=True))


def at(values: Tensor, index: Tensor) -> Tensor:
    """Pick one entry of each row."""
    return values.gather(-1, index).squeeze(-1)
