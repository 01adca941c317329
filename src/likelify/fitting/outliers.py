r"""How odd a row of a table is: how unlikely it is once every column has been brought to the same scale.

The log-likelihood of a row is a poor measure of that, for a density has units and spikes: a column that is nearly
always within a millionth of a value makes all of its rows likely, whatever the other columns say, and one with many
zeros has a probability in one row and a density in the next. So rows are measured where the model itself works: behind
the marginals that were fitted to each column, in `z`, which is standard normal in every column with a density.

    s(x) = v(x) - log p(x),   in nats; higher is odder,

    v_j = log dz_j/dx_j                                     for a value with a density,
        = log [Phi(b) - Phi(a)] - log phi(m),
          m = Phi^-1([Phi(a) + Phi(b)] / 2)                 for a step, which is the interval (a, b) of z,
        = 0                                                 for a state: a category, a zero, a missing value, and what
                                                            was never seen.

For a table of real numbers this is `-log p(z)`. A state counts with minus the logarithm of its probability. A step
counts as a density does, by how much more of it the model expects than the marginal alone: narrow ones like the real
number in their middle. For independent columns each real value adds `z^2 / 2` and a constant, and each state what it is
worth by itself, so what is left is how far out a row is; all that the model knows of how columns go together comes on
top. Nothing changes with the units of a column, nor under any other increasing function of it that the marginals
follow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import log_ndtr

from likelify.distributions.intervals import log_interval
from likelify.distributions.normal import LOG_SQRT_2PI
from likelify.distributions.normal_mixtures import normal_quantile
from likelify.errors import ShapeError
from likelify.flows import Flow
from likelify.support import rows_outside_allowed
from likelify.transforms import Chain, Columns, MixedColumns, Transform


def outlier_score(flow: Flow, rows: Tensor, nats: Tensor | None = None) -> Tensor:
    r"""Return how odd rows are in nats, `(n,)` in float64: `v(x) - log p(x)`, see the module; higher is odder.

    It is infinite where the likelihood is zero: outside of a declared range, or where a column that follows from others
    does not. Where it is not known (NaN), neither is the score.

    Args:
        flow: a model of rows. One that starts with neither `MixedColumns` nor `Columns` is taken at its word: the
            score is then `-log p(x)`, with the units that the rows have.
        rows: `(n, columns)` in the units of the table, NaN where a value is missing.
        nats: their log-likelihoods, if they are at hand or only estimated.

    Raises:
        ShapeError: if these are no rows, or there is not one log-likelihood for each.
        UnsupportedError: if the model is not exact and no log-likelihoods are given.

    Example:
        >>> import likelify as lk
        >>> rows = torch.tensor([[0.0], [1.0], [2.0], [9.0]], dtype=torch.float64)
        >>> flow = lk.Flow(lk.Normal((1,)), lk.transforms.Columns(1))
        >>> _ = flow.initialize(rows)
        >>> outlier_score(flow, rows).round(decimals=2).tolist()
        [1.28, 1.08, 0.96, 2.36]
    """
    if rows.ndim != 2:
        raise ShapeError(f"Outliers are found among rows (n, columns), and these are of the shape {tuple(rows.shape)}.")
    nats = flow.log_prob(rows) if nats is None else nats
    if nats.shape != rows.shape[:1]:
        raise ShapeError(f"There are {len(rows)} rows, and log-likelihoods of the shape {tuple(nats.shape)}.")
    found = log_volume(flow.transform, rows).to(nats.device) - nats.double()
    return found.where(nats != -math.inf, math.inf)


def log_volume(transform: Transform, rows: Tensor) -> Tensor:
    """Return `v(x)`, see the module, `(n,)` in float64: the logarithm of how much of `z` there is to a row."""
    while isinstance(transform, Chain):
        transform = transform[0]
    if not isinstance(transform, Columns | MixedColumns):
        return torch.zeros(len(rows), dtype=torch.float64)
    # Rows outside of the support have a likelihood of zero, which is known by now.
    with torch.no_grad(), rows_outside_allowed():
        z, contribution = transform(rows)
        shares = 0.0 if isinstance(transform, Columns) else transform.shares(rows).double().sum(1)
    volume = contribution.double() - shares
    return volume if isinstance(transform, Columns) else volume + _steps(z.double(), transform)


def _steps(cells: Tensor, columns: MixedColumns) -> Tensor:
    """Return what the values that are steps add, in all columns that count."""
    counts = [not column.given for column in columns.schema if column.is_modelled]
    z, width = cells[:, 1], cells[:, 2]
    half = width / 2
    below, above = (torch.logaddexp(log_ndtr(end - half), log_ndtr(end + half)) - math.log(2) for end in (z, -z))
    median = normal_quantile(below, above)
    added = (log_interval(z, half) + median.square() / 2 + LOG_SQRT_2PI).where(width > 0, 0.0)
    return added[:, torch.tensor(counts, device=cells.device)].sum(1)
