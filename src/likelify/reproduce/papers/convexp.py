"""Tables 1 to 3 of the convolution exponential paper (Hoogeboom et al. 2020), at its size and at a CPU's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from likelify.fitting.recipes import presets
from likelify.fitting.sources import DataChoice
from likelify.reproduce.cell import Measuring
from likelify.reproduce.costs import Costing
from likelify.reproduce.evidence import Evidence
from likelify.reproduce.experiment import DataSet, Experiment, Method, Paper, Scale
from likelify.reproduce.papers import convexp_words as words
from likelify.reproduce.papers import fits
from likelify.settings import Values
from likelify.zoo import PRESETS, preset

CIFAR = words.CIFAR
PHOTOS = "sample-photos"
FASHION = "Fashion-MNIST"

# Settings of the mixing of each row of table 1. The published limit of the norm is 0.9, here by the tight bound.
MIXINGS: dict[str, Values] = {
    "1x1": {"mixing": "1x1"},
    "two 1x1": {"mixing": "two-1x1"},
    "Emerging": {"mixing": "emerging"},
    "Woodbury": {"mixing": "woodbury"},
    "periodic": {"mixing": "periodic"},
    "convolution exponential": {"mixing": "conv-exponential"},
    "convolution exponential (no limit)": {"mixing": "conv-exponential", "norm_limit": None},
    "convolution exponential (5x5)": {"mixing": "conv-exponential", "mixing_kernel": 5},
    "orthogonal": {"mixing": "orthogonal", "norm_limit": None},
    "axis exponential": {"mixing": "axis-exponential"},
}
# Width and growth of the coupling networks: all rows of one data set have the parameters of 1x1 within 2 %.
WIDTHS: dict[str, dict[str, tuple[int, int]]] = {
    PHOTOS: {
        "1x1": (20, 14),
        "two 1x1": (19, 14),
        "Emerging": (18, 12),
        "Woodbury": (12, 7),
        "periodic": (17, 13),
        "convolution exponential": (16, 13),
        "convolution exponential (no limit)": (16, 13),
        "convolution exponential (5x5)": (11, 7),
        "orthogonal": (16, 13),
        "axis exponential": (20, 13),
    },
    FASHION: {
        "1x1": (20, 14),
        "two 1x1": (20, 14),
        "Emerging": (18, 15),
        "Woodbury": (14, 9),
        "periodic": (18, 15),
        "convolution exponential": (18, 15),
        "convolution exponential (no limit)": (18, 15),
        "convolution exponential (5x5)": (20, 13),
        "orthogonal": (18, 15),
        "axis exponential": (21, 13),
    },
}
SMALL_MIXING: Values = {"model": "mixing-flow", "levels": 2, "steps": 4, "depth": 2}
TINY: Values = {"levels": 1, "steps": 1, "width": 8, "depth": 1, "growth": 4}
TINY_NOISE: Values = {"noise_steps": 1, "noise_features": 4, "noise_depth": 1}

# The models of table 2; each has a row for either kind of noise.
STACKS = {
    "coupling": "table2-coupling",
    "residual": "table2-residual",
    "residual (equal memory)": "table2-residual-equal-memory",
    "Sylvester": "table2-sylvester",
    "Sylvester (axis basis)": "table2-sylvester-axis",
}
NOISES = {"uniform": "", "variational": "-variational"}
ABLATIONS = {
    "full": "table2-sylvester-variational",
    "without f_AR": "table3-without-generalization",
    "without the basis": "table3-without-basis",
}

DIGITS = DataSet("digits", DataChoice(source="digits"))
CIFAR_DATA = DataSet(CIFAR, DataChoice(source="cifar-10"), from_files=True)
# With more than 300 images validation draws noise once for each.
VALIDATION = {"validation": 320}
SECONDS = {"table-1": (95.0, 135.0), "table-2": (260.0, 440.0), "table-3": (260.0, 440.0)}
FASHION_SECONDS = (80.0, 90.0)
QUICK_SECONDS = (1.0, 3.0)
QUICK_MEASURING = Measuring(iw_samples=32, iw_items=8, seconds=QUICK_SECONDS[1])
PAPER_MEASURING = Measuring(iw_samples=1000, iw_items=500, seconds=None)


def table_1(scale: Scale) -> Experiment:
    """Return the table of mixing layers."""
    return _table(
        "table-1",
        scale,
        title="Table 1: layers that mix channels and positions",
        methods=[_mixing(title, scale) for title in MIXINGS],
        baseline="1x1",
        seeds=5,
        fit=presets.MIXING_FIT,
        paper=Paper(f"{words.SOURCE}, table 1", words.TABLE_1, words.TABLE_1_WEIGHTED, words.TABLE_1_COSTS),
        discuss=words.discuss_mixing,
    )


def table_2(scale: Scale) -> Experiment:
    """Return the table of residual transformations."""
    methods = [stack(title, noise, scale) for noise in NOISES for title in STACKS]
    return _table(
        "table-2",
        scale,
        title="Table 2: residual transformations",
        methods=methods,
        baseline=methods[0].title,
        seeds=3,
        fit=presets.RESIDUAL_FIT,
        paper=Paper(f"{words.SOURCE}, table 2", words.TABLE_2, words.TABLE_2_WEIGHTED),
        discuss=words.discuss_residual,
    )


def table_3(scale: Scale) -> Experiment:
    """Return the ablations of the convolutional Sylvester flow."""
    return _table(
        "table-3",
        scale,
        title="Table 3: what the parts of the Sylvester layer are good for",
        methods=[Method(title, _stacked(name, scale)) for title, name in ABLATIONS.items()],
        baseline="full",
        seeds=3,
        fit=presets.RESIDUAL_FIT,
        paper=Paper(f"{words.SOURCE}, table 3", words.TABLE_3, words.TABLE_3_WEIGHTED),
        discuss=words.discuss_ablations,
    )


def stack(title: str, noise: str, scale: Scale) -> Method:
    """Return a row of table 2.

    Args:
        title: one of `STACKS`.
        noise: of the dequantization, one of `NOISES`.
        scale: of the model.
    """
    model = _stacked(STACKS[title] + NOISES[noise], scale)
    return Method(f"{title}, {noise}", model, against=f"{next(iter(STACKS))}, {noise}")


def photos(name: str) -> DataSet:
    """Return the photographs as a table has them at CPU scale, by the name of its experiment."""
    fit, measuring = SECONDS[name]
    choice = DataChoice(source="sample-photos", limits=VALIDATION)
    return DataSet(PHOTOS, choice, budget=fit, measuring=Measuring(seconds=measuring))


def _mixing(title: str, scale: Scale) -> Method:
    mixing = MIXINGS[title]
    if scale == "paper":
        name = f"table1-{mixing['mixing']}"
        published = preset(name if name in PRESETS else "table1-conv-exponential").settings("paper")
        return Method(title, published | mixing)
    if scale == "quick":
        return Method(title, SMALL_MIXING | TINY | mixing)
    widths: dict[str, Values] = {}
    for data, rows in WIDTHS.items():
        width, growth = rows[title]
        widths[data] = {"width": width, "growth": growth}
    return Method(title, SMALL_MIXING | mixing, changes=widths)


def _stacked(name: str, scale: Scale) -> Values:
    """Return the model of a preset at a scale."""
    tiny = TINY | TINY_NOISE | {"hidden": 8} if scale == "quick" else {}
    return preset(name).settings("paper" if scale == "paper" else "small") | tiny


def _table(
    name: str, scale: Scale, *, fit: Values, seeds: int, discuss: Callable[[Evidence], list[str]], **fields: Any
) -> Experiment:
    """Return a table with the data, fits and measuring of a scale; the other fields are its own."""
    fields |= {"name": name, "scale": scale, "caveat": words.caveat(name, scale), "discuss": discuss}
    costing = Costing(baseline=fields["baseline"])
    if scale == "paper":
        data, measuring = (CIFAR_DATA,), PAPER_MEASURING
        return Experiment(
            data=data, seeds=3, fit=fit, budget=None, measuring=measuring, costing=costing, device="auto", **fields
        )
    fields |= {"fit": fits.STEADY_FIT, "equal": True}
    if scale == "quick":
        costing = costing.model_copy(update={"rounds": 2, "samples": 4, "seconds": 10.0})
        fields |= {"data": (DIGITS,), "seeds": 1, "measuring": QUICK_MEASURING, "costing": costing}
        fields["fit"] = fits.STEADY_FIT | fits.QUICK_FIT
        return Experiment(budget=QUICK_SECONDS[0], **fields)
    return Experiment(
        data=_offline(name),
        seeds=seeds,
        budget=SECONDS[name][0],
        measuring=Measuring(seconds=SECONDS[name][1]),
        costing=costing.model_copy(update={"seconds": 100.0}),
        **fields,
    )


def _offline(name: str) -> tuple[DataSet, ...]:
    """Return the data of a table at CPU scale."""
    if name != "table-1":
        return (photos(name),)
    fit, measuring = FASHION_SECONDS
    choice = DataChoice(source="fashion-mnist", limits=VALIDATION)
    return photos(name), DataSet(FASHION, choice, budget=fit, measuring=Measuring(seconds=measuring))
