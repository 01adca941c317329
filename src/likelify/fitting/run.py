"""The run folder: what was fitted to what and how, the weights, the course of the fit, and what was measured.

Everything is written to a temporary name and then renamed, so a kill at any instant leaves the old file or the new one.
Weights are safetensors and settings are JSON that is validated when read; nothing is ever unpickled.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likelify._version import __version__
from likelify.errors import ConfigError, RunError
from likelify.fitting.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor, nn

    from likelify.data import Source
    from likelify.fitting.figures import Course, Evaluation
    from likelify.fitting.settings import RunConfig
    from likelify.flows import Flow

CONFIG, WEIGHTS, EVALUATION = "config.json", "model.safetensors", "evaluation.json"
COURSE, METRICS = "course.json", "metrics.csv"


class Run:
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

    @staticmethod
    def create(path: str | Path, config: RunConfig) -> Run:
        """Make a new run folder.

        Raises:
            RunError: if the folder already holds something.
        """
        folder = Path(path)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"'{folder}' exists and is not empty; nothing was overwritten. Give another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / CONFIG, config.model_dump_json(indent=2).encode() + b"\n")
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
        from likelify.seeding import seeded

        model, file = self.config.model, self.path / WEIGHTS
        if not file.is_file():
            raise RunError(
                f"'{self.path}' has no {WEIGHTS}: its fit ended before any weights were good enough to keep."
            )
        model = type(model).parse(model.model_dump() | changes) if changes else model
        build: Callable[..., Flow] = model.build
        with seeded(self.config.fit.seed):
            flow = build(self.module) if model.needs_module else build()
        _load_weights(flow, file, changes)
        return flow

    def source(self) -> Source:
        """Open the data that the run was fitted to.

        Raises:
            DataError: if they are not there any more.
            RunError: if they have changed.
        """
        from likelify.data import open_source

        source, fitted = open_source(self.config.data.name), self.config.data.fingerprint
        if source.fingerprint() != fitted:
            raise RunError(
                f"The data '{source.name}' are not those that '{self.path}' was fitted to (fingerprint "
                f"{source.fingerprint()}, expected {fitted}); held-out figures would be meaningless."
            )
        return source

    def evaluate(
        self,
        source: Source | None = None,
        *,
        changes: Mapping[str, Any] | None = None,
        keep: bool = True,
        **effort: Any,
    ) -> Evaluation:
        """Measure the held-out likelihood and keep the figures in the run.

        Kept are only figures of the run's own model on whole splits of the data that it was fitted to.

        Args:
            source: the data; by default those that the run was fitted to.
            changes: settings of the model that leave its weights, see `flow`.
            keep: write the figures to the folder.
            **effort: split, draws and so on, as `metrics.evaluate` takes them; by default what suits the data.

        Raises:
            DataError: if the data are not there any more, or the split is empty.
            RunError: if the data have changed, or the weights are missing or damaged.
        """
        from likelify.fitting.metrics import evaluate
        from likelify.fitting.recipes import usual_draws

        effort = asdict(usual_draws(self.config.data)) | effort
        flow, source = self.flow(**(changes or {})), self.source() if source is None else source
        measured = evaluate(flow, source, conditional=self.config.conditional, **effort)
        own = source.fingerprint() == self.config.data.fingerprint
        if keep and own and not changes and effort.get("limit") is None:
            name = EVALUATION if measured.split == "test" else f"evaluation-{measured.split}.json"
            write_atomically(self.path / name, measured.model_dump_json(indent=2).encode() + b"\n")
        return measured

    def sample(self, number: int = 64, *, label: int | None = None, temperature: float = 1.0, seed: int = 0) -> Tensor:
        """Draw items in the units of the data: images as whole numbers, rows of tables in the user's units.

        Args:
            number: of samples.
            label: class, for a class-conditional model; by default all in turn.
            temperature: below 1 samples are less varied; see `Flow.sample`.
            seed: of the draws.

        Raises:
            ConfigError: if the run has no such class.
        """
        from likelify.fitting.draw import draw

        classes = self.config.data.classes if self.config.conditional else None
        if label is not None and (classes is None or not 0 <= label < classes):
            known = "this run has no classes" if classes is None else f"its classes are 0..{classes - 1}"
            raise ConfigError(f"The label {label} does not fit: {known}.")
        return draw(self.flow(), number, classes=classes, label=label, temperature=temperature, seed=seed)

    def keep(self, state: Mapping[str, Tensor], course: Course) -> None:
        """Write the weights of a fit and its course so far."""
        self.save_weights(state)
        self.save_course(course)

    def save_weights(self, state: Mapping[str, Tensor]) -> None:
        """Write the weights."""
        from safetensors.torch import save

        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
        write_atomically(self.path / WEIGHTS, save(plain))

    def save_course(self, course: Course) -> None:
        """Write the course of the fit, and its points as CSV in the unit that suits the data."""
        from likelify.fitting.figures import Unit

        write_atomically(self.path / COURSE, course.model_dump_json(indent=2).encode() + b"\n")
        rows = course.rows(Unit.of(self.config.data.kind))
        if not rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path / METRICS, text.getvalue().encode())

    def course(self) -> Course | None:
        """Return the course of the fit as far as it was written, or None if there is none that can be read."""
        from likelify.fitting.figures import Course

        try:
            return Course.parse(json.loads((self.path / COURSE).read_text()))
        except (OSError, ValueError, RecursionError):
            return None


def _read_config(folder: Path) -> RunConfig:
    # Not at the top: `likelify.Run` should not cost the import of pydantic before it is used.
    from likelify.fitting.settings import FORMAT, RunConfig

    if not (folder / CONFIG).is_file():
        raise RunError(f"'{folder}' is not a run folder: it has no {CONFIG}. Runs are made by 'likelify fit'.")
    try:
        values = json.loads((folder / CONFIG).read_text())
        found = values.get("format") if isinstance(values, dict) else None
        if found != FORMAT:
            remedy = "Upgrade likelify." if isinstance(found, int) and found > FORMAT else "Fit it again."
            raise RunError(f"'{folder}' has format {found}; likelify {__version__} reads format {FORMAT}. {remedy}")
        return RunConfig.parse(values)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, ConfigError) as error:
        raise RunError(f"'{folder / CONFIG}' cannot be read: {error}") from error


def _load_weights(flow: Flow, file: Path, changes: Mapping[str, Any]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        flow.load_state_dict(load_file(file))
    except SafetensorError as error:
        raise RunError(f"'{file}' is damaged or not a safetensors file: {error}") from error
    except RuntimeError as error:
        if changes:
            raise RunError(
                f"The weights of this run do not fit with {', '.join(changes)} changed. Only settings that leave "
                "the weights as they are can be changed here, such as log_det of a residual flow."
            ) from error
        raise RunError(f"The weights in '{file}' do not fit the model in {CONFIG}: {error}") from error
