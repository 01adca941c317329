"""Running one cell in this process: fit, measure, draw, and keep the result."""

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from likelify._version import __version__
from likelify.data import Facts, Source, entropy
from likelify.door import tensor_of
from likelify.errors import ConfigError, DataError, RunError
from likelify.fitting.drawing.draw import draw, draw_inverses
from likelify.fitting.figures import Course, Unit
from likelify.fitting.files import make_folder, write_atomically
from likelify.fitting.locks import LOCK, locked
from likelify.fitting.loop import Progress, fit
from likelify.fitting.process import OneProcess
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.fitting.sources import open_data, public_facts
from likelify.flows import Flow
from likelify.plots import picture, tiles
from likelify.reproduce.cell import Cell
from likelify.reproduce.code import code_hashes
from likelify.reproduce.results import CellResult
from likelify.reproduce.runner import Folders
from likelify.reproduce.scores import OnProgress, measure
from likelify.reproduce.store import save_cell
from likelify.seeding import seeded
from likelify.settings import Values
from likelify.zoo import config_from_dict

IMAGES = 64


def run_cell(cell: Cell, folders: Folders, on_progress: OnProgress, *, place: OneProcess | None = None) -> None:
    """Run a cell and keep its result.

    The fit has a run folder, in which it goes on where an earlier one was killed or interrupted; the result is written
    when all is done.

    Args:
        cell: the cell.
        folders: of results and runs.
        on_progress: called with the phase, its share that is done (0 to 1), and the latest figure.
        place: of this process among those that work on the cell: all fit, the first one measures and writes. By
            default this one is alone.

    Raises:
        KeyboardInterrupt: if the fit was interrupted.
        LikelifyError: if the data, the settings or the fit are at fault.
    """
    place = place or OneProcess(None if cell.device == "auto" else cell.device)
    on_progress("reading", 0.0, "")
    # Now: the files may change while the cell runs.
    code = code_hashes(str(cell.model["model"]), truth=cell.measuring.truth)
    source = open_data(cell.data)
    facts = public_facts(source, cell.data)
    settings = cell.settle(facts)
    config, folder = run_of(cell, source, folders, code["code"])
    ready = fitted(config, source, folder, place, on_progress, reuse=folders.reuse)
    if ready is None:
        return
    flow, course, trained_here = ready
    flow.to(place.device)
    found, seconds = measure(flow, source, cell.measuring, clock_of(course), on_progress)
    result = CellResult(
        method=cell.method,
        seed=cell.seed,
        settings=settings,
        facts=facts,
        parameters=sum(p.numel() for p in flow.parameters()),
        likelihood=flow.likelihood,
        course=_rounded(course),
        trained_here=trained_here,
        measuring_seconds=round(seconds, 2),
        elbo=found.elbo,
        iw=found.iw,
        gain=found.gain,
        entropy=_entropy(facts) if cell.measuring.truth else None,
        picture=_draw(cell, flow, source, folders.results, on_progress),
        versions=versions() | code,
        machine=machine_of(flow),
        finished=now(),
    )
    save_cell(folders.results, cell.name, result.model_dump(mode="json"))


def _entropy(facts: Facts) -> float:
    """Return the entropy of simulated data, of graphs per node."""
    return entropy(facts.family) / (1.0 if facts.graphs is None else facts.graphs.mean_nodes)


def run_of(cell: Cell, source: Source, folders: Folders, code: str) -> tuple[RunConfig, Path]:
    """Return the settings of the run of a cell, and its folder.

    Args:
        cell: the cell.
        source: its data.
        folders: of results and runs.
        code: hash of the code.
    """
    settings = cell.settle(public_facts(source, cell.data))
    config = RunConfig(
        data=source.facts(),
        opened=cell.data,
        model=config_from_dict(settings["model"]),
        fit=FitSettings.parse(settings["fit"]),
    )
    return config, folders.runs / run_name(config, settings["data"], code)


def run_name(config: RunConfig, data: Values, code: str) -> str:
    """Return the name of the run folder of a fit; it ends in a hash of all that decides it: cells may share a fit.

    Args:
        config: settings of the run.
        data: which data are fitted, see `DataChoice`.
        code: hash of the code.
    """
    settings = [config.model.model_dump(mode="json"), config.fit.model_dump(mode="json"), data]
    parts = [settings, config.data.fingerprint, code, torch.__version__]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{config.model.model}-{data['source']}-{config.fit.seed}-{digest[:12]}"


