"""The rows of a table, one column after the other."""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from likelify.caching import freeze
from likelify.distributions import column_fit, passes
from likelify.distributions.conditional import ColumnConditional
from likelify.distributions.core import Distribution, has_rows
from likelify.distributions.intervals import log_interval, mixture_log_mass
from likelify.distributions.normal import LOG_SQRT_2PI
from likelify.distributions.normal_mixtures import NormalMixtures, mixture_log_density
from likelify.errors import ConfigError, ShapeError, UnsupportedError
from likelify.nets.cells import CellLayout, expected_score
from likelify.nets.columns import ColumnsNet
from likelify.schema import ColumnSchema
from likelify.shapes import Shape, as_shape, check_size
from likelify.structure import ContextLike, as_context
from likelify.support import Interval, check_sample
from likelify.tracing import in_full_precision, is_tracing

# Log-odds of states stay within this, so that their exponentials need no care.
MOST_ODDS = 40.0
# Rows that are worked on together where no gradients are wanted: what they need stays in the cache of a processor.
CHUNK_ROWS = 2048

Snap = Callable[[Tensor, int], tuple[Tensor, Tensor]]


class AutoregressiveColumns(Distribution):
    r"""A distribution of the cells of a table, `(3, d)` for each row, one column after the other.

        log p(cells) = sum_j log p(state_j | previous) + [state_j is continuous] log p(z_j | previous)

    States have a softmax, scores a mixture of normal distributions: its density, or in a column with steps the
    probability of the interval of that width around `z` (see `nets.cells` for cells). The argument of the mixtures is
    `(z_j - a_j previous - b_j) / s_j`, where `previous` are scores and states of the columns before.
    `initialize` finds `a`, `b` and `s` by ridge regression (for a table of real numbers the Gaussian copula) and the
    log-odds of states from how often they are met, half an observation more each.

    Without a network that is all: scores are normal, states depend on nothing, and nothing is trained. Columns that
    are conditions (`ColumnSchema.given`) come first, and are not counted: log p is then that of the others, given them.

    Args:
        schema: of the columns of the table; those that are functions of others have no place.
        order: places of the modelled columns, conditions first; that of the network, or else of the schema, if None.
        net: what is read off previous columns beyond that; trained, and `a` with it.
        linear: without it and without a network, columns are independent. Then values that are missing where none ever
            was have a probability, too, of half an observation; in all other cases they have none.
        snap: called as `snap(z, place)` for draws of columns with steps; returns the middle and the width of the cell
            in which each `z` lies, as `transforms.MixedColumns.snap` does. Without it such columns are not drawn.

    Raises:
        ConfigError: if the network is of other columns or of another order.

    Example:
        >>> from likelify.schema import real_columns
        >>> pairs = AutoregressiveColumns(real_columns(2))
        >>> pairs.log_prob(torch.zeros(1, 3, 2))
        tensor([-1.8379])
        >>> pairs.sample((5,)).shape
        torch.Size([5, 3, 2])
    """

    has_atoms = True
    matrix: Tensor
    offset: Tensor
    log_scale: Tensor
    log_odds: Tensor
    earlier: Tensor
    steps: Tensor
    dense: Tensor
    sure: Tensor

    def __init__(
        self,
        schema: Sequence[ColumnSchema],
        order: Sequence[int] | None = None,
        *,
        net: ColumnsNet | None = None,
        linear: bool = True,
        snap: Snap | None = None,
    ) -> None:
        super().__init__()
        self.linear = linear or net is not None
        self.layout = CellLayout(schema, order, smooth=not self.linear) if net is None else net.layout
        if net is not None and order is not None and tuple(order) != net.layout.order:
            raise ConfigError(f"The network has the order {net.layout.order} of columns, not {tuple(order)}.")
        if net is not None and net.layout.columns != tuple(column for column in schema if column.is_modelled):
            raise ConfigError("The network was built for a table of other columns.")
        self.net, self.snap = net, snap
        layout = self.layout
        self.event_shape = (3, layout.width)
        scores, states = layout.scores - layout.given_scores, layout.states - layout.given_states
        # The places of the columns that scores and states are said of.
        self.scored = layout.scored[layout.given_scores :]
        self.open = layout.open[layout.given_open :]
        matrix = torch.zeros(scores, layout.features)
        if net is None:
            self.register_buffer("matrix", matrix)
        else:
            self.matrix = nn.Parameter(matrix)
        self.register_buffer("offset", torch.zeros(scores))
        self.register_buffer("log_scale", torch.zeros(scores))
        self.register_buffer("log_odds", torch.zeros(states))
        positions = layout.feature_positions
        earlier = positions[layout.given_scores : layout.scores, None] > positions[None, :]
        self.register_buffer("earlier", earlier.to(matrix.dtype), persistent=False)
        # Among the scores, those of columns with steps and those with a density.
        for name, stepped in (("steps", True), ("dense", False)):
            numbers = [i for i, place in enumerate(self.scored) if (layout.columns[place].rest == "steps") == stepped]
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.long), persistent=False)
        sure = torch.tensor([place not in layout.open for place in self.scored], dtype=torch.bool)
        self.register_buffer("sure", sure[:, None], persistent=False)

    @classmethod
    def simple(cls, schema: Sequence[ColumnSchema], snap: Snap | None = None) -> tuple[Self, Self]:
        """Return what needs no training: independent columns, and the linear autoregression, to be mixed.

        The first one gives every row a probability, so that with a share of it no row is impossible.
        """
        independent, linear = (cls(schema, linear=linear, snap=snap) for linear in (False, True))
        return independent, linear

    @property
    def support(self) -> Interval | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Not known: cells hold numbers of states and widths beside scores."""
        return None

    @property
    def order(self) -> tuple[int, ...]:
        """Places of the columns, in the order in which each is given those before it."""
        return self.layout.order

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of each row of cells, of states and intervals the log-probability, in nats."""
        if as_context(context).structure is not None:
            raise UnsupportedError("The rows of a table are no nodes of graphs; give log_prob no graphs.")
        return self._in_chunks(x, self._total)

    def terms(self, x: Tensor) -> Tensor:
        """Return the log-density or log-probability of each column given those before it, `(rows, d)`; they add up.

        Columns are in the places that they have in the cells; those of conditions are zero.
        """
        return self._in_chunks(x, self._by_column)

    def initialize(self, x: Tensor, context: ContextLike = None) -> None:
        """Set the log-odds of states, and the linear part, by a sample of cells.

        Raises:
            ShapeError: for an empty sample.
            DomainError: if it holds values that are not finite.
        """
        check_sample(x, self)
        with torch.no_grad():
            self.log_odds.copy_(column_fit.log_odds(self.layout, x)[self.layout.given_states :])
            fit = column_fit.ridge(self.layout, x) if self.linear else column_fit.moments(self.layout, x)
            matrix, offset, log_scale = (found[self.layout.given_scores :] for found in fit)
            self.matrix.copy_(matrix)
            self.offset.copy_(offset)
            self.log_scale.copy_(log_scale)

    def sample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw cells, one column after the other.

        The context's temperature multiplies the deviations of scores and divides the log-odds of states.

        Raises:
            UnsupportedError: if some columns are conditions; `complete` draws the others given them.
        """
        if has_rows(context):
            raise UnsupportedError("A distribution of the rows of a table has no context: its conditions are columns.")
        self._refuse_conditions("drawn by themselves")
        shape = as_shape(shape)
        blank = self.matrix.new_zeros(1, 3, self.layout.width)
        unknown = torch.zeros(1, self.layout.width, dtype=torch.bool, device=blank.device)
        rows = torch.Size(shape).numel()
        temperature = as_context(context).temperature
        with torch.no_grad():
            drawn = passes.complete(self, blank, unknown, rows, passes.Drawing(temperature=temperature))[0]
        return drawn.reshape(*shape, 3, self.layout.width)

    def sample_and_log_prob(self, shape: int | Shape = (), context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw without gradients, and return the log-density of what was drawn."""
        drawn = self.sample(shape, context)
        log_prob = self.log_prob(drawn.reshape(-1, *drawn.shape[-2:]))
        return drawn, log_prob.reshape(as_shape(shape))

    def complete(self, x: Tensor, known: Tensor, *, draws: int = 1, present: bool = False) -> tuple[Tensor, Tensor]:
        """Return cells of which some columns are kept and the others are drawn; see `Distribution.complete`.

        Columns are drawn in their order, each given those before it; the log-weight is that of the columns kept. It is
        the same for all draws of a row, and the draws are exact, if those come first in the order.

        Raises:
            ShapeError: if a condition is not known, or the shapes differ.
        """
        layout = self.layout
        known = known.expand(len(x), layout.width)
        if not bool(known[:, layout.order[: layout.given]].all()):
            raise ShapeError("The conditions of a table (given=True) must be known to draw its other columns.")
        with torch.no_grad():
            return passes.complete(self, x, known, check_size(draws, "draws"), passes.Drawing(present))

    def completes_exactly(self, known: Tensor, *, present: bool = False) -> Tensor:
        """Tell of which rows nothing that is known depends on what `complete` draws: all comes first that has a say.

        Args:
            known: which columns are kept, truth values `(rows, d)`.
            present: draw no missing values: then that a value is there is known, too.
        """
        return passes.completes_exactly(self, known, present=present)

    def conditional(self, x: Tensor, column: int) -> ColumnConditional:
        """Return what one column is like in each row, given those before it in the order.

        Args:
            x: cells, of which those of earlier columns count.
            column: its place among the cells.

        Raises:
            ShapeError: if there is no such column, or it is a condition.
        """
        if column not in self.order[self.layout.given :]:
            raise ShapeError(f"There is no column {column} among {self.order[self.layout.given :]} to say anything of.")
        return self.conditionals(x, [column])[0]

    def conditionals(self, x: Tensor, columns: Sequence[int]) -> list[ColumnConditional]:
        """Return what several columns are like in each row, each given those before it; all by one evaluation."""
        features = self.layout.encode(*self.layout.split(x))
        heads, odds = self.heads(features)
        loc = self.linear_part(features)
        found = []
        for column in columns:
            number = self.scored.index(column) if column in self.scored else None
            states = odds[self.segment(column)] if column in self.open else None
            at = None if number is None or heads is None else heads[:, :, number]
            found.append(self.assembled(column, at, None if number is None else loc[number], states))
        return found

    def assembled(
        self, column: int, heads: Tensor | None, loc: Tensor | None, odds: Tensor | None
    ) -> ColumnConditional:
        """Return the conditional of one column.

        Args:
            column: its place.
            heads: what the network says of its score, `(3, components, rows)`.
            loc: what the linear part says of its score, `(rows,)`; None if it has none.
            odds: log-odds of its states, `(states, rows)`; None if its state is sure.
        """
        log_states = None if odds is None else odds.clamp(-MOST_ODDS, MOST_ODDS).log_softmax(0)
        continuous, stepped = self.layout.columns[column].continuous, self.layout.columns[column].rest == "steps"
        if loc is None:
            return ColumnConditional(log_states, None, continuous, stepped)
        log_scale = self.log_scale[self.scored.index(column)]
        if heads is None:
            zero = torch.zeros_like(loc)[None]
            return ColumnConditional(log_states, NormalMixtures(zero, loc[None], zero + log_scale), continuous, stepped)
        means = loc + heads[1] * log_scale.exp()
        mixture = NormalMixtures(heads[0].log_softmax(0), means, heads[2] + log_scale)
        return ColumnConditional(log_states, mixture, continuous, stepped)

    def to_noise(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return standard normal noise `(rows, d)`, one element for each column, of which `from_noise` makes `x`.

        The noise of a score is the normal quantile of the probability of what is below it. States are intervals of
        probability, and the middle of its interval stands for a state.

        Raises:
            UnsupportedError: if some columns are conditions, which no noise becomes.
        """
        self._refuse_conditions("made of noise")
        with torch.no_grad():
            return self._in_chunks(x, self._noise)

    def from_noise(self, noise: Tensor, context: ContextLike = None) -> Tensor:
        """Return the cells that standard normal noise `(rows, d)` becomes.

        Raises:
            ConvergenceError: if the inverse of a distribution function is not found.
            UnsupportedError: if some columns are conditions, which no noise becomes.
        """
        self._refuse_conditions("made of noise")
        with torch.no_grad():
            return passes.from_noise(self, noise)

    def linear_part(self, features: Tensor) -> Tensor:
        """Return the means that the linear part gives scores, `(scores, rows)`."""
        if not self.linear:
            return self.offset[:, None].expand(-1, features.shape[1])
        return in_full_precision(self._linear_part, features)

    def _linear_part(self, features: Tensor) -> Tensor:
        return torch.addmm(self.offset[:, None], self.matrix * self.earlier, features)

    def heads(self, features: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return what the network says of scores, None without one, and the log-odds of all states."""
        if self.net is None:
            return None, self.log_odds[:, None].expand(-1, features.shape[1])
        # Odds and means are what the likelihood is made of: half precision would cost it digits.
        heads, odds = in_full_precision(self.net, features)
        return heads, odds + self.log_odds[:, None]

    def segment(self, column: int) -> slice:
        """Return where the log-odds of the states of a column are."""
        number, starts = self.layout.open.index(column), self.layout.starts
        return slice(starts[number] - self.layout.given_states, starts[number + 1] - self.layout.given_states)

    def _total(self, cells: Tensor) -> Tensor:
        scores, states = in_full_precision(self._terms, cells)
        return scores.sum(0) + states.sum(0)

    def _terms(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return the terms of scores and of states, `(columns, rows)` in the order of the model."""
        state, z, width = self.layout.split(cells)
        features = self.layout.encode(state, z, width)
        heads, odds = self.heads(features)
        scores = self._score_terms(features, heads, state, z, width)
        if not len(odds):
            return scores, odds
        odds = odds.clamp(-MOST_ODDS, MOST_ODDS)
        segments = self.layout.segments[self.layout.given_open :, self.layout.given_states :]
        chosen = features[self.layout.scores + self.layout.given_states :]
        terms = segments @ (chosen * odds) - (segments @ odds.exp()).log()
        # A state that there is not marks nothing.
        return scores, torch.where(chosen.sum(0) == len(self.open), terms, -torch.inf)

    def _score_terms(self, features: Tensor, heads: Tensor | None, state: Tensor, z: Tensor, width: Tensor) -> Tensor:
        layout = self.layout
        columns = layout.score_columns[layout.given_scores :]
        # Features are no copies of scores where there are steps.
        z = z.index_select(0, columns) if len(self.steps) else features[layout.given_scores : layout.scores]
        u = (z - self.linear_part(features)) * (-self.log_scale).exp()[:, None]
        if not len(self.steps):
            found = _log_density(heads, u) - self.log_scale[:, None]
        else:
            found = self._of_both(heads, u, width.index_select(0, columns))
        scored = state.index_select(0, columns) == layout.score_states[layout.given_scores :, None]
        # What is missing from a column in which nothing may be missing has no probability.
        return torch.where(scored, found, torch.where(self.sure, -torch.inf, 0.0).to(found.dtype))

    def _of_both(self, heads: Tensor | None, u: Tensor, width: Tensor) -> Tensor:
        """Return log-densities of scores, and of columns with steps the log-probabilities of their intervals."""
        found = torch.empty_like(u)
        if len(self.dense):
            kept = None if heads is None else heads.index_select(2, self.dense)
            density = _log_density(kept, u.index_select(0, self.dense)) - self.log_scale[self.dense, None]
            found = found.index_copy(0, self.dense, density)
        half = 0.5 * width.index_select(0, self.steps) * (-self.log_scale[self.steps]).exp()[:, None]
        middle = u.index_select(0, self.steps)
        if heads is None:
            return found.index_copy(0, self.steps, log_interval(middle, half))
        stepped = heads.index_select(2, self.steps) if len(self.dense) else heads
        return found.index_copy(0, self.steps, mixture_log_mass(stepped, middle, half))

    def _noise(self, cells: Tensor) -> Tensor:
        state, z, width = self.layout.split(cells)
        # The middle of an outermost cell is too far out to have noise.
        z = torch.where(self.layout.has_steps, expected_score(z, width)[0], z)
        conditionals = self.conditionals(cells, range(self.layout.width))
        noise = [found.to_noise(state[i], z[i]) for i, found in enumerate(conditionals)]
        return torch.stack(noise, 1).to(cells.dtype)

    def _by_column(self, cells: Tensor) -> Tensor:
        scores, states = in_full_precision(self._terms, cells)
        found = scores.new_zeros(self.layout.width, len(cells))
        for places, terms in ((self.scored, scores), (self.open, states)):
            found = found.index_add(0, torch.tensor(places, dtype=torch.long, device=found.device), terms)
        return found.T

    def _in_chunks(self, cells: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        if torch.is_grad_enabled() or len(cells) <= CHUNK_ROWS or is_tracing():
            return run(cells)
        with torch.no_grad(), freeze(self):
            return torch.cat([run(chunk) for chunk in cells.split(CHUNK_ROWS)])

    def _refuse_conditions(self, what: str) -> None:
        if self.layout.given:
            raise UnsupportedError(
                f"Some columns of this table are conditions, so its rows are not {what}; complete(x, known) draws the "
                "other columns given them."
            )


def _log_density(heads: Tensor | None, u: Tensor) -> Tensor:
    """Return the log-densities of mixtures of normal distributions, or without any of a standard normal one."""
    return -0.5 * u.square() - LOG_SQRT_2PI if heads is None else mixture_log_density(heads, u)
