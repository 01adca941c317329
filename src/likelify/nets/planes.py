"""The network that reads some planes of an image and gives parameters for the elements of the next one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.errors import ConfigError, ShapeError
from likelify.linalg.bounds import widest
from likelify.nets.conditioners import CONV_FORMAT, zeroed
from likelify.shapes import check_size
from likelify.structure import ContextLike, as_context

Place = tuple[int, int]
# The four neighbours of a pixel of each plane: their planes, and where they are in a 3x3 window around its own place.
NEIGHBOURS: dict[Place, tuple[tuple[Place, int, int], ...]] = {
    (1, 1): (((0, 0), 1, 1), ((0, 0), 1, 2), ((0, 0), 2, 1), ((0, 0), 2, 2)),
    (0, 1): (((0, 0), 1, 1), ((0, 0), 1, 2), ((1, 1), 0, 1), ((1, 1), 1, 1)),
    (1, 0): (((0, 0), 1, 1), ((0, 0), 2, 1), ((1, 1), 1, 0), ((1, 1), 1, 1)),
}
# How the differences from neighbours are scaled that the network reads as asinh(DETAIL difference).
DETAIL = 16.0
# Log-odds of the spikes at both ends of the levels before training.
SPIKE = -5.0

# Penalty on weights fitted by least squares, for each value, on the scale on which levels fill (-1, 1).
RIDGE = 1e-5


def detail(difference: Tensor) -> Tensor:
    """Return differences on a scale that is linear for small ones and logarithmic for large ones."""
    return torch.asinh(DETAIL * difference)


def around(values: Tensor) -> Tensor:
    """Return planes `(..., height, width)` with their outermost elements once more all around."""
    return F.pad(values, (1, 1, 1, 1), mode="replicate")


def surrounding(values: Tensor) -> Tensor:
    """Return the mean of the four neighbours of each element of planes `(..., height, width)`."""
    wide = around(values)
    vertical, horizontal = wide[..., 1:-1], wide[..., 1:-1, :]
    return (vertical[..., :-2, :] + vertical[..., 2:, :] + horizontal[..., :-2] + horizontal[..., 2:]) / 4


def predicted(padded: Sequence[Tensor], places: Sequence[Place], place: Place) -> Tensor:
    """Return the mean of the neighbours of each element of a plane, from planes that `around` has made larger.

    Args:
        padded: the known planes.
        places: their places.
        place: of the plane that is written.
    """
    windows = dict(zip(places, padded, strict=True))
    found = [
        windows[source][..., row : row - 2 or None, column : column - 2 or None]
        for source, row, column in NEIGHBOURS[place]
        if source in windows
    ]
    return torch.stack(found).mean(0)


class PlaneNet(nn.Module):
    r"""Read planes of an image, and give parameters of a distribution for each element of the next plane.

    A trunk of 3x3 convolutions reads the known planes and their details. Each channel has a head on it, which also
    reads the details of the channels before it in the plane that is written; so its parameters may be found for all
    channels at once where the plane is known, and for one after the other where it is drawn.

    A network may serve several levels of a pyramid. Trunk and heads are then the same on all, and each level has of its
    own what it starts from: predictions, links, the distributions where the heads say nothing, and a shift of what the
    trunk reads.

    Args:
        channels: of the images.
        known: places of the planes that are read; none for the single pixel at the top, where nothing is known.
        place: of the plane that is written.
        parameters: of a distribution of one element; the last ones of its log-odds are those of two spikes.
        width: channels of the trunk.
        blocks: residual blocks of it.
        head: hidden units of the head of a channel.
        link: share of the deviation of the channel before that each channel follows at the start.
        context_features: of a condition `(rows, context_features)`.
        levels: number of levels that it serves.
        positions: heights and widths of the plane on each of them if the network is to know where it is, for images
            that are aligned.

    Raises:
        ConfigError: unless there are as many sizes as levels.
    """

    def __init__(
        self,
        channels: int,
        known: Sequence[Place],
        place: Place,
        parameters: int,
        *,
        width: int = 48,
        blocks: int = 2,
        head: int = 32,
        link: float = 1.0,
        context_features: int = 0,
        levels: int = 1,
        positions: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        super().__init__()
        self.levels = check_size(levels, "levels")
        self.is_aligned = positions is not None
        self.positions = _positions(positions, levels)
        self.channels, self.known, self.place = check_size(channels, "channels"), tuple(known), place
        self.context_features = check_size(context_features, "context_features", least=0)
        planes = len(self.known)
        if planes:
            self.enter = nn.Conv2d(2 * planes * channels, width, 3)
            # The offsets of the distributions have biases already.
            predictions = (zeroed(nn.Conv2d(planes * channels, channels, 3, bias=False)) for _ in range(levels))
            self.predict = nn.ModuleList(predictions)
        # Of a single level a shift that is the same everywhere would be the bias of `enter`.
        started = positions is not None or levels > 1 or not planes
        self.start = nn.Parameter(torch.zeros(width, sum(map(math.prod, self.positions)))) if started else None
        self.told = nn.Linear(context_features, width, bias=False) if context_features else None
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.heads = _Heads(channels, width, head, parameters, levels)
        self.links = nn.Parameter((link * torch.diag(torch.ones(channels - 1), -1)).repeat(levels, 1, 1))
        self.to(memory_format=CONV_FORMAT)  # pyright: ignore[reportCallIssue]

    def forward(
        self, read: Tensor, size: tuple[int, int], context: ContextLike = None, level: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return features of each place, `(rows height width, width)`, and sums of windows, see `moved`.

        Args:
            read: known planes, then their details, one element larger on each side; `(rows, 0, ...)` for none.
            size: height and width of the planes.
            context: of the call.
            level: which of those that the network serves.

        Raises:
            ShapeError: if there is no condition `(rows, context_features)`, and the network has been built for one.
        """
        rows, height, width = len(read), *size
        if self.known:
            features = self.enter(read)
            change = self.predict[level](read[:, : len(self.known) * self.channels])
        else:
            features = read.new_zeros(1, 1, 1, 1)
            change = read.new_zeros(rows, self.channels, height, width)
        if self.start is not None:
            sizes = [math.prod(each) for each in self.positions]
            features = features + self.start.split(sizes, 1)[level].unflatten(1, self.positions[level])
        if self.told is not None:
            features = features + self.told(self._condition(context, rows))[:, :, None, None]
        for block in self.blocks:
            features = block(features)
        features = F.silu(features).expand(rows, -1, height, width)
        return features.permute(0, 2, 3, 1).flatten(0, 2), change

    def _condition(self, context: ContextLike, rows: int) -> Tensor:
        found = as_context(context).condition
        if found is None or found.shape != (rows, self.context_features):
            got = "none" if found is None else f"one of shape {tuple(found.shape)}"
            raise ShapeError(
                f"Planes of {rows} images are read under a condition of shape ({rows}, {self.context_features}), and "
                f"there is {got}. Labels enter as one-hot rows, or as integers through a Flow whose encoder is "
                "nets.OneHot(classes)."
            )
        return found

    def moved(self, near: Tensor, sums: Tensor, level: int = 0) -> Tensor:
        """Return predictions, `(channels, n)`: the means of the neighbours, moved by what is around them.

        Weights are of differences from these means. The sums over windows of known planes lack them, and so what all
        weights of a window make of the means is taken off here. (A prediction by the elements themselves would be moved
        by the least change of its weights, all of one sign, by a large part of all levels.)

        Args:
            near: means of the neighbours, `(channels, n)`.
            sums: as `forward` gives them, `(channels, n)`.
            level: which of those that the network serves.
        """
        weight = self._weight(level).unflatten(1, (len(self.known), self.channels)).sum((1, 3, 4))
        return near + sums - weight @ near

    def _weight(self, level: int) -> Tensor:
        return self.predict[level].weight  # pyright: ignore[reportReturnType]

    @torch.no_grad()
    def fit(self, read: Tensor, near: Tensor, target: Tensor, level: int = 0) -> Tensor:
        """Fit predictions and links to a sample by least squares; return what they leave, `(channels, n)`.

        Args:
            read: the known planes, one element larger on each side; of none for the top.
            near: means of the neighbours, `(rows, channels, height, width)`.
            target: the plane itself, `(rows, channels, height, width)`.
            level: which of those that the network serves.
        """
        left = (target - near).transpose(0, 1).flatten(1)
        if self.known:
            windows = F.unfold(read, 3).unflatten(1, (len(self.known), self.channels, 9))
            seen = (windows - near.flatten(2)[:, None, :, None]).flatten(1, 3).transpose(0, 1).flatten(1)
            weight = _regression(seen, left)
            kernel = self._weight(level)
            kernel.copy_(weight.view_as(kernel))
            left = left - weight @ seen
        deviation = left
        for channel in range(1, self.channels):
            share = _regression(deviation[:channel], deviation[channel : channel + 1])
            self.links[level, channel, :channel] = share[0]
            left = torch.cat(
                [left[:channel], deviation[channel : channel + 1] - share @ deviation[:channel], left[channel + 1 :]]
            )
        return left

    def centres(self, prediction: Tensor, deviation: Tensor, level: int = 0) -> Tensor:
        """Return what each channel is predicted to be given the channels before it, `(channels, n)`.

        Args:
            prediction: `(channels, n)`.
            deviation: how far the elements are from that, `(channels, n)`; of a channel's own and later ones unread.
            level: which of those that the network serves.
        """
        return prediction + self.links[level].tril(-1) @ deviation


