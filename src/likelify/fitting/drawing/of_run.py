"""What a run can draw, as methods of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from likelify.fitting.settings import FINER, ITEM_DRAWS, STEPS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from torch import Tensor

    from likelify.data import Source, SplitName
    from likelify.fitting.conditioning.given import Density, Drawn
    from likelify.fitting.drawing.inpainting import Completions
    from likelify.fitting.drawing.remaking import Remade
    from likelify.fitting.drawing.superresolution import Upscaled
    from likelify.fitting.drawing.tempering import Effort
    from likelify.fitting.quality import Quality
    from likelify.fitting.run import Run


class Draws:
    """Methods of a run that draw items, or bring items to the latent and back."""

    @property
    def _run(self) -> Run:
        return cast("Run", self)

    def sample(
        self,
        number: int | None = None,
        *,
        given: Any = None,
        label: int | str | Sequence[int | str] | None = None,
        nodes: int | None = None,
        structure: Any = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Any:
        """Draw items in the units of the data: images as integers, of tables raw rows, see `ColumnSchema`.

        `as_table` turns raw rows into words, dates and whole numbers. Of graphs the features of their nodes are drawn:
        how many nodes there are, and which edges, is taken from training graphs, which the run keeps.

        Args:
            number: of samples, by default 64; of each condition where a table of them is given, and of each graph where
                such are given, by default one.
            given: what is known of rows, and the rest is drawn given that: the value of each known column by its name,
                such as `{"age": 40}`; equally long lists of them, a data frame or a file for several conditions. None
                or an empty cell says that a value is known to be missing.
            label: class, its number or name, or several that are drawn in turn; by default all.
            nodes: of each graph: such training graphs, or complete ones where those of the data are.
            structure: graphs whose features are drawn: a `GraphBatch`, or graphs of networkx.
            temperature: below 1 samples are less varied; see `Flow.sample`.
            seed: of the draws.

        Returns:
            A tensor `(number, *event)`. Of graphs a `data.Batch`: the features `x` of all nodes `(nodes, *features)`,
            the graphs `structure`, and the `labels` of a class-conditional model.

        Warns:
            LikelifyWarning: if conditional draws are worth few independent ones, or no training graph is of that size.

        Raises:
            ConfigError: if the run has no such class or no such graphs, a number does not fit, or the model cannot draw
                so.
            DataError: if a condition is none that the model knows.
        """
        from likelify.fitting.drawing.sampling import sample

        graphs = {"nodes": nodes, "structure": structure}
        return sample(self._run, number, given=given, label=label, temperature=temperature, seed=seed, **graphs)

    def as_table(self, rows: Any) -> pyarrow.Table:
        """Return raw rows, such as `sample` draws, as a table of Arrow with the types, words and dates of the data.

        `table.to_pandas()` and `polars.from_arrow(table)` are data frames of it.

        Args:
            rows: an array or a tensor, `(rows, columns)`.

        Raises:
            ConfigError: if it is a run of something else.
            MissingDependencyError: if pyarrow, which the extra `app` installs, is not there.
        """
        from likelify.fitting.drawing.conditions import rows_of
        from likelify.fitting.drawing.filling import columns_of
        from likelify.fitting.typed import arrow_table

        schema = columns_of(self._run)
        return arrow_table(rows_of(rows, schema), schema)

    def impute(self, items: Any, *, draws: int = 1, seed: int = 0) -> Drawn:
        """Draw the missing values of rows, given what they have, and given that they are not missing.

        Args:
            items: a file, a data frame, an array; as for `score`.
            draws: of each row: several show how sure they are.
            seed: of the draws.

        Returns:
            Raw rows `(n, draws, columns)`, and what their draws are worth.

        Warns:
            LikelifyWarning: if draws are worth few independent ones.

        Raises:
            DataError: if there are no such rows, or they do not fit the model.
            ConfigError: if the model cannot draw some columns given others.
        """
        from likelify.fitting.drawing.filling import impute

        return impute(self._run, items, draws=draws, seed=seed)

    def predict_quantiles(
        self, items: Any, levels: Sequence[float], *, target: str | None = None, seed: int = 0
    ) -> np.ndarray:
        """Return quantiles of a column given all others, `(n, len(levels))`, as numbers in the units of the column.

        Those of the model's own conditional distribution where it draws the column last, as a model does that was
        fitted given all others (`likelify fit rows.csv --given a,b,c`); of weighted draws elsewhere.

        Args:
            items: rows of a file or a data frame, or raw ones; they need not have the target.
            levels: probabilities inside (0, 1).
            target: name of the column; by default the only one that is no condition.
            seed: of the draws, where there are some.

        Raises:
            DataError: if there are no such rows, or they do not fit the model.
            ConfigError: if the column has no order, or the model cannot draw some columns given others.
        """
        from likelify.fitting.drawing.filling import predict_quantiles

        return predict_quantiles(self._run, items, levels, target=target, seed=seed)

    def conditional_log_prob(self, items: Any, *, target: str | Sequence[str] | None = None, seed: int = 0) -> Density:
        """Return log p(some columns | all others) of rows in nats, with its standard error where draws estimate it.

        Args:
            items: rows of a file or a data frame, or raw ones.
            target: names of the columns, or one; by default the only one that is no condition.
            seed: of the draws, where there are some.

        Raises:
            DataError: if there are no such rows, or they do not fit the model.
            ConfigError: if there is no such column, or the model cannot draw some columns given others.
        """
        from likelify.fitting.drawing.filling import conditional_log_prob

        return conditional_log_prob(self._run, items, target=target, seed=seed)

    def quality(
        self, rows: Any = None, *, source: Source | None = None, split: SplitName | None = None, seed: int = 0
    ) -> Quality:
        """Compare drawn rows with held-out ones by the two scores that tools for synthetic tables show.

        Args:
            rows: raw rows, or a file or a data frame of them; by default as many are drawn as there are held-out ones.
            source: the data of the run, if they are open already.
            split: that they are compared with; by default the test split, or without one the validation split.
            seed: of the draws.

        Returns:
            Column shapes and column pair trends; see `fitting.quality.quality`.

        Raises:
            DataError: if the data are not there any more.
            ConfigError: if it is no run of a table.
        """
        from likelify.fitting.drawing.sampling import quality_of

        return quality_of(self._run, rows, source, split=split, seed=seed)

    def reconstruct(self, items: Any, *, limit: int | None = None, labels: Tensor | None = None) -> Remade:
        """Encode items to the latent and decode them again: what the model keeps of them.

        Args:
            items: the name of a split, the number of an item of the test split, a file, an array, a tensor, a table.
            limit: how many, the first; None for all.
            labels: class of each item, for a class-conditional model, unless the items have labels.

        Raises:
            DataError: if there are no such items, or they do not fit the model.
        """
        from likelify.fitting.drawing.remaking import reconstruct

        return reconstruct(self._run, items, limit=limit, labels=labels)

    def interpolate(self, start: Any, end: Any, steps: int = STEPS, *, labels: tuple[int, int] | None = None) -> Tensor:
        """Return items on the way from one to another in the latent, `(steps, *event)`, both included.

        Args:
            start: one item; as for `reconstruct`.
            end: one item.
            steps: number of items, at least two.
            labels: classes of both, for a class-conditional model, unless the items have labels.

        Raises:
            DataError: if there are no such items, or they do not fit the model.
        """
        from likelify.fitting.drawing.remaking import interpolate

        return interpolate(self._run, start, end, steps, labels=labels)

    def upscale(
        self,
        items: Any,
        *,
        factor: int = FINER,
        draws: int = ITEM_DRAWS,
        limit: int | None = None,
        labels: Tensor | None = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Upscaled:
        """Draw fine images around coarse ones, by a model that writes images from coarse to fine (pyramid).

        Args:
            items: coarse images, a picture or an array; or items of the model's size, as for `reconstruct`, of which
                every `factor`-th pixel of every `factor`-th row is kept.
            factor: a power of two; for items of the model's size.
            draws: of each item.
            limit: how many items, the first; None for all.
            labels: class of each item, for a class-conditional model, unless the items have labels.
            temperature: below 1 what is drawn is less varied; see `Flow.sample`.
            seed: of the draws.

        Raises:
            DataError: if there are no such items, or they do not fit the model.
            ConfigError: if the model writes its pixels in another order, or a setting does not fit.
        """
        from likelify.fitting.drawing.superresolution import upscale

        given = {"limit": limit, "labels": labels, "temperature": temperature, "seed": seed}
        return upscale(self._run, items, factor=factor, draws=draws, **given)

    def inpaint(
        self,
        items: Any,
        mask: Tensor,
        draws: int = ITEM_DRAWS,
        *,
        limit: int | None = None,
        labels: Tensor | None = None,
        seed: int = 0,
        effort: Effort | None = None,
    ) -> Completions:
        """Draw what a mask hides of items, given the rest.

        Args:
            items: as for `reconstruct`; what they hold at hidden places is not looked at.
            mask: of the shape of an item, or one for each, true where an element is hidden.
            draws: of each item.
            limit: how many items, the first; None for all.
            labels: class of each item, for a class-conditional model, unless the items have labels.
            seed: of the draws.
            effort: how much is computed for them.

        Warns:
            LikelifyWarning: if the draws are worth few independent ones.

        Raises:
            DataError: if there are no such items, or they do not fit the model.
            ConfigError: if nothing or too much is hidden.
        """
        from likelify.fitting.drawing.remaking import inpaint

        given = {"limit": limit, "labels": labels, "seed": seed, "effort": effort}
        return inpaint(self._run, items, mask, draws, **given)[1]
