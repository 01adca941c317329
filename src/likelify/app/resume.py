"""Going on with a run, once the words of the command are parsed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likelify.app.devices import Where
from likelify.app.environment import is_one_of_many
from likelify.app.show import command, console
from likelify.app.threads import use_threads
from likelify.data import Source, SourceOptions, open_source
from likelify.errors import ConfigError, RunError, unknown_word
from likelify.fitting.locks import is_locked
from likelify.fitting.run import CONFIG, Run
from likelify.fitting.settings import UNDECIDING, FitSettings, RunConfig

if TYPE_CHECKING:
    from likelify.fitting.figures import Course
    from likelify.fitting.loop import Progress


def resume_command(
    path: Path,
    source_name: str | None,
    words: Mapping[str, Any],
    *,
    options: SourceOptions | None = None,
    threads: int | None = None,
    report: bool = True,
    where: Where,
) -> None:
    """Go on with the fit of a run; words that are said as well must be those that it was begun with."""
    # Of several processes the others may not see the folder.
    run = where.by_first(lambda: Run.load(path))
    if run.config.model.needs_module:
        raise RunError(
            f"The model of '{path}' is made of a network that only Python has: lk.Run.load('{path}', "
            "module=network).resume()."
        )
    refuse_others(run.config, words, options)
    course = where.by_first(run.course)
    from likelify.app.after import see_through

    source = None
    if source_name not in (None, run.config.data.name):
        # Other data are refused, whether or not there is anything left to do.
        with where.agreed():
            source = _source(run, source_name, options)
    if course is not None and course.ended:
        from likelify.fitting.checkpoint import remove_checkpoint

        # What a kill at the very end of a fit has left.
        where.by_first(lambda: remove_checkpoint(path))
    if course is not None and where.by_first(lambda: _has_all(run, course, report=report)):
        console.print(run.ended_words(course))
        return
    console.print(f"Going on with {path}: {run.config.model.model} of {run.config.data.name}.")
    if source is None:
        with where.agreed():
            source = run.source()
    changes = {name: value for name, value in _named(words).items() if name in UNDECIDING}
    if course is not None and course.ended:
        see_through(run, source, lambda _: course, where=where, report=report)
        return
    use_threads(threads, where.by_first(lambda: _suitable_threads(run)))

    def train(show: Callable[[Progress], None] | None) -> Course:
        return run.resume(source, fabric=where.place, on_step=show, **changes)

    see_through(run, source, train, where=where, report=report)


def _has_all(run: Run, course: Course, *, report: bool) -> bool:
    """Tell whether a fit has ended and nothing of what belongs to it is missing."""
    from likelify.app.after import is_complete

    return course.ended and (course.reason == "diverged" or is_complete(run, report=report))


def _source(run: Run, name: str, options: SourceOptions | None) -> Source:
    """Open the data of a run in another place, or under another name."""
    opened = run.config.opened
    source = open_source(name, options if opened is None or opened.options is None else opened.options)
    if source.fingerprint() != run.config.data.fingerprint:
        raise RunError(f"The data '{name}' are not those that '{run.path}' was fitted to; nothing was changed.")
    return source


def _suitable_threads(run: Run) -> int | None:
    """Return as many threads as the fit had."""
    from likelify.fitting.recipes import recipe

    saved = run.saved()
    return recipe(run.config.data).threads if saved is None else saved.facts.machine.threads


def refuse_taken(folder: Path) -> bool:
    """Refuse a folder that holds a run already; on a terminal, return whether to go on with it.

    Raises:
        RunError: naming the command that goes on, if its fit has not ended.
    """
    if not (folder / CONFIG).exists():
        return False
    taken = f"'{folder}' exists and is not empty; nothing was overwritten."
    if is_locked(folder):
        raise RunError(f"{taken} Another process is at work in it. Give another folder.")
    course = Run.load(folder).course()
    if course is not None and course.ended:
        raise RunError(f"{taken} It holds a run whose fit has ended. Give another folder.")
    at = "has not begun" if course is None else f"has not ended: it is at step {course.steps}"
    if sys.stdin.isatty() and console.is_terminal and not is_one_of_many():
        answer = console.input(f"'{folder}' holds a run whose fit {at}. Go on with it? [y/N] ")
        if answer.strip().lower() in ("y", "yes"):
            return True
    raise RunError(
        f"{taken} It holds a run whose fit {at}. Go on with: {command('fit', '--resume', folder)}; or give "
        "another folder."
    )


def refuse_others(config: RunConfig, words: Mapping[str, Any], options: SourceOptions | None) -> None:
    """Refuse words that contradict the settings of a run.

    Raises:
        ConfigError: naming what differs.
    """
    found = _of_another_model(config, words)
    for name, value in _named(words).items():
        part = next((part for part in (config.model, config.fit) if name in type(part).model_fields), None)
        if part is None:
            known = [*type(config.model).model_fields, *FitSettings.model_fields]
            raise ConfigError(unknown_word(f"setting of the model {config.model.model} or of the fit", name, known))
        wanted = getattr(type(part).parse(part.model_dump() | {name: value}), name)
        if wanted != getattr(part, name) and name not in UNDECIDING:
            found.append(f"{name} is {getattr(part, name)}, not {wanted}")
    opened = None if config.opened is None else config.opened.options
    kept = {} if opened is None else opened.chosen()
    given = {} if options is None else options.chosen()
    found += [f"{name} is {kept.get(name)}, not {value}" for name, value in given.items() if kept.get(name) != value]
    if found:
        raise ConfigError(
            f"The run was begun with other words: {'; '.join(found)}. It goes on with its own settings; leave these "
            "out, or fit in another folder."
        )


def _of_another_model(config: RunConfig, words: Mapping[str, Any]) -> list[str]:
    model, title = config.model.model, config.preset or ""
    found = [] if words["model"] in (None, model) else [f"the model is {model}, not {words['model']}"]
    if words["preset"] not in (None, title.partition(" ")[0]):
        found.append(f"the preset is {title or 'none'}, not {words['preset']}")
    if words["size"] is not None and f"({words['size']} size" not in title:
        found.append(f"the preset is {title or 'none'}, not of {words['size']} size")
    if words["conditional"] and not config.conditional:
        found.append("it is not conditional")
    return found


def _named(words: Mapping[str, Any]) -> dict[str, Any]:
    return {**words["model_settings"], **words["fit_settings"], **words["settings"]}
