"""The experiments of the flowification paper (Mate, Klein, Golling, Fleuret 2022), at its size and at a CPU's."""

from dataclasses import replace
from typing import Any

from likelify.fitting.recipes import presets
from likelify.fitting.sources import DataChoice
from likelify.reproduce.cell import Measuring, PictureKind
from likelify.reproduce.experiment import DataSet, Experiment, Method, Paper, Scale
from likelify.reproduce.papers import fits

SOURCE = "B. Mate, S. Klein, T. Golling, F. Fleuret, 'Flowification: everything is a normalizing flow', 2022"

CPU_MEASURING = Measuring()
PAPER_MEASURING = Measuring(iw_samples=1000, iw_items=1000, seconds=None)
QUICK_MEASURING = Measuring(iw_samples=8, iw_items=40, seconds=4.0)

# All 5,000 images of the validation split would take up to a sixth of the time.
FASHION = DataSet("Fashion-MNIST", DataChoice(source="fashion-mnist", limits={"validation": 2000}))
DIGITS = DataSet("digits", DataChoice(source="digits"))
PAPER_DATA = (
    DataSet("MNIST", DataChoice(source="mnist"), epochs=200, from_files=True),
    DataSet("CIFAR-10", DataChoice(source="cifar-10"), epochs=1000, from_files=True),
)

CPU_CAVEAT = (
    "CPU scale: the paper's architectures of MNIST on Fashion-MNIST, minutes of one processor for each fit and, but "
    "for the table that says minutes, 800 steps each, as the paper compares after equal epochs. The paper fitted "
    "MNIST for 200 and CIFAR-10 for 1,000 epochs (8 to 48 hours of a GPU): its figures are on other data and far "
    "longer fits, so compare the order of the methods, not the figures."
)
PAPER_CAVEAT = (
    "Paper scale: the appendix's settings. Where it and the published code differ (epochs, batch size), the appendix "
    "is followed; parts of the architectures are reconstructions."
)
QUICK_CAVEAT = "A trial of the machinery: seconds of fitting on 8x8 digits. The figures mean nothing."
CAVEATS: dict[Scale, str] = {"cpu": CPU_CAVEAT, "paper": PAPER_CAVEAT, "quick": QUICK_CAVEAT}


def images(scale: Scale) -> Experiment:
    """Return the table of image models."""
    methods = (
        _method("FMLP", scale, model="fmlp"),
        _method("FCONV1", scale, model="fconv1"),
        _method("FCONV2", scale, model="fconv2"),
        _method("FCONV1 + NSF", scale, model="fconv1", nsf=True),
        _method("FCONV2 + NSF", scale, model="fconv2", nsf=True),
    )
    printed = {
        ("FCONV1", "MNIST"): "3.11",
        ("FCONV1", "CIFAR-10"): "4.91",
        ("FCONV2 + NSF", "MNIST"): "1.35",
        ("FCONV2 + NSF", "CIFAR-10"): "3.69",
        ("FCONV1 + NSF", "MNIST"): "2.70",
        ("FCONV1 + NSF", "CIFAR-10"): "3.93",
    }
    return _on_images(
        scale,
        name="flowification-images",
        title="Flowified networks as density models of images",
        methods=methods,
        seeds=3,
        baseline="FMLP",
        paper=Paper(f"{SOURCE}: appendix B, table 3 (normal noise), and appendix C", printed),
    )


def noise(scale: Scale) -> Experiment:
    """Return the comparison of uniform with normal noise in layers that enlarge."""
    methods = tuple(
        _method(f"FCONV1, {name} noise", scale, model="fconv1", noise=name) for name in ("normal", "uniform")
    )
    printed = {
        (methods[0].title, "MNIST"): "3.11",
        (methods[1].title, "MNIST"): "3.41",
        (methods[0].title, "CIFAR-10"): "4.91",
        (methods[1].title, "CIFAR-10"): "6.24",
    }
    return _on_images(
        scale,
        name="flowification-noise",
        title="Uniform against normal noise in FCONV1",
        methods=methods,
        seeds=3,
        baseline=methods[0].title,
        paper=Paper(f"{SOURCE}: appendix B, table 3", printed),
    )


def figures(scale: Scale) -> Experiment:
    """Return the sample figures of the appendices C, E and H."""
    methods = (
        _method("FCONV1 + NSF (appendix C)", scale, "samples", model="fconv1", nsf=True),
        _method("FCONV2 + NSF (appendix C)", scale, "samples", model="fconv2", nsf=True),
        _method("FMLP (appendix E)", scale, "inverses", model="fmlp"),
        _method("FCONV1 (appendix E)", scale, "inverses", model="fconv1"),
        _method("FCONV2 (appendix E)", scale, "inverses", model="fconv2"),
        _method("FFT convolutions (appendix H)", scale, "samples", model="fconv-fft"),
    )
    return _on_images(
        scale,
        name="flowification-figures",
        title="Samples of flowified networks",
        methods=methods,
        seeds=1,
        paper=Paper(f"{SOURCE}: appendices C, E and H"),
    )


def minutes(scale: Scale) -> Experiment:
    """Return what ten minutes of one processor make of Fashion-MNIST, however many steps they are."""
    methods = (
        _method("FMLP", scale, model="fmlp"),
        _method("FCONV1", scale, model="fconv1"),
        _method("FCONV2", scale, model="fconv2"),
        _method("FFT convolutions", scale, model="fconv-fft"),
        _method("FCONV1, learned noise", scale, model="fconv1", learned_noise=True),
    )
    table = _on_images(
        scale,
        name="flowification-minutes",
        title="Ten minutes of one processor",
        methods=methods,
        seeds=1,
        paper=Paper(SOURCE),
    )
    return replace(table, fit={name: value for name, value in table.fit.items() if name != "steps"})


def _method(title: str, scale: Scale, picture: PictureKind | None = None, **model: object) -> Method:
    """Return a method with its learning rate; at paper scale that of the appendix, the same for all."""
    rate = presets.flowified_rate(str(model["model"]), couplings="nsf" in model)
    return Method(title, dict(model), fit={} if scale == "paper" else {"lr": rate}, picture=picture)


def _on_images(scale: Scale, *, seeds: int, **fields: Any) -> Experiment:
    """Return an experiment with the data, fits and measuring of a scale; the other fields are its own."""
    fields |= {"scale": scale, "caveat": CAVEATS[scale], "seeds": seeds}
    if scale == "paper":
        return Experiment(
            data=PAPER_DATA, fit=fits.EPOCHS_FIT, budget=None, measuring=PAPER_MEASURING, device="auto", **fields
        )
    if scale == "cpu":
        fields |= {"data": (FASHION,), "fit": fits.EQUAL_STEPS_FIT, "measuring": CPU_MEASURING}
        return Experiment(budget=fits.PROCESSOR_SECONDS["images"], **fields)
    fields |= {
        "data": (DIGITS,),
        "fit": fits.PROCESSOR_FIT | fits.QUICK_FIT,
        "measuring": QUICK_MEASURING,
        "seeds": min(seeds, 2),
    }
    return Experiment(budget=fits.PROCESSOR_SECONDS["quick"], **fields)
