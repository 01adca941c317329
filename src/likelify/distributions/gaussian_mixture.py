"""Mixtures of normal distributions of vectors, fitted in closed steps."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from likelify.distributions.core import Distribution, check_values, has_rows, item_count, repeat_context, row_count
from likelify.distributions.normal import LOG_SQRT_2PI
from likelify.errors import DomainError, UnsupportedError, needs
from likelify.shapes import Shape, as_shape, check_size
from likelify.structure import ContextLike, as_context, sum_items
from likelify.support import LINE
from likelify.tracing import in_full_precision

# Rows on which numbers of components are compared, and on which the one that is taken is fitted.
COMPARED_ROWS, FITTED_ROWS = 4000, 20_000
ROUNDS = 60
# Deviations of values that are the same, in units of them.
EQUAL = 1e-13
# Rows whose components are computed together where no gradients are wanted.
CHUNK_ROWS = 2048


class GaussianMixture(Distribution):
    r"""A mixture of normal distributions of `(rows, features)` with full covariances.

        log p(x) = logsumexp_k(log w_k + log det P_k - |(x - m_k) P_k|^2 / 2) - features log(2 pi) / 2,

    where `P_k` is upper triangular, and `P_k P_k^T` the inverse of a covariance. `initialize` fits it by scikit-learn's
    expectation and maximization, with as many components as the Bayesian information criterion asks for; those that
    are left over have no weight. Until then all components are standard normal.

    Args:
        features: of a row.
        components: at most.
        trainable: train everything by gradients, too.

    Example:
        >>> mixture = GaussianMixture(2, components=3)
        >>> mixture.initialize(torch.randn(200, 2) + 3 * torch.randint(2, (200, 1)))
        >>> mixture.log_prob(torch.zeros(1, 2)).shape
        torch.Size([1])
    """

    support = LINE
    log_weights: Tensor
    means: Tensor
    log_diagonals: Tensor
    factors: Tensor

    def __init__(self, features: int, components: int = 16, *, trainable: bool = False) -> None:
        super().__init__()
        self.features = check_size(features, "features")
        self.components = check_size(components, "components")
        self.event_shape = (self.features,)
        self.trainable = trainable
        start = {
            "log_weights": torch.full((self.components,), -math.log(self.components)),
            "means": torch.zeros(self.components, self.features),
            "log_diagonals": torch.zeros(self.components, self.features),
            "factors": torch.zeros(self.components, self.features, self.features),
        }
        for name, value in start.items():
            if trainable:
                setattr(self, name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of each item in nats: of each row, or of the nodes of each graph together."""
        check_values(x, self.event_shape or (), "GaussianMixture")
        return sum_items(in_full_precision(self._log_probs, x), context)

    def _log_probs(self, x: Tensor) -> Tensor:
        """Return the log-density of each row."""
        used = self._used()
        weights, means, factors = self.log_weights[used].log_softmax(0), self.means[used], self._roots(used)
        weights = weights + self.log_diagonals[used].sum(1)

        def run(rows: Tensor) -> Tensor:
            scaled = (rows - means[:, None]) @ factors
            return torch.logsumexp(weights[:, None] - 0.5 * scaled.square().sum(2), 0)

        if torch.is_grad_enabled() or len(x) <= CHUNK_ROWS:
            return run(x) - self.features * LOG_SQRT_2PI
        return torch.cat([run(rows) for rows in x.split(CHUNK_ROWS)]) - self.features * LOG_SQRT_2PI

    def sample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw a component by its weight, and a row from it; the context's temperature multiplies its deviations."""
        rows = (row_count(context),) if has_rows(context) else ()
        leading = (*as_shape(shape), *rows)
        with torch.no_grad():
            count = math.prod(leading)
            weights = self.log_weights.softmax(0)
            chosen = torch.multinomial(weights.expand(max(count, 1), -1), 1)[:count, 0]
            noise = torch.randn(count, self.features, dtype=weights.dtype, device=weights.device)
            roots = self._roots(slice(None)).transpose(1, 2)
            spread = torch.empty_like(noise)
            for number in chosen.unique().tolist():
                own = chosen == number
                # Of P^T y = noise, y has the covariance of the component.
                spread[own] = torch.linalg.solve_triangular(roots[number], noise[own].T, upper=False).T
            drawn = self.means[chosen] + as_context(context).temperature * spread
        return drawn.reshape(*leading, self.features)

    def sample_and_log_prob(self, shape: int | Shape = (), context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw without gradients, and return the log-density of what was drawn."""
        shape = as_shape(shape)
        drawn = self.sample(shape, context)
        items = (item_count(context),) if has_rows(context) else ()
        log_prob = self.log_prob(drawn.reshape(-1, self.features), repeat_context(shape, context)[1])
        return drawn, log_prob.reshape(*shape, *items)

    def initialize(self, x: Tensor, context: ContextLike = None) -> None:
        """Fit weights, means and covariances to a sample, and choose how many components there are.

        One row tells nothing of them: the distribution stays as it is.

        Raises:
            DomainError: if the sample holds values that are not finite.
            MissingDependencyError: without scikit-learn.
        """
        check_values(x, self.event_shape or (), "GaussianMixture")
        if not bool(x.isfinite().all()):
            raise DomainError("GaussianMixture was given values that are not finite to fit to.")
        if len(x) < 2:
            return
        rows = x.detach().double().cpu()
        centre, scale = rows.mean(0), rows.std(0, correction=0)
        # What rounding leaves of equal values is no deviation.
        scale = torch.where(scale > EQUAL * centre.abs(), scale, 1.0)
        fitted = _fitted(((rows - centre) / scale).numpy(), self.components)
        used = len(fitted.weights_)
        with torch.no_grad():
            roots = torch.as_tensor(fitted.precisions_cholesky_) / scale[None, :, None]
            self.log_weights.fill_(-math.inf if not self.trainable else -30.0)
            self.log_weights[:used] = torch.as_tensor(fitted.weights_).log().to(self.log_weights)
            self.means[:used] = (torch.as_tensor(fitted.means_) * scale + centre).to(self.means)
            self.log_diagonals[:used] = roots.diagonal(dim1=1, dim2=2).log().to(self.means)
            self.factors[:used] = roots.triu(1).to(self.means)

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Refuse: which component is drawn has no gradient."""
        raise UnsupportedError("GaussianMixture has no differentiable samples; use sample().")

    def _used(self) -> Tensor | slice:
        """Return which components have a weight."""
        return slice(None) if self.trainable else (self.log_weights > -math.inf).nonzero()[:, 0]

    def _roots(self, used: Tensor | slice) -> Tensor:
        return self.factors[used].triu(1) + self.log_diagonals[used].exp().diag_embed()


def _fitted(rows: Any, most: int) -> Any:
    """Return scikit-learn's mixture of that many components at most, the number with the lowest criterion."""
    compared = rows[:: max(1, len(rows) // COMPARED_ROWS)]
    best, least, count = 1, math.inf, 1
    while count <= min(most, max(1, len(compared) // (2 * rows.shape[1] + 2))):
        criterion = _expected_and_maximized(compared, count).bic(compared)
        if criterion >= least:
            break
        best, least = count, criterion
        count = max(count + 1, round(1.5 * count))
    return _expected_and_maximized(rows[:: max(1, len(rows) // FITTED_ROWS)], best)


def _expected_and_maximized(rows: Any, components: int) -> Any:
    with needs("scikit-learn", "app"):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as Fitted
    seed = int(torch.randint(2**31 - 1, ()))
    with warnings.catch_warnings():
        # A mixture that is not quite there yet is a mixture all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return Fitted(components, max_iter=ROUNDS, tol=1e-3, reg_covar=1e-6, random_state=seed).fit(rows)
