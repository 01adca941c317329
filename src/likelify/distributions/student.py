"""Independent elements with heavy tails."""

import math

import torch
from torch import Tensor, nn

from likelify.distributions.core import Distribution, check_values, has_rows, row_count, with_channels
from likelify.errors import ConfigError
from likelify.shapes import Shape, as_shape
from likelify.structure import ContextLike, as_context, sum_items
from likelify.support import LINE, check_sample

# Where the square of a number would no longer fit, its logarithm is that of the number.
LARGE = 1e6
ROUNDS = 40
# Degrees of freedom that `initialize` may find: heavier tails than any data, and nearly normal ones.
LEAST_DF, MOST_DF = 0.1, 1000.0
# From so many on the gamma functions are by their series, whose next term is below 1e-13.
SERIES = 30.0
# The smallest scale that it may find, in units of the spread of the values.
LEAST_SCALE = 1e-6


class StudentT(Distribution):
    r"""Independent elements of Student's t-distribution, for data with heavy tails.

        log p(x) = sum lgamma((v + 1) / 2) - lgamma(v / 2) - log(pi v) / 2 - log s - (v + 1) / 2 log(1 + t^2 / v),

    with `t = (x - loc) / s`. With `v = 1` degree of freedom that is the Cauchy distribution, with many a normal one.
    A flow maps a normal base to heavy tails only as far as its layers reach; on this base it has them from the start.
    `initialize` finds the parameters of the channels by maximum likelihood.

    Args:
        event_shape: shape of an event; for graphs, of the features of one node.
        df: degrees of freedom at the start.
        trainable: train them, a location and a scale for each channel (the first axis of the event).

    Raises:
        ConfigError: if there are no degrees of freedom.

    Example:
        >>> StudentT((2,), df=1.0, trainable=False).log_prob(torch.zeros(1, 2))
        tensor([-2.2895])
    """

    support = LINE
    loc: Tensor
    log_scale: Tensor
    log_df: Tensor

    def __init__(self, event_shape: int | Shape, *, df: float = 5.0, trainable: bool = True) -> None:
        super().__init__()
        if not df > 0 or not math.isfinite(df):
            raise ConfigError(f"The degrees of freedom of StudentT are a positive number, not {df}.")
        self.event_shape: Shape = with_channels(event_shape, "StudentT")  # pyright: ignore[reportIncompatibleVariableOverride]
        self.trainable = trainable
        shape = (self.event_shape[0],) + (1,) * (len(self.event_shape) - 1)
        start = {"loc": 0.0, "log_scale": 0.0, "log_df": math.log(df)}
        for name, value in start.items():
            if trainable:
                setattr(self, name, nn.Parameter(torch.full(shape, value)))
            else:
                self.register_buffer(name, torch.full(shape, value), persistent=False)

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of each item in nats."""
        check_values(x, self.event_shape, "StudentT")
        return sum_items(student_log_prob(x, self.loc, self.log_scale, self.log_df), context)

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw; the context's temperature multiplies the scale."""
        rows = (row_count(context),) if has_rows(context) else ()
        scale = as_context(context).temperature * self.log_scale.exp()
        # In double precision: few degrees of freedom reach far beyond where float32 has numbers between draws.
        parameters = (parameter.double() for parameter in (self.log_df.exp(), self.loc, scale))
        like = torch.distributions.StudentT(*parameters, validate_args=False)
        drawn = like.expand(self.event_shape).rsample((*as_shape(shape), *rows))
        most = torch.finfo(self.loc.dtype).max
        return drawn.clamp(-most, most).to(self.loc.dtype)

    def initialize(self, x: Tensor, context: ContextLike = None) -> None:
        """Find location, scale and degrees of freedom of each channel by maximum likelihood, if they are trained.

        Raises:
            ShapeError: for an empty sample.
            DomainError: if it holds values that are not finite.
        """
        if not self.trainable:
            return
        check_sample(x, self)
        channels = x.detach().transpose(0, 1).flatten(1).double()
        found = torch.stack([_most_likely(values) for values in channels], 1)
        with torch.no_grad():
            for own, value in zip((self.loc, self.log_scale, self.log_df), found, strict=True):
                own.copy_(value.reshape(own.shape))


def _most_likely(values: Tensor) -> Tensor:
    """Return location, log scale and log degrees of freedom that fit values best.

    The search is in units of their own spread and about their own middle, so that it is the same in all units.
    """
    # No quantile of torch takes more than 2^24 values.
    ordered = values.sort().values
    low, middle, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.25, 0.5, 0.75))
    away = values - middle
    # Where most values are the same, the others say how wide they are.
    spread = next((size for size in (0.7 * (high - low), away.abs().mean()) if size > 0), torch.ones_like(middle))
    away = away / spread
    start = away.new_tensor([0.0, 0.0, math.log(5.0)]).requires_grad_()
    search = torch.optim.LBFGS([start], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = -student_log_prob(away, *_limited(start)).mean()
        value.backward()
        return value

    with torch.enable_grad():
        search.step(loss)
    loc, log_scale, log_df = _limited(start.detach())
    return torch.stack([middle + spread * loc, spread.log() + log_scale, log_df])


def _limited(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    loc, log_scale, log_df = parameters
    # A scale that goes to zero finds any value that is met often.
    return loc, log_scale.clamp_min(math.log(LEAST_SCALE)), log_df.clamp(math.log(LEAST_DF), math.log(MOST_DF))


def student_log_prob(x: Tensor, loc: Tensor, log_scale: Tensor, log_df: Tensor) -> Tensor:
    """Return the log-density of Student's t-distribution of each element."""
    df = log_df.exp()
    scaled = (x - loc) * (-log_scale - 0.5 * log_df).exp()
    far = scaled.abs() > LARGE
    near = torch.where(far, 0, scaled)
    tail = torch.where(far, torch.where(far, scaled.abs(), 1).log(), 0.5 * near.square().log1p())
    return _log_constant(df, log_df) - log_scale - (df + 1) * tail


def _log_constant(df: Tensor, log_df: Tensor) -> Tensor:
    """Return `lgamma((v + 1) / 2) - lgamma(v / 2) - log(pi v) / 2`.

    Of many degrees of freedom the difference is by its series `log(v / 2) / 2 - 1 / (4 v) + 1 / (24 v^3) - ...`, of
    which the logarithms cancel: of the functions themselves float32 would keep no digit.
    """
    many = df > SERIES
    few, inverse = torch.where(many, 1.0, df), torch.where(many, df, SERIES).reciprocal()
    plain = (0.5 * (few + 1)).lgamma() - (0.5 * few).lgamma() - 0.5 * math.log(math.pi)
    square = inverse.square()
    rest = inverse * (-1 / 4 + square * (1 / 24 + square * (-1 / 20 + square * 17 / 112)))
    return torch.where(many, rest - 0.5 * math.log(2 * math.pi), plain - 0.5 * torch.where(many, 0.0, log_df))
