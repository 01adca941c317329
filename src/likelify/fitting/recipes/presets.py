"""The fits of the presets: those of the papers, as far as they say, and short ones for one processor."""

from likelify.fitting.recipes.models import FLOWIFIED_RATES
from likelify.settings import Values
from likelify.zoo.presets import PresetSize, preset

# 200 epochs of MNIST in batches of 256; CIFAR-10 had 1000 epochs, 195,000 steps.
FLOWIFIED_FIT: Values = {
    "steps": 200 * (60_000 // 256),
    "batch_size": 256,
    "lr": 5e-4,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "warmup": 0,
    "clip": None,
    "average": 0.0,
    "validations": 100,
}
FLOWIFIED_SMALL_FIT: Values = {"steps": 1500, "batch_size": 128, "lr": 4e-3, "average": 0.99}
# Of short fits of models with spline couplings.
NSF_RATE = 4e-3
# 1000 epochs of 40,000 images in batches of 256.
EPOCH = 40_000 // 256
EXPONENTIAL_FIT: Values = {
    "steps": 1000 * EPOCH,
    "batch_size": 256,
    "lr": 1e-3,
    "eps": 1e-7,
    "weight_decay": 0.0,
    "warmup": 10 * EPOCH,
    "schedule": "exponential",
    "decay": 0.995**1000,
    "average": 0.0,
    "validations": 64,
    "initialize_items": 256,
}
MIXING_FIT = EXPONENTIAL_FIT | {"optimizer": "adamax", "betas": (0.9, 0.999), "clip": None}
RESIDUAL_FIT = EXPONENTIAL_FIT | {"optimizer": "adamw", "betas": (0.9, 0.99), "warmup_power": 2.0, "clip": 1.0}
SMALL_FIT: Values = {"steps": 1500, "batch_size": 32, "lr": 2e-3, "average": 0.99, "initialize_items": 512}
# The fits of appendix F were those of the neural spline flow experiments, which differ by table.
TABLE_FIT = FLOWIFIED_SMALL_FIT | {"lr": 5e-4}


# Model of a preset -> settings of the fit in the paper, as far as `FitSettings` has them, and of a short fit.
PRESETS: dict[str, tuple[Values, Values]] = {
    "mixing-flow": (MIXING_FIT, SMALL_FIT),
    **dict.fromkeys(("coupling-flow", "residual", "sylvester"), (RESIDUAL_FIT, SMALL_FIT)),
    "flowified-mlp": (TABLE_FIT, FLOWIFIED_SMALL_FIT),
    **{model: (FLOWIFIED_FIT, FLOWIFIED_SMALL_FIT | {"lr": rate}) for model, rate in FLOWIFIED_RATES.items()},
}


def preset_fit(name: str, size: PresetSize = "paper") -> Values:
    """Return the settings of the fit of a preset.

    Args:
        name: of the preset.
        size: `"paper"`, or `"small"` for a short fit on one CPU.

    Raises:
        ConfigError: if there is no such preset or size.

    Example:
        >>> preset_fit("flowified-fconv1-nsf", "small")["lr"]
        0.004
    """
    wanted = preset(name)
    settings, (paper, small) = wanted.settings(size), PRESETS[wanted.model]
    return dict(paper) if size == "paper" else small | ({"lr": NSF_RATE} if settings.get("nsf") else {})


def flowified_rate(model: str, *, couplings: bool = False) -> float:
    """Return the learning rate of a short fit of a flowified model, with or without spline couplings."""
    return NSF_RATE if couplings else FLOWIFIED_RATES[model]
