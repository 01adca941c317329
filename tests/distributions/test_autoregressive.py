"""The rows of a table, one column after the other: total mass, order, draws, conditions, noise."""

import copy
import itertools

import pytest
import torch

import likelify as lk
from likelify import distributions, nets
from likelify.errors import ConfigError, ShapeError, UnsupportedError
from likelify.schema import ColumnSchema, real_columns
from tests.distributions.toys import MIXED, ORDERS, STEP, columns, mixed_cells, snap

# A table of states and steps alone can be enumerated.
COUNTED = (
    ColumnSchema.category("colour", ("red", "green"), missing=True),
    ColumnSchema(name="count", kind="integer", states=(0.0,), rest="steps", step=1.0, missing=True),
    ColumnSchema(name="flag", kind="boolean", states=(0.0, 1.0), rest="none", missing=True),
)


def every_cell(steps=STEP):
    """Return all cells of the counted table, with steps so far out that hardly anything is left."""
    z = torch.arange(-80, 80.5, dtype=torch.float64) * steps
    count = [(0.0, 0.0, 0.0), *((1.0, value, steps) for value in z.tolist()), (2.0, 0.0, 0.0)]
    pure = [(float(state), 0.0, 0.0) for state in range(3)]
    return torch.tensor(list(itertools.product(pure, count, pure)), dtype=torch.float64).transpose(1, 2)


@pytest.mark.parametrize("net", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_probabilities_of_states_and_steps_add_up_to_one(net, order):
    model = columns(COUNTED, order, net=net, spread=0.3)
    assert abs(float(model.log_prob(every_cell()).detach().exp().sum()) - 1) < 1e-9


@pytest.mark.parametrize("net", [True, False])
def test_densities_integrate_to_one(net):
    model = columns(real_columns(2), (1, 0), net=net)
    grid = torch.linspace(-40, 40, 801, dtype=torch.float64)
    z = torch.cartesian_prod(grid, grid)
    nothing = torch.zeros_like(z)
    mass = model.log_prob(torch.stack([nothing, z, nothing], 1)).detach().exp().sum() * (grid[1] - grid[0]) ** 2
    assert abs(float(mass) - 1) < 1e-3
    # Nothing is ever missing there, unless columns are independent.
    missing = torch.zeros(1, 3, 2, dtype=torch.float64)
    missing[0, 0, 1] = 1
    assert model.log_prob(missing).item() == -torch.inf
    assert columns(real_columns(2), net=False, linear=False).log_prob(missing).isfinite()


@pytest.mark.parametrize("order", ORDERS)
def test_a_column_depends_on_those_before_it_alone(order):
    model, x = columns(order=order), mixed_cells(6)
    terms = model.terms(x).detach()
    assert torch.allclose(terms.sum(1), model.log_prob(x).detach())
    others = mixed_cells(6)
    for position, column in enumerate(order):
        changed = x.clone()
        changed[:, :, column] = others[:, :, column]
        moved = (model.terms(changed).detach() - terms).abs().amax(0) > 1e-12
        assert not moved[list(order[:position])].any()
        assert moved[list(order[position:])].all()


def test_a_network_of_one_component_without_output_is_the_linear_model():
    order = (2, 0, 1)
    plain = columns(real_columns(3), order, net=False)
    net = nets.ColumnsNet(real_columns(3), order, hidden=8, components=1).double()
    rich = distributions.AutoregressiveColumns(real_columns(3), net=net).double()
    assert rich.order == order
    rich.load_state_dict(plain.state_dict() | {k: v for k, v in rich.state_dict().items() if k.startswith("net.")})
    torch.nn.init.zeros_(net.weights[-1])
    x = torch.randn(5, 3, 3, dtype=torch.float64) * torch.tensor([[0.0], [1.0], [0.0]])
    assert torch.allclose(rich.log_prob(x), plain.log_prob(x))


@pytest.mark.parametrize("order", ORDERS)
def test_draws_follow_the_density(order):
    model = columns(order=order, spread=0.3)
    with lk.seeded(1):
        drawn, log_prob = model.sample_and_log_prob((2, 10_000))
    assert drawn.shape == (2, 10_000, 3, 4)
    assert torch.allclose(log_prob[0], model.log_prob(drawn[0]))
    drawn = drawn.flatten(0, 1)
    assert torch.equal(drawn[:, 1, 3], snap(drawn[:, 1, 3], 3)[0])
    # Of the column that comes first the conditional is the marginal distribution.
    first = model.conditional(drawn[:1], order[0])
    if first.log_states is not None:
        states = torch.arange(len(first.log_states))
        share = (drawn[:, 0, order[0], None] == states).double().mean(0)
        if not MIXED[order[0]].missing:
            first, _ = first.present()
        assert torch.allclose(share, first.log_states[:, 0].exp().detach(), atol=0.015)
    # Noise that draws are made of is normal for scores, whatever comes before.
    for column in {0, 3} & set(order):
        noise = model.conditional(drawn, column).mixture.to_noise(drawn[:, 1, column]).detach()
        assert abs(float(noise.mean())) < 0.03
        assert abs(float(noise.std()) - 1) < 0.03
        if order.index(0) < order.index(column):
            assert abs(float(torch.corrcoef(torch.stack([noise, drawn[:, 1, 0]]))[0, 1])) < 0.03


@pytest.mark.parametrize("order", ORDERS)
def test_passes_say_what_one_evaluation_says(order):
    model, x = columns(order=order), mixed_cells(5)
    known = torch.ones(4, dtype=torch.bool)
    same, weight = model.complete(x, known, draws=2)
    assert torch.equal(same, x.expand(2, *x.shape))
    assert torch.allclose(weight, model.log_prob(x).detach().expand(2, -1))


@pytest.mark.parametrize("order", ORDERS)
def test_noise_and_back(order):
    model, x = columns(order=order, spread=0.3), mixed_cells(300)
    noise = model.to_noise(x)
    assert noise.shape == (300, 4)
    back = model.from_noise(noise)
    assert torch.equal(back[:, [0, 2]], x[:, [0, 2]])
    assert torch.allclose(model.to_noise(back), noise, atol=1e-9)
    assert torch.allclose(back, x, atol=1e-6)


def test_initialize_finds_the_copula():
    x = torch.randn(4000, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64)
    x = (x - x.mean(0)) / x.std(0, correction=0)
    cells = torch.stack([torch.zeros_like(x), x, torch.zeros_like(x)], 1)
    exact = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov(correction=0)).log_prob(x)
    for order in ((0, 1, 2, 3), (3, 1, 0, 2)):
        model = distributions.AutoregressiveColumns(real_columns(4), order).double()
        model.initialize(cells)
        assert torch.allclose(model.log_prob(cells), exact, atol=0.05)
        assert not list(model.parameters())


