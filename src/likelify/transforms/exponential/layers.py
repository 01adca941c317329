r"""Exponentials of linear maps as layers: one class, and short factories for the kinds of map."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from likelify.caching import Caching
from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError, unknown_word
from likelify.linalg.conv import PaddingName
from likelify.linalg.expm import ExpMethod, Gradient, exp_action
from likelify.linalg.expm.action import check_settings, default_tolerance
from likelify.linalg.expm.frozen import apply_formed, form_exponential
from likelify.linalg.expm.matrix import Formed
from likelify.linalg.function import Function
from likelify.linalg.graph import GraphMap
from likelify.linalg.maps import LinearMap
from likelify.linalg.trace import TraceMethod, estimate_trace
from likelify.names import NormBoundName
from likelify.regularizing import ActsInTraining
from likelify.structure import ContextLike, as_context, sum_constant
from likelify.support import check_sample
from likelify.tracing import is_tracing
from likelify.transforms.core import Transform
from likelify.transforms.exponential.parametrizations import (
    ConstantMap,
    ConvKernel,
    GraphMatrices,
    LinearModule,
    Matrix,
    PairMatrices,
    Parametrization,
    SetMatrices,
    SkewMatrix,
)
from likelify.transforms.inversion import EXACT, LINEAR, SENSITIVE

# Norm up to which an exponential loses four digits at most, so that its inverse need not be looked at.
SAFE_NORM = 4.0
# A tolerance up to which a truncated series still undoes the one with the other sign.
ACCURATE = 1e-4


class Exponential(Transform, Caching, ActsInTraining):
    r"""The layer `z = exp(L) x`, with inverse `exp(-L)` and log-determinant `tr L`.

    The inverse costs what the forward costs, the determinant is always positive, and every symmetry of `L` is kept
    (Hoogeboom et al. 2020, equation 3 and theorem 1). Inside `frozen()` the exponential of a small event, of
    a matrix on the channels or of a circular convolution is formed once.

    Args:
        parametrization: a module whose call with the context returns a `LinearMap`, such as a `Parametrization`; or a
            `LinearMap`, which then is a constant.
        tol: truncation error allowed, as in `exp_action`; in training steps a looser one by default
            (`FitSettings.exp_tol`).
        degree: a fixed degree of the series, as in `exp_action`.
        method: as in `exp_action`.
        gradient: as in `exp_action`.
        trace: `"exact"`, or the name of an estimator (`"hutchinson"`, `"hutch++"`) for maps whose trace cannot be had;
            the log-determinant then is noisy, and a flow with the layer has no exact likelihood.
        trace_samples: random vectors of the estimator.

    Raises:
        ConfigError: for settings that `exp_action` would refuse, and constant maps whose tensors are to be trained.
        UnsupportedError: for what is neither a map nor a module that gives one.
        ConvergenceError: if the tolerance cannot be met (see `exp_action`).
        ShapeError: if the input has another event than the map was made for, or other rows than the context.

    Example:
        >>> import torch
        >>> from likelify.linalg.dense import Dense
        >>> layer = Exponential(Dense(torch.eye(2)))
        >>> z, log_det = layer(torch.ones(1, 2))
        >>> z, log_det
        (tensor([[2.7183, 2.7183]]), tensor([2.]))
    """

    fills_space = True

    def __init__(
        self,
        parametrization: LinearMap | nn.Module,
        *,
        tol: float | None = None,
        degree: int | None = None,
        method: ExpMethod = "auto",
        gradient: Gradient | None = None,
        trace: Literal["exact"] | TraceMethod = "exact",
        trace_samples: int = 32,
    ) -> None:
        super().__init__()
        if not isinstance(parametrization, LinearMap | nn.Module):
            raise UnsupportedError(
                f"Exponential takes a LinearMap or a module that returns one, not {type(parametrization).__name__}. "
                "Wrap a linear callable in likelify.Function."
            )
        if trace not in ("exact", "hutchinson", "hutch++"):
            raise ConfigError(unknown_word("trace", trace, ["exact", "hutchinson", "hutch++"]))
        check_settings(method, tol, degree, gradient)
        constant = isinstance(parametrization, LinearMap)
        _require_parametrization(parametrization)
        self.parametrization = ConstantMap(parametrization) if constant else parametrization
        self.takes = getattr(self.parametrization, "takes", None)
        self.tol, self.degree, self.method, self.gradient = tol, degree, method, gradient
        self.trace: Literal["exact"] | TraceMethod = trace
        self.trace_samples = trace_samples
        self.noisy_log_det = trace != "exact"
        # A series that is cut off early has another inverse than that with the other sign.
        accurate = degree is None and (tol is None or tol <= ACCURATE)
        self.inverse_check = SENSITIVE if accurate and _is_well_conditioned(self.parametrization) else LINEAR
        if constant and parametrization.rows is not None:
            # A matrix for each row leaves no room for rows to compare.
            self.inverse_check = EXACT

    @property
    def takes_exp_tol(self) -> bool:
        """Whether a training step may set the tolerance: none and no degree were given to the layer."""
        return self.tol is None and self.degree is None

    def map(self, context: ContextLike = None) -> LinearMap:
        """Build the linear map for this context."""
        if self._cache is None or not _is_bare(context):
            return self._built(context)
        return self.cached("map", lambda: _constant(self._built(None)))

    def _built(self, context: ContextLike) -> LinearMap:
        found = self.parametrization(context)
        if not isinstance(found, LinearMap):
            raise UnsupportedError(
                f"{type(self.parametrization).__name__} gave a {type(found).__name__}, and a parametrization gives a "
                "LinearMap for each context. A module that is linear itself is for linear_exponential(module)."
            )
        return found

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Return `exp(L) x` and `tr L`."""
        return self._flow(x, context, 1.0)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Return `exp(-L) z` and `-tr L`."""
        return self._flow(z, context, -1.0)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Let the parametrization start from the sample, if it has a way to, and map the sample on."""
        if isinstance(self.parametrization, Parametrization):
            check_sample(x, self)
            with torch.no_grad():
                self.parametrization.start_from(x)
        return super().initialize(x, context)

    def _flow(self, x: Tensor, context: ContextLike, time: float) -> tuple[Tensor, Tensor]:
        map_ = self.map(context)
        if map_.rows not in (None, len(x)):
            raise ShapeError(
                f"The input has {len(x)} rows, and the context (its condition or its graphs) is for {map_.rows}."
            )
        map_ = map_.matching(x)
        if is_tracing() and self.degree is None:
            self._require_known_norm(map_, x)
        formed = self._formed(map_, x, time) if self._cache is not None and _is_bare(context) else None
        if formed is None:
            settings = {
                "tol": self._tolerance(x.dtype),
                "degree": self.degree,
                "method": self.method,
                "gradient": self.gradient,
            }
            value = exp_action(map_, x, time=time, **settings).value
        else:
            value = apply_formed(formed, map_, x).value
        log_det = time * sum_constant(self._trace(map_, x).to(value.dtype), x, context)
        if value.dtype == torch.float16 and value.device.type == "cpu" and not bool(torch.isfinite(log_det).all()):
            raise DomainError("The log-determinant is too large for float16. Work in float32.")
        return value, log_det

    def _tolerance(self, dtype: torch.dtype) -> float | None:
        """Return the tolerance of a call: the layer's own, or in a training step that of the step."""
        # Compiled code is the same in all threads, and so cannot know which of them is in a training step.
        step = None if torch.compiler.is_compiling() else self.training_step
        if not self.takes_exp_tol or step is None or step.exp_tol is None:
            return self.tol
        return max(step.exp_tol, default_tolerance(dtype))

    def _require_known_norm(self, map_: LinearMap, x: Tensor) -> None:
        unknown = isinstance(map_, GraphMap) and map_.norm is None
        if unknown or isinstance(map_.norm_bound(tuple(x.shape[1:])), Tensor):
            raise UnsupportedError(
                f"{type(self).__name__}({type(self.parametrization).__name__}) chooses its degree by the norm of its "
                "map, at which torch.compile and torch.func cannot look. Build it so that the norm is known: with "
                "norm_limit= (convolutions, dense_exponential), neighbours= (graphs) or norm= (modules); or fix a "
                "degree that is enough: Exponential(layer.parametrization, degree=12) is, in single precision, for "
                "norms up to 2."
            )

    def _formed(self, map_: LinearMap, x: Tensor, time: float) -> Formed | None:
        """Form the exponential once inside `frozen()`, unless a method or a degree was asked for."""
        if self.degree is not None or self.method != "auto":
            return None
        name = f"exp {time} {self.tol} {tuple(x.shape[1:])} {x.dtype} {x.device}"
        return self.cached(name, lambda: form_exponential(map_, x, time=time, tol=self.tol))

    def _trace(self, map_: LinearMap, x: Tensor) -> Tensor:
        event_shape = tuple(x.shape[1:])
        if self.trace == "exact":
            traceless = map_.symmetry == "skew" or getattr(self.parametrization, "traceless", False)
            return x.new_zeros(()) if traceless else map_.trace(event_shape)
        return estimate_trace(map_, event_shape, samples=self.trace_samples, method=self.trace, like=x).value


