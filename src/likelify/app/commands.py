"""What the commands do, once their words are parsed."""

import shutil
import sys
from datetime import datetime
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from likelify.app import recipes
from likelify.app.choices import Choice, Data
from likelify.app.dry_run import MADE_UP, count, dry_run
from likelify.app.figures import Draws, plain_figures, show_figures
from likelify.app.progress import FitProgress, share_done
from likelify.app.rows import save_columns, save_rows
from likelify.data import Source, SplitName, TableSource, open_source
from likelify.errors import ConfigError, RunError
from likelify.fitting.config import RunConfig
from likelify.fitting.loop import FitResult, fit
from likelify.fitting.metrics import evaluate
from likelify.fitting.run import SAMPLES, Run, write_atomically
from likelify.flows import Flow
from likelify.plots import show_images
from likelify.seeding import seeded
from likelify.zoo import MODELS, PRESETS, ModelConfig

PICTURE_IMAGES = 64
SAMPLE_ROWS = 1000

console = Console(soft_wrap=True, highlight=False)


def fit_command(source_name: str, choice: Choice, *, threads: int | None, out: Path | None) -> None:
    """Fit a model, evaluate it, draw a picture, and say where everything is."""
    source = open_source(source_name)
    data = Data.of(source)
    model_config, settings = choice.settle(data)
    use_threads(threads, data)
    config = RunConfig(
        source=source.name,
        fingerprint=source.fingerprint(),
        conditional=choice.conditional,
        preset=None if choice.preset is None else choice.title(model_config.model),
        model=model_config,
        fit=settings,
    )
    with seeded(settings.seed):
        flow = model_config.build()
    run = Run.create(out or default_folder(source), config)
    if isinstance(source, TableSource):
        save_columns(run, source)
    console.print(
        f"Fitting {choice.title(model_config.model)} ({count(flow):,} parameters) to {source.name}: "
        f"{source.description}"
    )
    result = _fit_with_progress(flow, source, run)
    console.print(f"Training ended ({result.reason}) after {result.steps} steps, {result.seconds:.0f} s.")
    if not result.looks:
        console.print("No weights were worth keeping yet.")
        return
    console.print(f"Best weights: step {result.best_step}, validation {data.unit.show(result.best_bits)}.")
    if result.reason == "interrupted":
        console.print(f"They are kept. Go on with: {program()} evaluate {run.path}")
        return
    flow = run.flow()
    console.print(f"Evaluating on {source.size('test')} test {items_of(data)}; this comes on top of --max-time.")
    _evaluate(run, flow, source, "test", Draws.usual(data))
    samples = _samples(run, flow, source)
    console.print(f"Run folder: {run.path}")
    console.print(f"{'Sampled rows' if data.is_table else 'Samples beside real images'}: {samples}")
    _say_what_comes_next(run, flow, data, samples)


def _say_what_comes_next(run: Run, flow: Flow, data: Data, samples: Path) -> None:
    follow = [f"sample {run.path} -n 100 -o samples{samples.suffix}"]
    if flow.likelihood != "estimate":
        follow.insert(0, f"evaluate {run.path} --iw-samples {10 * Draws.usual(data).iw}")
    for number, words in enumerate(follow):
        console.print(f"{'      ' if number else 'Next: '}{program()} {words}")


def dry_run_command(source_name: str | None, choice: Choice, *, threads: int | None) -> None:
    """Try a model on made-up images of the shape of a source, or of CIFAR-10."""
    data = MADE_UP if source_name is None else Data.of(open_source(source_name))
    use_threads(threads, data)
    dry_run(choice, data, console)


def models_command() -> None:
    """List models and presets."""
    console.print("Models, for --model:")
    _list({name: config.summary for name, config in MODELS.items()})
    console.print("\nPresets, for --preset, with the bits/dim of their papers (CIFAR-10, ELBO):")
    for title, names in _by_paper(list(PRESETS)).items():
        console.print(f"{title}:")
        _list({name: PRESETS[name].summary for name in names})
    console.print(f"\nTry one: {program()} fit --dry-run --preset table2-sylvester --size small")


def _by_paper(names: list[str]) -> dict[str, list[str]]:
    flowified = [name for name in names if name.startswith("flowified-")]
    return {
        "The convolution exponential and generalized Sylvester flows": [n for n in names if n not in flowified],
        "Flowification": flowified,
    }


def _list(lines: dict[str, str]) -> None:
    width = max(map(len, lines))
    for name, text in lines.items():
        console.print(f"  {name:<{width}}  {text}")


def use_threads(threads: int | None, data: Data) -> None:
    """Set the number of CPU threads: what was asked for, or what suits the data."""
    threads = recipes.threads(data.name, table=data.is_table) if threads is None else threads
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads must be at least 1, got {threads}.")
        torch.set_num_threads(threads)