def test_initialize_finds_regressions_on_states_and_smooths_what_was_never_met():
    x = mixed_cells(3000)
    x = x[x[:, 0, 1] != 2]
    model = distributions.AutoregressiveColumns(MIXED).double()
    independent = distributions.AutoregressiveColumns(MIXED, linear=False).double()
    for fitted in (model, independent):
        fitted.initialize(x)
    priced = x[:, 0, 2] == 1
    features = torch.stack([torch.ones(len(x)).double(), x[:, 1, 0], x[:, 0, 1]], 1)[priced]
    solution = torch.linalg.lstsq(features, x[priced, 1, 2]).solution
    residual = (x[priced, 1, 2] - features @ solution).std()
    number = model.scored.index(2)
    assert abs(float(model.log_scale[number].exp() - residual)) < 0.02
    assert abs(float(model.matrix[number, 0] - solution[1])) < 0.02
    assert float(model.log_prob(x).mean()) > float(independent.log_prob(x).mean()) + 0.3
    blue = x[:1].clone()
    blue[0, 0, 1] = 2
    assert torch.allclose(independent.terms(blue)[0, 1].exp(), torch.tensor(0.5 / (len(x) + 2), dtype=torch.float64))


def test_conditions_come_first_and_do_not_count():
    schema = tuple(c.model_copy(update={"given": c.name in ("colour", "count")}) for c in MIXED)
    assert all(set(nets.random_order(schema, seed)[:2]) == {1, 3} for seed in range(5))
    assert len({nets.random_order(schema, seed) for seed in range(20)}) == 4
    model, x = columns(schema), mixed_cells(50)
    terms = model.terms(x).detach()
    assert not terms[:, [1, 3]].any()
    assert torch.allclose(terms.sum(1), model.log_prob(x).detach())
    known = torch.tensor([False, True, False, True])
    drawn, weight = model.complete(x, known, draws=3)
    assert not weight.any()
    assert torch.equal(drawn[:, :, :, [1, 3]], x[:, :, [1, 3]].expand(3, -1, -1, -1))
    assert not torch.equal(drawn[0, :, 1, 0], drawn[1, :, 1, 0])
    other = x.clone()
    other[:, 0, 1] = 1 - x[:, 0, 1].clamp(max=1)
    assert ((model.terms(other) - terms)[:, [0, 2]].abs() > 1e-9).all()
    with pytest.raises(ShapeError, match="must be known"):
        model.complete(x, ~known)
    with pytest.raises(UnsupportedError, match="conditions"):
        model.sample((2,))
    with pytest.raises(UnsupportedError, match="conditions"):
        model.to_noise(x)