def _require_parametrization(given: LinearMap | nn.Module) -> None:
    """Refuse modules that are no parametrizations, and maps whose tensors would not be trained with the layer."""
    if isinstance(given, nn.Module):
        if type(given).__module__.startswith("torch.nn.") and not isinstance(given, nn.Sequential):
            name = type(given).__name__
            raise UnsupportedError(
                f"{name} is a linear map and no module that gives one: take linear_exponential({name}(...), norm=...)."
            )
        return
    if any(tensor.requires_grad for tensor in given.tensors().values()):
        raise ConfigError(
            f"The tensors of this {type(given).__name__} are to be trained, and those of a constant map are not. Give "
            "Exponential a module that builds the map from its parameters (see docs/extending.md), or detach them."
        )
    for function in _functions_in(given):
        owner = getattr(function.function, "__self__", function.function)
        if isinstance(owner, nn.Module) and any(True for _ in owner.parameters()):
            raise ConfigError(
                f"The weights of the {type(owner).__name__} in this Function would be neither trained nor saved with "
                "the layer: take linear_exponential(module, norm=...)."
            )


def _functions_in(given: LinearMap) -> Iterator[Function]:
    if isinstance(given, Function):
        yield given
    for part in given.inner_maps.values():
        yield from _functions_in(part)


