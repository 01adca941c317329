"""The settings of a fit, and all settings of a run."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from likelify._version import __version__
from likelify.data import Facts
from likelify.fitting.sources import DataChoice
from likelify.settings import Settings, Values
from likelify.zoo import AnyModelConfig

# Version of the layout of run folders.
FORMAT = 3
# Of the moving averages of Adam.
Beta = Annotated[float, Field(ge=0, lt=1)]
# How much finer upscaled images are, draws of each item that is upscaled or inpainted, and places on the way between
# two items, if nothing else is said.
FINER, ITEM_DRAWS, STEPS = 4, 8, 10


class FitSettings(Settings):
    """Settings of `fit`.

    Attributes:
        steps: optimizer steps; the learning rate falls over them.
        max_time: seconds after which training ends, the learning rate falling by then if that is sooner than `steps`.
        clock: what `max_time` counts: time on the wall, or processor time of this process.
        batch_size: items per step, over all processes together.
        optimizer: AdamW, or Adamax as in the convolution exponential paper.
        lr: largest learning rate.
        betas: of the optimizer.
        eps: of the optimizer, added to the scale of the gradient.
        weight_decay: on weight matrices and kernels, not on vectors.
        warmup: steps over which the learning rate rises.
        warmup_power: of that rise; 1 is a straight line.
        schedule: how the learning rate falls: to zero along half a cosine, or exponentially.
        decay: share of the learning rate that is left at the end of an exponential fall.
        clip: largest norm of the gradient of the loss in bits per dimension; None leaves gradients as they are.
        exp_tol: truncation error of exponentials in training steps, relative to the norm of each item; None for the
            full tolerance, which validation, evaluation, scores and certificates always have.
        average: factor of the moving average of the weights, which is what is validated and kept.
        validations: how many evaluations on the validation split a fit has.
        validation_items: of these, how many items of the split, the first; None for all, or with `max_time` for as many
            as leave about half of the time for steps (see `Course`). For models whose likelihood takes much longer than
            a step of their training, such as continuous flows.
        patience: stop after that many evaluations without improvement; None never stops early.
        initialize_items: size of the sample of the training split that data-dependent layers are fitted to: also means
            and scales of columns (`transforms.Columns`), which need no more; with heavy tails take more.
        checkpoint_seconds: seconds between two checkpoints of a run folder, at least.
        cuda_graph: on a CUDA device record the forward and backward pass of a step as a CUDA graph where that gives the
            same, which small models need to be fast (see `recording`); how many steps were replayed is in the `Course`.
        trim: share of the rows of a table, the oddest, that are left out of training and validation, for data that hold
            outliers; see `trimming.trimmed`.
        seed: of the weights, the order of the batches and all noise.
        workers: processes that read batches ahead, for data that are read from files; 0 reads them in between. The
            batches are the same. None takes what suits the source.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    steps: int = Field(default=1500, ge=1)
    max_time: float | None = Field(default=None, gt=0)
    clock: Literal["wall", "processor"] = "wall"
    batch_size: int = Field(default=128, ge=1)
    optimizer: Literal["adamw", "adamax"] = "adamw"
    lr: float = Field(default=4e-3, gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup: int = Field(default=50, ge=0)
    warmup_power: float = Field(default=1.0, gt=0)
    schedule: Literal["cosine", "exponential"] = "cosine"
    decay: float = Field(default=0.01, gt=0, le=1)
    clip: float | None = Field(default=1.0, gt=0)
    exp_tol: float | None = Field(default=1e-3, gt=0, le=0.1)
    average: float = Field(default=0.995, ge=0, lt=1)
    validations: int = Field(default=15, ge=1)
    validation_items: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=1)
    initialize_items: int = Field(default=4096, ge=1)
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    cuda_graph: bool = True
    trim: float = Field(default=0.0, ge=0, le=0.5)
    seed: int = Field(default=0, ge=0, lt=2**63)
    workers: int | None = Field(default=None, ge=0, le=64)

    @classmethod
    def meant(cls) -> str:
        """Return whose settings these are, for errors."""
        return "settings of the fit"

    def validated(self, size: int) -> int:
        """Return how many items of a validation split of that size are looked at."""
        return size if self.validation_items is None else min(size, self.validation_items)

    def lr_at(self, step: int, fraction: float) -> float:
        """Return the learning rate of a step, when that fraction (0 to 1) of the fit is over."""
        rise = min(1.0, (step + 1) / max(self.warmup, 1)) ** self.warmup_power
        if self.schedule == "exponential":
            return self.lr * rise * self.decay**fraction
        return self.lr * rise * 0.5 * (1 + math.cos(math.pi * fraction))


