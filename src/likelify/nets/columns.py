r"""A masked network of the conditionals of a table: normal distributions for scores, log-odds for states.

Everything is kept with the rows side by side, `(units, rows)`, so that what is done to each of a few columns runs along
many rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.caching import Caching
from likelify.nets.cells import CellLayout
from likelify.nets.conditioners import Dropout
from likelify.schema import ColumnSchema
from likelify.shapes import check_size

# What the mixtures start from: close to one standard normal distribution.
MEANS, LOG_SCALE = 1.2, -0.3
SMALL = 0.1


class Layer(NamedTuple):
    """A masked weight and its bias."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return `weight x + bias`, `(units, rows)`."""
        return torch.addmm(self.bias[:, None], self.weight, x)


class ColumnsNet(Caching):
    r"""For each column of a table, a mixture of normal distributions and log-odds of states, read off those before it.

        h = W_1 x,   h = h + W_l dropout(silu(h)) for each further layer,   outputs = V silu(h)

    Hidden units have degrees: one of degree `m` reads the first `m` columns of the order, and is read by those behind
    them. For the score of a column there are weights, means and log scales of `components` normal distributions.

    Args:
        schema: of the columns of the table.
        order: places of the modelled columns, conditions first; as in the schema if None.
        hidden: units of each hidden layer, at least one for each column but the last.
        layers: hidden layers.
        components: normal distributions for each score.
        dropout: rate, in training steps (see `regularizing.regularized`).

    Source:
        Germain et al. 2015 (masks by degrees); Papamakarios et al. 2017 (mixtures as conditionals).
    """

    def __init__(
        self,
        schema: Sequence[ColumnSchema],
        order: Sequence[int] | None = None,
        *,
        hidden: int = 128,
        layers: int = 2,
        components: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layout = CellLayout(schema, order)
        self.components = check_size(components, "components")
        self.scores = self.layout.scores - self.layout.given_scores
        self.states = self.layout.states - self.layout.given_states
        last = self.layout.width - 1
        hidden = max(check_size(hidden, "hidden"), last) if last else 0
        # In the order of their degrees, so that what some columns need is at the beginning.
        degrees = torch.arange(hidden) * last // max(hidden, 1) + 1
        positions = self.layout.feature_positions
        outputs = self._output_positions()
        self.degrees: list[int] = degrees.tolist()
        masks = [degrees[:, None] > positions[None, :]]
        masks += [degrees[:, None] >= degrees[None, :]] * (check_size(layers, "layers") - 1)
        masks += [outputs[:, None] >= degrees[None, :]]
        self.masks = nn.ModuleList(_Mask(mask) for mask in masks)
        self.weights = nn.ParameterList(_fresh(mask) for mask in masks)
        self.biases = nn.ParameterList(torch.zeros(len(mask)) for mask in masks)
        self.dropout = Dropout(dropout) if dropout else None
        self._start()

    def _output_positions(self) -> Tensor:
        layout, positions = self.layout, self.layout.feature_positions
        scores = positions[layout.given_scores : layout.scores]
        states = positions[layout.scores + layout.given_states :]
        return torch.cat([scores.repeat(3 * self.components), states])

    def _start(self) -> None:
        with torch.no_grad():
            self.weights[-1].mul_(SMALL)
            heads = self.biases[-1][: 3 * self.components * self.scores].view(3, self.components, self.scores)
            spread = MEANS if self.components > 1 else 0.0
            heads[1] = torch.linspace(-spread, spread, self.components)[:, None]
            heads[2] = LOG_SCALE if self.components > 1 else 0.0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is said of all columns but the conditions, in the order of the model.

        Args:
            x: features `(features, rows)`.

        Returns:
            Log-odds, means and log scales of normal distributions `(3, components, scores, rows)`, and the log-odds of
            states `(states, rows)`.
        """
        first, *others, last = self.live()
        h = first(x)
        for layer in others:
            h = h + layer(self._dropped(F.silu(h)))
        return self.heads(last(F.silu(h)), self.scores)

    def live(self) -> list[Layer]:
        """Return the layers, zero where they are masked; kept inside `frozen()`."""
        return self.cached("layers", self._live)

    def _live(self) -> list[Layer]:
        parts = zip(self.weights, self.masks, self.biases, strict=True)
        return [Layer(weight * mask.mask, bias) for weight, mask, bias in parts]

    def _dropped(self, h: Tensor) -> Tensor:
        return h if self.dropout is None else self.dropout(h)

    def heads(self, outputs: Tensor, scores: int) -> tuple[Tensor, Tensor]:
        """Return outputs as parameters of that many scores and as log-odds of states."""
        size = 3 * self.components * scores
        return outputs[:size].view(3, self.components, scores, outputs.shape[1]), outputs[size:]

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"hidden={len(self.degrees)}, layers={len(self.weights) - 1}, components={self.components}"


class Walk:
    """What a network says of one column after the other, every hidden unit computed once.

    Args:
        net: the network.
        rows: how many are walked side by side.
    """

    def __init__(self, net: ColumnsNet, rows: int) -> None:
        self.net = net
        self.layers = net.live()
        like = self.layers[0].weight
        units = len(net.degrees)
        self.units = 0
        # Of each hidden layer, after its activation.
        self.active = [like.new_empty(units, rows) for _ in self.layers[:-1]]
        outputs = net._output_positions().tolist()
        self.outputs = [[i for i, p in enumerate(outputs) if p == place] for place in range(net.layout.width)]

    def step(self, position: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the parameters `(3, components, scores, rows)` and log-odds of the column there in the order.

        Args:
            position: each in turn, from 0.
            x: features, of which those of earlier columns count.
        """
        self._read(position, x)
        layer, chosen = self.layers[-1], self.outputs[position]
        weight = layer.weight[chosen, : self.units]
        found = torch.addmm(layer.bias[chosen, None], weight, self.active[-1][: self.units])
        scored = self.net.layout.columns[self.net.layout.order[position]].continuous is not None
        return self.net.heads(found, int(scored and bool(chosen)))

    def _read(self, position: int, x: Tensor) -> None:
        """Compute the hidden units that read the columns before the position, and had to wait for the last of them."""
        start, end = self.units, sum(degree <= position for degree in self.net.degrees)
        if start == end:
            return
        new = slice(start, end)
        h = torch.addmm(self.layers[0].bias[new, None], self.layers[0].weight[new], x)
        for number, layer in enumerate(self.layers[1:-1]):
            self.active[number][new] = F.silu(h)
            h = h + torch.addmm(layer.bias[new, None], layer.weight[new, :end], self.active[number][:end])
        self.active[-1][new] = F.silu(h)
        self.units = end


class _Mask(nn.Module):
    """A mask that moves with its module, and is no part of its state."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.to(torch.get_default_dtype()), persistent=False)


def _fresh(mask: Tensor) -> Tensor:
    """Return weights of which each unit has as many as it reads, zero elsewhere."""
    fan_in = mask.sum(1, keepdim=True).clamp_min(1)
    return (torch.rand(mask.shape) * 2 - 1) / fan_in.sqrt() * mask
