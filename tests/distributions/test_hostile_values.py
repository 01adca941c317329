"""What distributions say of values at the edges of their number types, and of what they are not of."""

import math

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import distributions as dist
from likelify.distributions.intervals import log_interval, mixture_log_mass
from likelify.distributions.normal_mixtures import mixture_log_density
from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError
from likelify.schema import ColumnSchema, real_columns
from tests.distributions.toys import MIXED, columns, mixed_cells


@pytest.mark.parametrize(("levels", "dtype"), [(256, torch.uint8), (128, torch.int8), (2, torch.bool)])
def test_all_values_of_a_narrow_type_are_levels(levels, dtype):
    pixels = dist.ConditionalCategorical(nn.Linear(2, levels), levels)
    values, condition = torch.arange(levels), torch.zeros(levels, 2)
    found = pixels.log_prob(values[:, None].to(dtype), condition)
    torch.testing.assert_close(found, pixels.log_prob(values[:, None].float(), condition))
    for wrong in (0.5, -1.0, float(levels), math.inf, math.nan):
        with pytest.raises(DomainError):
            pixels.log_prob(torch.full((levels, 1), wrong), condition)


def test_probabilities_of_levels_are_no_densities():
    pixels = dist.ConditionalCategorical(nn.Linear(2, 4), 4)
    with pytest.raises(UnsupportedError):
        lk.Flow(pixels, lk.transforms.Affine(scale=0.5))
    with pytest.raises(UnsupportedError):
        dist.Mixture([pixels, dist.ConditionalNormal(nn.Linear(2, 2))])


@pytest.mark.parametrize("size", [1, 3, 5])
def test_networks_that_do_not_give_a_scale_for_each_mean(size):
    model = dist.ConditionalNormal(nn.Linear(2, size))
    with pytest.raises(ShapeError, match="a log scale and a mean for each channel"):
        model.log_prob(torch.zeros(4, 1), torch.zeros(4, 2))
    with pytest.raises(ShapeError, match="a log scale and a mean for each channel"):
        model.sample((), torch.zeros(4, 2))


@pytest.mark.parametrize(("t", "half"), [(3000.0, 8.5e-5), (5e3, 6e-5), (-1e4, 1e-4), (1e6, 3e-7)])
def test_intervals_whose_ends_round_to_one_number(t, half):
    place, width = torch.tensor([t], requires_grad=True), torch.tensor([half])
    found = log_interval(place, width)
    truth = log_interval(place.detach().double(), width.double())
    torch.testing.assert_close(found.double(), truth, rtol=1e-6, atol=0)
    (slope,) = torch.autograd.grad(found, place)
    # No more is asked of it: the derivative of torch's log_ndtr has no digits there.
    assert bool(slope.isfinite())
    heads = torch.zeros(3, 2, 1, requires_grad=True)
    mixture_log_mass(heads, place.detach(), width).backward()
    assert bool(heads.grad.isfinite().all())


def test_densities_too_far_out_for_any_digit():
    heads = torch.zeros(3, 2, 1, requires_grad=True)
    found = mixture_log_density(heads, torch.tensor([3e19]))
    assert found.tolist() == [-math.inf]
    found.sum().backward()
    assert not bool(heads.grad.isnan().any())
    other = dist.Mixture([columns(real_columns(1), dtype=torch.float32), dist.OfReals(dist.StudentT(1, df=1.0))])
    cells = torch.tensor([[[0.0], [3e19], [0.0]]])
    torch.testing.assert_close(other.log_prob(cells), other.members[1].log_prob(cells) - math.log(2))


