"""Message passing that is strictly autoregressive over the features of nodes, and knows no order of the nodes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.caching import Caching
from likelify.errors import ConfigError
from likelify.nets.conditioners import joined
from likelify.nets.graphs import neighbourhoods_for
from likelify.nets.masked import SMALL
from likelify.shapes import check_size, check_sizes, kept_arguments
from likelify.structure import ContextLike


class AutoregressiveGraphNet(Caching):
    r"""Several outputs for every feature of every node, each of which reads the earlier features of all nodes.

    It is a `MessagePassingNet` with masks: every hidden unit belongs to a feature, reads features before it, and is
    read by units and outputs that may see as much. Outputs of the first feature depend on the graph and the condition
    alone. In the order of features first and nodes second it is strictly autoregressive, so `TriangularResidual` takes
    it for its heads; and since nodes come in no order, that layer is equivariant under their permutations.

    The last `small_heads` outputs start near zero, the others at about one.

    Args:
        features: of each node, `(nodes, features)`.
        hidden: hidden units of each node, at least `features`.
        heads: outputs for every feature.
        rounds: how often messages are sent.
        context_features: of the condition, which is read without a mask.
        small_heads: outputs of each feature, counted from the last, that start near zero.

    Raises:
        ConfigError: for sizes that do not fit.

    Example:
        >>> from likelify import Context, GraphBatch
        >>> net = AutoregressiveGraphNet(2, hidden=8)
        >>> net(torch.randn(5, 2), Context(structure=GraphBatch.complete([2, 3]))).shape
        torch.Size([5, 8])
    """

    extra_repr = kept_arguments

    def __init__(
        self,
        features: int,
        *,
        hidden: int = 64,
        heads: int = 4,
        rounds: int = 1,
        context_features: int = 0,
        small_heads: int = 2,
    ) -> None:
        super().__init__()
        self.features, self.hidden = check_size(features, "features"), check_size(hidden, "hidden")
        self.heads, self.rounds = check_size(heads, "heads"), check_size(rounds, "rounds")
        self.context_features = check_size(context_features, "context_features", least=0)
        check_sizes(least=0, small_heads=small_heads)
        if hidden < features:
            raise ConfigError(
                f"AutoregressiveGraphNet needs a hidden unit for every feature: {features} features, {hidden} units."
            )
        if features > 1:
            # The last feature is read by nobody.
            self.enter = nn.Parameter(math.sqrt(2 / (features - 1)) * torch.randn(hidden, features - 1))
        if context_features:
            self.condition = nn.Parameter(torch.randn(hidden, context_features) / math.sqrt(context_features))
        self.enter_bias = nn.Parameter(torch.randn(hidden))
        # For each round: to and by, twice the inner layer of the update, and its outer layer.
        self.between = nn.ParameterList(torch.randn(5, hidden, hidden) / math.sqrt(hidden) for _ in range(rounds))
        self.between_bias = nn.ParameterList(torch.zeros(3, hidden) for _ in range(rounds))
        leave = torch.randn(heads, features, hidden) / math.sqrt(hidden)
        leave[heads - small_heads :] *= SMALL
        self.leave = nn.Parameter(leave)
        self.leave_bias = nn.Parameter(torch.zeros(heads, features))

    def forward(self, u: Tensor, context: ContextLike = None) -> Tensor:
        """Return `(nodes, heads * features)`: the first output of every feature, then the second, and so on.

        Raises:
            ShapeError: if the input or the condition has another width, or there are no graphs of so many nodes.
            DomainError: if a weight of an edge is negative or not finite.
        """
        near = neighbourhoods_for(self, u, context)
        read = joined(self, (self.features, self.context_features), u, context)
        enter, between, leave = self.cached("weights", self._acting)
        h = self.enter_bias.expand(len(u), -1)
        if enter is not None:
            h = h + F.linear(read[:, : self.features - 1], enter)
        if self.context_features:
            h = h + F.linear(read[:, self.features :], self.condition)
        for (to, by, own, sent, outer), (bias_to, bias_inner, bias_outer) in zip(
            between, self.between_bias, strict=True
        ):
            messages = near.messages(F.linear(h, to, bias_to), F.linear(h, by))
            inner = F.silu(F.linear(h, own, bias_inner) + F.linear(messages, sent))
            h = h + F.linear(inner, outer, bias_outer)
        return F.linear(F.silu(h), leave.flatten(0, 1), self.leave_bias.flatten())

    def _acting(self) -> tuple[Tensor | None, list[Tensor], Tensor]:
        """Return the weights as they act, masked. Masks are no buffers: one not loaded could be wrong without a word.

        Unit `j` may see the features before the one numbered `seen[j]`, from none to all but the last.
        """
        feature = torch.arange(self.features, device=self.leave.device)
        seen = torch.arange(self.hidden, device=self.leave.device) * self.features // self.hidden
        enter = self.enter * (feature[:-1] < seen[:, None]) if self.features > 1 else None
        between = [weight * (seen <= seen[:, None]) for weight in self.between]
        return enter, between, self.leave * (seen <= feature[:, None])
