"""The command `likelify`.

Only light modules are imported here, so that `likelify --help` answers at once; each command imports what it needs.
"""

import io
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal
from warnings import formatwarning

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, UnknownCommandError

from likelify._version import __version__
from likelify.app.environment import is_silent, is_told_by_another
from likelify.app.parsing import WHOLE, given, parse_duration, parse_settings
from likelify.app.words import DataWords, FitWords, ModelWords, RunWords, SourceName
from likelify.errors import ConfigError, LikelifyError, LikelifyWarning, printable

HELP = """Exact-likelihood density models of images, tables, series and graphs.

Start with: likelify fit digits

It ends by naming the run folder and what to type next. 'likelify models' lists
what can be fitted. Every command has a --help of its own. Add --debug to see
the traceback of an error.
"""

app = App(name="likelify", help=HELP, version=__version__, help_format="plaintext", suppress_keyboard_interrupt=False)

SECONDS_TO_SPEAK = 3
# What PyTorch says where memory is full.
FULL = ("not enough memory", "out of memory", "can't allocate memory")
DEBUG = "--debug"
# Words for commands that other programs have.
MEANT = {
    **dict.fromkeys(("show", "view", "open", "html", "page"), "report"),
    **dict.fromkeys(("train", "learn", "resume"), "fit"),
    **dict.fromkeys(("draw", "generate", "impute", "inpaint", "upscale"), "sample"),
    **dict.fromkeys(("test", "measure"), "evaluate"),
    **dict.fromkeys(("predict", "outliers"), "score"),
}
TAKES = "The way goes from one item to another: --interpolate 0 7 of the test split, or --interpolate a.png b.png."
# Options of some forms of `sample`: the forms, and what is said where it is none of these.
USES = {
    "--factor": (
        ("--upscale",),
        "--factor says how much finer --upscale draws; name the items: --upscale test --factor 4.",
    ),
    "--mask": (("--inpaint",), "--mask says what --inpaint hides; name the items: --inpaint test --mask left."),
    "--steps": (
        ("--interpolate",),
        "--steps is for --interpolate: name two items, --interpolate 0 7; the number of samples is -n.",
    ),
    "--draws": (
        ("--impute", "--inpaint", "--upscale"),
        "--draws is for --impute, --inpaint and --upscale; the number of samples is -n.",
    ),
}
ANY_MODEL, ANY_FIT, ANY_DATA, ANY_RUN = ModelWords(), FitWords(), DataWords(), RunWords()

RunPath = Annotated[Path, Parameter(help="A run folder, made by 'likelify fit'.")]


@app.command
def fit(
    source: SourceName = None,
    *,
    model: ModelWords = ANY_MODEL,
    fitting: FitWords = ANY_FIT,
    reading: DataWords = ANY_DATA,
    running: RunWords = ANY_RUN,
) -> None:
    """Fit a flow to a source of data, and keep everything in a run folder.

    Prints what it comes to on held-out items. Ctrl-C saves; --resume RUN goes on.

    Example: likelify fit digits --max-time 60s --seed 1
    """
    from likelify.app.devices import joined
    from likelify.app.fit import dry_run_command, fit_command
    from likelify.app.resume import resume_command

    words, options = fitting.choice(model, running.workers), reading.options()
    if running.dry_run:
        idle = {
            "--resume": running.resume,
            "--out": running.out,
            "--devices": running.devices,
            "--nodes": running.nodes,
        }
        idle |= {"--device": None if running.device == "auto" else running.device}
        for word in given(idle):
            raise ConfigError(f"--dry-run makes one step on a processor and keeps nothing; leave out {word}.")
        dry_run_command(source, words, options=options, threads=running.threads)
        return
    if running.resume is not None and running.out is not None:
        raise ConfigError("--resume goes on in the folder of its run; leave out --out.")
    if running.resume is None and source is None:
        raise ConfigError("likelify fit needs data, such as 'likelify fit digits'; only --dry-run does without.")
    where = running.where()
    how: dict[str, Any] = {"options": options, "threads": running.threads, "report": not running.no_report}
    with joined(where):
        if running.resume is not None:
            resume_command(running.resume, source, words, where=where, **how)
        elif source is not None:
            fit_command(source, words, out=running.out, where=where, **how)


