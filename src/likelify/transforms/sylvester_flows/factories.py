r"""Generalized Sylvester flows, and the planar and original Sylvester flows as special cases of them.

A generalized Sylvester flow is a triangular residual in another basis, `Conjugate(W, TriangularResidual(heads))`. For
a linear `W` this is `z = x + W^-1 f(W x)` with `f` autoregressive (Hoogeboom et al. 2020, equation 9). The factories
below choose the basis and the heads. All can be *amortised*: with `context_features` their parameters depend on the
condition, row by row, as the posteriors of VAEs need it.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from likelify.errors import ConfigError, unknown_word
from likelify.linalg.dense import apply_matrix
from likelify.names import NormBoundName
from likelify.nets.masked import AutoregressiveNet
from likelify.nets.masked_graphs import AutoregressiveGraphNet
from likelify.shapes import check_event, check_size, check_sizes
from likelify.structure import ContextLike
from likelify.transforms.core import Chain, Transform
from likelify.transforms.exponential.layers import conv_exponential, dense_exponential, graph_exponential
from likelify.transforms.exponential.parametrizations import Parametrization
from likelify.transforms.exponential.rotations import rotation
from likelify.transforms.inverted import Conjugate
from likelify.transforms.sylvester_flows.scalar import FreeTanhResidual, TanhResidual
from likelify.transforms.sylvester_flows.triangular import TriangularResidual

# Both diagonals of the original form lie within +-LIMIT, so every slope is at least 1 - LIMIT^2 = 0.0199, also where
# tanh rounds to one.
LIMIT = 0.99
# For planar flows w . u = softplus(raw + UNIT) - LEAST is above -LEAST, and zero at zero.
LEAST = 0.98
UNIT = math.log(math.expm1(LEAST))


class SylvesterHeads(Parametrization):
    r"""The heads of the original Sylvester flow, for a `TriangularResidual` with the `FreeTanhResidual`.

    With them the residual is `f(u) = R_2 tanh(R_1 u + b)` with lower triangular `R_1` and `R_2`: at each element
    `t1` and `t2` are what the strict triangles give, `s1` and `s2` are the diagonals, kept within +-0.99, so that
    `s1 s2 > -1`. Only the first `hidden_units` channels are read and changed. Starts at `R_2 = 0`, the identity.

    Args:
        features: channels of `u`, `(rows, features, *positions)`.
        hidden_units: size `M` of `R_1` and `R_2`, at most `features`.
        context_features: size of the condition; with one, all parameters of a row depend linearly on the condition
            `(rows, context_features)`.

    Source:
        van den Berg et al. 2018, section 3, with the triangles the other way up.
    """

    def __init__(self, features: int, hidden_units: int, *, context_features: int = 0) -> None:
        super().__init__(context_features)
        check_sizes(features=features, hidden_units=hidden_units)
        if hidden_units > features:
            raise ConfigError(f"hidden_units must be from 1 to the {features} features, got {hidden_units}.")
        self.features = features
        self.hidden_units = hidden_units
        self.add("inner", torch.randn(hidden_units, hidden_units) / math.sqrt(hidden_units))
        self.add("outer", torch.zeros(hidden_units, hidden_units))
        self.add("bias", torch.zeros(hidden_units))

    def matrices(self, context: ContextLike = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return `R_1`, `R_2` and `b`: `(M, M)`, `(M, M)`, `(M,)`, or one of each for every row of the condition."""
        inner, outer = (_bounded_triangle(self.value(name, context)) for name in ("inner", "outer"))
        return inner, outer, self.value("bias", context)

    def forward(self, u: Tensor, context: ContextLike = None) -> Tensor:
        """Return `t1, s1, s2, t2` for every channel, `(rows, 4 features, *positions)`."""
        check_event(u.shape[1:], (self.features, ...), type(self).__name__)
        inner, outer, bias = self.matrices(context)
        seen = u[:, : self.hidden_units]
        t1 = apply_matrix(inner.tril(-1), seen) + _along(bias, seen)
        s1, s2 = (_along(triangle.diagonal(dim1=-2, dim2=-1), seen) for triangle in (inner, outer))
        t2 = apply_matrix(outer.tril(-1), torch.tanh(s1 * seen + t1))
        return _padded([t1, s1.expand_as(t1), s2.expand_as(t1), t2], self.features)


