"""The words of `likelify fit`, in groups: what there is to say of the data, the model, the fit and where it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from likelify.app.parsing import WHOLE, given, parse_duration, parse_settings

if TYPE_CHECKING:
    from likelify.app.devices import Where
    from likelify.data import SourceOptions

DATA, MODEL, RUN = (Group.create_ordered(name) for name in ("Data", "Model and fit", "Run"))


OTHERS = "Any other setting of model or fit: --set clip=0.5, --set model.steps=4."


def _word(group: Group, text: str, **options: Any) -> Parameter:
    return Parameter(group=group, help=text, negative="", show_default=False, **options)


SourceName = Annotated[str | None, _word(DATA, "digits, my-photos/, rows.csv, series.npy, ...")]


@Parameter(name="*")
@dataclass(frozen=True)
class ModelWords:
    """What is fitted."""

    model: Annotated[str | None, _word(MODEL, "By default what suits; 'likelify models' lists all.")] = None
    preset: Annotated[str | None, _word(MODEL, "A model of a paper, such as table2-sylvester.")] = None
    size: Annotated[str | None, _word(MODEL, "Of the preset: paper or small.")] = None
    mixing: Annotated[str | None, _word(MODEL, "Mixing layer: 1x1, emerging, axis-exponential, ...")] = None
    coupling: Annotated[str | None, _word(MODEL, "Couplings: affine or spline.")] = None
    conditional: Annotated[bool, _word(MODEL, "Learn p(item | label).")] = False


@Parameter(name="*")
@dataclass(frozen=True)
class FitWords:
    """How it is fitted."""

    steps: Annotated[int | None, WHOLE, _word(MODEL, "Optimizer steps.")] = None
    lr: Annotated[float | None, _word(MODEL, "Largest learning rate.")] = None
    batch_size: Annotated[int | None, WHOLE, _word(MODEL, "Items per step, over all processes.")] = None
    max_time: Annotated[str | None, _word(MODEL, "End training after that time: 90s, 10m, 1h30m.")] = None
    trim: Annotated[float | None, _word(MODEL, "Leave out that share of rows, the oddest.")] = None
    seed: Annotated[int | None, WHOLE, _word(MODEL, "Of weights, batches and noise; by default 0.")] = None
    others: Annotated[list[str] | None, _word(MODEL, OTHERS, name="--set")] = None

    def choice(self, model: ModelWords, workers: int | None) -> dict[str, Any]:
        """Return the arguments of `choose`."""
        fitting = {"steps": self.steps, "lr": self.lr, "batch_size": self.batch_size, "seed": self.seed}
        fitting |= {"trim": self.trim}
        fitting |= {"workers": workers, "max_time": None if self.max_time is None else parse_duration(self.max_time)}
        return {
            "model": model.model,
            "preset": model.preset,
            "size": model.size,
            "conditional": model.conditional,
            "model_settings": given({"mixing": model.mixing, "coupling": model.coupling}),
            "fit_settings": given(fitting),
            "settings": parse_settings(self.others or []),
        }


@Parameter(name="*")
@dataclass(frozen=True)
class DataWords:
    """How the user's files are read; see `SourceOptions`."""

    image_size: Annotated[str | None, _word(DATA, "Images: 32, or 32x48 for height and width.")] = None
    crop: Annotated[str | None, _word(DATA, "Images: centre or stretch.")] = None
    labels: Annotated[str | None, _word(DATA, "Classes: 'folders' of images, or a column.")] = None
    channels: Annotated[str | None, _word(DATA, "Arrays of images: first or last.")] = None
    kind: Annotated[str | None, _word(DATA, "Arrays: image, sequence, table or graph (point sets).")] = None
    levels: Annotated[int | None, WHOLE, _word(DATA, "Arrays of whole numbers: how many values.")] = None
    columns: Annotated[str | None, _word(DATA, "Tables: keep a,b; or kinds, zip=category,age=integer.")] = None
    drop: Annotated[str | None, _word(DATA, "Tables: leave out id,name; auto: ids and free text.")] = None
    missing: Annotated[str | None, _word(DATA, "Tables: further words for missing values, n.a.,-.")] = None
    given: Annotated[str | None, _word(DATA, "Tables: conditions a,b; learn p(others | a,b).")] = None
    graphs: Annotated[str | None, _word(DATA, "Rows are nodes: the column of their graph.")] = None
    edges: Annotated[str | None, _word(DATA, "Rows are nodes: file of edges (graph, source, target).")] = None
    dependent: Annotated[str | None, _word(DATA, "Columns that follow from others: drop or function.")] = None
    skip_unreadable: Annotated[bool, _word(DATA, "Leave out images that cannot be read.")] = False

    def options(self) -> SourceOptions:
        """Return them as checked settings."""
        from likelify.data import SourceOptions

        return SourceOptions(**given(asdict(self) | {"skip_unreadable": self.skip_unreadable or None}))


@Parameter(name="*")
@dataclass(frozen=True)
class RunWords:
    """Where it runs, and where it is kept."""

    out: Annotated[Path | None, _word(RUN, "Run folder; by default a new one in runs/.", name=["--out", "-o"])] = None
    resume: Annotated[Path | None, _word(RUN, "Go on with the fit of that run.")] = None
    device: Annotated[str, _word(RUN, "cpu, cuda, mps, or auto for what there is.")] = "auto"
    devices: Annotated[int | None, WHOLE, _word(RUN, "Processes on this machine, one for each GPU.")] = None
    nodes: Annotated[int | None, WHOLE, _word(RUN, "Machines that run the same command.")] = None
    threads: Annotated[int | None, WHOLE, _word(RUN, "CPU threads; by default what suits.")] = None
    workers: Annotated[int | None, WHOLE, _word(RUN, "Processes that decode files; by default what suits.")] = None
    no_report: Annotated[bool, _word(RUN, "Make no page of HTML, which takes seconds.")] = False
    dry_run: Annotated[bool, _word(RUN, "Count parameters, time one step, fit nothing.")] = False

    def where(self) -> Where:
        """Return the processes and devices."""
        from likelify.app.devices import Where

        return Where(self.device, self.devices, self.nodes)