@app.command
def models() -> None:
    """List the models and the presets of papers, with a line each.

    Example: likelify models
    """
    from likelify.app.models import models_command

    models_command()


@app.command
def evaluate(
    run: RunPath,
    *,
    split: Annotated[Literal["test", "validation", "train"], Parameter(help="Part of the data.")] = "test",
    elbo_samples: Annotated[int | None, WHOLE, Parameter(help="Noise draws per item for the ELBO.")] = None,
    iw_samples: Annotated[
        int | None, WHOLE, Parameter(help="Draws per item for importance weighting; 0: leave it out.")
    ] = None,
    iw_items: Annotated[int | None, WHOLE, Parameter(help="Weight only the first so many items.")] = None,
    gap: Annotated[
        bool, Parameter(help="Also print how far the ELBO lies below, by number of draws.", negative="")
    ] = False,
    set_: Annotated[
        list[str] | None,
        Parameter(name="--set", help="Settings of the model that leave its weights: log_det=exact.", negative=""),
    ] = None,
) -> None:
    """Measure the held-out likelihood of a run: ELBO and importance-weighted, in nats and bits per dimension.

    Example: likelify evaluate runs/digits --iw-samples 1000
    """
    from likelify.app.evaluate import evaluate_command

    effort = given({"elbo_samples": elbo_samples, "iw_samples": iw_samples, "iw_items": iw_items})
    evaluate_command(run, split, effort, parse_settings(set_ or []), gap=gap)


@app.command
def score(
    run: RunPath,
    file: Annotated[str | None, Parameter(help="A file, a folder or a source; by default the data of the run.")] = None,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"], help="File of all scores: .csv or .parquet.")] = None,
    top: Annotated[int | None, WHOLE, Parameter(help="Show that many of the oddest; by default 10.")] = None,
    draws: Annotated[
        int | None, WHOLE, Parameter(help="Per item, for models with bounds; default: what suits.")
    ] = None,
    split: Annotated[Literal["test", "validation", "train"], Parameter(help="Part of a source.")] = "test",
    reference: Annotated[
        Literal["validation", "test", "none"], Parameter(help="Held-out items that ranks are among.")
    ] = "validation",
    contamination: Annotated[
        float | None, Parameter(help="Mark rows that are odder than all but that share of held-out ones, such as 0.01.")
    ] = None,
    blame: Annotated[
        bool,
        Parameter(help="Also tell for rows which column is to blame; takes 40 times as long a column.", negative=""),
    ] = False,
    picture: Annotated[Path | None, Parameter(help="PNG file of the least likely images or graphs.")] = None,
    heat: Annotated[Path | None, Parameter(help="PNG file that also shows where they are unlikely.")] = None,
    surprise: Annotated[
        Path | None, Parameter(help="PNG file of the surprise of each pixel, by models that have it (pyramid).")
    ] = None,
    jobs: Annotated[
        int | None,
        WHOLE,
        Parameter(name=["--jobs", "-j"], help="Processes; default: all processors if it takes long."),
    ] = None,
    skip_unreadable: Annotated[bool, Parameter(help="Leave out pictures that cannot be read.", negative="")] = False,
    tiles: Annotated[
        bool, Parameter(help="Cut large pictures into tiles of the model's size, one line each.", negative="")
    ] = False,
    edges: Annotated[str | None, Parameter(help="Of a file of nodes, that of their edges.")] = None,
    force: Annotated[bool, Parameter(help="Replace files that exist.", negative="")] = False,
) -> None:
    """Score items one by one: log-likelihood, its error, and rank among held-out items; ids are carried through.

    The rank is the share of held-out items that are at most as likely. Rows of
    tables also get an outlier score, free of units, and its rank. Ctrl-C and
    the same command again go on.

    Example: likelify score runs/iris new-rows.csv -o scores.csv --top 20
    """
    from likelify.app.score import Words, score_command

    among = {"split": split, "top": top, "draws": draws, "reference": reference, "contamination": contamination}
    how = {"blame": blame, "jobs": jobs, "skip_unreadable": skip_unreadable, "tiles": tiles, "force": force}
    how |= {"edges": edges}
    score_command(run, file, Words(out=out, picture=picture, heat=heat, surprise=surprise, **among, **how))


