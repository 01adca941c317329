"""Rows of a table made one column after the other, each given those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from likelify.caching import freeze
from likelify.distributions.conditional import ColumnConditional
from likelify.errors import UnsupportedError
from likelify.nets.cells import expected_score
from likelify.nets.columns import Walk
from likelify.tracing import in_full_precision

if TYPE_CHECKING:
    from likelify.distributions.autoregressive import AutoregressiveColumns

# Rows that are made side by side.
CHUNK_ROWS = 8192


class Drawing(NamedTuple):
    """How cells are drawn: never missing ones if `present`, with deviations multiplied by the temperature."""

    present: bool = False
    temperature: float = 1.0


class Passes:
    """What a model says of one column after the other, of rows that are made as it goes.

    Args:
        model: of the columns.
        rows: how many are made side by side.
    """

    def __init__(self, model: AutoregressiveColumns, rows: int) -> None:
        self.model, self.layout = model, model.layout
        self.features = model.offset.new_zeros(self.layout.features, rows)
        self.walk = None if model.net is None else Walk(model.net, rows)
        self.matrix = model.matrix * model.earlier if model.linear else None

    def conditional(self, position: int) -> ColumnConditional:
        """Return what the column there in the order is like; each in turn, and those before it have been put."""
        model, column = self.model, self.layout.order[position]
        heads, odds = (None, None) if self.walk is None else self.walk.step(position, self.features)
        if column in model.open:
            constant = model.log_odds[model.segment(column), None].expand(-1, self.features.shape[1])
            odds = constant if odds is None else odds + constant
        else:
            odds = None
        if column not in model.scored:
            return model.assembled(column, None, None, odds)
        number = model.scored.index(column)
        loc = model.offset[number].expand(self.features.shape[1])
        if self.matrix is not None:
            loc = loc + self.matrix[number] @ self.features
        return model.assembled(column, None if heads is None else heads[:, :, 0], loc, odds)

    def skip(self, position: int) -> None:
        """Go past a condition, of which nothing is said."""
        if self.walk is not None:
            self.walk.step(position, self.features)

    def put(self, position: int, cells: Tensor) -> None:
        """Let later columns see what the column there is, `(3, rows)`."""
        layout, column = self.layout, self.layout.order[position]
        state, z, width = cells
        if layout.columns[column].rest == "steps":
            z, _ = expected_score(z, width)
        if column in layout.scored:
            self.features[layout.scored.index(column)] = z
        if column in layout.open:
            number = layout.open.index(column)
            places = slice(layout.scores + layout.starts[number], layout.scores + layout.starts[number + 1])
            values = torch.arange(layout.starts[number + 1] - layout.starts[number], device=state.device)
            self.features[places] = (state == values[:, None]).to(self.features.dtype)


def complete(
    model: AutoregressiveColumns, cells: Tensor, known: Tensor, draws: int, drawing: Drawing
) -> tuple[Tensor, Tensor]:
    """Return cells `(draws, rows, 3, d)` of which some are kept and others drawn, and log-weights `(draws, rows)`."""
    rows = len(cells)
    many = torch.arange(draws * rows, device=cells.device) % rows
    with freeze(model):
        found = [
            in_full_precision(lambda kept, at=chunk: _completed(model, kept, known[at], drawing), cells[chunk])
            for chunk in many.split(CHUNK_ROWS)
        ]
    drawn, weights = (torch.cat(parts) for parts in zip(*found, strict=True))
    return drawn.reshape(draws, *cells.shape), weights.reshape(draws, rows)


def completes_exactly(model: AutoregressiveColumns, known: Tensor, *, present: bool) -> Tensor:
    """Tell of which rows log-weights are the same for all draws, `(rows,)`, whatever the parameters are."""
    weighs = known
    if model.net is None:
        # Without a network states depend on nothing, and scores on what comes before by the linear part alone.
        scored = [model.linear and place in model.scored for place in range(model.layout.width)]
        weighs = known & torch.tensor(scored, device=known.device)
    elif present:
        weighs = known | torch.tensor([column.missing for column in model.layout.columns], device=known.device)
    order = list(model.order)
    drawn = (~known[:, order]).long()
    after = drawn.cumsum(1) > drawn
    return ~(after & weighs[:, order]).any(1)


def _completed(model: AutoregressiveColumns, cells: Tensor, known: Tensor, drawing: Drawing) -> tuple[Tensor, Tensor]:
    # What is not known is not read: it may be anything.
    made = torch.where(known.T[None], cells.permute(1, 2, 0), 0)
    weight = cells.new_zeros(len(cells))
    passes = Passes(model, len(cells))
    for position, column in enumerate(model.order):
        if position < model.layout.given:
            passes.skip(position)
        else:
            conditional, at = passes.conditional(position), made[:, column]
            made[:, column], more = _completed_column(model, conditional, column, at, known[:, column], drawing)
            weight = weight + more
        passes.put(position, made[:, column])
    return made.permute(2, 0, 1), weight


def _completed_column(
    model: AutoregressiveColumns,
    conditional: ColumnConditional,
    column: int,
    cells: Tensor,
    kept: Tensor,
    drawing: Drawing,
) -> tuple[Tensor, Tensor | float]:
    """Draw what is not kept of the cells `(3, rows)` of a column; return them, and what that adds to log-weights."""
    weight = torch.where(kept, conditional.log_prob(*cells), 0) if bool(kept.any()) else 0.0
    if bool(kept.all()):
        return cells, weight
    missing = model.layout.columns[column].missing
    if drawing.present or not missing:
        conditional, log_present = conditional.present()
        # What was never seen is never drawn; that is no choice of the caller, for which weights would have to make up.
        weight = weight + torch.where(kept, 0, log_present if missing else 0.0)
    drawn = _cell(model, column, conditional.continuous, *conditional.draw(drawing.temperature))
    return torch.where(kept, cells, drawn), weight


def _cell(model: AutoregressiveColumns, column: int, continuous: int | None, state: Tensor, z: Tensor) -> Tensor:
    """Return the cells `(3, rows)` of states and scores of a column: of columns with steps the step of each score."""
    width = torch.zeros_like(z)
    if model.layout.columns[column].rest == "steps":
        if model.snap is None:
            raise UnsupportedError("A column with steps is drawn in steps: give AutoregressiveColumns(snap=...).")
        scored = state == continuous
        middle, found = model.snap(z, column)
        z, width = torch.where(scored, middle.to(z.dtype), z), torch.where(scored, found.to(z.dtype), width)
    return torch.stack([state, z, width])


def from_noise(model: AutoregressiveColumns, noise: Tensor) -> Tensor:
    """Return the cells that standard normal noise `(rows, d)` becomes."""
    with freeze(model):
        return torch.cat(
            [in_full_precision(lambda rows: _from_noise(model, rows), rows) for rows in noise.split(CHUNK_ROWS)]
        )


def _from_noise(model: AutoregressiveColumns, noise: Tensor) -> Tensor:
    made = noise.new_zeros(3, model.layout.width, len(noise))
    passes = Passes(model, len(noise))
    for position, column in enumerate(model.order):
        conditional = passes.conditional(position)
        state, z = (found.to(noise.dtype) for found in conditional.from_noise(noise[:, column]))
        made[:, column] = _cell(model, column, conditional.continuous, state, z)
        passes.put(position, made[:, column])
    return made.permute(2, 0, 1)
