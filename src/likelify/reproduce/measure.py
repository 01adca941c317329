"""Running one cell in this process: fit, measure, draw, and write its file."""

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from likelify._version import __version__
from likelify.data import Source
from likelify.errors import RunError
from likelify.fitting.loop import FitResult, Progress, fit
from likelify.fitting.metrics import Score, evaluate
from likelify.fitting.run import write_atomically
from likelify.flows import Flow
from likelify.reproduce.cell import Cell, Facts, Measuring, Values
from likelify.reproduce.code import code_hashes
from likelify.reproduce.pictures import draw_picture
from likelify.reproduce.results import CellResult, Course, Measured, Point, save_result
from likelify.reproduce.sources import open_data
from likelify.seeding import seeded

Report = Callable[[str, float, str], None]
# Rows, and numbers, of one pass.
FEWEST_ROWS, PASS_ROWS, PASS_NUMBERS = 128, 1024, 200_000
# Share of the time left that importance weighting may plan to use: its cost is foretold from that of the ELBO.
PLANNED = 0.7
FEWEST_ITEMS = 20


def run_cell(cell: Cell, folder: Path, weights: Path | None = None, *, reuse: bool = False, report: Report) -> None:
    """Run a cell and keep its result; nothing is written before all is done, but for the weights.

    Args:
        cell: what to run.
        folder: of the results.
        weights: folder in which fitted weights are kept, or None.
        reuse: take the weights of a fit with the same settings, data and code, if they are there.
        report: called with the phase, its share that is done (0 to 1), and the latest figure.

    Raises:
        KeyboardInterrupt: if the fit was interrupted.
        LikelifyError: if the data, the settings or the fit are at fault.
    """
    report("reading", 0.0, "")
    code = code_hashes(str(cell.model["model"]))  # now: the files may change while the cell runs
    source = open_data(cell.data)
    facts = Facts.of(source, cell.data.source)
    settings = cell.settle(facts)
    with seeded(cell.seed):
        flow = cell.model_config_for(facts).build()
    kept = None if weights is None else weights / training_hash(settings, facts)
    restored = _restore(flow, kept) if reuse and kept is not None else None
    course = restored or _train(cell, flow, source, facts, report)
    if restored is None and kept is not None:
        _keep(flow, course, kept)
    elbo, iw, seconds = measure(flow, source, cell.measuring, clock_of(course.clock), report)
    result = CellResult(
        method=cell.method,
        seed=cell.seed,
        settings=settings,
        facts=facts,
        parameters=sum(p.numel() for p in flow.parameters()),
        likelihood=flow.likelihood,
        course=course,
        trained_here=restored is None,
        measuring_seconds=round(seconds, 2),
        elbo=elbo,
        iw=iw,
        picture=_draw(cell, flow, source, folder, report),
        versions=_versions(code),
        machine=_machine(flow),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    save_result(result, cell, folder)


def measure(
    flow: Flow, source: Source, measuring: Measuring, clock: Callable[[], float], report: Report
) -> tuple[Measured, Measured | None, float]:
    """Measure a model on the test split; give the ELBO, the importance-weighted figure if there is one, the seconds."""
    start = clock()
    elbo = evaluate(
        flow,
        source,
        elbo_samples=measuring.elbo_samples,
        iw_samples=0,
        batch_size=max(FEWEST_ROWS, min(PASS_ROWS, PASS_NUMBERS // math.prod(source.event_shape))),
        on_batch=lambda share: report("measuring the ELBO", share, ""),
    ).elbo
    spent = clock() - start
    rows = elbo.bits.items * measuring.elbo_samples
    # Exact models need none, noisy ones allow none.
    items = _iw_items(measuring, source.size("test"), spent / rows, spent) if flow.likelihood == "bound" else 0
    if not items:
        return _measured(elbo), None, spent
    weighted = evaluate(
        flow,
        source,
        elbo_samples=1,
        iw_samples=measuring.iw_samples,
        batch_size=max(1, PASS_ROWS // measuring.iw_samples),
        limit=items,
        on_batch=lambda share: report("importance weighting", share, ""),
    ).iw
    return _measured(elbo), None if weighted is None else _measured(weighted), clock() - start


def _iw_items(measuring: Measuring, available: int, cost: float, spent: float) -> int:
    """Return the number of items that the time allows at that cost of a draw."""
    items = min(measuring.iw_items, available) if measuring.iw_samples else 0
    if items and measuring.seconds is not None:
        affordable = int(PLANNED * (measuring.seconds - spent) / (cost * (measuring.iw_samples + 1)))
        items = min(items, affordable) if affordable >= min(FEWEST_ITEMS, items) else 0
    return items


def clock_of(name: str) -> Callable[[], float]:
    """Return the clock of that name in `FitSettings`."""
    return time.process_time if name == "processor" else time.perf_counter


def training_hash(settings: dict[str, Values], facts: Facts) -> str:
    """Name a fit by all that it depends on: settings, data, code and version of torch."""
    decisive = {part: settings[part] for part in ("model", "fit", "data")}
    parts = [decisive, facts.fingerprint, code_hashes(settings["model"]["model"])["code"], torch.__version__]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _train(cell: Cell, flow: Flow, source: Source, facts: Facts, report: Report) -> Course:
    settings = cell.fit_settings_for(facts)

    def on_step(progress: Progress) -> None:
        best = progress.best_bits
        report("fitting", progress.fraction, f"{best:.3f} bits/dim" if math.isfinite(best) else "")

    fabric = Fabric(accelerator=cell.device, devices=1)
    result = fit(flow, source, settings, fabric=fabric, on_step=on_step)
    if result.reason == "interrupted":
        raise KeyboardInterrupt
    return _course(result, settings.clock)


def _course(result: FitResult, clock: str) -> Course:
    return Course(
        reason=result.reason,
        steps=result.steps,
        best_step=result.best_step,
        seconds=round(result.seconds, 2),
        clock=clock,
        curve=[
            Point(
                step=look.step,
                seconds=round(look.seconds, 2),
                train_bits=_finite(look.train_bits),
                validation_bits=round(look.validation_bits, 6),
            )
            for look in result.looks
        ],
    )


def _keep(flow: Flow, course: Course, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in flow.state_dict().items()}
    write_atomically(folder / "model.safetensors", save(plain))
    # Last: it says that the weights are complete.
    write_atomically(folder / "course.json", course.model_dump_json().encode())


def _restore(flow: Flow, folder: Path) -> Course | None:
    """Load kept weights; None if there are none that can be read, and then the fit is simply done again."""
    try:
        course = Course.parse(json.loads((folder / "course.json").read_text()))
        flow.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, ValueError, SafetensorError, RuntimeError):
        return None
    return course


def _draw(cell: Cell, flow: Flow, source: Source, folder: Path, report: Report) -> str | None:
    """Write the picture of a cell, if it has one; give its name."""
    if cell.picture is None:
        return None
    report("drawing", 0.0, "")
    name = f"{cell.name}.png"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / name, draw_picture(cell.picture, flow, source, seed=cell.seed))
    return name


def _measured(score: Score) -> Measured:
    if not math.isfinite(score.bits.mean):
        raise RunError(
            f"The held-out figure is {score.bits.mean}: the model gives some test items no probability at all, or "
            "more than any number. Nothing was written for this cell."
        )
    return Measured(
        bits=score.bits.mean,
        bits_error=_finite(score.bits.standard_error),
        nats=score.nats.mean,
        nats_error=_finite(score.nats.standard_error),
        items=score.bits.items,
        samples=score.samples,
        ess=score.ess,
    )


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _versions(code: dict[str, str]) -> dict[str, str]:
    return {
        "likelify": __version__,
        **code,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _machine(flow: Flow) -> dict[str, str | int]:
    device = next(flow.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"device": device.type, "name": name, "threads": torch.get_num_threads(), "cores": os.cpu_count() or 0}


def _processor() -> str:
    """Name the processor, as far as the system tells."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
