"""The papers' models by name, as plain data: at the paper's size, and for one CPU.

Those of the convolution exponential paper are `table1-...`, `table2-...` and `table3-...`; of table 2 with uniform
dequantization, and variational with `-variational` at the end. Those of the flowification paper are `flowified-...`; at
the paper's size with its splines, at the small size with ours. Their fits are in `fitting/recipes/presets.py`.
What the public code had and these have not is in `docs/models-convexp.md` and `docs/flowification.md`.
"""

from dataclasses import dataclass
from typing import Any, Literal

from likelify.errors import ConfigError, unknown_word
from likelify.settings import Values
from likelify.zoo.registry import ModelConfig, config_from_dict

PresetSize = Literal["paper", "small"]

# The DenseNets of split priors and dequantizers, and the couplings of table 1.
PAPER_NETS: Values = {"width": 64, "depth": 8, "growth": 64, "noise_steps": 4, "noise_features": 32, "noise_depth": 4}
SMALL_NETS: Values = {"width": 24, "depth": 3, "growth": 12, "noise_steps": 2, "noise_features": 12, "noise_depth": 2}
SMALL_GROWTH = {"1x1": 12, "emerging": 10, "woodbury": 7, "conv-exponential": 10, "axis-exponential": 12}

CONVEXP = "The convolution exponential and generalized Sylvester flows"
FLOWIFICATION = "Flowification"


@dataclass(frozen=True)
class Preset:
    """A model of a paper.

    Attributes:
        name: of the preset.
        summary: one line, with the paper's figure for CIFAR-10 if it has one: the negative ELBO in bits per dimension.
        paper: title of the paper.
        model: name of the model.
        sizes: settings of the model by size, without those of the data.
    """

    name: str
    summary: str
    paper: str
    model: str
    sizes: dict[PresetSize, Values]

    def settings(self, size: PresetSize = "paper") -> Values:
        """Return the settings of the model at a size, with its name.

        Raises:
            ConfigError: if there is no such size.
        """
        if size not in self.sizes:
            raise ConfigError(unknown_word("size of a preset", size, self.sizes))
        return {"model": self.model} | self.sizes[size]


def _mixing(mixing: str, bits: str, growth: int = 63) -> Preset:
    common = {"mixing": mixing, "levels": 2, "dequantization": "variational"}
    # The published widths make up for the parameters of the mixing layers, more or less; so do the small ones.
    sizes: dict[PresetSize, Values] = {
        "paper": common | PAPER_NETS | {"steps": 10, "growth": growth},
        "small": common | SMALL_NETS | {"steps": 4, "growth": SMALL_GROWTH[mixing]},
    }
    return Preset(f"table1-{mixing}", f"couplings, mixing by {mixing}: {bits}", CONVEXP, "mixing-flow", sizes)


def _residual(name: str, what: str, bits: str, dequantization: str, model: str, **settings: Any) -> Preset:
    common = {"dequantization": dequantization} | settings
    halved = 2 if "equal-memory" in name else 1
    paper = common | PAPER_NETS | {"levels": 3, "steps": 16 // halved, "hidden": 528}
    if model == "sylvester":
        paper["net_norm_limit"] = 1.5
    small = common | SMALL_NETS | {"levels": 2, "steps": 4 // halved, "hidden": 96}
    summary = f"{what}, {dequantization} noise" + (f": {bits}" if bits else "")
    return Preset(name, summary, CONVEXP, model, {"paper": paper, "small": small})


def _table2(name: str, what: str, uniform: str, variational: str, model: str, **settings: Any) -> list[Preset]:
    return [
        _residual(f"table2-{name}", what, uniform, "uniform", model, **settings),
        _residual(f"table2-{name}-variational", what, variational, "variational", model, **settings),
    ]


def _table3(form: str, what: str, bits: str) -> Preset:
    return _residual(f"table3-{form}", what, bits, "variational", "sylvester", form=form)


def _flowified(name: str, what: str, bits: str, model: str, **settings: Any) -> Preset:
    paper = settings | {"shared_splines": True, "interval": 2.0}
    summary = f"{what}: {bits}" if bits else what
    return Preset(f"flowified-{name}", summary, FLOWIFICATION, model, {"paper": paper, "small": settings})


def _table_net(widths: tuple[int, ...]) -> Preset:
    paper = {"widths": widths, "activation": "leaky-relu", "learned_noise": False}
    name = f"flowified-table-{'-'.join(map(str, widths))}"
    summary = f"table net of appendix F, widths {', '.join(map(str, widths))}"
    return Preset(name, summary, FLOWIFICATION, "flowified-mlp", {"paper": paper, "small": {"widths": widths}})


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        _mixing("1x1", "3.285", 64),
        _mixing("emerging", "3.245"),
        _mixing("woodbury", "3.247"),
        _mixing("conv-exponential", "3.237"),
        _mixing("axis-exponential", "ours, not in the paper", 64),
        *_table2("coupling", "affine couplings", "3.38", "3.27", "coupling-flow"),
        *_table2("residual", "Lipschitz residual blocks", "3.37", "3.26", "residual"),
        *_table2("residual-equal-memory", "half as many residual blocks", "3.44", "3.35", "residual"),
        *_table2("sylvester", "convolutional Sylvester layers", "3.32", "3.21", "sylvester"),
        *_table2(
            "sylvester-axis", "Sylvester layers in a basis of axis exponentials", "", "", "sylvester", basis="axis"
        ),
        _table3("without-generalization", "Sylvester layers without a network", "3.44"),
        _table3("without-basis", "Sylvester layers without the basis change", "3.27"),
        _flowified("fmlp", "flowified multilayer perceptron (FMLP)", "", "fmlp"),
        _flowified("fconv1", "overlapping kernels (FCONV1)", "4.91; MNIST 3.11", "fconv1"),
        _flowified(
            "fconv1-uniform", "overlapping kernels, uniform noise", "6.24; MNIST 3.41", "fconv1", noise="uniform"
        ),
        _flowified("fconv1-nsf", "overlapping kernels and couplings", "3.93; MNIST 2.70", "fconv1", nsf=True),
        _flowified("fconv2", "kernels without overlap (FCONV2)", "", "fconv2"),
        _flowified("fconv2-nsf", "kernels without overlap, and couplings", "3.69; MNIST 1.35", "fconv2", nsf=True),
        _flowified("fconv-fft", "circular convolutions through their Fourier transform", "", "fconv-fft"),
        _table_net((128, 128, 128, 64, 32)),
        _table_net((128, 64, 32, 16, 8)),
        _table_net((8, 16, 32, 64, 128)),
        _table_net((32, 64, 128, 128, 128)),
    )
}


def preset(name: str) -> Preset:
    """Return the preset of that name.

    Raises:
        ConfigError: if there is none; the message names the nearest.
    """
    if name not in PRESETS:
        raise ConfigError(unknown_word("preset", name, PRESETS))
    return PRESETS[name]


def preset_config(
    name: str, event_shape: tuple[int, int, int] = (3, 32, 32), *, size: PresetSize = "paper", **settings: Any
) -> ModelConfig:
    """Return the configuration of a preset for images of some shape.

    Args:
        name: of the preset.
        event_shape: `(channels, height, width)`; CIFAR-10's by default.
        size: the paper's, or `"small"` for one CPU.
        **settings: of the model, instead of the preset's.

    Raises:
        ConfigError: if there is no such preset, or a setting does not fit.

    Example:
        >>> preset_config("table2-sylvester", (1, 8, 8), size="small", pixel_levels=17).hidden
        96
    """
    return config_from_dict(preset(name).settings(size) | {"event_shape": event_shape} | settings)
