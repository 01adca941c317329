"""The table of models, and configurations as plain data."""

from typing import Any

from likelify.errors import ConfigError
from likelify.zoo.converted import ConvertedConfig
from likelify.zoo.flowified import FConv1Config, FConv2Config, FConvFourierConfig, FMLPConfig, TableMLPConfig
from likelify.zoo.images import GlowConfig, MarginalSplineConfig
from likelify.zoo.mixing_flow import MixingFlowConfig
from likelify.zoo.residual_flows import CouplingFlowConfig, ResidualFlowConfig, SylvesterConfig
from likelify.zoo.vae import VaeConfig

ModelConfig = (
    MarginalSplineConfig
    | GlowConfig
    | MixingFlowConfig
    | CouplingFlowConfig
    | ResidualFlowConfig
    | SylvesterConfig
    | VaeConfig
    | FMLPConfig
    | FConv1Config
    | FConv2Config
    | FConvFourierConfig
    | TableMLPConfig
    | ConvertedConfig
)
MODELS: dict[str, type[ModelConfig]] = {
    "marginal-spline": MarginalSplineConfig,
    "glow": GlowConfig,
    "sylvester": SylvesterConfig,
    "residual": ResidualFlowConfig,
    "coupling-flow": CouplingFlowConfig,
    "mixing-flow": MixingFlowConfig,
    "vae": VaeConfig,
    "fmlp": FMLPConfig,
    "fconv1": FConv1Config,
    "fconv2": FConv2Config,
    "fconv-fft": FConvFourierConfig,
    "flowified-mlp": TableMLPConfig,
}


def config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """Validate a model's configuration, given as plain data with the name under ``"model"``.

    Raises:
        ConfigError: if the model is unknown or a setting does not fit.

    Example:
        >>> config_from_dict({"model": "glow", "event_shape": [1, 8, 8], "steps": 2}).steps
        2
    """
    name = values.get("model")
    if name == "converted":
        # Not in the table, because a command line has no network to convert.
        return ConvertedConfig.parse(values)
    if name not in MODELS:
        raise ConfigError(f"There is no model {name!r}; the models are {', '.join(MODELS)}.")
    return MODELS[name].parse(values)