@app.command
def sample(
    run: RunPath,
    *,
    n: Annotated[
        int | None,
        WHOLE,
        Parameter(name=["-n", "--number"], help="How many; 64; to reconstruct 16; to inpaint or upscale 4."),
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(
            name=["--out", "-o"],
            help="Images: .png, .npy, .npz or a folder. Rows: .csv, .parquet, .feather, .npy, .npz, .png; graphs these "
            "and .svg but .npy. By default a new file in the run.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        Parameter(help="Class, or several in turn (--label 3 --label 5); by default all.", negative=""),
    ] = None,
    nodes: Annotated[int | None, WHOLE, Parameter(help="Graphs: of so many nodes; by default as in the data.")] = None,
    temperature: Annotated[float, Parameter(help="Below 1: safer, less varied.")] = 1.0,
    seed: Annotated[int | None, WHOLE, Parameter(help="Of the draws, by default 0.")] = None,
    force: Annotated[bool, Parameter(help="Replace a file that exists.", negative="")] = False,
    given: Annotated[
        str | None,
        Parameter(help="Rows: what is known, age=40,city=Rome or a file of such rows (-n: of each, by default 1)."),
    ] = None,
    impute: Annotated[str | None, Parameter(help="Instead: a file of rows whose empty cells are filled in.")] = None,
    reconstruct: Annotated[
        str | None, Parameter(help="Instead: a split, a number or a file, to the latent and back.")
    ] = None,
    interpolate: Annotated[
        tuple[str, str] | None,
        Parameter(help="Instead: two items (7 is of the test split, or files), and the way.", negative=""),
    ] = None,
    steps: Annotated[int | None, WHOLE, Parameter(help="Items on that way, by default 10.")] = None,
    inpaint: Annotated[str | None, Parameter(help="Instead: as --reconstruct; what --mask hides is drawn.")] = None,
    mask: Annotated[
        str | None,
        Parameter(
            help="Images: left, right, top, bottom, center, LEFT,TOP,WIDTH,HEIGHT or a picture; series: 10:20; rows: "
            "age,city; all: a .npy file."
        ),
    ] = None,
    upscale: Annotated[
        str | None, Parameter(help="Instead: as --reconstruct, or a small picture; finer pixels are drawn (pyramid).")
    ] = None,
    factor: Annotated[int | None, WHOLE, Parameter(help="How much finer, by default 4.")] = None,
    draws: Annotated[
        int | None,
        WHOLE,
        Parameter(help="Of each row filled in, by default 1; of each item inpainted or upscaled, 8."),
    ] = None,
) -> None:
    """Draw images, rows, sequences or graphs from a run, and write them to a file.

    Example: likelify sample runs/digits -n 100 -o digits.png

    Example: likelify sample runs/digits --inpaint test --mask left

    Example: likelify sample runs/photos --upscale test --factor 4

    Example: likelify sample runs/people --given age=40 -n 1000 -o forty.csv
    """
    from likelify.app.sample import (
        Drawing,
        impute_command,
        inpaint_command,
        interpolate_command,
        reconstruct_command,
        sample_command,
        upscale_command,
    )
    from likelify.fitting.settings import FINER, ITEM_DRAWS, STEPS

    forms = {"--impute": impute, "--reconstruct": reconstruct, "--interpolate": interpolate, "--inpaint": inpaint}
    _only_one(forms | {"--upscale": upscale, "--given": given, "--nodes": nodes})
    said = {"--factor": factor, "--mask": mask, "--steps": steps, "--draws": draws, "-n": n, "--seed": seed}
    _refuse_idle(forms | {"--upscale": upscale}, said, temperature)
    drawing = Drawing(run, out, n, label or [], 0 if seed is None else seed, force)
    if impute is not None:
        impute_command(drawing, impute, 1 if draws is None else draws)
    elif reconstruct is not None:
        reconstruct_command(drawing, reconstruct)
    elif interpolate is not None:
        interpolate_command(drawing, interpolate, STEPS if steps is None else steps)
    elif inpaint is not None:
        inpaint_command(drawing, inpaint, mask, ITEM_DRAWS if draws is None else draws)
    elif upscale is not None:
        factor, draws = FINER if factor is None else factor, ITEM_DRAWS if draws is None else draws
        upscale_command(drawing, upscale, factor, draws, temperature)
    else:
        sample_command(drawing, temperature, given, nodes)


@app.command
def report(
    run: RunPath,
    *,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="HTML file; by default report.html in the run.")
    ] = None,
    force: Annotated[bool, Parameter(help="Replace a file that exists.", negative="")] = False,
) -> None:
    """Write a page that shows what was fitted, how well, and what to doubt.

    One file that needs nothing beside it: held-out figures beside simple
    densities, samples beside data, copies, extremes, curves, settings.

    Example: likelify report runs/digits -o digits.html
    """
    from likelify.app.report import report_command

    report_command(run, out, force=force)


