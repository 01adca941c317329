r"""The residual-flow layer: `z = x + g(x)` for a network `g` with a Lipschitz constant below one.

Source: Behrmann et al. 2019 (invertible residual networks) and Chen et al. 2019 (residual flows). Different here: the
contraction rests on an upper bound, not on power iteration; the inverse ends with a certified error and has gradients;
and an estimated log-determinant is declared as such. Derivations are in `docs/maths/residual.md`.
"""

import copy
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from likelify.caching import Caching
from likelify.errors import ConfigError, UnsupportedError, unknown_word
from likelify.linalg.log_det import Exact, LogDet, Roulette, Truncated, truncations
from likelify.names import LogDetName
from likelify.nets.lipschitz import DeclaredNet, LipschitzNet
from likelify.structure import ContextLike, as_context, sum_items
from likelify.tracing import in_full_precision
from likelify.transforms.core import Composite, Transform
from likelify.transforms.inversion import SOLVED
from likelify.transforms.residual_flows.contraction import (
    Contraction,
    ResidualSolution,
    log_det,
    measured_solution,
    solve,
)

LOG_DETS: dict[str, LogDet] = {"roulette": Roulette(), "exact": Exact(), "truncated": Truncated()}

M = TypeVar("M", bound=nn.Module)


class LipschitzResidual(Transform, Caching):
    r"""The layer `z = x + g(x, context)`, a bijection because `g` is a contraction in `x`, whatever the condition.

    `log |det| = log det(I + J)` with the Jacobian `J` of `g`; the determinant is always positive. It is found by

    - `"roulette"`: an unbiased estimate from random vectors and a random number of terms, at any size. The layer then
      is noisy: a flow with it can be trained by `elbo`, and refuses `log_prob` and `iw_log_prob`.
    - `"exact"`: the whole Jacobian, for events of up to 4096 elements.
    - `"truncated"`: the power series with exact traces, stopped when a bound of the rest is small enough; that bound is
      part of `flow.certificate(x)`.

    A flow that was trained by roulette is evaluated by `with_log_det(flow, "exact")`, and has derivatives beyond the
    first with it. The inverse is a fixed-point iteration that ends when its error is certified, and has derivatives of
    every order. Training keeps the input of the layer and, for roulette, two
    vectors of its size; the network is run again in the backward pass.

    Args:
        net: a `nets.LipschitzNet` such as `nets.LipschitzMLP` (vectors, graph nodes) or `nets.LipschitzConvNet`
            (images); or any network with `lipschitz=`, called as `net(x, context)`. Deterministic; rows do not see each
            other.
        lipschitz: for other networks, a bound of the Lipschitz constant in `x`, below one, for which you vouch.
        log_det: one of the names, or its settings: `Roulette(...)`, `Exact(...)`, `Truncated(...)` of
            `likelify.linalg.log_det`.
        tol: error of the inverse, 2-norm of an event relative to `max(1, ||z||)`; 1e-5, in double precision 1e-12, by
            default (more where the Lipschitz constant is so close to one that rounding does not allow it). Gradients
            through the inverse are as accurate relative to theirs.

    Raises:
        ConfigError: if the network has no Lipschitz constant below one.
        ConvergenceError: from the inverse and from the deterministic log-determinants, if what they see contradicts the
            Lipschitz constant that was declared.

    Example:
        >>> import torch
        >>> from likelify import nets
        >>> layer = LipschitzResidual(nets.LipschitzMLP(3, (16,)), log_det="exact")
        >>> x = torch.randn(5, 3)
        >>> z, log_det = layer(x)
        >>> bool((layer.inverse(z)[0] - x).abs().max() < 1e-4), log_det.shape
        (True, torch.Size([5]))

    Source:
        Behrmann et al. 2019; Chen et al. 2019.
    """

    fills_space = True
    inverse_check = SOLVED

    def __init__(
        self,
        net: nn.Module,
        *,
        lipschitz: float | None = None,
        log_det: LogDetName | LogDet = "roulette",
        tol: float | None = None,
    ) -> None:
        super().__init__()
        if isinstance(net, LipschitzNet) == (lipschitz is not None):
            raise ConfigError(
                f"{type(net).__name__} knows a bound of its own Lipschitz constant; leave out lipschitz=."
                if isinstance(net, LipschitzNet)
                else f"A residual layer needs the Lipschitz constant of its network. {type(net).__name__} has no bound "
                "of its own: take nets.LipschitzMLP or nets.LipschitzConvNet, or declare one with lipschitz=."
            )
        if tol is not None and not tol > 0:
            raise ConfigError(f"tol must be positive, got {tol}.")
        self.net = net if isinstance(net, LipschitzNet) else DeclaredNet(net, lipschitz or 0.0)
        self.tol = tol
        self._log_det = _log_det(log_det)

    @property
    def log_det(self) -> LogDet:
        """How the log-determinant is found; `with_log_det` gives a copy of a model in which it is another way."""
        return self._log_det

    @property
    def noisy_log_det(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the log-determinant is an estimate, as the method says."""
        return self._log_det.noisy

    def lipschitz_bound(self) -> float:
        """Return the guaranteed bound of the Lipschitz constant of the network as it is now."""
        return self.net.lipschitz_bound()

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Return `x + g(x)` and `log det(I + J)`."""
        y, log_det = self._residual_and_log_det(x, context)
        return x + y, log_det

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Solve `x + g(x) = z`; the contribution is `-log det(I + J)` at `x`."""
        x = self.mean_inverse(z, context)
        return x, -self._residual_and_log_det(x, context)[1]

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return `x + g(x)`."""
        return x + self.net(x, context)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Solve `x + g(x) = z`."""
        call, tensors = self._contraction(context)
        return solve(call, z, as_context(context).condition, tensors)

    @torch.no_grad()
    def solve(self, z: Tensor, context: ContextLike = None, *, throw: bool = True) -> ResidualSolution:
        """Solve `x + g(x) = z` without gradients, and say how well.

        Args:
            z: `(rows, *event)`.
            context: as for `inverse`.
            throw: False to get the last iterate instead of an error; look at its `residual`.

        Raises:
            ConvergenceError: if the tolerance cannot be met.
        """

        def solve(z: Tensor) -> ResidualSolution:
            call, tensors = self._contraction(context)
            return measured_solution(call, z, as_context(context).condition, tensors, throw=throw)

        return in_full_precision(solve, z)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the output; nothing here depends on data."""
        with torch.no_grad():
            return self.mean_forward(x, context)

    def _residual_and_log_det(self, x: Tensor, context: ContextLike) -> tuple[Tensor, Tensor]:
        """Return `g(x)`, and the log-determinant for each item."""
        call, tensors = self._contraction(context)
        y, rows = log_det(call, x, as_context(context).condition, tensors)
        if call.error is not None:
            truncations.add(sum_items(call.error, context))
        return y, sum_items(rows, context)

    def _contraction(self, context: ContextLike) -> tuple[Contraction, list[Tensor]]:
        made = self.cached("constrained", self.net.constrained)
        structure = as_context(context).structure
        call = Contraction(self.net, tuple(made.tensors), made.lipschitz, structure, self.log_det, self.tol)
        return call, list(made.tensors.values())

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"log_det={self.log_det}, tol={self.tol}"


def with_log_det(model: M, log_det: Literal["exact", "truncated"] | LogDet = "exact") -> M:
    """Return a copy of a flow or layer that shares its parameters and finds log-determinants without noise.

    For models with `LipschitzResidual` layers that were trained by roulette: the likelihood of the copy is exact (or
    a bound, if other layers make it one), and `log_prob`, `iw_log_prob` and `certificate` work. What is trained
    afterwards is trained in both.

    Args:
        model: a `Flow`, or a `Transform`.
        log_det: `"exact"`, `"truncated"`, or their settings, as in `LipschitzResidual`.

    Raises:
        ConfigError: for a noisy method.
        UnsupportedError: if the layers are inside a container that is not known to pass the noise on.

    Example:
        >>> import torch
        >>> from likelify import Flow, Normal, nets
        >>> flow = Flow(Normal((3,)), LipschitzResidual(nets.LipschitzMLP(3, (16,))))
        >>> exact = with_log_det(flow, "exact")
        >>> flow.likelihood, exact.likelihood, exact.log_prob(torch.zeros(2, 3)).shape
        ('estimate', 'exact', torch.Size([2]))
    """
    method = _log_det(log_det)
    if method.noisy:
        raise ConfigError(f"with_log_det is for methods without noise: 'exact' or 'truncated', not {log_det!r}.")
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    for layer in twin.modules():
        if isinstance(layer, LipschitzResidual):
            layer._log_det = method
    for module in twin.modules():
        _refuse_stored_noise(module)
    return twin


def _log_det(log_det: LogDetName | LogDet) -> LogDet:
    """Return the method of a name."""
    method = LOG_DETS.get(log_det) if isinstance(log_det, str) else log_det
    if not isinstance(method, LogDet):
        raise ConfigError(
            f"{unknown_word('log_det', str(log_det), LOG_DETS)} Settings of these methods are Roulette(...), "
            "Exact(...) and Truncated(...) of likelify.linalg.log_det."
        )
    return method


def _refuse_stored_noise(module: nn.Module) -> None:
    """Refuse a container that says of itself that it is noisy, since it may say so because of the layers inside."""
    if not isinstance(module, Transform) or isinstance(module, Composite | LipschitzResidual):
        return
    if module.noisy_log_det and any(isinstance(inner, LipschitzResidual) for inner in module.modules()):
        raise UnsupportedError(
            f"{type(module).__name__} was made with noisy layers inside, and whether it adds noise of its own is not "
            "known. Build it anew with log_det='exact' and load the parameters."
        )
