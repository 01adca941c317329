"""What a recipe is, and rates by the number of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from likelify.fitting.recipes.models import FITS
from likelify.fitting.settings import Draws
from likelify.settings import Values

# Where items are large or their kind is not known.
FEW = Draws(elbo_samples=1, iw_samples=10)
# Rows, or graphs, below which so much is dropped in the networks.
DROPOUT = ((1000, 0.3), (3000, 0.2), (8000, 0.1))


@dataclass(frozen=True)
class Recipe:
    """What suits the data of a source, or of a kind.

    Attributes:
        model: name of the model that is fitted if none is named.
        models: settings of models by name, where other than their defaults suit the data.
        fits: settings of fits by name of the model, over those that suit the model whatever the data.
        threads: of the CPU, or None for all. Operations on a batch of tiny items are too short to share among threads;
            sharing them costs more processor time and, beside other work, more time on the wall.
        draws: of the usual evaluation.
    """

    model: str
    models: Mapping[str, Values] = field(default_factory=dict)
    fits: Mapping[str, Values] = field(default_factory=dict)
    threads: int | None = None
    draws: Draws = FEW

    def fit(self, model: str) -> Values:
        """Return the settings of the fit of a model to these data."""
        return {**FITS.get(model, {}), **self.fits.get(model, {})}


def by_rows(rates: Sequence[tuple[int, float]], rows: float) -> float:
    """Return the rate of the first number that there are fewer rows than, or none."""
    return next((rate for below, rate in rates if rows < below), 0.0)
