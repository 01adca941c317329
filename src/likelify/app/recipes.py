"""What `likelify fit SOURCE` does when nothing else is said: a model and settings for each kind of data."""

from typing import Any

# Source -> default model; others get a glow.
DEFAULT_MODEL = {"digits": "marginal-spline"}

# Model -> settings of the fit that suit it.
FIT: dict[str, dict[str, Any]] = {
    "marginal-spline": {"steps": 1500, "lr": 4e-3, "batch_size": 128, "average": 0.995},
    "glow": {"steps": 1500, "lr": 2e-3, "batch_size": 32, "average": 0.99},
}

# (Source, model) -> settings of the model that suit the data.
MODEL: dict[tuple[str, str], dict[str, Any]] = {
    ("digits", "glow"): {"levels": 1, "steps": 6, "coupling": "spline", "hidden": 48, "dropout": 0.1},
    ("sample-photos", "glow"): {"levels": 2, "steps": 4, "hidden": 38, "mixing": "conv-exponential"},
}

# Model -> CPU threads. Operations on a batch of tiny images are too short to share among threads; sharing them costs
# more processor time and, beside other work, more time on the wall.
THREADS = {"marginal-spline": 1}

# Source -> draws per image of the usual evaluation, for the ELBO and for importance weighting. Digits are cheap; in
# thousands of dimensions the noise of one draw is far below the spread over images.
DRAWS = {"digits": (10, 100)}


def default_model(source: str) -> str:
    """Name the model that suits a source."""
    return DEFAULT_MODEL.get(source, "glow")


def model_settings(source: str, model: str) -> dict[str, Any]:
    """Give the settings of the model that suit a source."""
    return dict(MODEL.get((source, model), {}))


def fit_settings(model: str) -> dict[str, Any]:
    """Give the settings of the fit that suit a model."""
    return dict(FIT.get(model, {}))


def draws(source: str) -> tuple[int, int]:
    """Give the usual draws per image, for the ELBO and for importance weighting."""
    return DRAWS.get(source, (1, 10))
