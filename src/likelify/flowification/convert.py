"""`flowify`: an ordinary network in, a layer with a likelihood out."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from likelify.errors import UnsupportedError
from likelify.flowification import rules_activation as _activation  # noqa: F401 - rules register themselves
from likelify.flowification import rules_linear as _linear  # noqa: F401
from likelify.flowification import rules_pooling as _pooling  # noqa: F401
from likelify.flowification import rules_shape as _shape  # noqa: F401
from likelify.flowification.build import LayerBuilder, mean_parameters
from likelify.flowification.graph import Graph
from likelify.flowification.options import Options
from likelify.flowification.reduction import Series, reduce
from likelify.flowification.refusals import REASONS, NotConvertibleError, Refusals, reason
from likelify.flowification.report import Conversion, fingerprint, with_contractions
from likelify.flowification.rules import module_rule, rule
from likelify.flowification.trace import trace
from likelify.flowification.verify import check_equal, check_uses
from likelify.transforms.core import Chain, Transform

# `rule` is reached through this module, so that a user's rule comes after those of the library and replaces them.
__all__ = ["Flowified", "convert", "flowify", "rule"]


class Flowified(Chain):
    """The layers of a converted network, in its order.

    Attributes:
        conversion: the record of what became of each part; `print(flow.conversion)` shows a table.
    """

    def __init__(self, transforms: list[Transform], conversion: Conversion, example: Tensor) -> None:
        super().__init__(transforms)
        self.conversion = conversion
        self._example = example[:1]

    def network_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that `mean_forward` depends on, the weights of the network."""
        return mean_parameters(self, self._example.to(next(self.parameters(), self._example)))

    def density_parameters(self) -> list[nn.Parameter]:
        """Return all others: of the densities of what the network forgets, and of the noise where it widens.

        To train these alone, so that the network stays as it is: `layer.requires_grad_(False)`, and then
        `parameter.requires_grad_()` for each of them.
        """
        network = set(map(id, self.network_parameters()))
        return [parameter for parameter in self.parameters() if id(parameter) not in network]


def flowify(module: nn.Module, example: Tensor, **options: Any) -> Flowified:
    """Turn an ordinary network into a layer with a likelihood; data to latent is the network's own `forward`.

    The noise-free path, `mean_forward`, computes what the network computes in evaluation, with copies of its weights;
    the network itself is left alone. Wherever the network forgets something, a density of it given the result is added;
    wherever it widens, noise. So `Flow(Normal(out_shape), flowify(net, example))` is a density of the network's inputs,
    and everything in it can be trained, parameters that were frozen in the network too; `network_parameters` and
    `density_parameters` of the result tell which are which.

    The network is traced (`torch.fx`), each construct is converted by a rule (`flowification.rule` adds more), and
    branches are reduced to sums and concatenations of parallel layers. What it cannot convert, it refuses in one error
    that lists all of it, with a remedy for each.

    Args:
        module: with one tensor in, rows in front, and one out; rows must not see each other. It is used in evaluation
            mode: batch normalization by its running statistics, no dropout.
        example: an input such as `torch.randn(2, 3, 32, 32)`, of the type and the event shape that the flow will work
            on. The result is compared with the network on it.
        **options: of the conversion, see `likelify.flowification.Options`: `method`, `relu`, `noise`, `residual`,
            `log_det`, `shared`, `learned_noise`, `hidden`, `density_nets`.

    Returns:
        A `Chain` with a `conversion` that says what became of each layer.

    Raises:
        UnsupportedError: listing everything that stands in the way.
        ConfigError: for unknown options or values.

    Source:
        Mate et al. 2022, Flowification: Everything is a Normalizing Flow; Nielsen et al. 2020 (SurVAE flows).

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(0.1), nn.Linear(3, 2))
        >>> x = torch.randn(5, 4)
        >>> layer = flowify(net, x)
        >>> layer.likelihood, torch.allclose(layer.mean_forward(x), net(x), atol=1e-5)
        ('exact', True)
    """
    return convert(module, example, Options.parse(options))


def convert(
    module: nn.Module, example: Tensor, options: Options, *, repeated: tuple[bool, ...] = (), check: bool = True
) -> Flowified:
    """Convert a network as `flowify` does, or as an earlier conversion has done.

    Args:
        module: as for `flowify`.
        example: as for `flowify`.
        options: of the conversion.
        repeated: the `contractions` of an earlier conversion, which are to be made again; none to see what can be made.
        check: compare the result with the network.

    Raises:
        UnsupportedError: listing everything that stands in the way.
    """
    name = type(module).__name__
    refusals = Refusals()
    graph = trace(module, example, refusals)
    if graph is None:
        _look_at_parts(module, refusals)
        refusals.raise_if_any(name)
        raise UnsupportedError(f"flowify found nothing to convert in this {name}.")
    text = fingerprint(graph, options)
    unused = check_uses(graph, options, refusals)
    builder = LayerBuilder(options, refusals, example.dtype, repeated=repeated)
    series: Series = []
    try:
        series = reduce(graph)
    except NotConvertibleError as error:
        refusals.add("graph", str(error))
    builder.find_contractions(series)
    builder.try_all(graph)
    builder.check_ranges(series)
    refusals.raise_if_any(name)
    flowified = _finished(graph, builder, series, text, unused, name)
    if check:
        check_equal(flowified, graph, name)
    return flowified.to(example)


def _finished(
    graph: Graph, builder: LayerBuilder, series: Series, text: str, unused: tuple[str, ...], name: str
) -> Flowified:
    layers = builder.series(series)
    if not layers:
        raise UnsupportedError(f"This {name} does nothing to its input, so there is nothing to make a flow of.")
    chain = Chain(layers)
    conversion = Conversion(
        layers=tuple(builder.layers),
        in_shape=graph.nodes[0].shape,
        out_shape=graph.nodes[-1].shape,
        likelihood=chain.likelihood,
        latent_range=builder.latent_range,
        fingerprint=with_contractions(text, tuple(builder.contracted)),
        options=builder.options,
        contractions=tuple(builder.contracted),
        unused=unused,
        freed=tuple(node.name for node in graph.nodes if node.frees),
    )
    return Flowified(layers, conversion, graph.batches[0][0]).to(graph.batches[0][0])


def _look_at_parts(module: nn.Module, refusals: Refusals) -> None:
    """Without a graph, say at least which modules would be refused by their class."""
    refused = tuple(prefix for prefixes, _ in REASONS for prefix in prefixes)
    for name, part in module.named_modules():
        kind = type(part)
        known = getattr(nn, kind.__name__, None) is kind
        if known and kind.__name__.startswith(refused) and module_rule(part) is None:
            refusals.add(f"{name} ({kind.__name__})", reason(part, 1))
