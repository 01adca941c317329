"""The run folder: what was fitted to what and how, the weights, the course of the fit, and what was measured.

Everything is written to a temporary name and then renamed, so a kill at any instant leaves the old file or the new one.
Weights are safetensors and settings are JSON that is validated when read; nothing is ever unpickled. What is read may
come from anywhere: it is bounded in memory and time, and refused if its parts do not belong together.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likelify._version import __version__
from likelify.errors import ConfigError, DataError, RunError, printable
from likelify.fitting.drawing.of_run import Draws
from likelify.fitting.files import as_json, is_temporary, make_folder, read_json, regular, write_atomically, write_new
from likelify.fitting.locks import LOCK

if TYPE_CHECKING:
    import numpy as np
    from lightning_fabric import Fabric
    from torch import Tensor, nn

    from likelify.data import Source, SplitName
    from likelify.fitting.checkpoint import Saved
    from likelify.fitting.figures import Course, Evaluation
    from likelify.fitting.loop import Progress
    from likelify.fitting.process import OneProcess
    from likelify.fitting.scoring.scores import Scores
    from likelify.fitting.scoring.surprise import Surprise
    from likelify.fitting.settings import FitSettings, RunConfig
    from likelify.flows import Flow

CONFIG, WEIGHTS = "config.json", "model.safetensors"
COURSE, METRICS = "course.json", "metrics.csv"


class Run(Draws):
    """A fitted model and everything that is known of it, in a folder.

    Example:
        >>> run = Run.load("runs/digits")  # doctest: +SKIP
        >>> run.evaluate().elbo.bits.mean, run.sample(16).shape  # doctest: +SKIP
        >>> flow = run.flow()  # doctest: +SKIP
    """

    def __init__(self, path: Path, config: RunConfig, module: nn.Module | None = None) -> None:
        self.path = path
        self.config = config
        self.module = module

    def __repr__(self) -> str:
        return f"Run('{self.path}', model='{self.config.model.model}', data='{self.config.data.name}')"

    @staticmethod
    def create(path: str | Path, config: RunConfig, *, numbered: bool = False) -> Run:
        """Make a new run folder; of several processes that make the same one, one gets it.

        Args:
            path: the folder.
            config: all settings.
            numbered: if the folder is taken, make the first of `path-2`, `path-3`, ... that is free.

        Raises:
            RunError: if the folder already holds something, or cannot be made.
        """
        folder, numbers = Path(path), count(2)
        while not _claim(folder, config):
            if not numbered:
                raise RunError(f"'{folder}' exists and is not empty; nothing was overwritten. Give another folder.")
            folder = Path(f"{path}-{next(numbers)}")
        return Run(folder, config)

    @staticmethod
    def load(path: str | Path, *, module: nn.Module | None = None) -> Run:
        """Open a run folder.

        Args:
            path: the folder.
            module: for a flow that was made of a network (`zoo.converted_flow`): a network of that architecture. Its
                weights play no part.

        Raises:
            RunError: if it is missing, incomplete or of another format than this version reads.
            ConfigError: if a module is given for a model that needs none.
        """
        folder = Path(path)
        config = _read_config(folder)
        if module is not None and not config.model.needs_module:
            raise ConfigError(f"The model '{config.model.model}' of '{folder}' needs no module; leave out module=.")
        return Run(folder, config, module)

    def flow(self, **changes: Any) -> Flow:
        """Build the model and load its weights.

        Args:
            **changes: settings of the model other than those of the run, which leave the weights as they are, such as
                `log_det="exact"`.

        Raises:
            RunError: if the weights are missing or damaged, or do not fit the model.
            ConfigError: if a changed setting does not fit, or the model needs a network that `load` was not given.
        """
        from likelify.fitting.weights import build_within, differences, load_weights, read_header
        from likelify.seeding import seeded

        model, file = self.config.model, self._weights()
        model = type(model).parse(model.model_dump() | changes) if changes else model
        build: Callable[..., Flow] = model.build
        header = read_header(file)
        with seeded(self.config.fit.seed):
            # A network of the user's is as large as it is.
            flow = build(self.module) if model.needs_module else build_within(build, header, self.path)
        if changes and differences(flow, header):
            raise RunError(
                f"The weights of this run do not fit with {', '.join(changes)} changed. Only settings that leave "
                "the weights as they are can be changed here, such as log_det of a residual flow."
            )
        load_weights(flow, file, header)
        return flow

    def _weights(self) -> Path:
        try:
            return regular(self.path / WEIGHTS)
        except FileNotFoundError:
            course = self.course()
        why = "the fit has not kept any yet"
        if course is not None and course.best is not None:
            why = f"the file is gone. Those of step {course.best_step} were kept in it; copy it back, or fit again"
        elif course is not None and course.ended:
            why = "its fit ended before any weights were good enough to keep"
        raise RunError(f"'{self.path}' has no {WEIGHTS}: {why}.")

    def digest(self) -> str | None:
        """Return the digest of the weights, by which what was measured of them is recognised."""
        from likelify.fitting.weights import read_header

        return read_header(self._weights()).digest

    def source(self) -> Source:
        """Open the data that the run was fitted to; nothing that its folder names is downloaded.

        Raises:
            DataError: if they are not there any more.
            RunError: if they have changed.
        """
        from likelify.data import open_source
        from likelify.data.hub import nothing_downloaded
        from likelify.fitting.sources import open_data

        opened, fitted = self.config.opened, self.config.data.fingerprint
        try:
            with nothing_downloaded():
                source = open_source(self.config.data.name) if opened is None else open_data(opened)
        except DataError as error:
            if not str(error).startswith("There is no source"):
                raise
            raise DataError(
                f"There is no source '{self.config.data.name}'. '{self.path}' was fitted to data in memory: give them "
                "to what needs them, run.evaluate(data) or run.resume(data)."
            ) from error
        if source.fingerprint() != fitted:
            raise RunError(
                f"The data '{source.name}' are not those that '{self.path}' was fitted to (fingerprint "
                f"{source.fingerprint()}, expected {fitted}); held-out figures would be meaningless."
            )
        return source

    def evaluate(
        self,
        source: Any = None,
        *,
        changes: Mapping[str, Any] | None = None,
        keep: bool = True,
        **effort: Any,
    ) -> Evaluation:
        """Measure the held-out likelihood and keep the figures in the run.

        Kept are only figures of the run's own model on whole splits of the data that it was fitted to. They replace
        those of the same weights that took fewer draws, or as many: draws for importance weighting times items count
        first, then draws for the ELBO, then the number of gaps.

        Args:
            source: the data; by default those that the run was fitted to. Of items in memory, such as an array, all
                are measured.
            changes: settings of the model that leave its weights, see `flow`.
            keep: write the figures to the folder. Simple densities to compare with are fitted only then, once for the
                weights of the run.
            **effort: split, draws and so on, as `metrics.evaluate` takes them; by default what suits the data.

        Warns:
            LikelifyWarning: if the figures cannot be written, or finer ones are there; if the fit has not ended.

        Raises:
            DataError: if the data are not there any more or are of another shape, or the split is empty.
            RunError: if the data have changed, or the weights are missing or damaged.
            ConfigError: if a setting does not fit.
        """
        from likelify.fitting.evaluating import evaluate_run

        return evaluate_run(self, source, changes or {}, effort, keep=keep)

    def evaluation(self, split: SplitName = "test") -> Evaluation | None:
        """Return the figures that were kept of a split, or None if there are none that can be read."""
        from likelify.fitting.evaluating import evaluation_file
        from likelify.fitting.figures import Evaluation

        try:
            return Evaluation.parse(read_json(evaluation_file(self.path, split)))
        except (OSError, ConfigError):
            return None

    def reference(self, split: SplitName = "validation", *, draws: int | None = None) -> np.ndarray:
        """Return the log-likelihoods in nats of held-out items, in their order: what new items are ranked among.

        They are kept in the run and made when they are first asked for, or if the weights have changed.

        Args:
            split: validation, or test for items that had no say in the choice of the weights.
            draws: per item, where the model draws; by default what suits the data.

        Raises:
            DataError: if the data are needed and not there any more, or the split is empty.
            RunError: if the data have changed, or the weights are missing or damaged.
        """
        from likelify.fitting.scoring.reference import held_out

        return held_out(self, split, draws=draws).nats

    def score(
        self,
        items: Any = None,
        *,
        split: SplitName = "test",
        draws: int | None = None,
        reference: SplitName | None = "validation",
        contamination: float | None = None,
        blame: bool = False,
        jobs: int | None = 1,
        tiles: bool = False,
        edges: Any = None,
    ) -> Scores:
        """Score items one by one: log-likelihood, its error where it is an estimate, rank; of rows how odd they are.

        Args:
            items: a path, an array, a tensor, a data frame, graphs, a source; by default the data that the run was
                fitted to. Columns of tables are found by their names; others, such as ids, are carried through.
            split: of a source.
            draws: per item, where the model draws; by default what suits the data.
            reference: the split whose items new ones are ranked among; None for no ranks.
            contamination: mark rows of which at most that share of held-out ones is as odd.
            blame: also say for each column of a table what the row gains if that column is replaced.
            jobs: processes; see `scoring.sharing.scored_passes`.
            tiles: cut pictures larger than the model's images into tiles of that size instead of reducing them; each
                tile is an item, with the picture's name and its place.
            edges: of graphs in a table of nodes, the table of their edges: a path or a data frame.

        Returns:
            The scores; their `said`, which is printed with them, tells how pictures of another size or other colours
            than the model's images were made such.

        Raises:
            DataError: if items are missing, damaged or of another kind or shape; if there is nothing to rank among.
            RunError: if the weights are missing or damaged.
            ConfigError: if a setting does not fit.
            NonFiniteError: if the likelihood of an item is not a number.
        """
        from likelify.fitting.scoring.scorer import Wanted
        from likelify.fitting.scoring.scoring import Scoring, items_of, score_items

        wanted = Wanted(draws=draws, reference=reference, contamination=contamination, blame=blame)
        found = items_of(self, items, split=split, tiles=tiles, edges=edges)
        return score_items(Scoring(self, found, wanted, jobs=jobs))

    def surprise(self, pictures: Any) -> list[Surprise]:
        """Tell how surprising each pixel of pictures is, for models that write one after the other (pyramid).

        Pictures larger than the model's images are cut into tiles, which the model takes for independent; see
        `scoring.surprise`.

        Args:
            pictures: a file, a folder, an array `(channels, height, width)` or `(n, channels, height, width)`.

        Returns:
            For each picture its pixels, and their surprise in bits per dimension, whose mean is that of the picture;
            and in words what was done to the pixels of its file.

        Raises:
            ConfigError: if pixels have no probability of their own in the model.
            DataError: if there are no such pictures.
        """
        from likelify.fitting.scoring.surprise import picture_surprises

        return list(picture_surprises(self, pictures))

    def report(self, file: str | Path | None = None, *, source: Source | None = None, force: bool = False) -> Path:
        """Write a page of HTML that shows what was fitted, how well, and what to doubt; return its path.

        A part that cannot be made, say since the data are gone, says why in a sentence.

        Args:
            file: to write; by default `report.html` in the run.
            source: the data that the run was fitted to, if they are open already.
            force: replace a file that exists; the report of the run is made again while its data are there.

        Raises:
            ConfigError: if the file has another ending than `.html`, or exists.
            RunError: if the file cannot be written.
            MissingDependencyError: if what the extra `app` installs is not there.
        """
        from likelify.fitting.report.page import write_report

        return write_report(self, None if file is None else Path(file), source=source, force=force)

    def keep(self, state: Mapping[str, Tensor], course: Course) -> None:
        """Write the weights of a fit and its course so far."""
        self.save_weights(state)
        self.save_course(course)

    def save_weights(self, state: Mapping[str, Tensor]) -> None:
        """Write the weights."""
        from likelify.fitting.weights import pack

        write_atomically(self.path / WEIGHTS, pack(state))

    def save_course(self, course: Course) -> None:
        """Write the course of the fit, and its points as CSV in the unit that suits the data."""
        from likelify.fitting.figures import Unit

        if rows := course.rows(Unit.of(self.config.data.kind)):
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
            write_atomically(self.path / METRICS, text.getvalue().encode())
        # Last, for it is what says that a fit has ended.
        write_atomically(self.path / COURSE, as_json(course))

    def settle(self, settings: FitSettings, *, conditional: bool) -> None:
        """Write the settings of a fit that begins, if they are others than those that the run was made with."""
        config = self.config.model_copy(update={"fit": settings, "conditional": conditional})
        if config != self.config:
            write_atomically(self.path / CONFIG, as_json(config))
            self.config = config

    def saved(self) -> Saved | None:
        """Return the checkpoint from which the fit can go on, or None if it has not begun.

        Raises:
            RunError: if it is damaged, or there are weights and it is gone.
        """
        from likelify.fitting.checkpoint import Saved

        try:
            return Saved(self.path)
        except FileNotFoundError:
            if (self.path / WEIGHTS).exists():
                raise RunError(
                    f"'{self.path}' holds weights and no checkpoint, so its fit cannot go on, and a new one would "
                    "replace them; nothing was changed. Fit in another folder."
                ) from None
            return None

    def refuse_ended(self) -> None:
        """Refuse to fit again what has been fitted.

        Raises:
            RunError: if the fit of the run has ended.
        """
        course = self.course()
        if course is not None and course.ended:
            raise RunError(f"{self.ended_words(course)} Fit in another folder.")

    def ended_words(self, course: Course) -> str:
        """Say that a fit has ended."""
        return f"The fit of '{self.path}' has ended ({course.reason}, {course.steps} steps); nothing was changed."

    def resume(
        self,
        data: Any = None,
        *,
        fabric: Fabric | OneProcess | None = None,
        on_step: Callable[[Progress], None] | None = None,
        **changes: Any,
    ) -> Course:
        """Go on with a fit that was interrupted or killed, to the result that it would have had without a break.

        At an equal number of threads, and without `max_time`, weights and course are the same to the last bit, seconds
        aside. With `max_time` the time that was used before counts. A run whose fit had not begun is fitted from the
        weights of its seed. One whose fit has ended is left as it is.

        Args:
            data: what it is fitted to; by default opened again.
            fabric: see `fit`.
            on_step: see `fit`.
            **changes: settings that leave the result as it is: `checkpoint_seconds`, `workers` and `cuda_graph`. All
                others are those that the fit began with: also `steps` and `max_time`, which the learning rate follows.

        Returns:
            How the fit went.

        Raises:
            RunError: if the data have changed, the checkpoint is damaged, other settings are asked for, or another
                process is at work in the folder.
            DataError: if the data are not there any more.

        Warns:
            LikelifyWarning: if the fit has ended; if versions or numbers of threads are others than before.
        """
        from likelify.fitting.resuming import resume

        return resume(self, data, fabric=fabric, on_step=on_step, **changes)

    def course(self) -> Course | None:
        """Return the course of the fit as far as it was written, or None if there is none that can be read."""
        from likelify.fitting.figures import Course

        try:
            return Course.parse(read_json(self.path / COURSE))
        except (OSError, ConfigError):
            return None


def _claim(folder: Path, config: RunConfig) -> bool:
    """Make a folder that is this run's from now on; return False if it is another's."""
    content = as_json(config)
    if not folder.exists():
        make_folder(folder)
    if not folder.is_dir() or any(not is_temporary(file) and file.name != LOCK for file in folder.iterdir()):
        return False
    return write_new(folder / CONFIG, content)


def _read_config(folder: Path) -> RunConfig:
    # Not at the top: `likelify.Run` should not cost the import of pydantic before it is used.
    from likelify.fitting.settings import FORMAT, RunConfig

    file = folder / CONFIG
    if not file.is_file():
        raise RunError(f"'{folder}' is not a run folder: it has no {CONFIG}. Runs are made by 'likelify fit'.")
    values = read_json(file)
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        remedy = "Upgrade likelify." if isinstance(found, int) and found > FORMAT else "Fit it again."
        shown = printable(str(found)[:40])
        raise RunError(f"'{folder}' has format {shown}; likelify {__version__} reads format {FORMAT}. {remedy}")
    try:
        return RunConfig.parse(values)
    except ConfigError as error:
        raise RunError(f"'{file}' cannot be read: {error}") from error