def evaluate_command(
    path: Path,
    split: SplitName,
    elbo_samples: int | None,
    iw_samples: int | None,
    iw_items: int | None,
    changes: dict[str, object],
    *,
    gap: bool = False,
) -> None:
    """Measure a run on its own data, perhaps with other settings of its model that leave the weights as they are."""
    run = Run.load(path)
    run.check_module()
    source = open_source_of(run)
    usual = Draws.usual(Data.of(source))
    draws = Draws(
        usual.elbo if elbo_samples is None else elbo_samples,
        usual.iw if iw_samples is None else iw_samples,
        usual.iw_items if iw_items is None else iw_items,
        gap,
    )
    if draws.elbo < 1 or draws.iw < 0 or (draws.iw_items is not None and draws.iw_items < 1):
        raise ConfigError("--elbo-samples and --iw-items must be at least 1, and --iw-samples at least 0.")
    if draws.gap and draws.iw < 2:
        raise ConfigError("--gap compares the ELBO with importance weighting: give --iw-samples at least 2 as well.")
    _evaluate(run, run.flow(**changes), source, split, draws, keep=not changes)


def sample_command(path: Path, number: int, out: Path | None, label: int | None, temperature: float, seed: int) -> None:
    """Draw images or rows from a run."""
    if number < 1 or temperature < 0:
        raise ConfigError("-n must be at least 1 and --temperature must not be negative.")
    run = Run.load(path)
    classes = run.config.model.classes
    if label is not None and (classes is None or not 0 <= label < classes):
        known = "this run has no classes" if classes is None else f"its classes are 0..{classes - 1}"
        raise ConfigError(f"--label {label} does not fit: {known}.")
    levels = getattr(run.config.model, "pixel_levels", None)
    what, ending = ("Rows", ".csv") if levels is None else ("Pictures", ".png")
    file = out or run.path / f"drawn{ending}"
    if file.suffix != ending:
        raise ConfigError(f"{what} are written as {ending[1:].upper()}; give -o a name in {ending}, not '{file}'.")
    drawn = draw(run.flow(), run.config.model, number, label=label, temperature=temperature, seed=seed)
    if levels is None:
        save_rows(file, run, drawn)
    else:
        title = f"{number} samples" if label is None else f"{number} samples of class {label}"
        save_picture(file, {title: drawn}, levels)
    console.print(f"{number} samples: {file}")


def program() -> str:
    """Return the command as the user has to type it: its name if the shell finds it, its place otherwise."""
    return "likelify" if shutil.which("likelify") else sys.argv[0]


def items_of(data: Data) -> str:
    """Say what the items of the data are."""
    return "rows" if data.is_table else "images"


def default_folder(source: Source) -> Path:
    """Name a new run folder, after the file for a table of the user."""
    name = Path(source.name).name.partition(".")[0] if source.family == "table" else source.family
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


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
    """Draw images or rows; a class-conditional model draws one class, or all in turn."""
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
    unit = Data.of(source).unit

    def keep(state: dict[str, Tensor], result: FitResult) -> None:
        run.save_weights(state)
        run.save_metrics(result.rows(unit))

    with FitProgress(console, unit) as progress:
        result = fit(
            flow,
            source,
            run.config.fit,
            conditional=run.config.conditional,
            on_step=progress.update,
            on_best=keep,
        )
    run.save_metrics(result.rows(unit))
    return result


def _samples(run: Run, flow: Flow, source: Source) -> Path:
    """Keep some draws in the run: a picture beside real images, or rows."""
    seed, file = run.config.fit.seed, run.path / SAMPLES
    if source.levels is None:
        file = file.with_suffix(".csv")
        save_rows(file, run, draw(flow, run.config.model, SAMPLE_ROWS, seed=seed))
        return file
    samples = draw(flow, run.config.model, PICTURE_IMAGES, seed=seed)
    real = source.read("test", torch.arange(min(PICTURE_IMAGES, source.size("test")))).x
    save_picture(file, {"samples": samples, "real (test)": real}, source.levels)
    return file


def _evaluate(run: Run, flow: Flow, source: Source, split: SplitName, draws: Draws, *, keep: bool = True) -> None:
    """Measure, keep and print held-out figures."""
    with share_done(console, "evaluating") as show:
        measured = evaluate(
            flow,
            source,
            split=split,
            elbo_samples=draws.elbo,
            iw_samples=draws.iw,
            iw_items=draws.iw_items,
            gaps=draws.ladder,
            conditional=run.config.conditional,
            on_batch=show,
        )
    if keep:
        run.save_evaluation(split, plain_figures(measured, source))
    show_figures(console, measured, source)
    if measured.iw is None and draws.iw and flow.likelihood == "estimate":
        console.print(
            "No importance weighting: the log-determinant is a random estimate here, and the figure would be biased "
            f"upwards. Without noise, for small images: {program()} evaluate {run.path} --set log_det=exact "
            "--iw-samples 10"
        )
