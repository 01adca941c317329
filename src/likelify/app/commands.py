"""What the commands do, once their words are parsed."""

import shutil
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from likelify.app import recipes
from likelify.app.progress import FitProgress, share_done
from likelify.data import Source, SplitName, open_source
from likelify.errors import ConfigError, RunError
from likelify.fit.config import RunConfig
from likelify.fit.loop import FitResult, fit
from likelify.fit.metrics import Figure, evaluate
from likelify.fit.run import SAMPLES, Run, write_atomically
from likelify.fit.settings import FitSettings
from likelify.flows import Flow
from likelify.plots import show_images
from likelify.seeding import seeded
from likelify.zoo import MODELS, ModelConfig, config_from_dict

PICTURE_IMAGES = 64
DRAWN = "drawn.png"
# Settings of a model that the data decide.
OF_THE_DATA = ("model", "event_shape", "pixel_levels", "classes")

console = Console(soft_wrap=True, highlight=False)


def fit_command(
    source_name: str,
    model: str | None,
    model_words: dict[str, Any],
    fit_words: dict[str, Any],
    free: dict[str, object],
    *,
    conditional: bool,
    threads: int | None,
    out: Path | None,
) -> None:
    """Fit a model, evaluate it, draw a picture, and say where everything is."""
    source = open_source(source_name)
    model = model or recipes.default_model(source_name)
    threads = recipes.THREADS.get(model) if threads is None else threads
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads must be at least 1, got {threads}.")
        torch.set_num_threads(threads)
    model_config, settings = settle(source, model, model_words, fit_words, free, conditional=conditional)
    config = RunConfig(
        source=source.name,
        fingerprint=source.fingerprint(),
        conditional=conditional,
        model=model_config,
        fit=settings,
    )
    with seeded(settings.seed):
        flow = model_config.build()
    run = Run.create(out or default_folder(source_name), config)
    parameters = sum(p.numel() for p in flow.parameters())
    console.print(f"Fitting {model} ({parameters:,} parameters) to {source.name}: {source.description}")
    result = _fit_with_progress(flow, source, run)
    console.print(f"Training ended ({result.reason}) after {result.steps} steps, {result.seconds:.0f} s.")
    if not result.looks:
        console.print("No weights were worth keeping yet.")
        return
    console.print(f"Best weights: step {result.best_step}, validation {result.best_bits:.3f} bits/dim.")
    if result.reason == "interrupted":
        console.print(f"They are kept. Go on with: {program()} evaluate {run.path}")
        return
    flow = run.flow()
    _evaluate(run, flow, source, "test", *recipes.draws(source.name))
    _picture(run, flow, source)
    console.print(f"Run folder: {run.path}")
    console.print(f"Samples beside real images: {run.path / SAMPLES}")
    console.print(f"Next: {program()} evaluate {run.path} --iw-samples {10 * recipes.draws(source.name)[1]}")
    console.print(f"      {program()} sample {run.path} -n 100 -o samples.png")


def evaluate_command(path: Path, split: SplitName, elbo_samples: int | None, iw_samples: int | None) -> None:
    """Measure a run on its own data."""
    run = Run.load(path)
    source = open_source_of(run)
    usual = recipes.draws(source.name)
    elbo_samples = usual[0] if elbo_samples is None else elbo_samples
    iw_samples = usual[1] if iw_samples is None else iw_samples
    if elbo_samples < 1 or iw_samples < 0:
        raise ConfigError("--elbo-samples must be at least 1 and --iw-samples at least 0.")
    _evaluate(run, run.flow(), source, split, elbo_samples, iw_samples)


def sample_command(path: Path, number: int, out: Path | None, label: int | None, temperature: float, seed: int) -> None:
    """Draw images from a run."""
    if number < 1 or temperature < 0:
        raise ConfigError("-n must be at least 1 and --temperature must not be negative.")
    run = Run.load(path)
    classes = run.config.model.classes
    if label is not None and (classes is None or not 0 <= label < classes):
        known = "this run has no classes" if classes is None else f"its classes are 0..{classes - 1}"
        raise ConfigError(f"--label {label} does not fit: {known}.")
    drawn = draw(run.flow(), run.config.model, number, label=label, temperature=temperature, seed=seed)
    file = out or run.path / DRAWN
    if file.suffix != ".png":
        raise ConfigError(f"Pictures are written as PNG; give -o a name that ends in .png, not '{file}'.")
    title = f"{number} samples" if label is None else f"{number} samples of class {label}"
    save_picture(file, {title: drawn}, run.config.model.pixel_levels)
    console.print(f"{number} samples: {file}")


