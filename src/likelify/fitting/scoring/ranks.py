"""The rank of an item among held-out items: a p-value that needs no assumption about the model."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from likelify.errors import DataError, NonFiniteError


def ranks(nats: ArrayLike, reference: ArrayLike) -> np.ndarray:
    r"""Return for each item the share of items that are at most as likely, the item itself counted among them.

    `(1 + #{i : r_i <= s}) / (1 + n)` for an item of log-likelihood `s` and `n` reference items `r_i`. If the item comes
    from the same distribution as the reference items, and neither was used to fit the model, all `n + 1` places are
    equally likely: without ties the rank is uniform on `1 / (n + 1), 2 / (n + 1), ..., 1`, and with ties
    `P(rank <= a) <= a` for every `a`. That holds for any model, any `n` and any likelihood, also for estimates if both
    took as many draws.

    Args:
        nats: log-likelihoods of items; minus infinity is as unlikely as it gets.
        reference: those of the reference items `(n,)`, at least one.

    Raises:
        NonFiniteError: if one is not a number.
        DataError: if there are no reference items.

    Source:
        Vovk, Gammerman and Shafer 2005 (conformal p-values); Bates et al. 2023 (their use for outliers).

    Example:
        >>> ranks([-7.0, -2.0, -1.0], [-3.0, -2.0, -1.5]).tolist()
        [0.25, 0.75, 1.0]
    """
    values, known = np.asarray(nats, dtype=np.float64), np.sort(np.asarray(reference, dtype=np.float64).ravel())
    if not len(known):
        raise DataError("There are no reference items, so nothing can be ranked among them.")
    if np.isnan(values).any() or np.isnan(known).any():
        raise NonFiniteError("A log-likelihood that is not a number has no rank.")
    return (1 + np.searchsorted(known, values, side="right")) / (1 + len(known))