def fitted(
    config: RunConfig, source: Source, folder: Path, place: OneProcess, on_progress: OnProgress, *, reuse: bool
) -> tuple[Flow, Course, bool] | None:
    """Return a fitted model, the course of its fit, and whether it was fitted now; None in other processes.

    Other processes that need the same fit wait for this one.

    Args:
        config: settings of the run.
        source: the data.
        folder: of the run.
        place: of this process.
        on_progress: see `run_cell`.
        reuse: take the model from the folder if its fit ended there. One that has begun goes on in any case.

    Raises:
        KeyboardInterrupt: if the fit was interrupted.
        LikelifyError: if the settings or the fit are at fault.
    """
    with locked(folder) if place.is_first else nullcontext():
        found, run = None, Run(folder, config)
        with place.together():
            if place.is_first:
                found = load_fitted(folder) if reuse else None
                run = run if found is not None else _begun(folder) or _cleared(folder, config)
        if place.from_first(found is not None):
            return None if found is None else (*found, False)
        with seeded(config.fit.seed):
            flow = config.model.build()

        def on_step(progress: Progress) -> None:
            best = Unit.of(source.kind).show(progress.best.validation_bits, progress.best.validation_nats)
            on_progress("fitting", progress.fraction, best)

        course = fit(flow, source, run=run, fabric=place, on_step=on_step)
        if course.reason == "interrupted":
            raise KeyboardInterrupt
    return (flow, course, True) if place.is_first else None


def load_fitted(folder: Path) -> tuple[Flow, Course] | None:
    """Return what a run folder holds if its fit ended well; otherwise it is gone on with, or fitted again."""
    try:
        run = Run.load(folder)
        course = run.course()
        return None if course is None or not course.ended or course.reason == "diverged" else (run.flow(), course)
    except (RunError, ConfigError):
        return None


def _begun(folder: Path) -> Run | None:
    """Return the run in a folder if its fit has begun and not ended, so that it can go on."""
    try:
        run = Run.load(folder)
        course = run.course()
        return None if run.saved() is None or (course is not None and course.ended) else run
    except (RunError, ConfigError):
        return None


def _cleared(folder: Path, config: RunConfig) -> Run:
    """Make a run in a folder in which there may be another."""
    for file in folder.iterdir():
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        elif file.name != LOCK:
            file.unlink()
    return Run.create(folder, config)


def clock_of(course: Course) -> Callable[[], float]:
    """Return the clock that a fit went by."""
    return time.process_time if course.clock == "processor" else time.perf_counter


def _rounded(course: Course) -> Course:
    """Round the values of a course, so that its file stays short: hundredths of a second, six digits of a figure."""
    values = course.model_dump()
    for point in values["points"]:
        point |= {name: round(value, 6) for name, value in point.items() if isinstance(value, float)}
        point["seconds"] = round(point["seconds"], 2)
    return Course.parse(values | {"seconds": round(course.seconds, 2)})


def _draw(cell: Cell, flow: Flow, source: Source, folder: Path, on_progress: OnProgress) -> str | None:
    """Write the picture of a cell, if it has one, beside real images; return its name."""
    if cell.picture is None:
        return None
    if source.kind != "image" or source.levels is None:
        raise DataError(f"'{source.name}' has no images, so no pictures can be drawn of a model of it.")
    on_progress("drawing", 0.0, "")
    if cell.picture == "inverses":
        panels = draw_inverses(flow, IMAGES, seed=cell.seed)
    else:
        panels = {"samples": draw(flow, IMAGES, seed=cell.seed)}
    panels["real (test)"] = source.read("test", torch.arange(min(IMAGES, source.size("test")))).x
    name = f"{cell.name}.png"
    make_folder(folder)
    content = _as_tiles(panels, source.levels) if cell.picture == "tiles" else picture(panels, source.levels)
    write_atomically(folder / name, content)
    return name


def _as_tiles(panels: dict[str, Tensor], levels: int) -> bytes:
    """Return panels as tiles of one sheet, each filled up with black to as many as there are samples."""
    parts = []
    for images in panels.values():
        missing = images.new_zeros((IMAGES - len(images), *images.shape[1:]))
        parts.append(torch.cat([images, missing]).cpu())
    return tiles(torch.cat(parts), levels)


def versions() -> dict[str, str]:
    """Return the versions of likelify, torch and Python."""
    return {"likelify": __version__, "torch": torch.__version__, "python": platform.python_version()}


def now() -> str:
    """Return the time, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine_of(flow: Flow) -> dict[str, str | int]:
    """Return what a model runs on."""
    weight = tensor_of(flow)
    device = torch.device("cpu") if weight is None else weight.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"device": device.type, "name": name, "threads": torch.get_num_threads(), "cores": os.cpu_count() or 0}


def _processor() -> str:
    """Return the name of the processor, as far as the system tells."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
