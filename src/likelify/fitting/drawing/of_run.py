"""What a run can draw, as methods of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor

    from likelify.fitting.drawing.inpainting import Completions
    from likelify.fitting.drawing.remaking import Remade
    from likelify.fitting.run import Run


class Draws:
    """Methods of a run that draw items, or bring items to the latent and back."""

    @property
    def _run(self) -> Run:
        return cast("Run", self)

    def sample(
        self,
        number: int = 64,
        *,
        label: int | str | Sequence[int | str] | None = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Tensor:
        """Draw items in the units of the data: images as integers, rows of tables in the user's units.

        Args:
            number: of samples.
            label: class, its number or name, or several that are drawn in turn; by default all.
            temperature: below 1 samples are less varied; see `Flow.sample`.
            seed: of the draws.

        Raises:
            ConfigError: if the run has no such class, or a number does not fit.
        """
        from likelify.fitting.drawing.sampling import sample

        return sample(self._run, number, label=label, temperature=temperature, seed=seed)

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

    def interpolate(self, a: Any, b: Any, steps: int = 10, *, labels: tuple[int, int] | None = None) -> Tensor:
        """Return items on the way from one to another in the latent, `(steps, *event)`, both included.

        Args:
            a: one item; as for `reconstruct`.
            b: one item.
            steps: number of items, at least two.
            labels: classes of both, for a class-conditional model, unless the items have labels.

        Raises:
            DataError: if there are no such items, or they do not fit the model.
        """
        from likelify.fitting.drawing.remaking import interpolate

        return interpolate(self._run, a, b, steps, labels=labels)

    def inpaint(self, items: Any, mask: Tensor, draws: int = 8, **settings: Any) -> Completions:
        """Draw what a mask hides of items, given the rest.

        Args:
            items: as for `reconstruct`; what they hold at hidden places is not looked at.
            mask: of the shape of an item, or one for each, true where an element is hidden.
            draws: of each item.
            **settings: labels, seed, limit and effort, as `remaking.inpaint` takes them.

        Warns:
            LikelifyWarning: if the draws are worth few independent ones.

        Raises:
            DataError: if there are no such items, or they do not fit the model.
            ConfigError: if nothing or too much is hidden.
        """
        from likelify.fitting.drawing.remaking import inpaint

        return inpaint(self._run, items, mask, draws, **settings)[1]
