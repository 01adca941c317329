"""The options of a conversion: one list for `flowify`, its rules and saved runs; plain data, without PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from likelify import nets
from likelify.names import LinearMethod, LogDetName, NoiseName
from likelify.settings import Settings

if TYPE_CHECKING:
    from likelify.nets.density import NetFactory
    from likelify.transforms.core import Shape


class AddedNoise(Settings):
    """How a layer draws the elements that it adds.

    Attributes:
        noise: their distribution.
        learned_noise: give it a mean and a scale that networks read off the data, for a tighter bound; normal noise
            only.
    """

    noise: NoiseName = "normal"
    learned_noise: bool = False

    @model_validator(mode="after")
    def _check_noise(self) -> Self:
        if self.learned_noise and self.noise != "normal":
            raise ValueError(f"learned noise is normal; take noise='normal' or learned_noise=False, got '{self.noise}'")
        return self


class Options(AddedNoise):
    """How `flowify` converts a network; what a rule gets as its third argument.

    Attributes:
        method: of the linear layers, see `transforms.linear`: `"free"` keeps each weight as a matrix; `"cayley"`,
            `"exponential"` and `"householder"` as rotations and singular values, which cannot become singular in
            training.
        relu: `"refuse"` ReLUs in the middle, or make them `"noisy"`, with a little trained noise behind.
        residual: `"repeat"` for the bound that works for all branches, `"lipschitz"` for the exact bijection
            `x + f(x)` wherever a branch is added to its own input, which must be certified to be a contraction;
            `"auto"` for the latter where it is certified and the former elsewhere.
        log_det: of the residual layers of `"lipschitz"`, see `LipschitzResidual`.
        shared: `"refuse"` weights that are used twice, or give each use a `"copy"` of its own.
        hidden: width of the networks of conditional densities.
        density_nets: gives for a number of position axes the factory of these networks instead, as `nets.density_nets`
            does; a function, which saved options do not hold.
    """

    method: LinearMethod = "free"
    relu: Literal["refuse", "noisy"] = "refuse"
    residual: Literal["repeat", "lipschitz", "auto"] = "repeat"
    log_det: LogDetName = "exact"
    shared: Literal["refuse", "copy"] = "refuse"
    hidden: int = Field(default=64, ge=1)
    density_nets: Callable[[int], Any] | None = Field(default=None, exclude=True)

    def nets(self, shape: Shape) -> NetFactory:
        """Return the factory of networks that read events with the positions of `shape`."""
        dims = len(shape) - 1
        if self.density_nets is not None:
            return self.density_nets(dims)
        # A single position has no neighbours to look at.
        taps = 3 if max(shape[1:], default=1) > 1 else 1
        return nets.density_nets(dims, hidden=self.hidden, kernel_size=taps)

    def posterior(self, shape: Shape) -> NetFactory | None:
        """Return the factory of networks of added noise, or None for noise of a fixed shape."""
        return self.nets(shape) if self.learned_noise else None

    def densities(self, shape: Shape) -> dict[str, Any]:
        """Return the arguments of a layer for what it adds and drops, with networks that read events of `shape`."""
        return {"noise": self.noise, "net_factory": self.nets(shape), "posterior_factory": self.posterior(shape)}