class PlanarHeads(Parametrization):
    r"""The heads of a planar flow in a basis whose first vector is `w / |w|`.

    The residual is `f(u)_i = r_i tanh(s u_1 + b)` with `s = |w| > 0`, and `r` is the planar flow's vector `u` in that
    basis. Invertible since `s r_1 = softplus(raw) - 0.98 > -1`, also where softplus rounds to zero. Starts at `r = 0`,
    the identity.

    Args:
        features: channels of `u`, `(rows, features, *positions)`.
        context_features: as in `SylvesterHeads`.

    Source:
        Rezende and Mohamed 2015, section 4.1 and appendix A.1, with the raw value shifted so that zero stays zero.
    """

    def __init__(self, features: int, *, context_features: int = 0) -> None:
        super().__init__(context_features)
        self.features = check_size(features, "features")
        self.add("log_scale", torch.zeros(1))
        self.add("bias", torch.zeros(1))
        self.add("outer", torch.zeros(features))

    def vectors(self, context: ContextLike = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return `s` and `b`, `(1,)`, and `r`, `(features,)`, or one of each for every row of the condition."""
        scale, raw = self.value("log_scale", context).exp(), self.value("outer", context)
        first = (F.softplus(scale * raw[..., :1] + UNIT) - LEAST) / scale
        return scale, self.value("bias", context), torch.cat([first, raw[..., 1:]], -1)

    def forward(self, u: Tensor, context: ContextLike = None) -> Tensor:
        """Return `t1, s1, s2, t2` for every channel, `(rows, 4 features, *positions)`."""
        check_event(u.shape[1:], (self.features, ...), type(self).__name__)
        seen = u[:, :1]
        scale, bias, outer = (_along(vector, seen) for vector in self.vectors(context))
        t2 = outer[:, 1:] * torch.tanh(scale * seen + bias)
        first = _padded([part.expand_as(seen) for part in (bias, scale, outer[:, :1])], self.features)
        return torch.cat([first, torch.zeros_like(seen), t2], 1)


def _bounded_triangle(raw: Tensor) -> Tensor:
    diagonal = LIMIT * torch.tanh(raw.diagonal(dim1=-2, dim2=-1))
    return raw.tril(-1) + torch.diag_embed(diagonal)


def _along(vector: Tensor, like: Tensor) -> Tensor:
    """Return `(n,)` or `(rows, n)` as `(1 or rows, n, 1, ...)` with as many axes as `like`."""
    vector = vector if vector.ndim == 2 else vector[None]
    return vector[(...,) + (None,) * (like.ndim - 2)]


def _padded(parts: list[Tensor], size: int) -> Tensor:
    """Fill axis 1 of each part with zeros up to a size, and put the parts together along it."""
    missing = size - parts[0].shape[1]
    if not missing:
        return torch.cat(parts, 1)
    rest = parts[0].new_zeros(parts[0].shape[0], missing, *parts[0].shape[2:])
    return torch.cat([piece for part in parts for piece in (part, rest)], 1)


def planar(features: int, *, context_features: int = 0) -> Conjugate:
    r"""Build a planar flow, `z = x + u tanh(w . x + b)`, as a generalized Sylvester flow.

    The basis is one Householder reflection, which turns `w` to the first axis. `log |det| = log(1 + u . w tanh')`.

    Args:
        features: of the vectors `(rows, features)`, or the channels of `(rows, features, *positions)`.
        context_features: size of the condition; with one, `u`, `w` and `b` of each row depend linearly on the condition
            `(rows, context_features)` given as context.

    Source:
        Rezende and Mohamed 2015; as a special case: Hoogeboom et al. 2020, theorem 3.

    Example:
        >>> z, log_det = planar(3)(torch.randn(5, 3))
        >>> z.shape, log_det.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """
    basis = rotation(features, method="householder", reflections=1, context_features=context_features)
    heads = PlanarHeads(features, context_features=context_features)
    return Conjugate(basis, TriangularResidual(heads, FreeTanhResidual()))


def sylvester(
    features: int,
    hidden_units: int | None = None,
    *,
    reflections: int | None = None,
    context_features: int = 0,
) -> Conjugate:
    r"""Build an original Sylvester flow, `z = x + Q^T R_2 tanh(R_1 Q x + b)`, with `Q` a product of reflections.

    `log |det| = sum_i log(1 + tanh'_i (R_1)_ii (R_2)_ii)`.

    Args:
        features: of the vectors `(rows, features)`, or the channels of `(rows, features, *positions)`.
        hidden_units: size of the triangular matrices, at most `features`, which is the default.
        reflections: Householder reflections of `Q`; `features` of them reach every orthogonal matrix, which is the
            default.
        context_features: size of the condition; with one, `Q`, the matrices and `b` of each row depend on the condition
            `(rows, context_features)` given as context.

    Source:
        van den Berg et al. 2018 (the Householder form).

    Example:
        >>> z, log_det = sylvester(4, hidden_units=2, reflections=3)(torch.randn(5, 4))
        >>> z.shape, log_det.shape
        (torch.Size([5, 4]), torch.Size([5]))
    """
    heads = SylvesterHeads(
        features, features if hidden_units is None else hidden_units, context_features=context_features
    )
    basis = _reflections(features, reflections, context_features)
    return Conjugate(basis, TriangularResidual(heads, FreeTanhResidual()))


def generalized_sylvester(
    features: int,
    *,
    hidden: int = 128,
    reflections: int | None = None,
    exponential: bool = False,
    slope_limit: float = 0.5,
    context_features: int = 0,
) -> Conjugate:
    r"""Build a generalized Sylvester flow of vectors, `z = x + W^-1 f(W x)` with a masked network in `f`.

    Args:
        features: of the vectors `(rows, features)`.
        hidden: hidden units of the masked network, at least `features`.
        reflections: Householder reflections of `W`; `features` of them by default.
        exponential: put the exponential of a trained matrix behind them, which reaches bases that are not orthogonal;
            it does not depend on the condition.
        slope_limit: the slope of `f` at each element stays within `+-slope_limit` of zero.
        context_features: size of the condition; with one, the reflections and the network of each row depend on the
            condition `(rows, context_features)` given as context.

    Source:
        Hoogeboom et al. 2020, section 4.
    """
    basis = _reflections(features, reflections, context_features)
    if exponential:
        basis = Chain([basis, dense_exponential(features, norm_limit=1.0)])
    heads = AutoregressiveNet(features, hidden=hidden, dims=0, context_features=context_features)
    return Conjugate(basis, TriangularResidual(heads, TanhResidual(slope_limit)))


def conv_sylvester(
    channels: int,
    *,
    hidden: int = 528,
    reflections: int | None = None,
    norm_limit: float | None = 0.9,
    norm_bound: NormBoundName = "torus",
    net_norm_limit: float | None = None,
    slope_limit: float = 0.5,
    context_features: int = 0,
    checkpoint: bool = False,
    exponential: Transform | None = None,
) -> Conjugate:
    r"""Build a convolutional Sylvester flow: `W = exp(M) Q` with a convolution `M` and reflections `Q` of the channels.

    Args:
        channels: of the images `(rows, channels, h, w)`; any image size.
        hidden: hidden units of the masked convolutional network, at least `channels`.
        reflections: Householder reflections of `Q`; `channels` of them by default.
        norm_limit: of the convolution, as in `conv_exponential`.
        norm_bound: as in `conv_exponential`.
        net_norm_limit: limit of the norm of each layer of the network (1.5 in the paper's code); the layer needs none.
        slope_limit: the slope of `f` at each element stays within `+-slope_limit` of zero.
        context_features: size of the condition; with one, the network reads the condition, `(rows, context_features)`
            or `(rows, context_features, h, w)`; the basis does not.
        checkpoint: as in `nets.AutoregressiveNet`; training then keeps a small multiple of the input.
        exponential: a linear layer on such images instead of `exp(M)`, such as an `axis_exponential`; `norm_limit` and
            `norm_bound` then have no use.

    Source:
        Hoogeboom et al. 2020, section 4.2, equation 13.
    """
    exponential = exponential or conv_exponential(channels, norm_limit=norm_limit, norm_bound=norm_bound)
    heads = AutoregressiveNet(
        channels,
        hidden=hidden,
        dims=2,
        context_features=context_features,
        norm_limit=net_norm_limit,
        checkpoint=checkpoint,
    )
    basis = Chain([_reflections(channels, reflections), exponential])
    return Conjugate(basis, TriangularResidual(heads, TanhResidual(slope_limit)))


def graph_sylvester(
    features: int,
    *,
    hidden: int = 64,
    reflections: int | None = None,
    order: Literal["features", "nodes"] = "features",
    slope_limit: float = 0.5,
    context_features: int = 0,
) -> Conjugate:
    r"""Build a generalized Sylvester flow of graphs: `z = x + W^-1 f(W x)` with a graph exponential in `W`.

    `W` is reflections of the features and a `graph_exponential`, so that what `f` does to one number of the latent is
    done to all nodes of a graph. With the order of the features `f` reads at each node the earlier features of all
    nodes, by messages along the edges (`nets.AutoregressiveGraphNet`); the layer then commutes with permutations of the
    nodes, and each step of its inverse solves one feature of all nodes. With the order of the nodes it reads the
    earlier neighbours of a node, by their indices, and commutes with nothing.

    Args:
        features: of each node, `(nodes, features)`; the graphs come with the context.
        hidden: hidden units of the masked network, at least `features`.
        reflections: Householder reflections; `features` of them by default.
        order: in which `f` is autoregressive.
        slope_limit: the slope of `f` at each element stays within `+-slope_limit` of zero.
        context_features: size of the condition; with one, the network reads the condition `(nodes, context_features)`;
            the basis does not.

    Raises:
        ConfigError: for an unknown order.

    Source:
        Hoogeboom et al. 2020, section 4, with the graph convolution of section 3.1; the order of the features is ours.

    Example:
        >>> from likelify import Context, GraphBatch
        >>> graphs = Context(structure=GraphBatch.complete([2, 3]))
        >>> z, log_det = graph_sylvester(2)(torch.randn(5, 2), graphs)
        >>> z.shape, log_det.shape
        (torch.Size([5, 2]), torch.Size([2]))
    """
    if order == "features":
        heads = AutoregressiveGraphNet(features, hidden=hidden, context_features=context_features)
    elif order == "nodes":
        heads = AutoregressiveNet(features, hidden=hidden, dims="nodes", context_features=context_features)
    else:
        raise ConfigError(unknown_word("order of graph_sylvester", order, ["features", "nodes"]))
    basis = Chain([_reflections(features, reflections), graph_exponential(features)])
    return Conjugate(basis, TriangularResidual(heads, TanhResidual(slope_limit)))


def _reflections(features: int, reflections: int | None = None, context_features: int = 0) -> Transform:
    count = features if reflections is None else reflections
    return rotation(features, method="householder", reflections=count, context_features=context_features)
