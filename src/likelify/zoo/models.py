"""The table of models, and configurations as plain data."""

from typing import Any

from likelify.errors import ConfigError
from likelify.zoo.images import GlowConfig, MarginalSplineConfig

ModelConfig = GlowConfig | MarginalSplineConfig
MODELS: dict[str, type[ModelConfig]] = {"glow": GlowConfig, "marginal-spline": MarginalSplineConfig}


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
