"""What a recipe is, the fits that suit a model whatever the data, and rates by the number of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from likelify.fitting.settings import Draws
from likelify.settings import Values

# Where items are large or their kind is not known.
FEW = Draws(elbo_samples=1, iw_samples=10)
# Rows, or graphs, below which so much is dropped in the networks.
DROPOUT = ((1000, 0.3), (3000, 0.2), (8000, 0.1))
# Learning rates of short fits of flowified networks.
FLOWIFIED_RATES = {"fmlp": 2e-3, "fconv1": 6e-3, "fconv2": 8e-3, "fconv-fft": 8e-3}


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


# Model -> settings of the fit that suit it, whatever the data.
FITS: dict[str, Values] = {
    "marginal-spline": {"steps": 1500, "lr": 4e-3, "batch_size": 128, "average": 0.995},
    **{
        name: {"steps": 1500, "lr": 2e-3, "batch_size": 32, "average": 0.99}
        for name in ("glow", "sylvester", "residual", "coupling-flow", "mixing-flow")
    },
    **{
        name: {"steps": 3000, "lr": rate, "batch_size": 128, "average": 0.995} for name, rate in FLOWIFIED_RATES.items()
    },
    "series": {"steps": 800, "lr": 5e-3, "batch_size": 64, "average": 0.99, "patience": 5},
    # The limit is on time; so many steps are for those who give more of it.
    "pyramid": {
        "steps": 100_000,
        "max_time": 600,
        "lr": 6e-3,
        # Steps matter more than the noise of their gradients: twice as many images made each half as useful.
        "batch_size": 8,
        "average": 0.998,
        "validations": 8,
        # For regressions with some dozen inputs.
        "initialize_items": 256,
    },
    # Tables of some hundred rows, such as scikit-learn's, are overfitted soon; large ones deserve more --steps.
    "flowified-mlp": {"steps": 1000, "lr": 3e-3, "batch_size": 128, "average": 0.99},
}


def by_rows(rates: Sequence[tuple[int, float]], rows: float) -> float:
    """Return the rate of the first number that there are fewer rows than, or none."""
    return next((rate for below, rate in rates if rows < below), 0.0)
