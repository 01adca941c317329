"""A distribution of ordered sets: each node given those before it, as a mixture of normal distributions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from likelify.distributions.core import Distribution, check_values, with_channels
from likelify.distributions.normal import LOG_SQRT_2PI, limit_log_scale
from likelify.errors import ShapeError
from likelify.shapes import Shape, as_shape, check_size
from likelify.structure import Context, ContextLike, GraphBatch, as_context, sum_items
from likelify.support import LINE, check_sample
from likelify.tracing import in_full_precision, raised


class AutoregressiveSet(Distribution):
    r"""`log p(x) = sum_i log p(x_i | x_1 .. x_{i-1}, n)` for the nodes of a graph in the order in which they come.

    Each conditional is a mixture of normal distributions whose weights, means and triangular scales a network reads off
    the nodes before. Behind `transforms.NodeOrder` it is a density of sets.

    Args:
        event_shape: features of a node, `(d,)`.
        net: called as `net(x, context)`; returns for each node `AutoregressiveSet.size(d, components)` numbers, made of
            the nodes before it alone, such as `nets.CausalSetNet`.
        components: of each mixture.

    Raises:
        ShapeError: if the network returns another number, or without graphs.

    Example:
        >>> from likelify import Context, GraphBatch, nets
        >>> net = nets.CausalSetNet(2, AutoregressiveSet.size(2, 3), width=8)
        >>> sets = AutoregressiveSet((2,), net, components=3)
        >>> graphs = Context(structure=GraphBatch.complete([3, 2]))
        >>> sets.log_prob(sets.sample((), graphs), graphs).shape
        torch.Size([2])
    """

    support = LINE
    places: Tensor
    diagonal: Tensor

    def __init__(self, event_shape: int | Shape, net: nn.Module, *, components: int = 16) -> None:
        super().__init__()
        self.event_shape: Shape = with_channels(event_shape, "AutoregressiveSet")  # pyright: ignore[reportIncompatibleVariableOverride]
        if len(self.event_shape) != 1:
            raise ShapeError(f"AutoregressiveSet is of nodes with features (d,), not {self.event_shape}.")
        self.components = check_size(components, "components")
        self.net = net
        features = self.event_shape[0]
        self.spread = nn.Parameter(torch.randn(self.components, features))
        # Where in a matrix the numbers go that are below its diagonal.
        places = torch.eye(features * features)[torch.ones(features, features).tril(-1).flatten().bool()]
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("diagonal", torch.eye(features).flatten(), persistent=False)

    @staticmethod
    def size(features: int, components: int) -> int:
        """Return how many numbers the network gives for each node."""
        return components * (1 + 2 * features + features * (features - 1) // 2)

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of each graph, its nodes as they are ordered, in nats."""
        check_values(x, self.event_shape, "AutoregressiveSet")
        context = self._with_graphs(context)
        return sum_items(in_full_precision(self._log_probs, x, self._raw(x, context)), context)

    def initialize(self, x: Tensor, context: ContextLike = None) -> None:
        """Begin with means at nodes of the sample.

        Raises:
            DomainError: if it holds values that are not finite.
        """
        if len(x):
            check_sample(x, self)
            with torch.no_grad():
                self.spread.copy_(x[torch.randint(len(x), (self.components,), device=x.device)])

    def sample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw the nodes of each graph of the context one after the other; its temperature multiplies deviations."""
        context, shape = self._with_graphs(context), as_shape(shape)
        with torch.no_grad():
            draws = [self._draw(context) for _ in range(math.prod(shape))]
        rows = len(context.structure.owner) if context.structure is not None else 0
        whole = (*shape, rows, *self.event_shape)
        return torch.stack(draws).reshape(whole) if draws else self.spread.new_zeros(whole)

    def sample_and_log_prob(self, shape: int | Shape = (), context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw, and return the log-density of what was drawn; gradients reach the density alone."""
        context, shape = self._with_graphs(context), as_shape(shape)
        x = self.sample(shape, context)
        flat = x.reshape(math.prod(shape), *x.shape[len(shape) :])
        log_prob = [self.log_prob(draw, context) for draw in flat]
        items = len(context.structure) if context.structure is not None else 0
        return x, torch.stack(log_prob).reshape(*shape, items) if log_prob else x.new_zeros(*shape, items)

    def _draw(self, context: Context) -> Tensor:
        graphs: GraphBatch = context.structure  # pyright: ignore[reportAssignmentType]
        x = self.spread.new_zeros(len(graphs.owner), *self.event_shape)
        first = graphs.sizes.cumsum(0) - graphs.sizes
        for place in range(int(graphs.sizes.max()) if len(graphs) else 0):
            rows = (first + place)[graphs.sizes > place]
            weight, mean, log_scale, below = self._mixture(self._raw(x, context)[rows])
            chosen = torch.multinomial(weight.softmax(-1), 1)
            take = chosen[..., None].expand(-1, -1, mean.shape[-1])
            noise = context.temperature * torch.randn_like(mean[:, 0])
            units = self._units(below[torch.arange(len(rows)), chosen[:, 0]])
            gap = torch.linalg.solve_triangular(units, noise[..., None], upper=False, unitriangular=True)[..., 0]
            x[rows] = mean.gather(1, take)[:, 0] + gap * log_scale.gather(1, take)[:, 0].exp()
        return x

    def _log_probs(self, x: Tensor, raw: Tensor) -> Tensor:
        """Return the log-density of each node given those before it, `(nodes,)`."""
        weight, mean, log_scale, below = self._mixture(raw)
        gap = (x[:, None] - mean) * (-log_scale).exp()
        noise = gap if x.shape[1] == 1 else (self._units(below) @ gap[..., None])[..., 0]
        log_normal = (-0.5 * noise.square() - log_scale - LOG_SQRT_2PI).sum(-1)
        return torch.logsumexp(weight.log_softmax(-1) + log_normal, -1)

    def _mixture(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits `(nodes, components)`, means, log scales, and what is below the diagonal."""
        features = self.event_shape[0]
        weight, mean, log_scale, below = raw.unflatten(-1, (self.components, -1)).split(
            [1, features, features, len(self.places)], -1
        )
        return weight[..., 0], self.spread + mean, limit_log_scale(log_scale, 5), below

    def _units(self, below: Tensor) -> Tensor:
        """Return the triangular matrices of unit diagonal that turn what is in units of the scales into noise."""
        features = self.event_shape[0]
        return in_full_precision(lambda values: values @ self.places + self.diagonal, below).unflatten(
            -1, (features, features)
        )

    def _raw(self, x: Tensor, context: Context) -> Tensor:
        raw = raised(self.net(x, context))
        expected = (len(x), self.size(self.event_shape[0], self.components))
        if raw.shape != expected:
            raise ShapeError(f"The network of AutoregressiveSet returned {tuple(raw.shape)}, {expected} are needed.")
        return raw

    def _with_graphs(self, context: ContextLike) -> Context:
        found = as_context(context)
        if found.structure is None:
            raise ShapeError(
                "AutoregressiveSet is of the nodes of graphs: give Context(structure=GraphBatch.complete(sizes))."
            )
        return found
