"""Which tables the models of real numbers can take."""

from __future__ import annotations

from collections.abc import Sequence

from likelify.errors import ConfigError
from likelify.schema import ColumnSchema, mixed_in

# Of columns, how many an error names.
NAMED = 10


def require_plain(model: str, schema: Sequence[ColumnSchema], others: Sequence[str]) -> None:
    """Refuse a table of which some columns are not the real numbers that a model takes.

    Whole numbers, dates and truth values pass: such a model has a density of them as of any numbers.

    Args:
        model: its name.
        schema: of the table.
        others: names of the models that take any table.

    Raises:
        ConfigError: naming the columns, and the models that take them.
    """
    found: dict[str, list[str]] = {}
    for column in schema:
        if trouble := mixed_in(column):
            found.setdefault(trouble, []).append(f"'{column.name}'")
    if not found:
        return
    listed = [
        f"{trouble} ({', '.join(names[:NAMED])}{' and others' if len(names) > NAMED else ''})"
        for trouble, names in found.items()
    ]
    raise ConfigError(
        f"The model '{model}' is of real numbers, and the table has columns {'; '.join(listed)}. Such tables are for "
        f"{' or '.join(others)}; or leave the columns out (--drop)."
    )
