"""A flow: a base distribution seen through a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from likelify import door, importance
from likelify.caching import freeze
from likelify.distributions.as_torch import TorchDistribution
from likelify.distributions.core import Distribution, Likelihood, has_rows, item_count, repeat_context, row_count
from likelify.door import admit, admit_context, blamed_on_weights, check_parts, event_shape_of, refuse_missing
from likelify.errors import InexactLikelihoodError, ShapeError, UnsupportedError
from likelify.importance import Estimate
from likelify.linalg.bounds import widest, widest_dtype
from likelify.linalg.expm import recorded
from likelify.linalg.log_det import truncations
from likelify.shapes import Shape, as_shape, check_size
from likelify.structure import Context, ContextLike, as_context, sum_constant, sum_items
from likelify.support import LINE, Interval, rows_outside_allowed
from likelify.tracing import is_tracing
from likelify.transforms.core import Transform, layers_of
from likelify.transforms.sessions import unchecked

T = TypeVar("T")

# Rows that one pass of the importance-weighted estimate works on, unless the caller says otherwise.
CHUNK_ROWS = 8192


@dataclass(frozen=True, eq=False)
class Certificate:
    """How far a reported log-density may be from that of the map that was applied.

    Exponentials are truncated, and so the matrix `P` that is applied is not quite `exp(L)`, while `tr L` is reported as
    its log-determinant. `nats` bounds the sum of all `|log |det P| - tr L|` on the way from `x` to the latent, and of
    what the truncated log-determinants of residual layers leave out. It is proved in exact arithmetic from the norm
    bounds; rounding is not part of it, nor is what an iterative inverse on the way leaves of its tolerance.

    Attributes:
        nats: the bound, one number per item; infinite with a `ContinuousFlow`, of whose solver nothing is proved.
        round_off: heuristic allowance for rounding in the values of all exponentials, relative to the norms of their
            inputs; not in nats and not part of the bound.
        exponentials: how many were applied.
        series: how many log-determinants were truncated.
    """

    nats: Tensor
    round_off: float
    exponentials: int
    series: int = 0

    def __str__(self) -> str:
        largest = float(self.nats.max()) if self.nats.numel() else 0.0
        if largest == torch.inf:
            return (
                "There is no bound, since some layer solves an equation without one; of a ContinuousFlow "
                "lk.transforms.solver_error(flow, x) estimates the error."
            )
        return (
            f"|reported log p(x) - exact log-density of the map actually applied| <= {largest:.3g} nats for each of "
            f"{self.nats.numel()} items (truncation of {self.exponentials} exponentials and {self.series} "
            "log-determinants; rounding not included)"
        )


class Flow(Distribution):
    r"""The distribution of `x` when `z = transform(x)` has the base distribution: `log p(x) = log p(z) + contribution`.

    Whether that is exact follows from the layers. `log_prob` and `sample_and_log_prob` refuse unless it is; `elbo` and
    `iw_log_prob` always say how far they may be off.

    Args:
        base: distribution of the latent.
        transform: data to latent; a `Chain` of layers.
        encoder: a module that turns the condition a caller gives into the one the layers read, such as `nets.OneHot`.
        event_shape: shape of a data event; where the base has one and the layers can trace it back, it need not be
            given. Other inputs are refused at the door.

    Raises:
        InexactLikelihoodError: if the base has no exact log-density.
        UnsupportedError: for parts of another kind; if the latent has atoms, as behind a ReLU, and the base has none;
            if the latent is bounded, as behind a sigmoid, and the base is not; if probabilities of whole numbers would
            not sum to one, as those of a pyramid behind any base but a standard normal.
        ShapeError: if the layers do not fit one another, the base or the event.

    Example:
        >>> from likelify.distributions import Normal
        >>> from likelify.transforms.elementwise import ActNorm
        >>> flow = Flow(Normal((2,)), ActNorm(2))
        >>> flow.likelihood, flow.log_prob(torch.zeros(1, 2))
        ('exact', tensor([-1.8379], grad_fn=<AddBackward0>))
    """

    def __init__(
        self,
        base: Distribution,
        transform: Transform,
        *,
        encoder: nn.Module | None = None,
        event_shape: int | Shape | None = None,
    ) -> None:
        super().__init__()
        check_parts(base, transform, encoder)
        self.base = base
        self.transform = transform
        self.encoder = encoder
        declared = None if event_shape is None else as_shape(event_shape, least=1)
        self.event_shape = event_shape_of(base, transform, declared)

    def __setattr__(self, name: str, value: Any) -> None:
        """Look at a part that takes the place of another as the first ones were looked at."""
        if name in ("base", "transform") and {"base", "transform"} <= self._modules.keys():
            check_parts(**{"base": self.base, "transform": self.transform, "encoder": self.encoder, name: value})
        super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001, FBT002
        """Move all tensors; refuse to make memory of any content of constants that were on no device."""
        with door.refusing_hollow_constants(self):
            return super()._apply(fn, recurse)

    @property
    def likelihood(self) -> Likelihood:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What `log p` is: exact, or a bound or an estimate because of some layer."""
        return self.transform.likelihood

    @property
    def of_integers(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether `log_prob` gives the probabilities of whole numbers."""
        return self.base.of_integers or any(layer.writes_elements for layer in layers_of(self.transform))

    @property
    def support(self) -> Interval | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Where the elements of draws lie: in the domain of the first layer, which may be the whole line."""
        if self.transform.moves_elements:
            return self.base.support
        return self.transform.domain or LINE

    @property
    def stacks(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the base has weights that `stack` sets."""
        return self.base.stacks

    @property
    def reads_condition(self) -> bool:
        """Whether some part may read the condition of the context."""
        return self.base.reads_condition or self.transform.reads_condition

    @property
    def reads_outer_condition(self) -> bool:
        """Whether inside a layer, whose elements are its condition, it may read what the caller's condition adds."""
        return getattr(self.encoder, "context_features", None) != 0 and self.reads_condition

    def forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the loss of each item in nats: minus `log_prob` if that is exact, else minus `elbo` with one draw.

        This is what `flow(x)` computes, and so what `torch.nn.parallel.DistributedDataParallel(flow)` and
        `DataParallel` call: their gradients are joined, those of other methods are not.
        """
        return -self.elbo(x, context).value

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the exact log-density of each item in nats; minus infinity outside of the support.

        Args:
            x: `(rows, *event)`; with `(*sample, rows, *event)`, as `sample` gives, the result is `(*sample, items)`,
                and for one event a scalar.
            context: one row of a condition for each row of `x`, or one for all; graphs.

        Raises:
            InexactLikelihoodError: if the flow only has a bound or an estimate.
            ShapeError, DomainError, UnsupportedError: for inputs that this flow cannot work on.
        """
        self._require_exact("log_prob")
        x, encoded, shape = admit(self, x, context)
        return _reshaped(self._weight(x, encoded), shape)

    def elbo(self, x: Tensor, context: ContextLike = None, *, samples: int = 1) -> Estimate:
        """Estimate the expectation of `log p(z) + contribution`, a lower bound of `log p(x)`; equal to it if exact.

        Args:
            x: as for `log_prob`.
            context: as for `log_prob`.
            samples: draws per item, one pass each.
        """
        samples = check_size(samples, "samples")
        x, encoded, shape = admit(self, x, context)
        found = importance.mean(torch.stack([self._weight(x, encoded) for _ in range(samples)]))
        found = _reshaped(found, shape)
        return replace(found, standard_error=torch.zeros_like(found.value)) if self.likelihood == "exact" else found

    def iw_log_prob(
        self, x: Tensor, context: ContextLike = None, *, samples: int, chunk: int | None = None, warn: bool = True
    ) -> Estimate:
        r"""Estimate `log p(x)` by importance weighting: `log mean_k exp(log p(z_k) + contribution_k)`.

        A lower bound in expectation that grows with `samples` and tends to `log p(x)` (Burda et al. 2016). Sums run in
        double precision on shifted logarithms. A few large weights can carry the mean, and then the value is likely too
        low and its standard error far too small: `interval` and `k` of the estimate tell (see `Estimate`).

        Args:
            x: as for `log_prob`.
            context: as for `log_prob`.
            samples: draws per item.
            chunk: draws per pass; by default as many as keep a pass at 8192 rows.
            warn: give one `HeavyTailWarning` if the weights of some items are too heavy-tailed for their intervals.
                Never given where gradients are recorded, or for fewer than 25 draws, from which a tail cannot be told.

        Raises:
            InexactLikelihoodError: if a contribution is itself a noisy estimate; the result would be biased upwards.
        """
        self._require_weights("iw_log_prob")
        x, encoded, shape = admit(self, x, context)
        found = importance.weighted(self._log_weights(x, encoded, samples, chunk))
        if self.likelihood == "exact" and samples == 1:
            found = replace(found, standard_error=torch.zeros_like(found.value))
        if warn and not found.value.requires_grad and not is_tracing():
            found.warn()
        return _reshaped(found, shape)

    def bound_gaps(
        self, x: Tensor, context: ContextLike = None, *, samples: Sequence[int] = (8, 64), chunk: int | None = None
    ) -> dict[int, Estimate]:
        r"""Measure how much importance weighting with K draws lies above the ELBO: the visible part of its gap.

        `E[log mean_K weights] - E[log weight]`, from the same draws for all K; it grows with K towards the
        Kullback-Leibler divergence from the noise that was drawn to the noise as the model sees it: the augmentation
        gap of layers that add dimensions, and that of dequantization.

        Args:
            x: as for `log_prob`.
            context: as for `log_prob`.
            samples: counts K of draws; the largest is how many are drawn, in whole groups of each K.
            chunk: as for `iw_log_prob`.

        Returns:
            For each K the gap in nats, `(items,)`; its standard error is over the groups, NaN where there is but one.

        Raises:
            InexactLikelihoodError: if a contribution is itself a noisy estimate.

        Source:
            Burda et al. 2016; Huang et al. 2020 (augmented flows).
        """
        counts = [check_size(count, "A number of samples") for count in samples]
        self._require_weights("bound_gaps")
        x, encoded, shape = admit(self, x, context)
        drawn = self._log_weights(x, encoded, max(counts, default=1), chunk)
        return {count: _reshaped(importance.gap(drawn, count), shape) for count in counts}

    def _log_weights(self, x: Tensor, encoded: Context, samples: int, chunk: int | None) -> Tensor:
        """Draw log-weights `(draws, items)` in double precision, a chunk of draws at a time."""
        samples = check_size(samples, "samples")
        chunk = max(1, CHUNK_ROWS // max(len(x), 1)) if chunk is None else check_size(chunk, "chunk")
        drawn = []
        for start in range(0, samples, chunk):
            times = min(chunk, samples - start)
            _, repeated = repeat_context((times,), encoded)
            log_weight = self._weight(x.repeat(times, *(1,) * (x.ndim - 1)), repeated)
            drawn.append(widest(log_weight).reshape(times, -1))
        return torch.cat(drawn)

    def _refuse_noise(self, problem: str, remedy: str) -> None:
        if self.likelihood == "estimate":
            noisy = ", ".join(self._culprits("noisy_log_det"))
            raise InexactLikelihoodError(
                f"{problem}, because the log-determinant is a noisy estimate in: {noisy}. {remedy}"
            )

    def _require_weights(self, method: str) -> None:
        remedy = "Choose an exact or bounded form of them, or use elbo."
        self._refuse_noise(f"{method} would be biased upwards", remedy)

    def certificate(self, x: Tensor, context: ContextLike = None) -> Certificate:
        """Bound in nats how far the reported `log p(x)` is from the exact log-density of the map actually applied.

        Runs the layers once, outside of `frozen()` caches or inside as the caller has it. For flows that draw at random
        in `forward` the bound holds for the weight of one such draw.

        Args:
            x: as for `log_prob`.
            context: as for `log_prob`.

        Raises:
            InexactLikelihoodError: if a log-determinant is a noisy estimate, for which no such bound exists.
        """
        remedy = "Choose their exact trace, or evaluate with_log_det(flow, 'exact')."
        self._refuse_noise("There is no certificate", remedy)
        x, encoded, shape = admit(self, x, context)
        # Unchecked: what looks at inverses sends more rows through, which would count as well.
        with torch.no_grad(), unchecked(), recorded() as found, truncations() as left_out:
            items = len(self._weight(x, encoded))
        total = torch.zeros(items, dtype=widest_dtype(x.device), device=x.device)
        for diagnostics in found:
            bound = torch.as_tensor(diagnostics.log_det_error_bound, dtype=total.dtype).to(total.device)
            # A map on graphs counts per graph, one on single nodes per node.
            per_node = encoded.structure is not None and (bound.ndim == 0 or bound.numel() != items)
            total = total + (sum_constant(bound, x, encoded) if per_node else bound)
        total = sum((bound.to(total) for bound in left_out), total)
        return Certificate(
            _reshaped(total, shape), sum(d.round_off_allowance for d in found), len(found), len(left_out)
        )

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw so that gradients reach the parameters (where the base and the layers allow it)."""
        return self._seen(self.base.rsample, as_shape(shape), admit_context(self, context))

    def sample(self, shape: int | Shape = (), context: ContextLike = None, *, temperature: float = 1.0) -> Tensor:
        """Draw without gradients.

        Args:
            shape: draws, a number or several, in front of the event; with a context, one such block for each of its
                rows.
            context: as for `log_prob`.
            temperature: factor on the deviations of all normal distributions on the way; other than 1 the draws no
                longer follow the flow's density.
        """
        if temperature != 1.0:
            context = replace(as_context(context), temperature=temperature)
        with torch.no_grad():
            return self._seen(self.base.sample, as_shape(shape), admit_context(self, context))

    def sample_and_log_prob(self, shape: int | Shape = (), context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw and return the exact log-density, in one pass; differentiably where the base can.

        Raises:
            InexactLikelihoodError: if the flow only has a bound or an estimate.
        """
        self._require_exact("sample_and_log_prob")
        shape, encoded = as_shape(shape), admit_context(self, context)
        rows, repeated = repeat_context(shape, encoded)
        z, log_prob = self.base.sample_and_log_prob(*_sizes(rows, repeated))
        with blamed_on_weights(self):
            x, contribution = self.transform.inverse(z, repeated)
        return _arranged(x, shape, encoded), _arranged(log_prob - contribution, shape, encoded, items=True)

    def to_noise(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the standard normal noise of which a draw is `x`.

        Raises:
            UnsupportedError: if the base is not made of it, or some layer draws at random on the way.
        """
        self._require_bijection()
        x, encoded, _ = admit(self, x, context)
        return self.base.to_noise(self.transform.mean_forward(x, encoded), encoded)

    def from_noise(self, noise: Tensor, context: ContextLike = None) -> Tensor:
        """Return what standard normal noise becomes in a draw.

        Raises:
            UnsupportedError: if the base is not made of it, or some layer draws at random on the way.
        """
        self._require_bijection()
        encoded = admit_context(self, context)
        return self.transform.mean_inverse(self.base.from_noise(noise, encoded), encoded)

    def initialize(self, x: Tensor, context: ContextLike = None) -> None:
        """Fit the data-dependent parts (ActNorm statistics, marginals) to a sample of the training data, once.

        Raises:
            DomainError: if the sample holds integers and no layer takes them, or values outside of the support.
        """
        x, encoded, _ = admit(self, x, context)
        with torch.no_grad():
            z = self.transform.initialize(x, encoded)
            self.base.initialize(z, encoded)
            # The base says here already what does not suit it.
            self.base.log_prob(z, encoded)

    def stack(self, x: Tensor, context: ContextLike = None) -> None:
        """Set the weights of mixtures in the base by rows that nothing was trained on; see `Distribution.stack`.

        Rows that the flow has no density for have no say.
        """
        x, encoded, _ = admit(self, x, context)
        with torch.no_grad(), rows_outside_allowed():
            self.base.stack(self.transform(x, encoded)[0], encoded)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Cache what depends on parameters alone; see `Transform.frozen`."""
        with freeze(self):
            yield

    def distribution(self, context: ContextLike = None) -> torch.distributions.Distribution:
        """Return the exact flow as a `torch.distributions.Distribution` with one batch entry per row of the context.

        Raises:
            InexactLikelihoodError: if the flow only has a bound or an estimate.
            ShapeError: if the flow was built without `event_shape`, or the context has graphs.
        """
        self._require_exact("distribution")
        if self.event_shape is None:
            raise ShapeError("distribution() needs to know the event's shape; build the Flow with event_shape=.")
        admit_context(self, context)
        context = as_context(context)
        if context.structure is not None:
            raise ShapeError("torch.distributions has no place for graphs of different sizes; use the Flow itself.")
        return TorchDistribution(self, context, self.event_shape)

    def _weight(self, x: Tensor, context: Context) -> Tensor:
        """Return log p(z) plus the contribution; minus infinity for rows outside of the support."""
        if is_tracing():
            # What is traced has no values to raise for, and no such blocks.
            return self._log_prob(x, context)
        with blamed_on_weights(self), rows_outside_allowed():
            log_prob = self._log_prob(x, context)
        refuse_missing(self, log_prob)
        return log_prob

    def _log_prob(self, x: Tensor, context: Context) -> Tensor:
        if self.transform.writes_elements:
            # The base, which is standard normal, would cancel, and so nobody has to find the noise.
            return sum_items(self.transform.log_masses(x, context), context)
        z, contribution = self.transform(x, context)
        return self.base.log_prob(z, context) + contribution

    def _seen(self, draw: Callable[..., Tensor], shape: Shape, context: Context) -> Tensor:
        """Return draws of the base as the layers show them."""
        rows, repeated = repeat_context(shape, context)
        z = draw(*_sizes(rows, repeated))
        with blamed_on_weights(self):
            return _arranged(self.transform.inverse(z, repeated)[0], shape, context)

    def _require_bijection(self) -> None:
        if self.transform.random_forward or self.transform.random_inverse:
            culprits = sorted({*self._culprits("random_forward"), *self._culprits("random_inverse")})
            raise UnsupportedError(f"Draws of this flow are not made of the noise of its base alone: {culprits}.")

    def _require_exact(self, method: str) -> None:
        if self.likelihood != "exact":
            fact = "random_forward" if self.likelihood == "bound" else "noisy_log_det"
            remedy = (
                "Use elbo(x) or iw_log_prob(x, samples=...), which return estimates with their errors."
                if self.likelihood == "bound"
                else "Use elbo(x), which returns an estimate with its error, or choose the exact form of these layers "
                "(for residual layers: with_log_det(flow, 'exact'))."
            )
            raise InexactLikelihoodError(
                f"This flow has no exact likelihood, so {method} is not available: it has {self.likelihood}s only, "
                f"because of {', '.join(self._culprits(fact)) or type(self.base).__name__}. {remedy}"
            )

    def _culprits(self, fact: str) -> list[str]:
        marked = [m for m in self.transform.modules() if isinstance(m, Transform) and getattr(m, fact)]
        inner = [m for m in marked if not any(c in marked for c in m.modules() if c is not m)]
        return sorted({type(m).__name__ for m in inner})


def _sizes(rows: int, context: Context) -> tuple[Shape, Context]:
    """Return with what a base is called for one draw per row; without a condition the draws themselves are the rows."""
    return (() if has_rows(context) else (rows,)), context


def _arranged(found: Tensor, shape: Shape, context: Context, *, items: bool = False) -> Tensor:
    """Return what was drawn for each row, or known of each item, in the shape that was asked for."""
    if not has_rows(context):
        return found.reshape((*shape, *found.shape[1:]))
    count = item_count(context) if items else row_count(context)
    return found.reshape((*shape, count, *found.shape[1:]))


def _reshaped(found: T, shape: Shape) -> T:
    """Return what was found for each item, a tensor or an estimate of tensors, in the shape of the results."""
    if len(shape) == 1:
        return found
    if isinstance(found, Tensor):
        return found.reshape(shape)  # pyright: ignore[reportReturnType]
    per_item = {name: vars(found)[name] for name in ("value", "standard_error", "ess")}
    shaped = {name: value.reshape(shape) for name, value in per_item.items() if value is not None}
    return replace(found, **shaped)  # pyright: ignore[reportArgumentType, reportCallIssue]
