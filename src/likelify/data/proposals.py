"""Columns that no density should be of: ids, free text, numbers of rows."""

from __future__ import annotations

import numpy as np

# A column of words of which this share is met once names its rows.
DISTINCT = 0.9
# More words than this are no classes of anything; nor more than a share of the rows, if they are not a few.
MOST_WORDS, SHARE, FEW = 1000, 1 / 3, 50
# Fewer rows say nothing about numbers that count.
FEWEST = 20
# Numbers that rise with the rows may leave out so many for each.
GAPS = 3


def is_free_text(places: np.ndarray, words: int) -> str:
    """Say why a column of words is an id or free text; nothing if it is a category.

    Args:
        places: the number of the word of each row where one is present.
        words: how many different ones there are.
    """
    rows = len(places)
    if words >= DISTINCT * rows and words > 2:
        return f"nearly every row has a word of its own ({words:,} in {rows:,} rows): an id, or free text"
    if words > MOST_WORDS or (words > FEW and words > SHARE * rows):
        return f"{words:,} different words in {rows:,} rows are too many for a category"
    return ""


def numbers_rows(values: np.ndarray) -> bool:
    """Tell whether whole numbers are those of the rows: each once, all from the lowest to the highest, in any order.

    Where they rise or fall with the rows, some may be left out.

    Args:
        values: `(n,)`.
    """
    if len(values) < FEWEST or np.isnan(values).any() or (values != np.floor(values)).any():
        return False
    span, steps = float(values.max() - values.min()), np.diff(values)
    if (steps > 0).all() or (steps < 0).all():
        return span < GAPS * len(values)
    return span == len(values) - 1 and len(np.unique(values)) == len(values)