def _positions(sizes: Sequence[tuple[int, int]] | None, levels: int) -> list[tuple[int, int]]:
    found = [(1, 1)] * levels if sizes is None else list(sizes)
    if len(found) != levels:
        raise ConfigError(f"A network for {levels} levels needs the size of its plane on each, got {len(found)} sizes.")
    return found


def _regression(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return the weights `(outputs, inputs)` of a linear map between rows of values, small where they say little."""
    wide, values = widest(inputs), widest(outputs)
    gram = wide @ wide.mT
    ridge = RIDGE * wide.shape[1] * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge, wide @ values.mT).mT.to(outputs.dtype)


class _Block(nn.Module):
    """A residual block: 3x3, then 1x1 that starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = zeroed(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class _Heads(nn.Module):
    """One hidden layer for each channel, which reads the features of a place and what is known of earlier channels."""

    def __init__(self, channels: int, width: int, hidden: int, parameters: int, levels: int) -> None:
        super().__init__()
        self.channels, self.hidden = channels, hidden
        self.features = nn.Linear(width, channels * hidden)
        self.earlier = nn.Parameter(torch.empty(channels, channels, hidden).normal_(std=0.1))
        self.weight = nn.Parameter(torch.zeros(channels, hidden, parameters))
        self.bias = nn.Parameter(torch.zeros(levels, channels, parameters))
        components = (parameters - 2) // 3
        with torch.no_grad():
            self.bias[..., components : components + 2] = SPIKE

    def forward(self, features: Tensor, details: Tensor, level: int) -> Tensor:
        """Return `(channels, n, parameters)` from features `(n, width)` and details `(channels, n)`, on a level.

        Details of a channel's own and of later ones are unread.
        """
        # earlier[i, j]: what channel i tells the head of channel j.
        mask = torch.ones(self.channels, self.channels, device=details.device, dtype=details.dtype).triu(1)[..., None]
        earlier = (self.earlier * mask).flatten(1)
        hidden = F.silu(torch.addmm(self.features(features), details.mT, earlier))
        hidden = hidden.unflatten(1, (self.channels, self.hidden)).transpose(0, 1)
        return torch.baddbmm(self.bias[level].unsqueeze(1), hidden, self.weight)
