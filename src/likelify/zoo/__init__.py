"""Models: for each a frozen configuration that is saved as JSON, and a function that builds it.

The only place where papers' models are named.
"""

from typing import Any

from likelify.errors import ConfigError
from likelify.settings import Settings
from likelify.zoo.images import GlowConfig, MarginalSplineConfig, glow, marginal_spline

ModelConfig = GlowConfig | MarginalSplineConfig
MODELS: dict[str, type[ModelConfig]] = {"glow": GlowConfig, "marginal-spline": MarginalSplineConfig}

__all__ = [
    "MODELS",
    "GlowConfig",
    "MarginalSplineConfig",
    "ModelConfig",
    "Settings",
    "config_from_dict",
    "glow",
    "marginal_spline",
]


def config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """Validate a model's configuration, given as plain data with the name under ``"model"``.

    Raises:
        ConfigError: if the model is unknown or a setting does not fit.

    Example:
        >>> config_from_dict({"model": "glow", "event_shape": [1, 8, 8], "steps": 2}).steps
        2
    """
    name = values.get("model")
    if name not in MODELS:
        raise ConfigError(f"There is no model {name!r}; the models are {', '.join(MODELS)}.")
    return MODELS[name].parse(values)
