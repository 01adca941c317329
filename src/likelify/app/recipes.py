"""What `likelify fit SOURCE` does when nothing else is said: a model and settings for each kind of data."""

from typing import Any

from likelify.zoo.presets import FLOWIFIED_RATES

# Source -> default model; others get a glow, or the one of tables.
DEFAULT_MODEL = {"digits": "marginal-spline", "fashion-mnist": "fconv2", "mnist": "fconv2"}
TABLE_MODEL = "flowified-mlp"

# Model -> settings of the fit that suit it, whatever the data.
FIT: dict[str, dict[str, Any]] = {
    "marginal-spline": {"steps": 1500, "lr": 4e-3, "batch_size": 128, "average": 0.995},
    **{
        name: {"steps": 1500, "lr": 2e-3, "batch_size": 32, "average": 0.99}
        for name in ("glow", "sylvester", "residual", "coupling-flow", "mixing-flow")
    },
    **{
        name: {"steps": 3000, "lr": rate, "batch_size": 128, "average": 0.995} for name, rate in FLOWIFIED_RATES.items()
    },
    # Tables of some hundred rows, such as scikit-learn's, are overfitted soon; large ones deserve more --steps.
    "flowified-mlp": {"steps": 1000, "lr": 3e-3, "batch_size": 128, "average": 0.99},
}

# (Source, model) -> other settings of the fit.
FIT_TO: dict[tuple[str, str], dict[str, Any]] = {
    ("digits", "sylvester"): {"steps": 600, "lr": 8e-3, "batch_size": 64, "weight_decay": 1e-3},
    ("digits", "residual"): {"steps": 600, "lr": 1e-2, "batch_size": 64},
    ("digits", "coupling-flow"): {"steps": 800, "lr": 4e-3, "batch_size": 64},
    ("digits", "mixing-flow"): {"steps": 800, "lr": 5e-3, "batch_size": 64},
    # A step takes a tenth of a second of one core.
    ("fashion-mnist", "fconv2"): {"max_time": 900},
    ("mnist", "fconv2"): {"max_time": 900},
}

# (Source, model) -> settings of the model that suit the data.
MODEL: dict[tuple[str, str], dict[str, Any]] = {
    ("digits", "glow"): {"levels": 1, "steps": 6, "coupling": "spline", "hidden": 48, "dropout": 0.1},
    # The cheap bound: on tiny images the tight one takes as long as the layer.
    ("digits", "sylvester"): {"hidden": 64, "norm_limit": 1.8, "norm_bound": "reshape"},
    ("digits", "mixing-flow"): {"norm_limit": 1.8, "norm_bound": "reshape"},
    ("digits", "residual"): {"hidden": 64},
    ("digits", "coupling-flow"): {"hidden": 64},
    ("sample-photos", "glow"): {"levels": 2, "steps": 4, "hidden": 38, "mixing": "conv-exponential"},
}

# Source -> CPU threads. Operations on a batch of tiny images are too short to share among threads; sharing them costs
# more processor time and, beside other work, more time on the wall.
THREADS = {"digits": 1}

# Source -> draws per image of the usual evaluation, for the ELBO and for importance weighting. Digits are cheap; in
# thousands of dimensions the noise of one draw is far below the spread over images.
DRAWS = {"digits": (10, 100), "fashion-mnist": (1, 128), "mnist": (1, 128), "cifar-10": (1, 128)}
# The same of tables: rows are cheap.
TABLE_DRAWS = (10, 100)

# Source -> items that the usual evaluation weights by importance; of others all. Weighting 10,000 images would take
# longer than fitting them.
IW_ITEMS = {"fashion-mnist": 500, "mnist": 500, "cifar-10": 500}
# The five large tables have up to 250,000 test rows.
TABLE_IW_ITEMS = 5000


def default_model(source: str, *, table: bool = False) -> str:
    """Name the model that suits a source."""
    return TABLE_MODEL if table else DEFAULT_MODEL.get(source, "glow")


def model_settings(source: str, model: str) -> dict[str, Any]:
    """Return the settings of the model that suit a source."""
    return dict(MODEL.get((source, model), {}))


def fit_settings(model: str, source: str = "") -> dict[str, Any]:
    """Return the settings of the fit that suit a model, and a source if there are some for both."""
    return FIT.get(model, {}) | FIT_TO.get((source, model), {})


def threads(source: str, *, table: bool = False) -> int | None:
    """Return the number of CPU threads that suits a source, or None for all."""
    return 1 if table else THREADS.get(source)


def draws(source: str, *, table: bool = False) -> tuple[int, int]:
    """Return the usual draws per item, for the ELBO and for importance weighting."""
    return TABLE_DRAWS if table else DRAWS.get(source, (1, 10))


def iw_items(source: str, *, table: bool = False) -> int | None:
    """Return the number of items that the usual evaluation weights by importance; None for all."""
    return TABLE_IW_ITEMS if table else IW_ITEMS.get(source)