def _is_well_conditioned(parametrization: nn.Module) -> bool:
    """Tell whether the exponentials have a small condition number, whatever the parameters are."""
    limit = getattr(parametrization, "norm_limit", None)
    skew = isinstance(parametrization, SkewMatrix) or getattr(parametrization, "settings", {}).get("symmetry") == "skew"
    # The condition number is at most the exponential of twice the norm.
    return skew or limit is not None and limit <= SAFE_NORM


def _constant(map_: LinearMap) -> LinearMap:
    """Return a map in which parameters count as constants, as in all that `frozen()` keeps."""
    tensors = map_.tensors()
    if not any(t.requires_grad for t in tensors.values()):
        return map_
    return map_.with_tensors({name: t.detach() for name, t in tensors.items()})


def _is_bare(context: ContextLike) -> bool:
    given = as_context(context)
    return given.condition is None and given.structure is None


def conv_exponential(
    channels: int,
    kernel_size: int | Sequence[int] = 3,
    *,
    dims: int = 2,
    norm_limit: float | None = 1.8,
    norm_bound: NormBoundName = "reshape",
    padding: PaddingName = "zeros",
    groups: int = 1,
    context_features: int = 0,
    tol: float | None = None,
    degree: int | None = None,
    gradient: Gradient | None = None,
) -> Exponential:
    r"""Build a convolution exponential: `z = exp(K) x` for a convolution `K` that is trained.

    With zero padding `log |det| = h w sum_c K[c, c, centre]`. A fresh layer is near the identity. The published mixing
    layer is a 1x1 convolution followed by this one (Hoogeboom et al. 2020, section 3).

    Args:
        channels: of the images `(rows, channels, h, w)`; any image size.
        kernel_size: odd; one number, or one for each axis.
        dims: 1 for sequences `(rows, channels, w)`, 2 for images, 3 for volumes.
        norm_limit: limit of the bound of `||K||_2`. The reshape bound is about 2x loose, so 1.8 means a true norm
            near the paper's 0.9. With None the norm is free and the engine takes the terms it needs (a host sync per
            call).
        norm_bound: `"reshape"`, or `"torus"`, which is tight and dearer (then the paper's limit is 0.9).
        padding: `"zeros"`, `"circular"` (commutes with translations) or `"reflect"`.
        groups: of channels that do not mix; `channels` for a depthwise convolution.
        context_features: size of the condition; with one, each row has a kernel of its own, which depends linearly on
            the condition `(rows, context_features)` given as context.
        tol: as in `exp_action`.
        degree: as in `exp_action`.
        gradient: as in `exp_action`.
    """
    kernel = ConvKernel(
        channels,
        kernel_size,
        dims=dims,
        norm_limit=norm_limit,
        norm_bound=norm_bound,
        padding=padding,
        groups=groups,
        context_features=context_features,
    )
    return Exponential(kernel, tol=tol, degree=degree, gradient=gradient)


