"""The registry of models: a configuration registers itself by name, and whatever lists models reads them here.

Adding a model takes one new file in this package, with a registered configuration in it. Neither the configurations nor
this module import PyTorch; that happens when one is built.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, SupportsIndex, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, SerializeAsAny, field_validator

from likelify.errors import ConfigError, unknown_word
from likelify.names import MOST_BINS, ItemKind
from likelify.settings import Settings

if TYPE_CHECKING:
    from likelify.flows import Flow

# Elements of one item: an image of 3 x 4096 x 4096 has fewer.
LARGEST_EVENT = 2**26
Size = Annotated[int, Field(ge=1, le=2**16)]
Bins = Annotated[int, Field(ge=2, le=MOST_BINS)]
ReadBy = Mapping[str, tuple[str, tuple[str, ...]]]
C = TypeVar("C", bound="type[ModelConfig]")


class ModelConfig(Settings):
    """What a model is built from, as plain data: validated, frozen, saved as JSON; the base of all configurations.

    Attributes:
        name: under which it is registered.
        kind: of the items that the model is for; None for any.
        summary: one line for the list of models.
        listed: whether `MODELS` has it.
        reads_labels: whether the model can be class-conditional.
        takes_mixed: whether a model of tables takes columns of every kind, not real numbers alone.
        reads_edges: whether a model of graphs looks at their edges.
        reads_weights: whether it looks at the weights of these.
        needs_module: whether `build` takes a network of the user's, which settings do not hold.
        read_by: which settings are read only where another one has one of some values: that one's name, and the values.
        model: the name, so that saved settings say whose they are.
        event_shape: of one item; a number is the shape of a vector.
        classes: number of classes for a class-conditional model, None for an unconditional one.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    name: ClassVar[str] = ""
    kind: ClassVar[ItemKind | None] = None
    summary: ClassVar[str] = ""
    listed: ClassVar[bool] = True
    reads_labels: ClassVar[bool] = True
    takes_mixed: ClassVar[bool] = False
    reads_edges: ClassVar[bool] = True
    reads_weights: ClassVar[bool] = True
    needs_module: ClassVar[bool] = False
    read_by: ClassVar[ReadBy] = {}

    model: str = Field(default="", validate_default=True)
    event_shape: tuple[Size, ...]
    classes: int | None = Field(default=None, ge=2, le=2**16)

    @field_validator("event_shape", mode="before")
    @classmethod
    def _as_shape(cls, given: Any) -> Any:
        return (given,) if isinstance(given, SupportsIndex) else given

    @field_validator("event_shape")
    @classmethod
    def _check_size(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if math.prod(shape) > LARGEST_EVENT:
            raise ValueError(f"an item has at most {LARGEST_EVENT} elements here, not {'x'.join(map(str, shape))}")
        return shape

    @field_validator("model")
    @classmethod
    def _fill_in(cls, given: str) -> str:
        if given not in ("", cls.name):
            raise ValueError(f"these are settings of the model '{cls.name}', not of '{given}'")
        return cls.name

    @field_validator("classes")
    @classmethod
    def _check_labels(cls, classes: int | None) -> int | None:
        if classes is not None and not cls.reads_labels:
            raise ValueError(f"the model '{cls.name}' does not read labels")
        return classes

    @classmethod
    def meant(cls) -> str:
        """Return whose settings these are, for errors."""
        return f"settings of the model '{cls.name}'"

    def remarks(self) -> list[str]:
        """Return what was decided because of the shape of the items, one sentence each, for those who fit it."""
        return []

    def idle(self, said: Collection[str]) -> list[str]:
        """Return a sentence on each of the settings that a user said and that nothing in this model reads."""
        found = []
        for name, (other, values) in self.read_by.items():
            if name in said and (now := getattr(self, other)) not in values:
                found.append(f"{name} is for {other} {' or '.join(values)}, and it is {now} (--set {other}=...).")
        return found

    @abstractmethod
    def build(self) -> Flow:
        """Return the model with fresh weights."""


_REGISTERED: dict[str, type[ModelConfig]] = {}


def register(name: str, *, kind: ItemKind | None, summary: str, listed: bool = True) -> Callable[[C], C]:
    """Make a configuration known by a name: to the command line, to saved runs, to lists and to `build`.

    Args:
        name: of the model.
        kind: of the items that it is for.
        summary: one line for the list of models.
        listed: whether `MODELS` has it; not if plain settings are not enough to build it.

    Raises:
        ConfigError: if another file has registered a model of that name.

    Example:
        >>> @register("standard-normal", kind="table", summary="independent normal columns", listed=False)
        ... class StandardNormalConfig(ModelConfig):
        ...     def build(self):
        ...         from likelify import Flow, Normal, transforms
        ...         layer = transforms.ActNorm(*self.event_shape)
        ...         return Flow(Normal(self.event_shape), layer, event_shape=self.event_shape)
        >>> build("standard-normal", event_shape=(3,)).sample((2,)).shape
        torch.Size([2, 3])
    """

    def add(config: C) -> C:
        if _REGISTERED.get(name, config).__module__ != config.__module__:
            raise ConfigError(f"There are two models '{name}': {_REGISTERED[name]!r} and {config!r}.")
        config.name, config.kind, config.summary, config.listed = name, kind, summary, listed
        _REGISTERED[name] = config
        return config

    return add


class _Models(Mapping[str, type[ModelConfig]]):
    """Reads the files of the package on first use."""

    def __getitem__(self, name: str) -> type[ModelConfig]:
        return {listed: _REGISTERED[listed] for listed in self}[name]

    def __iter__(self) -> Iterator[str]:
        _load_files()
        return (name for name, config in _REGISTERED.items() if config.listed)

    def __len__(self) -> int:
        return sum(1 for _ in self)


MODELS: Mapping[str, type[ModelConfig]] = _Models()
"""The listed configurations by name."""


@cache
def _load_files() -> None:
    package = import_module("likelify.zoo")
    for file in iter_modules(package.__path__):
        import_module(f"likelify.zoo.{file.name}")


def config_class(name: str) -> type[ModelConfig]:
    """Return the class of a model's configuration.

    Raises:
        ConfigError: if there is no such model; the message names the nearest.
    """
    _load_files()
    if name not in _REGISTERED:
        raise ConfigError(unknown_word("model", name, MODELS))
    return _REGISTERED[name]


def config_from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """Return a model's configuration, given as plain data with the name under ``"model"``.

    Raises:
        ConfigError: if the model is unknown or a setting does not fit.

    Example:
        >>> config_from_dict({"model": "glow", "event_shape": [1, 8, 8], "steps": 2}).steps
        2
    """
    return config_class(str(values.get("model"))).parse(dict(values))


def build(model: str, **settings: Any) -> Flow:
    """Return a model by name, with fresh weights.

    Args:
        model: one of `MODELS`.
        **settings: of its configuration: `event_shape`, and whatever is not to have its default.

    Raises:
        ConfigError: if the model is unknown or a setting does not fit.
        ShapeError: if the model cannot work on such events.

    Example:
        >>> import torch
        >>> flow = build("glow", event_shape=(3, 8, 8), levels=1, steps=1, mixing="conv-exponential", hidden=8)
        >>> flow.elbo(torch.randint(256, (2, 3, 8, 8))).value.shape
        torch.Size([2])
    """
    return config_from_dict({"model": model} | settings).build()


AnyModelConfig = Annotated[
    SerializeAsAny[ModelConfig],
    BeforeValidator(lambda given: config_from_dict(given) if isinstance(given, Mapping) else given),
]
"""A field of other settings that holds the configuration of any model; plain data are looked up by their "model"."""
