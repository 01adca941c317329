"""Networks that read what is kept and describe what was dropped: the networks of conditional densities."""

from collections.abc import Callable

from torch import Tensor, nn

from likelify.calling import call_net
from likelify.errors import ConfigError, ShapeError
from likelify.linalg.conv import check_odd
from likelify.nets.conditioners import MLP, JoinedNet, zeroed
from likelify.shapes import check_sizes, per_axis
from likelify.structure import ContextLike, join_condition
from likelify.tracing import raised

# Called with the channels of the input and of the output; returns a module from (rows, in, ...) to (rows, out, ...).
NetFactory = Callable[[int, int], nn.Module]

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def density_net(
    in_channels: int, out_channels: int, dims: int, *, hidden: int = 64, kernel_size: int = 3, context_features: int = 0
) -> nn.Module:
    """Build the usual network of a conditional density; it gives zeros before training.

    For vectors it has one hidden layer; for positions along 1 to 3 axes it is a convolution, a nonlinearity and a 1x1
    convolution, which costs little beside the layer it serves.

    Args:
        in_channels: of what is kept.
        out_channels: of the output, two for each dropped element in `ConditionalNormal`.
        dims: number of axes behind the channels, 0 to 3.
        hidden: width.
        kernel_size: of the first convolution, odd.
        context_features: of the condition, which the layer that calls the network joins to what is kept.
    """
    check_sizes(in_channels=in_channels, out_channels=out_channels, hidden=hidden)
    check_sizes(least=0, dims=dims, context_features=context_features)
    if dims == 0:
        return MLP(in_channels, out_channels, (hidden,), context_features=context_features)
    if dims not in CONVOLUTIONS:
        raise ConfigError(f"density_net knows vectors and 1 to 3 position axes, not {dims}.")
    check_odd(per_axis(kernel_size, dims, "kernel_size"))
    convolution = CONVOLUTIONS[dims]
    return JoinedNet(
        convolution(in_channels + context_features, hidden, kernel_size, padding=kernel_size // 2),
        nn.SiLU(),
        zeroed(convolution(hidden, out_channels, 1)),
        context_features=context_features,
    )


def density_nets(dims: int, *, hidden: int = 64, kernel_size: int = 3, context_features: int = 0) -> NetFactory:
    """Return a factory of networks, `density_net` with these settings."""
    check_sizes(hidden=hidden, kernel_size=kernel_size)
    check_sizes(least=0, dims=dims, context_features=context_features)
    settings = {"hidden": hidden, "kernel_size": kernel_size, "context_features": context_features}
    return lambda size_in, size_out: density_net(size_in, size_out, dims, **settings)


def read_net(net: nn.Module, x: Tensor, context: ContextLike, channels: int) -> Tensor:
    """Return what a network of a density says of `x`, joined by the condition: `(rows, channels, *positions)`.

    Raises:
        ShapeError: if it gives another shape.
    """
    found = raised(call_net(net, join_condition(x, context), owner="this layer"))
    wanted = (len(x), channels, *x.shape[2:])
    if tuple(found.shape) != wanted:
        raise ShapeError(f"The network gave {tuple(found.shape)} for an input {tuple(x.shape)}; {wanted} is needed.")
    return found
