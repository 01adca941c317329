"""The density models of tables of the flowification paper: its five tables from the user's files, three offline."""

from collections.abc import Sequence

from likelify.fitting.figures import Unit
from likelify.fitting.sources import DataChoice
from likelify.reproduce.cell import Measuring
from likelify.reproduce.experiment import DataSet, Experiment, Method, Paper, Scale
from likelify.reproduce.papers import fits
from likelify.reproduce.papers.flowification import QUICK_MEASURING

# From a public listing under the paper's name, rounded; the paper's own tables were not available.
LISTED = {"POWER": "-0.5", "GAS": "5.35", "HEPMASS": "-19.56", "MINIBOONE": "-14.05", "BSDS300": "144.2"}
SOURCE = "a public listing under the paper's name, unchecked; the main text's tables were not available"
NARROWING = (128, 64, 32, 16, 8)
CHOSEN = "narrowing, LeakyReLU"
SPLINES = "narrowing, splines"
GAUSSIAN = "linear (a normal distribution)"

# Numbers of columns.
UCI = {"POWER": 6, "GAS": 8, "HEPMASS": 21, "MINIBOONE": 43, "BSDS300": 63}
BUNDLED = {"wine": 13, "breast-cancer": 30, "diabetes": 10}
VALIDATION_ROWS = 2000
CPU_MEASURING = Measuring(seconds=25.0)

CPU_CAVEAT = (
    "CPU scale: a minute of one processor for each fit to scikit-learn's tables (offline), four for each to the "
    "paper's (with --data). scikit-learn's tables have some hundred rows, a tenth of which test: their figures differ "
    "more between splits than between methods. Nats of rows in standardised units."
)
PAPER_CAVEAT = (
    "Paper scale: widths of appendix F; numbers of steps, batches and rates are those of the neural spline flows as "
    "remembered, since the appendix only refers to them. Nats of rows in standardised units."
)
QUICK_CAVEAT = "A trial of the machinery: seconds of fitting. The figures mean nothing."


def tables(scale: Scale) -> Experiment:
    """Return the table of tables."""
    quick = scale == "quick"
    paper = [_uci(name, scale) for name in UCI]
    seconds = fits.PROCESSOR_SECONDS["quick" if quick else "bundled tables"]
    choices = [DataChoice(source=name, standardized=True) for name in BUNDLED]
    offline = [DataSet(choice.source, choice, fit=fits.BUNDLED_FIT, budget=seconds) for choice in choices]
    data = paper if scale == "paper" else offline[:1] if quick else [*offline, *paper]
    return Experiment(
        "flowification-tables",
        "Flowified networks as density models of tables",
        scale,
        _methods(data),
        data,
        seeds=2 if quick else 3,
        fit=fits.EPOCHS_FIT if scale == "paper" else fits.PROCESSOR_TABLE_FIT | (fits.QUICK_FIT if quick else {}),
        budget=None if scale == "paper" else fits.PROCESSOR_SECONDS["quick" if quick else "tables"],
        measuring=QUICK_MEASURING if quick else Measuring(seconds=None) if scale == "paper" else CPU_MEASURING,
        baseline=GAUSSIAN,
        unit=Unit.of("table"),
        paper=Paper(SOURCE, {(CHOSEN, name): value for name, value in LISTED.items()}),
        caveat={"cpu": CPU_CAVEAT, "paper": PAPER_CAVEAT, "quick": QUICK_CAVEAT}[scale],
        device="auto" if scale == "paper" else "cpu",
    )


def _methods(data: Sequence[DataSet]) -> list[Method]:
    """Return the paper's choice, the same with our splines, constant width, and what a single layer can do."""
    columns = BUNDLED | UCI
    table = {"model": "flowified-mlp"}
    # The paper chose the same widths everywhere, but for BSDS300.
    wide = {"BSDS300": {"widths": (128, 128, 128, 64, 32)}}
    single = {each.title: {"widths": (columns[each.title],)} for each in data}
    constant = {each.title: {"widths": (columns[each.title],) * 5} for each in data}
    return [
        Method(GAUSSIAN, dict(table), changes=single),
        Method(CHOSEN, table | {"widths": NARROWING, "activation": "leaky-relu"}, changes=wide),
        Method(SPLINES, table | {"widths": NARROWING, "activation": "spline"}, changes=wide),
        Method("constant width, splines", table | {"activation": "spline"}, changes=constant),
    ]


def _uci(name: str, scale: Scale) -> DataSet:
    if scale == "paper":
        return DataSet(name, DataChoice(source=name.lower()), fit=fits.UCI_FITS[name.lower()], from_files=True)
    # Validating on all rows that are held out, up to 184,000, would take longer than the steps in between.
    return DataSet(name, DataChoice(source=name.lower(), limits={"validation": VALIDATION_ROWS}), from_files=True)