def test_completions_against_enumeration():
    model = columns(COUNTED, (1, 0, 2), spread=0.7)
    cells = every_cell()
    log_prob = model.log_prob(cells).detach()
    x = cells[200:201]
    for known in ([True, False, False], [False, False, True], [False, True, False]):
        known = torch.tensor(known)
        fits = (cells[:, :, known] == x[:, :, known]).flatten(1).all(1)
        evidence = log_prob[fits].logsumexp(0)
        with lk.seeded(3):
            drawn, weight = model.complete(x, known, draws=20_000)
        share = weight[:, 0].softmax(0)
        assert abs(float(weight[:, 0].exp().mean().log() - evidence)) < 0.03
        if known[1] and model.order[0] == 1:
            # What is known comes first: draws are exact, and say so.
            assert torch.equal(weight, weight[:1].expand_as(weight))
            assert abs(float(weight[0, 0] - evidence)) < 1e-9
        for column, state in ((0, 1.0), (2, 0.0), (1, 1.0)):
            if not known[column]:
                exact = (log_prob[fits & (cells[:, 0, column] == state)].logsumexp(0) - evidence).exp()
                found = (share * (drawn[:, 0, 0, column] == state)).sum()
                assert abs(float(found - exact)) < 0.02


def test_present_draws_nothing_missing_and_weighs_for_it():
    model, x = columns(spread=0.5), mixed_cells(20)
    known = torch.tensor([True, True, False, True])
    drawn, weight = model.complete(x, known, draws=400, present=True)
    assert (drawn[:, :, 0, 2] != 2).all()
    plain, _ = model.complete(x, known, draws=400)
    assert (plain[:, :, 0, 2] == 2).any()
    conditional = model.conditional(x, 2)
    later = model.terms(drawn[0])[:, 3] + model.terms(drawn[0])[:, :2].sum(1)
    assert torch.allclose(weight[0], (later + conditional.log_states[:2].logsumexp(0)).detach())


def test_what_is_never_missing_is_never_drawn_so():
    with lk.seeded(0):
        drawn = columns(spread=0.1).sample((2000,))
    # Of the four columns the price alone may be missing.
    assert [bool((drawn[:, 0, i] == c.other).any()) for i, c in enumerate(MIXED)] == [False, False, True, False]


def test_gradients_state_copies_and_dtypes():
    model, x = columns(), mixed_cells(3)
    inputs = [p for p in model.parameters() if p.numel() < 40]
    assert torch.autograd.gradcheck(lambda *_: model.log_prob(x), inputs)
    assert torch.autograd.gradgradcheck(lambda *_: model.log_prob(x), inputs[:2])
    model.log_prob(x).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    copied = copy.deepcopy(model)
    assert torch.equal(copied.log_prob(x), model.log_prob(x))
    fresh = columns()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.log_prob(x), model.log_prob(x))
    assert not any("mask" in name or "layout" in name for name in model.state_dict())
    assert model.float().log_prob(x.float()).dtype == torch.float32


def test_chunks_and_frozen_layers_change_nothing():
    model, x = columns(), mixed_cells(3000)
    with torch.no_grad():
        whole = model.log_prob(x)
    assert torch.allclose(whole, model.log_prob(x).detach())
    with torch.no_grad():
        assert torch.allclose(model.terms(x).sum(1), whole)


def test_dropout_is_of_training_steps():
    model, x = columns(dropout=0.5), mixed_cells(10)
    assert torch.equal(model.log_prob(x), model.log_prob(x))
    with nets.regularized(model):
        assert not torch.equal(model.log_prob(x), model.log_prob(x))


def test_refusals():
    with pytest.raises(ConfigError, match="names each of"):
        nets.ColumnsNet(MIXED, (0, 1, 2, 2))
    given = (MIXED[0], MIXED[1].model_copy(update={"given": True}))
    with pytest.raises(ConfigError, match="come first"):
        distributions.AutoregressiveColumns(given, (0, 1))
    net = nets.ColumnsNet(MIXED, ORDERS[1])
    with pytest.raises(ConfigError, match="has the order"):
        distributions.AutoregressiveColumns(MIXED, ORDERS[0], net=net)
    with pytest.raises(ConfigError, match="other columns"):
        distributions.AutoregressiveColumns(real_columns(4), net=net)
    with pytest.raises(ShapeError, match="rows of this table"):
        columns().log_prob(torch.zeros(2, 4))
    with pytest.raises(UnsupportedError, match="drawn in steps"):
        distributions.AutoregressiveColumns(MIXED).sample((2,))
    with pytest.raises(UnsupportedError, match="conditions are columns"):
        columns().sample((), torch.zeros(2, 1))


def test_one_column():
    model = columns(real_columns(1))
    x = torch.zeros(4, 3, 1, dtype=torch.float64)
    assert model.sample((4,)).shape == x.shape
    assert torch.allclose(model.from_noise(model.to_noise(x)), x)


def test_half_precision_costs_columns_nothing():
    base, cells = columns(dtype=torch.float32), mixed_cells(64, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = base.log_prob(cells), base.terms(cells)
    torch.testing.assert_close(half[0], base.log_prob(cells), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(half[1], base.terms(cells), atol=1e-4, rtol=1e-5)
