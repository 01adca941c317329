"""Models: for each a frozen configuration that is saved as JSON, and a function that builds it.

The only place where papers' models are named. The names are loaded when they are first used, since validated
configurations need pydantic, whose import takes its time (`python -m benchmarks.imports`).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likelify.zoo.converted import ConvertedConfig, converted_flow
    from likelify.zoo.flowified import FConv1Config, FConv2Config, FConvFourierConfig, FMLPConfig, TableMLPConfig
    from likelify.zoo.images import GlowConfig, MarginalSplineConfig, glow, marginal_spline
    from likelify.zoo.mixing_flow import MixingFlowConfig
    from likelify.zoo.models import MODELS, ModelConfig, config_from_dict
    from likelify.zoo.presets import PRESETS, Preset, preset, preset_config
    from likelify.zoo.residual_flows import CouplingFlowConfig, ResidualFlowConfig, SylvesterConfig
    from likelify.zoo.vae import VaeConfig

_HOMES = {
    "ConvertedConfig": "converted",
    "converted_flow": "converted",
    "FMLPConfig": "flowified",
    "FConv1Config": "flowified",
    "FConv2Config": "flowified",
    "FConvFourierConfig": "flowified",
    "TableMLPConfig": "flowified",
    "GlowConfig": "images",
    "MarginalSplineConfig": "images",
    "glow": "images",
    "marginal_spline": "images",
    "MixingFlowConfig": "mixing_flow",
    "CouplingFlowConfig": "residual_flows",
    "ResidualFlowConfig": "residual_flows",
    "SylvesterConfig": "residual_flows",
    "VaeConfig": "vae",
    "MODELS": "models",
    "ModelConfig": "models",
    "config_from_dict": "models",
    "PRESETS": "presets",
    "Preset": "presets",
    "preset": "presets",
    "preset_config": "presets",
}

__all__ = [
    "MODELS",
    "PRESETS",
    "ConvertedConfig",
    "CouplingFlowConfig",
    "FConv1Config",
    "FConv2Config",
    "FConvFourierConfig",
    "FMLPConfig",
    "GlowConfig",
    "MarginalSplineConfig",
    "MixingFlowConfig",
    "ModelConfig",
    "Preset",
    "ResidualFlowConfig",
    "SylvesterConfig",
    "TableMLPConfig",
    "VaeConfig",
    "config_from_dict",
    "converted_flow",
    "glow",
    "marginal_spline",
    "preset",
    "preset_config",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'likelify.zoo' has no attribute {name!r}")
    return getattr(import_module(f"likelify.zoo.{_HOMES[name]}"), name)
