"""From data to a run: the model that suits the data is chosen, built and fitted, and all of it is kept in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likelify.data import Facts, Source, SourceOptions, as_source, open_source
from likelify.errors import ConfigError
from likelify.fitting.checks import check_columns, check_front
from likelify.fitting.choose import Choice, choose
from likelify.fitting.loop import Progress, fit
from likelify.fitting.process import processes
from likelify.fitting.run import Run
from likelify.fitting.scoring.reference import keep_if_ended
from likelify.fitting.settings import RunConfig
from likelify.fitting.sources import chosen
from likelify.fitting.threads import threads
from likelify.flows import Flow
from likelify.seeding import seeded
from likelify.zoo.presets import PresetSize

if TYPE_CHECKING:
    import torch


def fit_run(
    data: Any,
    folder: str | Path,
    *,
    model: str | None = None,
    preset: str | None = None,
    size: PresetSize | None = None,
    conditional: bool = False,
    settings: Mapping[str, Any] | None = None,
    options: SourceOptions | None = None,
    device: torch.device | str | None = None,
    on_step: Callable[[Progress], None] | None = None,
    **fit_settings: Any,
) -> Run:
    """Fit the model that suits some data, and keep everything in a run folder, as `likelify fit` does.

    The folder also keeps what scores of new items need of the data, which may be gone later. What the command makes
    beside that, its report and pictures, is made by `run.report()` and `run.sample(n)`.

    Args:
        data: the name of a source or a file, as the command takes it; a source; or what `data.as_source` takes.
        folder: of the run, which must not be there yet.
        model: name of a model, by default the one that suits the data.
        preset: name of a preset, instead of a model.
        size: of the preset, `"paper"` or `"small"`.
        conditional: learn p(item | label).
        settings: of the model or the fit, by name.
        options: how a named source is opened, or what data in memory are taken for.
        device: such as `"cpu"` or `"cuda"`; by default the accelerator there is.
        on_step: called after every step.
        **fit_settings: settings of the fit by name, such as `steps=200` or `max_time=60`.

    Returns:
        The run, which can be evaluated, scored and sampled from, and read again by `Run.load(folder)`.

    Raises:
        ConfigError: if a name or a value is not known, data and model do not belong together, or there is no such
            device; also where several processes have been joined, which `likelify fit --devices` is for.
        DataError: if the data cannot be read as what they seem to be.
        RunError: if the folder is there already, or cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     run = fit_run("iris", f"{place}/iris", steps=5)
        ...     run.sample(3).shape
        torch.Size([3, 4])
    """
    # Before a folder is made.
    place = processes(None, device)
    if place.count > 1:
        raise ConfigError("fit_run is for one process; several make one run by likelify fit --devices, or by lk.fit.")
    source = _source_of(data, options)
    facts = source.facts()
    choice = choose(
        facts,
        model=model,
        preset=preset,
        size=size,
        conditional=conditional,
        settings=settings,
        fit_settings=fit_settings,
    )
    with threads(choice.threads):
        config, flow = built(source, facts, choice, options)
        run = Run.create(folder, config)
        course = fit(flow, source, run=run, fabric=place, on_step=on_step)
        keep_if_ended(run, course, source)
    return run


def _source_of(data: Any, options: SourceOptions | None) -> Source:
    if isinstance(data, str | Path):
        return open_source(str(data), options)
    if isinstance(data, Source) and options is not None:
        raise ConfigError("options= says how data are read, and this source is open already: give it what it is to be.")
    return as_source(data, **({} if options is None else options.chosen()))


def built(source: Source, facts: Facts, choice: Choice, options: SourceOptions | None = None) -> tuple[RunConfig, Flow]:
    """Build the model that was chosen for some data, and the settings of its run."""
    check_columns(source)
    with seeded(choice.fit.seed):
        flow = choice.model.build()
    if choice.fit.trim == 0:
        # Of a table that is trimmed such rows leave; the fit looks at what is left.
        check_front(flow, source)
    return RunConfig(data=facts, opened=chosen(source, options), **choice.configured()), flow