@app.command
def reproduce(
    name: Annotated[str | None, Parameter(help="An experiment; without it they are listed.")] = None,
    *,
    scale: Annotated[str, Parameter(help="cpu: minutes per cell; paper: its settings, days of a GPU.")] = "cpu",
    seeds: Annotated[int | None, WHOLE, Parameter(help="How many, from 0.")] = None,
    jobs: Annotated[
        int | None,
        WHOLE,
        Parameter(name=["--jobs", "-j"], help="Cells at a time, one thread each; by default 2."),
    ] = None,
    devices: Annotated[
        int, WHOLE, Parameter(help="At paper scale: devices that share each fit; cells then run one at a time.")
    ] = 1,
    budget: Annotated[str | None, Parameter(help="Time of each fit, such as 5m; by default 10m or less.")] = None,
    data: Annotated[Path | None, Parameter(help="Folder of your data files.")] = None,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="Folder of the results; results/ in a checkout.")
    ] = None,
    html: Annotated[Path | None, Parameter(help="Also write the report as one page of HTML.")] = None,
    quick: Annotated[bool, Parameter(help="A trial of seconds per cell; figures mean nothing.", negative="")] = False,
    again: Annotated[
        bool, Parameter(help="Replace cells that were run with other settings or data.", negative="")
    ] = False,
    render_only: Annotated[bool, Parameter(help="Run nothing, show what is there.", negative="")] = False,
    dry_run: Annotated[bool, Parameter(help="Run nothing, list the cells and their hours.", negative="")] = False,
) -> None:
    """Reproduce a table or figure of a paper, cell by cell; Ctrl-C and the same command again go on.

    Example: likelify reproduce flowification-images --jobs 2 --html images.html
    """
    from likelify.app.reproduce import Asked, jobs_beside, list_command, reproduce_command

    if quick and scale not in ("cpu", "quick"):
        raise ConfigError(f"--quick is a scale of its own: leave it or --scale {scale} out.")
    wanted = "quick" if quick else scale
    if name is None:
        said = {"--seeds": seeds, "--budget": budget, "--data": data, "--out": out, "--html": html}
        flags = {"--again": again, "--render-only": render_only, "--dry-run": dry_run}
        _refuse_nameless(said | {word: True for word, given_ in flags.items() if given_})
        list_command(wanted, jobs_beside(devices, jobs))
        return
    jobs = jobs_beside(devices, jobs)
    limit = None if budget is None else parse_duration(budget, "--budget")
    asked = Asked(name, wanted, seeds, devices, limit, data, out)
    if dry_run:
        from likelify.app.reproduce_plan import plan_command

        for word in given({"--html": html, "--render-only": render_only or None}):
            raise ConfigError(f"--dry-run writes nothing; leave out {word}.")
        plan_command(asked, jobs=jobs, again=again)
        return
    words = [word for word in sys.argv[1:] if word != DEBUG][1:]
    reproduce_command(asked, jobs=jobs, again=again, render_only=render_only, html=html, words=words)


