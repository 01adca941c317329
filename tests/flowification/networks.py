"""Ordinary networks as people write them, with their usual widths as defaults and small ones for tests.

Nothing here knows of likelify. `settle` gives batch normalization statistics and weights that are not those of a fresh
network, so that a conversion that forgets them is found out.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn


def mlp(sizes=(784, 256, 64, 10), slope=0.1):
    """Flattened images, LeakyReLU between linear layers."""
    layers = [nn.Flatten()]
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(before, after), nn.LeakyReLU(slope)]
    return nn.Sequential(*layers[:-1])


class LeNet(nn.Module):
    """Convolutions of kernel 5, pooling, linear layers; with functional calls in `forward`."""

    def __init__(self, side=28, channels=1, widths=(6, 16), hidden=(120, 84), classes=10, pool="max"):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 5)
        self.conv2 = nn.Conv2d(widths[0], widths[1], 5)
        left = ((side - 4) // 2 - 4) // 2
        self.fc1 = nn.Linear(widths[1] * left * left, hidden[0])
        self.fc2 = nn.Linear(hidden[0], hidden[1])
        self.fc3 = nn.Linear(hidden[1], classes)
        self.pool = F.max_pool2d if pool == "max" else F.avg_pool2d

    def forward(self, x):
        x = self.pool(F.leaky_relu(self.conv1(x), 0.1), 2)
        x = self.pool(F.leaky_relu(self.conv2(x), 0.1), 2)
        x = x.view(x.size(0), -1)
        x = F.leaky_relu(self.fc1(x), 0.1)
        x = F.leaky_relu(self.fc2(x), 0.1)
        return self.fc3(F.dropout(x, 0.2, training=self.training))


def all_convolutional(channels=3, widths=(96, 192, 192), classes=10):
    """No pooling: every reduction is a convolution of stride 2, and the end an average over positions."""
    layers = []
    for before, after in zip((channels, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.LeakyReLU(0.1)]
        layers += [nn.Conv2d(after, after, 3, stride=2, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, before, after, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.act = nn.LeakyReLU(0.1, inplace=True)
        self.shortcut = None
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        y = self.act(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.shortcut is None else self.shortcut(x)
        return self.act(y)


class ResNet(nn.Module):
    """ResNet-18 for images of 32x32, with LeakyReLU in place of ReLU."""

    def __init__(self, channels=3, widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2), classes=10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]))
        self.act = nn.LeakyReLU(0.1)
        layers, before = [], widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for i in range(count):
                layers.append(BasicBlock(before, width, stride=2 if i == 0 and stage > 0 else 1))
                before = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(before, classes)

    def forward(self, x):
        x = self.layers(self.act(self.stem(x)))
        x = F.adaptive_avg_pool2d(x, 1)
        return self.head(torch.flatten(x, 1))


class UNet(nn.Module):
    """An autoencoder with connections from the encoder to the decoder: concatenation, transposed convolutions."""

    def __init__(self, channels=3, widths=(32, 64, 128)):
        super().__init__()
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in zip(widths, widths[1:], strict=False))
        self.merge = nn.ModuleList(nn.Conv2d(2 * a, a, 3, padding=1) for a in widths[:-1])
        self.leave = nn.Conv2d(widths[0], channels, 1)

    def forward(self, x):
        x = F.leaky_relu(self.enter(x), 0.1)
        skips = []
        for down in self.down:
            skips.append(x)
            x = F.leaky_relu(down(x), 0.1)
        for up, merge, skip in reversed(list(zip(self.up, self.merge, skips, strict=True))):
            x = F.leaky_relu(merge(torch.cat([skip, up(x)], dim=1)), 0.1)
        return self.leave(x)


class Upsampler(nn.Module):
    """Average pooling, nearest upsampling, and a sum over two resolutions."""

    def __init__(self, channels=3, width=16):
        super().__init__()
        self.fine = nn.Conv2d(channels, width, 3, padding=1)
        self.coarse = nn.Conv2d(channels, width, 1)
        self.leave = nn.Conv2d(width, channels, 1)

    def forward(self, x):
        coarse = F.interpolate(self.coarse(F.avg_pool2d(x, 2)), scale_factor=2, mode="nearest")
        return self.leave(self.fine(x) + coarse)


class Mixer(nn.Module):
    """Linear layers over positions and over channels in turn, with trained shifts and scales: no convolution."""

    def __init__(self, tokens=16, features=8):
        super().__init__()
        self.position = nn.Parameter(0.1 * torch.randn(tokens, features))
        self.scale = nn.Parameter(1 + 0.1 * torch.randn(features))
        self.over_tokens = nn.Linear(tokens, tokens)
        self.over_features = nn.Linear(features, features)

    def forward(self, x):
        x = (x + self.position) * self.scale
        x = x + F.leaky_relu(self.over_tokens(x.transpose(1, 2)), 0.2).transpose(1, 2)
        a, b = x.chunk(2, dim=1)
        x = torch.cat([2 * a - 1, -b / 4], dim=1)
        return self.over_features(x).permute(0, 2, 1).reshape(x.shape[0], -1)


def settle(module, seed=0):
    """Draw statistics of batch normalization, and scales of either sign, as training might leave them."""
    generator = torch.Generator().manual_seed(seed)

    def draw(like, low, high):
        return (low + (high - low) * torch.rand(like.shape, generator=generator)).to(like)

    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.copy_(draw(part.running_mean, -0.5, 0.5))
            part.running_var.copy_(draw(part.running_var, 0.5, 2.0))
            with torch.no_grad():
                part.weight.copy_(draw(part.weight, 0.5, 1.5))
                part.weight[0] *= -1
                part.bias.copy_(draw(part.bias, -0.5, 0.5))
    return module


# name -> (a small network, an event shape)
SMALL = {
    "mlp": (lambda: mlp((12, 16, 8, 3)), (3, 2, 2)),
    "lenet-max": (lambda: LeNet(16, widths=(2, 3), hidden=(8, 6), classes=3), (1, 16, 16)),
    "lenet-average": (lambda: LeNet(16, widths=(2, 3), hidden=(8, 6), classes=3, pool="average"), (1, 16, 16)),
    "all-convolutional": (lambda: all_convolutional(2, (3, 4), 2), (2, 8, 8)),
    "resnet": (lambda: settle(ResNet(3, (4, 5, 6, 7), (1, 2, 1, 1), 5)), (3, 16, 16)),
    "unet": (lambda: UNet(2, (3, 4, 5)), (2, 8, 8)),
    "upsampler": (lambda: Upsampler(2, 3), (2, 4, 4)),
    "mixer": (lambda: Mixer(4, 6), (4, 6)),
}


class Residual(nn.Module):
    """`x` plus a network of it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Halves(nn.Module):
    """A weighted sum of channels."""

    def forward(self, x):
        a, b = x[:, :1], x[:, 1:]
        return a + b[:, :1] * 0.5


def made(name):
    """Return a small network of that name, and an input."""
    make, shape = SMALL[name]
    return make(), torch.randn(3, *shape)


def evaluated(net, x):
    """Return what a copy of the network gives in evaluation."""
    with torch.no_grad():
        return copy.deepcopy(net).eval()(x)