# Settings of a fit that leave its result as it is, so that a fit can go on with others.
UNDECIDING = ("checkpoint_seconds", "cuda_graph", "workers")
# What fits did in which these settings did not exist yet, where that is not what fits do by default now.
BEFORE: Values = {"exp_tol": None}


def _as_then(given: Any) -> Any:
    """Return the settings that a file has of a fit, with what an earlier version did that did not name it."""
    return {**BEFORE, **given} if isinstance(given, Mapping) else given


# Of a fit that was begun, which goes on as it began whatever the defaults have become.
BegunFit = Annotated[FitSettings, BeforeValidator(_as_then)]


class Draws(Settings):
    """The effort of an evaluation.

    Attributes:
        elbo_samples: draws per item for the ELBO.
        iw_samples: draws per item for importance weighting; 0 leaves it out.
        iw_items: items that are weighted, the first of the split; None for all.
    """

    elbo_samples: int = Field(default=10, ge=1)
    iw_samples: int = Field(default=100, ge=0)
    iw_items: int | None = Field(default=None, ge=1)

    @classmethod
    def meant(cls) -> str:
        """Return what these settings are, for errors."""
        return "numbers of draws"


class RunConfig(Settings):
    """All that is needed to build the model of a run again, and to know what it was fitted to: its `config.json`.

    Attributes:
        format: version of the layout of the folder.
        likelify: version of the library that wrote it.
        data: facts of the source, with its fingerprint and the names of the columns of a table.
        opened: how the data were opened, if they are a part of a source or in other units; None for a source as it is.
        conditional: whether the labels were given to the model.
        preset: name and size of the preset that the settings started from, or None.
        model: the model's settings.
        fit: the settings of the fit; given by name, all of them, as a file has them.
    """

    format: int = FORMAT
    likelify: str = __version__
    data: Facts
    opened: DataChoice | None = None
    conditional: bool = False
    preset: str | None = None
    model: AnyModelConfig
    fit: BegunFit

    @classmethod
    def meant(cls) -> str:
        """Return whose settings these are, for errors."""
        return "settings of the run"

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse a model that is not one of these data."""
        facts, model = self.data, self.model
        if model.event_shape != facts.event_shape:
            shapes = ("x".join(map(str, shape)) for shape in (model.event_shape, facts.event_shape))
            raise ValueError("the model is of items of {}, the data have items of {}".format(*shapes))
        if model.kind not in (None, facts.kind):
            raise ValueError(f"the model '{model.model}' is not for {facts.items}")
        levels = getattr(model, "pixel_levels", None)
        if "pixel_levels" in type(model).model_fields and levels != facts.levels:
            raise ValueError(f"the model is of {levels} levels, the data have {facts.levels}")
        schema = getattr(model, "schema", None) if "schema" in type(model).model_fields else None
        if None not in (schema, facts.schema) and schema != facts.schema:
            raise ValueError("the model is of columns that mean something else than those of the data")
        if model.classes not in (None, facts.classes):
            raise ValueError(f"the model is of {model.classes} classes, the data have {facts.classes}")
        if self.conditional and facts.classes is None:
            raise ValueError("the model is told a class, and the data have none")
        return self
