"""Values that were never seen: rarer than what was, the rarer the farther out, and of mass one in all."""

import math

import pytest
import torch

import likelify as lk
from likelify import distributions
from likelify.data.encoding import encode
from likelify.errors import LikelifyWarning
from likelify.fitting.outliers import outlier_score
from likelify.schema import ColumnSchema
from likelify.support import rows_outside_allowed
from likelify.transforms import MixedColumns

NAN = math.nan


def counts(missing, count=1000):
    generator = torch.Generator().manual_seed(0)
    values = torch.poisson(torch.full((count,), 3.0, dtype=torch.float64), generator=generator)
    values[torch.rand(count, generator=generator) < missing] = NAN
    return values


def model(values, **settings):
    if settings.get("rest") == "none" and "states" not in settings:
        settings["states"] = tuple(values[~values.isnan()].unique().tolist())
    schema = (ColumnSchema(**{"name": "qty", "kind": "integer", "step": 1.0, "missing": True} | settings),)
    layer = MixedColumns(schema)
    flow = lk.Flow(distributions.AutoregressiveColumns(schema, linear=False, snap=layer.snap).double(), layer)
    flow.initialize(values[:, None])
    return flow


def scores(flow, values):
    rows = torch.tensor(values, dtype=torch.float64)[:, None]
    with torch.no_grad(), rows_outside_allowed():
        return flow.log_prob(rows), outlier_score(flow, rows)


@pytest.mark.parametrize("missing", [0.25, 0.0])
@pytest.mark.parametrize(
    "settings",
    [
        {"rest": "none"},
        {"rest": "steps"},
        {"rest": "steps", "states": (0.0,)},
        {"rest": "none", "lower": 0.0, "upper": 40.0, "declared": True},
    ],
)
def test_the_mass_of_all_whole_numbers_is_one(settings, missing):
    flow = model(counts(missing), missing=missing > 0, **settings)
    nats, _ = scores(flow, [*range(-20000, 20001), NAN])
    assert float(nats.exp().sum()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("ends", [{}, {"lower": 0.0, "upper": 131.0, "declared": True}])
def test_the_mass_with_numbers_between_the_steps_is_one(ends):
    flow = model(7 * counts(0.25), rest="steps", **{"step": 7.0} | ends)
    nats, _ = scores(flow, [*range(-50000, 50001), NAN])
    assert float(nats.exp().sum()) == pytest.approx(1, abs=1e-3)
    off, on = nats[50000 + 22], nats[50000 + 21]
    assert off.isfinite()
    assert float(off) < -math.log(1000) < float(on)


def test_numbers_that_were_never_seen_are_rarer_than_any_that_were():
    values = counts(0.25)
    flow = model(values, rest="none")
    states = flow.transform.schema[0].states
    seen, ordinary = scores(flow, [*states, NAN])
    nats, odd = scores(flow, [20.0, 40.0, -5.0, 1e6, 1e15, 2.0**60, 1e300])
    assert float(nats.max()) < min(float(seen.min()), -math.log(1000))
    assert float(odd.min()) > float(ordinary.max())
    near, middle, _, far, *_ = nats.tolist()
    assert near > middle > far
    assert nats.isfinite().all()
    assert nats[3:].diff().max() < 0
    impossible, score = scores(flow, [2.5, 30.5, math.inf])
    assert (impossible == -math.inf).all()
    assert (score == math.inf).all()


def test_fractions_and_what_lies_outside_cannot_be():
    ages = model(20 + counts(0.1), rest="steps", lower=0.0, upper=120.0, declared=True)
    nats, odd = scores(ages, [30.5, -1.0, 121.0])
    assert (nats == -math.inf).all()
    assert (odd == math.inf).all()
    few = model(counts(0.1).clamp_max(1), kind="boolean", states=(0.0, 1.0), rest="none", step=None)
    nats, _ = scores(few, [0.0, 1.0, NAN, 2.0])
    assert float(nats[:3].exp().sum()) == pytest.approx(1, abs=1e-6)
    assert nats[3] == -math.inf


def test_words_that_were_never_seen_are_one_event_and_odd():
    known = ["Rome", "Oslo", None, "Rome", "Oslo"] * 60
    column = ColumnSchema.category("city", ("Oslo", "Rome"))
    values = torch.from_numpy(encode({"city": known}, [column]))[:, 0]
    flow = model(values, **column.model_dump(exclude={"name", "step"}) | {"missing": True, "step": None})
    with pytest.warns(LikelifyWarning, match="count as never seen: 'city': 'Mars', 'Pluto'"):
        new = encode({"city": ["Oslo", "Rome", None, "Mars", "Pluto"]}, [column])[:, 0]
    nats, odd = scores(flow, new.tolist())
    assert float(nats[:4].exp().sum()) == pytest.approx(1, abs=1e-9)
    assert nats[3] == nats[4]
    assert -math.log(300) - 1 < float(nats[3]) < -math.log(300) + 0.1
    assert float(odd[3]) > float(odd[:3].max()) + 3


def test_codes_have_a_density_off_their_values_and_odd_rows_no_units():
    codes = 0.25 * counts(0.2)
    found = []
    for unit in (1.0, 1e-3):
        flow = model(unit * codes, kind="real", rest="none", step=None)
        u = torch.linspace(-math.pi / 2, math.pi / 2, 4003, dtype=torch.float64)[1:-1]
        unseen = flow.transform.unseen
        x = unseen.center + unseen.scale * u.tan()
        off = ~torch.isin(x, flow.transform.states.values)
        nats, _ = scores(flow, x[off].tolist())
        mass = float((nats.exp() * unseen.scale * (1 + u[off].tan() ** 2)).sum() * (u[1] - u[0]))
        seen, _ = scores(flow, [*flow.transform.schema[0].states, NAN])
        assert mass + float(seen.exp().sum()) == pytest.approx(1, abs=1e-5)
        found.append(scores(flow, [unit * 0.3, unit * 100, unit * 0.5])[1])
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)
    assert found[0][1] > found[0][0] > found[0][2]


def test_draws_of_missing_values_have_the_likelihood_of_missing_values():
    flow = model(counts(0.25, 40), rest="none")
    with torch.no_grad(), lk.seeded(0):
        drawn, nats = flow.sample_and_log_prob(50)
        torch.testing.assert_close(nats, flow.log_prob(drawn))
    assert drawn.isnan().any()
    again = model(counts(0.5, 40), rest="none", states=flow.transform.schema[0].states)
    again.load_state_dict(flow.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again.log_prob(drawn), nats)


def test_the_gradient_by_the_rows_is_the_derivative():
    schema = [
        ColumnSchema(name="real"),
        ColumnSchema(name="zeros", states=(0.0,), missing=True),
        ColumnSchema(name="whole", kind="integer", rest="steps", step=1.0),
    ]
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, generator=numbers, dtype=torch.float64)
    x[:, 2] = x[:, 2].mul(3).round()
    x[:80, 1], x[80:120, 1] = 0.0, torch.nan
    flow = lk.zoo.build("table-flow", event_shape=(3,), schema=schema)
    flow.initialize(x)
    flow = flow.double()
    rows = x[[5, 100, 200, 250]].clone().requires_grad_()
    (slope,) = torch.autograd.grad(flow.log_prob(rows).sum(), rows)
    assert bool(slope.isfinite().all())
    step = torch.zeros_like(x[:4])
    step[:, 0] = 1e-5
    with torch.no_grad():
        expected = (flow.log_prob(rows + step) - flow.log_prob(rows - step)) / 2e-5
    torch.testing.assert_close(slope[:, 0], expected, rtol=1e-3, atol=1e-3)