def settle(
    source: Source,
    model: str,
    model_words: dict[str, Any],
    fit_words: dict[str, Any],
    free: dict[str, object],
    *,
    conditional: bool,
) -> tuple[ModelConfig, FitSettings]:
    """Put recipe, options and --set together; a name goes to whichever of model and fit knows it.

    Raises:
        ConfigError: if neither does, or a value does not fit.
    """
    known = [name for name in MODELS[model].model_fields if name not in OF_THE_DATA]
    for name in free:
        if name not in known and name not in FitSettings.model_fields:
            raise ConfigError(
                f"--set {name}: neither the model '{model}' nor the fit has such a setting. The model has "
                f"{', '.join(known)}; the fit has {', '.join(FitSettings.model_fields)}."
            )
    for name in model_words:
        if name not in known:
            raise ConfigError(f"--{name} does not apply to the model '{model}'.")
    if conditional and source.classes is None:
        raise ConfigError(f"--conditional: the source '{source.name}' has no labels.")
    values = {"model": model, "event_shape": source.event_shape, "pixel_levels": source.levels}
    values |= {"classes": source.classes} if conditional else {}
    values |= recipes.model_settings(source.name, model) | model_words
    # Both have "steps"; the model's is about architecture, and --steps is the fit's.
    values |= {name: value for name, value in free.items() if name in known}
    fitting = recipes.fit_settings(model) | fit_words
    fitting |= {name: value for name, value in free.items() if name not in known}
    return config_from_dict(values), FitSettings.parse(fitting)


def program() -> str:
    """Give the command as the user has to type it: its name if the shell finds it, its place otherwise."""
    return "likelify" if shutil.which("likelify") else sys.argv[0]


def default_folder(source: str) -> Path:
    """Name a new run folder."""
    return Path("runs") / f"{source}-{datetime.now():%Y%m%d-%H%M%S}"


def open_source_of(run: Run) -> Source:
    """Open the data of a run, and make sure that they are the same."""
    source = open_source(run.config.source)
    if source.fingerprint() != run.config.fingerprint:
        raise RunError(
            f"The data '{source.name}' are not those that '{run.path}' was fitted to (fingerprint "
            f"{source.fingerprint()}, expected {run.config.fingerprint}); held-out figures would be meaningless."
        )
    return source


def draw(
    flow: Flow,
    config: ModelConfig,
    number: int,
    *,
    label: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Draw images; a class-conditional model draws one class, or all in turn."""
    with seeded(seed), flow.frozen():
        if config.classes is None:
            return flow.sample((number,), temperature=temperature)
        labels = torch.arange(number) % config.classes if label is None else torch.full((number,), label)
        return flow.sample((), labels, temperature=temperature)


def save_picture(file: Path, panels: dict[str, Tensor], levels: int) -> None:
    """Write grids of images as a PNG."""
    import io

    content = io.BytesIO()
    columns = 8 if len(panels) > 1 else max(8, round(len(next(iter(panels.values()))) ** 0.5))
    show_images(panels, levels, columns=columns).savefig(content, format="png", dpi=150)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, content.getvalue())


def _fit_with_progress(flow: Flow, source: Source, run: Run) -> FitResult:
    def keep(state: dict[str, Tensor], result: FitResult) -> None:
        run.save_weights(state)
        run.save_metrics(result.rows())

    with FitProgress(console) as progress:
        result = fit(
            flow,
            source,
            run.config.fit,
            conditional=run.config.conditional,
            on_step=progress.update,
            on_best=keep,
        )
    run.save_metrics(result.rows())
    return result


def _picture(run: Run, flow: Flow, source: Source) -> None:
    samples = draw(flow, run.config.model, PICTURE_IMAGES, seed=run.config.fit.seed)
    real = source.read("test", torch.arange(min(PICTURE_IMAGES, source.size("test")))).x
    save_picture(run.path / SAMPLES, {"samples": samples, "real (test)": real}, source.levels)


def _evaluate(run: Run, flow: Flow, source: Source, split: SplitName, elbo_samples: int, iw_samples: int) -> None:
    """Measure, keep and print held-out figures."""
    with share_done(console, "evaluating") as show:
        measured = evaluate(
            flow,
            source,
            split=split,
            elbo_samples=elbo_samples,
            iw_samples=iw_samples,
            conditional=run.config.conditional,
            on_batch=show,
        )
    run.save_evaluation(split, asdict(measured))
    table = Table(title=f"{measured.source}, {measured.split} split: {measured.elbo.bits.items} images")
    for heading in ("", "bits/dim", "nats per image", "draws"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, score in (("ELBO", measured.elbo), ("importance-weighted", measured.iw)):
        if score is not None:
            table.add_row(name, _show(score.bits, 4), _show(score.nats, 2), str(score.samples))
    console.print(table)
    console.print("Lower bits/dim are better. Errors are standard errors over images.")
    if measured.iw is not None:
        console.print(
            f"Median effective sample size of the importance weights: {measured.iw.ess:.1f} of {measured.iw.samples}."
        )


def _show(figure: Figure, digits: int) -> str:
    return f"{figure.mean:.{digits}f} +- {figure.standard_error:.{digits}f}"
