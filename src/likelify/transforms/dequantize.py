"""From integers to real values: the first layer of every model of images."""

import math

import torch
from torch import Tensor

from likelify.distributions.core import Distribution
from likelify.errors import ConfigError, DomainError, InexactLikelihoodError
from likelify.shapes import check_size
from likelify.structure import Context, ContextLike, as_context, join_condition, sum_constant, sum_items
from likelify.support import check_domain
from likelify.transforms.core import Transform, inner_reads


class Dequantize(Transform):
    r"""Add noise of the unit interval to integers: `z = x + u` with `u ~ q(u | x)`.

    Since the probability of the integers is `P(x) = E_q[p(x + u) / q(u | x)]`, the contribution is `-log q(u | x)`:
    zero for uniform noise (Theis et al. 2016), and a tighter bound for a conditional flow (Ho et al. 2019). With this
    as the first layer `log p` of a flow is a bound of a log-*probability* of pixels, and nothing has to be scaled.
    The inverse is the floor, kept within the levels.

    Args:
        levels: number of values; the integers are `0 .. levels - 1`.
        noise: a distribution on `(0, 1)^event`, usually a Flow that ends in a sigmoid. Its condition is the image
            scaled to (-1, 1), joined by the outer condition along the channel axis. Uniform without one.

    Raises:
        DomainError: for values that are not integers of the range, or a floating dtype too short for them and noise.
        InexactLikelihoodError: if the noise has no exact log-density.
    """

    random_forward = True
    takes_integers = True
    keeps_autocast = True
    reads_condition = inner_reads
    probe: Tensor

    def __init__(self, levels: int, noise: Distribution | None = None) -> None:
        super().__init__()
        levels = check_size(levels, "The levels of Dequantize", least=2)
        if levels > 2**16:
            raise ConfigError(f"Dequantize needs 2 to 65536 levels, got {levels}.")
        if noise is not None and noise.likelihood != "exact":
            raise InexactLikelihoodError("Dequantize needs noise with an exact log_prob.")
        self.levels = levels
        self.noise = noise
        # Integers carry no floating dtype; this empty buffer moves with the model and tells which one to use.
        self.register_buffer("probe", torch.empty(0), persistent=False)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Add noise."""
        # Converted before it is compared: as an 8-bit number, 256 is 0.
        x = x if x.is_floating_point() else x.to(self.probe.dtype)
        check_domain((x >= 0) & (x < self.levels) & (x == x.floor()), self, f"the integers 0..{self.levels - 1}")
        digits = self._digits(x.dtype)
        if self.noise is None:
            u = (torch.floor(torch.rand_like(x) * 2.0**digits) + 0.5) * 2.0**-digits
            return x + u, sum_constant(x.new_zeros(()), x, context)
        u, log_q = self.noise.sample_and_log_prob((), self._inner(x, context))
        half = 0.5 * 2.0**-digits
        return x + u.clamp(half, 1 - half), -log_q

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Take the floor, kept within the levels; the contribution is `log q(u | x)` of the noise that was there.

        It is minus infinity for values outside `[0, levels)`, which no noise leads to.
        """
        x = self.mean_inverse(z)
        impossible = torch.where((z >= 0) & (z < self.levels), 0.0, -math.inf).to(z.dtype)
        log_q = sum_items(impossible, context)
        if self.noise is None:
            return x, log_q
        half = 0.5 * 2.0 ** -self._digits(z.dtype)
        u = (z - x).clamp(half, 1 - half)
        return x, log_q + self.noise.log_prob(u, self._inner(x, context))

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Initialize the noise, with uniform draws as its sample."""
        if self.noise is not None:
            centred = self.mean_forward(x)
            uniform = (torch.rand_like(centred) * 0.999) + 0.0005
            self.noise.initialize(uniform, self._inner(centred - 0.5, context))
        return super().initialize(x, context)

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Put each value in the middle of its level."""
        return (x if x.is_floating_point() else x.to(self.probe.dtype)) + 0.5

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Take the floor, kept within the levels."""
        return z.floor().clamp(0, self.levels - 1)

    def _digits(self, dtype: torch.dtype) -> int:
        """Return the binary digits of noise with which `x + u` is exact.

        Noise on that grid, shifted by half a step, is symmetric about one half and never 0 or 1; rounding cannot carry
        a value into the next level, as it does for plain `torch.rand`.
        """
        digits = round(-math.log2(torch.finfo(dtype).eps)) - math.ceil(math.log2(self.levels))
        if digits < 1:
            raise DomainError(f"{dtype} is too short for {self.levels} levels and noise; use float32 or float64.")
        return digits

    def _inner(self, x: Tensor, context: ContextLike) -> Context:
        scaled = (x + 0.5) * (2 / self.levels) - 1
        # The noise belongs to the likelihood, so the temperature of the samples is not its own.
        return Context(join_condition(scaled, context), as_context(context).structure, must_be_read=False)