def orthogonal_convolution(
    channels: int,
    kernel_size: int | Sequence[int] = 3,
    *,
    dims: int = 2,
    norm_limit: float | None = None,
    norm_bound: NormBoundName = "reshape",
    padding: Literal["zeros", "circular"] = "zeros",
    context_features: int = 0,
    tol: float | None = None,
) -> Exponential:
    r"""Build an orthogonal convolution: the exponential of a skew convolution `(K - K^T) / 2`.

    It keeps the norm of every image, and its log-determinant is exactly zero: the centre tap of a skew convolution has
    no trace. Any norm is fine, since nothing grows; a limit bounds the work.

    Args:
        channels: of the images; any image size.
        kernel_size: odd.
        dims: 1, 2 or 3.
        norm_limit: limit of the bound of the norm, or None.
        norm_bound: `"reshape"` or `"torus"`.
        padding: `"zeros"` or `"circular"`.
        context_features: as in `conv_exponential`.
        tol: as in `exp_action`.

    Source:
        Singla and Feizi 2021 (skew orthogonal convolutions); here with the Chebyshev expansion and its certificate.
    """
    kernel = ConvKernel(
        channels,
        kernel_size,
        dims=dims,
        norm_limit=norm_limit,
        norm_bound=norm_bound,
        padding=padding,
        symmetry="skew",
        context_features=context_features,
    )
    return Exponential(kernel, tol=tol)


def dense_exponential(
    channels: int,
    *,
    norm_limit: float | None = None,
    context_features: int = 0,
    tol: float | None = None,
) -> Exponential:
    """Build the exponential of a matrix on the channels of every position, `z = exp(M) x`, trained from near zero.

    Args:
        channels: size of axis 1 of `(rows, channels, ...)`.
        norm_limit: limit of a bound of `||M||_2`, or None.
        context_features: as in `conv_exponential`.
        tol: as in `exp_action`.
    """
    return Exponential(Matrix(channels, norm_limit=norm_limit, context_features=context_features), tol=tol)


