"""The run folder: what was fitted to what and how, the weights, and the course of the fit.

Everything is written to a temporary name and then renamed, so a kill at any instant leaves the old file or the new one.
Weights are safetensors and settings are JSON that is validated when read; nothing is ever unpickled.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from likelify._version import __version__
from likelify.errors import ConfigError, RunError
from likelify.flows import Flow
from likelify.seeding import seeded

if TYPE_CHECKING:
    from likelify.fitting.config import RunConfig

CONFIG, WEIGHTS, METRICS, EVALUATION, SAMPLES = (
    "config.json",
    "model.safetensors",
    "metrics.csv",
    "evaluation.json",
    "samples.png",
)


class Run:
    """A run folder.

    Example:
        >>> run = Run.load("runs/digits")  # doctest: +SKIP
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
            raise RunError(
                f"'{folder}' exists and is not empty; nothing was overwritten. Give another folder with --out."
            )
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
            RunError: if it is missing, incomplete or was written by a later version.
            ConfigError: if a module is given for a model that needs none.
        """
        # Not at the top: `likelify.Run` should not cost the import of pydantic before it is used.
        from likelify.fitting.config import FORMAT, RunConfig

        folder = Path(path)
        if not (folder / CONFIG).is_file():
            raise RunError(f"'{folder}' is not a run folder: it has no {CONFIG}. Runs are made by 'likelify fit'.")
        try:
            values = json.loads((folder / CONFIG).read_text())
            if isinstance(values, dict) and isinstance(values.get("format"), int) and values["format"] > FORMAT:
                raise RunError(
                    f"'{folder}' has format {values['format']}, written by likelify {values.get('likelify')}; this is "
                    f"likelify {__version__}, which reads formats up to {FORMAT}. Upgrade likelify."
                )
            config = RunConfig.parse(values)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, ConfigError) as error:
            raise RunError(f"'{folder / CONFIG}' cannot be read: {error}") from error
        if module is not None and config.model.model != "converted":
            raise ConfigError(f"The model '{config.model.model}' of '{folder}' needs no module; leave out module=.")
        return Run(folder, config, module)

    def check_module(self) -> None:
        """Make sure that there is a network if the model needs one.

        Raises:
            ConfigError: with the line that loads the run, if it does and there is none.
        """
        if self.config.model.model == "converted" and self.module is None:
            raise ConfigError(self.config.model.how_to_load(self.path))

    def save_weights(self, state: Mapping[str, Tensor]) -> None:
        """Write the weights."""
        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
        write_atomically(self.path / WEIGHTS, save(plain))

    def flow(self, **changes: Any) -> Flow:
        """Build the model and load its weights.

        Args:
            **changes: settings of the model other than those of the run, which leave the weights as they are, such as
                `log_det="exact"`.

        Raises:
            RunError: if the weights are missing or damaged, or do not fit the model.
            ConfigError: if a changed setting does not fit, or the model needs a network that `load` was not given.
        """
        self.check_module()
        file = self.path / WEIGHTS
        if not file.is_file():
            raise RunError(
                f"'{self.path}' has no {WEIGHTS}: its fit ended before any weights were good enough to keep."
            )
        model = self.config.model
        for name in changes:
            if name not in type(model).model_fields:
                raise ConfigError(f"The model '{model.model}' of this run has no setting {name}.")
        model = type(model).parse(model.model_dump() | changes) if changes else model
        with seeded(self.config.fit.seed):
            flow = model.build(self.module) if model.model == "converted" else model.build()
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
        return flow

    def save_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the course of the fit as CSV."""
        rows = list(rows)
        if not rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path / METRICS, text.getvalue().encode())

    def save_evaluation(self, split: str, values: Mapping[str, Any]) -> None:
        """Write the figures of a split as JSON; those of the test split are the run's evaluation."""
        file = self.path / (EVALUATION if split == "test" else f"evaluation-{split}.json")
        write_atomically(file, json.dumps(values, indent=2).encode() + b"\n")


def write_atomically(file: Path, content: bytes) -> None:
    """Replace a file's content in one instant: write beside it, force to disk, rename."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