def test_half_precision_does_not_reach_what_is_drawn():
    base, cells = columns(dtype=torch.float32, spread=0.2), mixed_cells(64, torch.float32)
    noise, known = base.to_noise(cells), torch.ones(64, 4, dtype=torch.bool)
    full = base.complete(cells, known)[1], base.from_noise(noise)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = base.complete(cells, known)[1], base.from_noise(noise)
    torch.testing.assert_close(half[0], full[0], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(half[1], full[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("nothing", [math.nan, 9.0, -1.0])
def test_cells_that_are_not_known_may_hold_anything(nothing):
    base, cells = columns(), mixed_cells(32)
    known = torch.rand(32, 4) < 0.5
    with lk.seeded(0):
        expected = base.complete(cells, known)
    with lk.seeded(0):
        found = base.complete(torch.where(known[:, None], cells, nothing), known)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_states_that_there_are_not_are_impossible():
    base = columns([ColumnSchema.category("colour", ("red", "green", "blue")), ColumnSchema(name="size")])
    cells = torch.zeros(4, 3, 2, dtype=torch.float64)
    cells[:, 0, 0] = torch.tensor([2.0, 7.0, 0.5, -1.0])
    found = base.log_prob(cells)
    assert bool(found[0].isfinite())
    assert found[1:].tolist() == [-math.inf] * 3


def test_rare_states_keep_their_noise_at_both_ends():
    odds = torch.tensor([[0.0], [-40.0], [0.0], [-40.0]], dtype=torch.float64).expand(-1, 4)
    conditional = dist.conditional.ColumnConditional(odds.log_softmax(0), None, None)
    state = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    kept = [0, 2, 3]
    found, _ = conditional.from_noise(conditional.to_noise(state, torch.zeros_like(state)))
    assert found[kept].tolist() == state[kept].tolist()
    # Without what is missing, no noise leads there.
    present, _ = conditional.present()
    far = torch.tensor([-50.0, -9.0, 9.0, 50.0], dtype=torch.float64)
    assert float(present.from_noise(far)[0].max()) == 2


class Numbers(dist.Distribution):
    """Says of each row what it is told to."""

    event_shape = (1,)

    def __init__(self, values):
        super().__init__()
        self.values = torch.tensor(values)

    def log_prob(self, x, context=None):
        return self.values[: len(x)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_that_a_member_has_no_number_for_do_not_ruin_weights(bad):
    mixture = dist.Mixture([Numbers([0.0, -1.0, bad]), Numbers([-3.0, -3.0, -1.0])], apart=True)
    mixture.stack(torch.zeros(3, 1))
    assert bool(mixture.weights.isfinite().all())
    torch.testing.assert_close(mixture.weights.sum(), torch.ones(()))


def test_rows_that_no_member_can_have_made_have_no_gradient():
    mixture = dist.Mixture([dist.RectifiedNormal(1), dist.RectifiedNormal(1)])
    found = mixture.log_prob(torch.tensor([[-1.0], [1.0]]))
    assert found.tolist()[0] == -math.inf
    torch.where(found.isfinite(), found, 0).sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in mixture.parameters())


def test_members_may_read_a_condition_that_others_do_not():
    reads = lk.Flow(dist.ConditionalNormal(nn.Linear(1, 4)), lk.Affine(scale=1.0), event_shape=(2,))
    plain = lk.Flow(lk.Normal(2), lk.ActNorm(2))
    mixture = dist.Mixture([reads, plain])
    x, condition = torch.randn(5, 2), torch.randn(5, 1)
    expected = torch.stack([reads.log_prob(x, condition), plain.log_prob(x)]).logsumexp(0) - math.log(2)
    torch.testing.assert_close(mixture.log_prob(x, condition), expected)
    assert mixture.sample((3,), condition).shape == (3, 5, 2)
    whole = lk.Flow(mixture, lk.Affine(scale=2.0))
    whole.initialize(x, condition)
    assert whole.log_prob(x, condition).shape == (5,)
    with pytest.raises(UnsupportedError, match="no part of this flow reads"):
        dist.Mixture([plain, lk.Flow(lk.Normal(2), lk.ActNorm(2))]).log_prob(x, condition)


@pytest.mark.parametrize("df", [0.1, 0.3])
def test_draws_with_the_heaviest_tails(df):
    base = dist.StudentT(1, df=df)
    with lk.seeded(0):
        drawn = base.rsample((20000,))
    # The distribution function is that of a beta variable; far out it is a power.
    v, size = df, drawn.detach().abs().double().flatten()
    log_constant = math.lgamma((v + 1) / 2) - math.lgamma(v / 2) - 0.5 * math.log(math.pi * v)
    log_tail = math.log(2) + log_constant + ((v + 1) / 2) * math.log(v) - math.log(v)
    for share in (0.9, 0.99):
        expected = (log_tail - math.log(1 - share)) / v
        assert float(size.quantile(share).log()) == pytest.approx(expected, abs=0.3 / v)
    drawn.tanh().sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in base.parameters())


def test_values_that_are_the_same_but_for_rounding_have_no_deviation():
    base = dist.GaussianMixture(1).double()
    base.initialize(torch.full((24, 1), 0.1, dtype=torch.float64))
    assert float(base.log_prob(torch.full((1, 1), 0.1 * (1 + 1e-15), dtype=torch.float64))) == pytest.approx(
        float(base.log_prob(torch.full((1, 1), 0.1, dtype=torch.float64))), abs=1e-6
    )


@pytest.mark.parametrize(
    ("make", "sample"),
    [
        (lambda: dist.RectifiedNormal(1), torch.tensor([[1.0], [math.inf]])),
        (lambda: dist.RectifiedNormal(1), torch.tensor([[1.0], [-1.0]])),
        (lambda: dist.AutoregressiveSet(2, nn.Identity()), torch.tensor([[1.0, math.nan]])),
        (lambda: columns(MIXED), torch.full((5, 3, 4), math.nan).double()),
        (lambda: columns(MIXED, net=False, linear=False), torch.full((5, 3, 4), math.inf).double()),
    ],
)
def test_samples_that_tell_nothing_are_refused(make, sample):
    base = make()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    with pytest.raises(DomainError):
        base.initialize(sample)
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_what_is_no_number_has_no_density():
    nan = torch.tensor([[math.nan]])
    assert bool(dist.RectifiedNormal(1).log_prob(nan).isnan())
    assert bool(dist.ChannelNoise(1, "uniform").log_prob(nan).isnan())
    with pytest.raises(DomainError):
        dist.ConditionalNormal(nn.Linear(2, 2)).log_prob(torch.zeros(3, 1, dtype=torch.long), torch.zeros(3, 2))
    with pytest.raises(DomainError):
        dist.ChannelNoise(1).log_prob(torch.zeros(3, 1, dtype=torch.long))
    with pytest.raises(ShapeError):
        dist.ChannelNoise(1).log_prob(torch.zeros(3, 3))
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="positive number"):
            dist.ChannelNoise(1, scale=scale)
    with pytest.raises(UnsupportedError, match="no nodes of graphs"):
        columns(MIXED).log_prob(mixed_cells(5), lk.Context(structure=lk.GraphBatch.complete([2, 3])))