def graph_exponential(
    features: int, *, neighbours: int | None = None, turned: bool = False, tol: float | None = None
) -> Exponential:
    r"""Build a graph convolution exponential on node features `(nodes, features)`.

    `L(X) = X theta_0 + A X theta_1` with the normalized adjacency `A` of the graphs in the context; `log |det|` of a
    graph with n nodes and no self-loops is `n tr theta_0`. It commutes with permutations of the nodes.

    Args:
        features: of each node.
        neighbours: the largest number of neighbours that nodes of your graphs have; then `||theta_0||` is limited to
            one over it and `||theta_1||` to one, the rule of thumb of the paper. The engine needs no limit, so the
            default is none.
        turned: begin with a random rotation of the features of each node, not near the identity. In front of a
            coupling of features that tell nothing of each other, such as the coordinates of a grid, there is nothing
            to be learnt without one.
        tol: as in `exp_action`.

    Source:
        Hoogeboom et al. 2020, section 3.1.
    """
    return Exponential(GraphMatrices(features, neighbours=neighbours, turned=turned), tol=tol)


def equivariant_exponential(
    channels: int,
    kind: Literal["rotations", "sets", "pairs"],
    *,
    kernel_size: int = 3,
    norm_limit: float | None = 1.8,
    context_features: int = 0,
    tol: float | None = None,
) -> Exponential:
    """Build an exponential that commutes with a group of transformations, as its linear map does.

    Args:
        channels: size of axis 1.
        kind: `"rotations"`: images `(rows, channels, h, w)` whose channels come in fours, one for each rotation by 90
            degrees (`likelify.linalg.rotate_features` is the action); `"sets"`: `(rows, channels, n)` and
            permutations of the n elements; `"pairs"`: `(rows, channels, n, n)` and permutations of the n nodes.
        kernel_size: of the convolution for rotations.
        norm_limit: of the convolution for rotations.
        context_features: as in `conv_exponential`.
        tol: as in `exp_action`.

    Source:
        Cohen and Welling 2016 (rotations), Zaheer et al. 2017 (sets), Maron et al. 2019 (pairs).
    """
    if kind in ("sets", "pairs") and (kernel_size, norm_limit) != (3, 1.8):
        raise ConfigError(f"kernel_size and norm_limit are settings of the convolution for rotations, not of {kind}.")
    if kind == "rotations":
        parametrization: Parametrization = ConvKernel(
            channels, kernel_size, norm_limit=norm_limit, rotations=True, context_features=context_features
        )
    elif kind == "sets":
        parametrization = SetMatrices(channels, context_features=context_features)
    elif kind == "pairs":
        parametrization = PairMatrices(channels, context_features=context_features)
    else:
        raise ConfigError(unknown_word("kind of symmetry", kind, ["rotations", "sets", "pairs"]))
    return Exponential(parametrization, tol=tol)


def linear_exponential(
    module: nn.Module,
    *,
    norm: float | None = None,
    trace: Literal["exact"] | TraceMethod = "exact",
    trace_samples: int = 32,
    tol: float | None = None,
    gradient: Gradient | None = None,
) -> Exponential:
    """Build the exponential of any linear `nn.Module` that keeps the event's shape; its parameters are trained.

    Args:
        module: linear, without bias; refused at the first call if it is seen not to be.
        norm: a guaranteed bound of its 2-norm, if you know one; events of up to 4096 elements are probed otherwise.
        trace: as in `Exponential`; exact traces need events of up to 4096 elements.
        trace_samples: as in `Exponential`.
        tol: as in `exp_action`.
        gradient: `Unrolled()` (default) or `Recompute()`.

    Example:
        >>> import torch
        >>> layer = linear_exponential(torch.nn.Conv1d(2, 2, 3, padding=1, bias=False))
        >>> z, log_det = layer(torch.randn(5, 2, 8))
        >>> z.shape, log_det.shape
        (torch.Size([5, 2, 8]), torch.Size([5]))
    """
    parametrization = LinearModule(module, norm)
    return Exponential(parametrization, tol=tol, gradient=gradient, trace=trace, trace_samples=trace_samples)