def _refuse_nameless(words: dict[str, Any]) -> None:
    """Refuse what says how to run an experiment where none is named."""
    for word in given(words):
        raise ConfigError(f"{word} needs the name of an experiment; without one they are listed.")


def _only_one(words: dict[str, Any]) -> None:
    said = list(given(words))
    if len(said) > 1:
        raise ConfigError(f"{' and '.join(said)} exclude one another; give one of them.")


def _refuse_idle(forms: dict[str, Any], words: dict[str, Any], temperature: float) -> None:
    """Refuse what the form of `sample` that was asked for has no use for."""
    asked = set(given(forms))
    for word, (uses, said) in USES.items():
        if words[word] is not None and not asked & set(uses):
            raise ConfigError(said)
    if "--interpolate" in asked and words["-n"] is not None:
        raise ConfigError("--interpolate takes no -n: say how many items with --steps.")
    if words["--seed"] is not None and (still := asked & {"--reconstruct", "--interpolate"}):
        raise ConfigError(f"{still.pop()} draws nothing, and takes no --seed.")
    if temperature != 1.0 and asked - {"--upscale"}:
        raise ConfigError("--temperature is for samples and --upscale; leave it out.")


def _show_warning(message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Print a warning of the library as one paragraph; those of others as Python does."""
    known = issubclass(category, LikelifyWarning)
    if known and is_silent():
        return
    text = (
        f"Warning: {printable(' '.join(str(message).split()))}"
        if known
        else formatwarning(message, category, *place[:2])
    )
    print(text, file=sys.stderr)


def _in_words(error: Exception) -> str | None:
    """Return an error as one paragraph, or None if it is none that a user can do something about."""
    if isinstance(error, LikelifyError | CycloptsError | OSError):
        hint = _hint(error) if isinstance(error, CycloptsError) else ""
        return printable(" ".join(f"{error} {hint}".split()))
    # PyTorch has no class of its own for that.
    full = isinstance(error, RuntimeError) and any(words in str(error).lower() for words in FULL)
    if isinstance(error, MemoryError) or full:
        return "There is not enough memory. Of a fit, try smaller batches (--batch-size) or a smaller model."
    return None


def _hint(error: CycloptsError) -> str:
    """Return what may have been meant by a command that is none, or what an option takes."""
    if isinstance(error, UnknownCommandError):
        word = (error.unused_tokens or [""])[0]
        return f"What you want may be '{MEANT[word]}'." if word in MEANT else ""
    names = () if error.argument is None else error.argument.names
    return TAKES if isinstance(error, MissingArgumentError) and "--interpolate" in names else ""


def main() -> None:
    """Run the command line: errors of the library become one paragraph and exit code 2."""
    words = [word for word in sys.argv[1:] if word != DEBUG]
    for stream in (sys.stdout, sys.stderr):
        # Names of files may have letters that a terminal has not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", LikelifyWarning)
            warnings.showwarning = _show_warning
            app(words, exit_on_error=False, print_error=False)
    except KeyboardInterrupt:
        if not is_silent():
            print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        text = _in_words(error)
        if text is None or len(words) < len(sys.argv) - 1:
            raise
        if is_told_by_another(error):
            # Whoever started the processes ends all when one of them has ended: the first one is to speak before.
            time.sleep(SECONDS_TO_SPEAK)
            sys.exit(2)
        print(f"Error: {printable(text)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
