import math

import pytest
import torch

import likelify as lk
from likelify import nets, testing
from likelify.errors import ConfigError, DomainError, InexactLikelihoodError, ShapeError, UnsupportedError


def spline_flow(dims=2, context=0):
    layers = []
    for swap in (False, True):
        split = lk.ChannelSplit(dims, swap=swap)
        bijector = lk.SplineBijector(6, 4.0)
        net = nets.MLP(split.sizes[0], bijector.size * split.sizes[1], (16,), context_features=context)
        layers += [lk.Conv1x1(dims), lk.Coupling(split, bijector, net)]
    flow = lk.Flow(lk.Normal((dims,), trainable=True), lk.Chain(layers), event_shape=(dims,))
    return testing.randomize(flow, scale=0.2).double()


def dequantized(levels=3, noise=None):
    transform = lk.Chain([lk.Dequantize(levels, noise), lk.Affine(scale=1 / levels), lk.Logit(0.1), lk.ActNorm(1)])
    return testing.randomize(lk.Flow(lk.Normal((1,)), transform), scale=0.5).double()


def conditional_noise():
    net = lk.ConditionalNormal(nets.MLP(1, 2, (8,)))
    return lk.Flow(net, lk.Logit())


def test_density_integrates_to_one_and_samples_follow_it():
    testing.check_flow(spline_flow(), box=[(-12, 12), (-12, 12)])
    other = testing.randomize(spline_flow(), scale=0.1, seed=5)
    testing.check_flow(other, box=[(-15, 15), (-15, 15)], points=600)


@pytest.mark.parametrize("noise", [None, conditional_noise])
def test_total_mass_of_a_dequantized_model(noise):
    flow = dequantized(noise=None if noise is None else noise())
    levels = torch.tensor([[0], [1], [2]])
    with torch.no_grad():
        estimate = flow.iw_log_prob(levels, samples=20000, warn=False)
        bound = flow.elbo(levels, samples=2000)
    drawn = flow.transform.transforms[0].inverse(
        lk.Chain(list(flow.transform)[1:]).inverse(flow.base.sample((40000,)))[0]
    )[0]
    share = torch.stack([(drawn == level).double().mean() for level in range(3)])
    # The logit ends at alpha, so a little mass lies outside and is put on the nearest level by the floor.
    assert float(estimate.value.exp().sum()) <= 1 + 0.01
    assert bool((estimate.value.exp() <= share + 0.02).all())
    assert bool((bound.value <= estimate.value + 3 * bound.standard_error + 1e-3).all())
    assert float(bound.value.exp().sum()) <= 1
    assert bool((estimate.ess > 100).all())


def test_importance_weighting_finds_the_exact_log_probability():
    exact = torch.distributions.Normal(0.3, 1.2)
    flow = lk.Flow(lk.Normal((1,)), lk.Chain([lk.Dequantize(4), lk.Affine(shift=-0.3, scale=1 / 1.2)])).double()
    levels = torch.arange(4)[:, None]
    truth = (exact.cdf(levels[:, 0] + 1.0) - exact.cdf(levels[:, 0] * 1.0)).log()
    estimate = flow.iw_log_prob(levels, samples=4000, chunk=700, warn=False)
    assert bool(((estimate.value - truth).abs() < 5 * estimate.standard_error + 1e-6).all())
    assert estimate.value.dtype == torch.float64
    assert estimate.samples == 4000
    one = flow.iw_log_prob(levels, samples=1)
    assert torch.allclose(one.ess, torch.ones(4).double())


def test_chunks_do_not_change_importance_weights():
    # An exact flow: every weight is the same, so the estimate is exact and nothing is lost in any chunk.
    flow = spline_flow()
    x = torch.randn(3, 2, dtype=torch.float64) * 40
    for chunk in (1, 3, 10):
        estimate = flow.iw_log_prob(x, samples=10, chunk=chunk)
        assert torch.allclose(estimate.value, flow.log_prob(x), rtol=1e-12)
        assert torch.allclose(estimate.ess, torch.full((3,), 10.0).double())
    assert torch.equal(flow.elbo(x).value, flow.log_prob(x))
    assert float(flow.elbo(x).standard_error.max()) == 0


def test_inexact_log_prob_raises_and_names_the_layer():
    flow = dequantized()
    assert flow.likelihood == "bound"
    for call in (
        lambda: flow.log_prob(torch.zeros(1, 1)),
        lambda: flow.sample_and_log_prob((2,)),
        flow.distribution,
    ):
        with pytest.raises(InexactLikelihoodError, match="because of Dequantize"):
            call()
    with pytest.raises(InexactLikelihoodError):
        lk.Slice(1, flow)
    with pytest.raises(InexactLikelihoodError):
        lk.Dequantize(4, flow)

    class Noisy(lk.Affine):
        noisy_log_det = True

    noisy = lk.Flow(lk.Normal((1,)), lk.Chain([Noisy(), lk.ActNorm(1)]))
    assert noisy.likelihood == "estimate"
    with pytest.raises(InexactLikelihoodError, match="Noisy"):
        noisy.iw_log_prob(torch.zeros(1, 1), samples=3)
    with pytest.raises(ConfigError, match="at least 1"):
        flow.elbo(torch.zeros(1, 1), samples=0)


def test_facts_compose():
    dequantize, cut = lk.Dequantize(4), lk.Slice(1, lk.Normal((1,)))
    chain = lk.Chain([dequantize, cut])
    assert (chain.random_forward, chain.random_inverse, chain.likelihood) == (True, True, "bound")
    turned = lk.Inverse(cut)
    assert (turned.random_forward, turned.random_inverse) == (True, False)
    assert lk.Chain([cut]).likelihood == "exact"


def test_a_flow_serves_as_split_prior_and_as_noise():
    prior = lk.Flow(lk.Normal((1,)), lk.Chain([lk.ActNorm(1), lk.ChannelSpline(1)]))
    flow = lk.Flow(lk.Normal((1,)), lk.Chain([lk.Conv1x1(2), lk.Slice(1, prior)]), event_shape=(2,))
    testing.check_flow(testing.randomize(flow).double(), box=[(-9, 9), (-9, 9)])


def test_shapes_of_samples_and_conditions():
    flow = spline_flow(context=3)
    condition = torch.randn(4, 3, dtype=torch.float64)
    assert flow.sample((), condition).shape == (4, 2)
    assert flow.sample((5, 6), condition).shape == (5, 6, 4, 2)
    x, log_prob = flow.sample_and_log_prob((5,), condition)
    assert log_prob.shape == (5, 4)
    assert torch.allclose(log_prob[2], flow.log_prob(x[2], condition))
    plain = spline_flow()
    assert plain.sample().shape == (2,)
    assert plain.sample((3, 2)).shape == (3, 2, 2)
    x, log_prob = plain.sample_and_log_prob()
    assert log_prob.shape == ()
    with pytest.raises(ShapeError, match="This flow works on"):
        plain.log_prob(torch.zeros(2, 3))


def test_graph_batches_of_different_sizes():
    edges = torch.empty(2, 0, dtype=torch.long)
    graphs = lk.Context(structure=lk.GraphBatch(torch.tensor([2, 3]), edges))
    flow = lk.Flow(lk.Normal((4,)), lk.Chain([lk.ActNorm(4), lk.Conv1x1(4)])).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    each_node = flow.log_prob(x)
    assert torch.allclose(flow.log_prob(x, graphs), torch.stack([each_node[:2].sum(), each_node[2:].sum()]))
    assert flow.sample((), graphs).shape == (5, 4)
    drawn, log_prob = flow.sample_and_log_prob((3,), graphs)
    assert drawn.shape == (3, 5, 4)
    assert torch.allclose(log_prob[1], flow.log_prob(drawn[1], graphs))
    assert torch.allclose(flow.iw_log_prob(x, graphs, samples=4).value, flow.log_prob(x, graphs))


def test_temperature_shrinks_samples_also_of_split_priors():
    net = nets.MLP(1, 2, (4,))
    transform = lk.Slice(1, lk.ConditionalNormal(net))
    flow = lk.Flow(lk.Normal((1,)), transform)
    hot, cold = flow.sample((4000,)), flow.sample((4000,), temperature=0.1)
    assert torch.allclose(cold.std(0), 0.1 * hot.std(0), rtol=0.1)
    assert torch.equal(flow.transform.mean_inverse(torch.ones(2, 1))[:, 1], torch.zeros(2))


def test_as_a_torch_distribution():
    flow = spline_flow(context=3)
    condition = torch.randn(4, 3, dtype=torch.float64)
    torch_flow = flow.distribution(condition)
    assert (torch_flow.batch_shape, torch_flow.event_shape) == ((4,), (2,))
    x = torch_flow.sample((7,))
    assert x.shape == (7, 4, 2)
    assert torch.allclose(torch_flow.log_prob(x)[3], flow.log_prob(x[3], condition))
    assert torch_flow.log_prob(x[0]).shape == (4,)
    assert spline_flow().distribution().log_prob(torch.zeros(5, 6, 2).double()).shape == (5, 6)


def test_labels_are_encoded_and_checked():
    flow = lk.zoo.build("glow", event_shape=(1, 4, 4), levels=1, steps=1, classes=3, hidden=4, pixel_levels=4)
    x = torch.randint(4, (2, 1, 4, 4))
    assert flow.elbo(x, torch.tensor([0, 2])).value.shape == (2,)
    with pytest.raises(ShapeError, match=r"0\.\.2"):
        flow.elbo(x, torch.tensor([0, 3]))


def test_temperature_is_not_one_of_the_likelihood():
    flow = dequantized(noise=conditional_noise())
    x = torch.tensor([[0], [1], [2]])
    values = []
    for temperature in (0.0, 1.0, 5.0):
        with lk.seeded(0):
            values.append(flow.elbo(x, lk.Context(temperature=temperature)).value)
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[1], values[2])


def test_misuse_is_refused_where_it_happens():
    with pytest.raises(InexactLikelihoodError, match="base of a Flow"):
        lk.Flow(dequantized(), lk.Permute([0]))
    with pytest.raises(ConfigError, match="chunk must be at least 1"):
        spline_flow().iw_log_prob(torch.zeros(1, 2).double(), samples=2, chunk=-2)
    with pytest.raises(ShapeError, match="at least one axis"):
        lk.Normal(())
    conditional = lk.zoo.build("glow", event_shape=(1, 4, 4), levels=1, steps=1, classes=3, hidden=4, pixel_levels=4)
    with pytest.raises(ShapeError, match="give labels"):
        conditional.sample((2,))
    assert conditional.sample((0,), torch.tensor([1, 2])).shape == (0, 2, 1, 4, 4)
    graphs = lk.Context(structure=lk.GraphBatch(torch.tensor([2]), torch.empty(2, 0, dtype=torch.long)))
    with pytest.raises(ShapeError, match="graphs of different sizes"):
        spline_flow().distribution(graphs)


def test_noise_and_split_priors_are_initialized_too():
    flow = lk.zoo.build(
        "glow", event_shape=(1, 8, 8), levels=2, steps=1, hidden=4, pixel_levels=8, dequantization="variational"
    )
    flow.initialize(torch.randint(8, (50, 1, 8, 8)))
    noise = flow.transform[0].noise
    assert float(noise.transform[2].log_scale.detach().abs().max()) > 0.1
    prior = lk.Flow(lk.Normal((1,)), lk.ActNorm(1))
    lk.Slice(1, prior).initialize(3 + 2 * torch.randn(500, 2))
    assert abs(float(prior.transform.shift.detach()) - 3) < 0.5


def test_dropout_acts_only_where_it_is_asked_for():
    net = nets.MLP(4, 4, (64,), dropout=0.5)
    testing.randomize(net)
    x = torch.randn(3, 4)
    net.train()
    assert torch.equal(net(x), net(x))
    with nets.regularized(net):
        assert not torch.equal(net(x), net(x))
    assert torch.equal(net(x), net(x))
    dropout = nets.Dropout(0.3)
    with nets.regularized(dropout):
        dropped = dropout(torch.ones(1000, 100))
    assert abs(float((dropped == 0).float().mean()) - 0.3) < 0.01
    assert abs(float(dropped.mean()) - 1) < 0.01


def test_bound_gaps_grow_towards_the_divergence():
    """Uniform dequantization of a known density: the gap at many draws is log p - ELBO."""
    torch.manual_seed(0)
    base = lk.Normal((1,), trainable=True)
    with torch.no_grad():
        base.loc.fill_(0.5), base.log_scale.fill_(-1.5)
    flow = lk.Flow(base, lk.Dequantize(2))
    x = torch.zeros(1, 1)
    with torch.no_grad():
        gaps = flow.bound_gaps(x, samples=(1, 4, 400))
    u = torch.linspace(0, 1, 20001)[:, None]
    log_density = base.log_prob(u).detach().double()
    exact = float(log_density.exp().mean().log() - log_density.mean())
    assert float(gaps[1].value) == 0
    assert float(gaps[1].value) < float(gaps[4].value) < float(gaps[400].value) + 0.1
    assert abs(float(gaps[400].value) - exact) < 0.3
    assert float(gaps[4].standard_error) > 0
    assert math.isnan(float(gaps[400].standard_error))


def test_bound_gaps_of_exact_flows_are_zero():
    flow = lk.Flow(lk.Normal((2,)), lk.ActNorm(2))
    with torch.no_grad():
        assert float(flow.bound_gaps(torch.randn(3, 2))[8].value.abs().max()) < 1e-12


def test_integers_without_dequantization_are_refused():
    flow = lk.Flow(lk.Normal(2), lk.Chain([lk.ActNorm(2)]))
    with pytest.raises(DomainError, match="Dequantize"):
        flow.initialize(torch.randint(5, (10, 2)))
    lk.Flow(lk.Normal(2), lk.Chain([lk.Dequantize(5), lk.ActNorm(2)])).initialize(torch.randint(5, (10, 2)))


def test_numbers_are_accepted_as_shapes():
    flow = lk.Flow(lk.Normal(3), lk.Reshape((3, 1), 3), event_shape=(3, 1))
    assert flow.sample(4).shape == (4, 3, 1)
    assert flow.sample_and_log_prob(4)[1].shape == (4,)
    assert [d.sample(4).shape for d in (lk.Normal(3), lk.distributions.RectifiedNormal(3))] == [(4, 3)] * 2
    assert lk.Normal(3).sample_and_log_prob(4)[1].shape == (4,)
    assert lk.ConditionalNormal(torch.nn.Identity()).sample(4, torch.zeros(2, 6)).shape == (4, 2, 3)
    assert lk.Flatten(5).out_shape((5,)) == (5,)


def test_memory_of_any_content_is_no_flow():
    with torch.device("meta"):
        flow = lk.Flow(lk.Normal(3), lk.ActNorm(3))
    with pytest.raises(UnsupportedError, match=r"built on the device 'meta'.*'base\.l"):
        flow.to_empty(device="cpu")
    assert lk.Flow(lk.Normal(3), lk.ActNorm(3)).to("meta").base.loc.is_meta


@pytest.mark.parametrize("sizes", [[12], [11, 1]])
def test_a_certificate_counts_every_node_of_a_graph_even_if_it_is_alone(sizes):
    matrix = torch.ones(1, 1, dtype=torch.float64)
    flow = lk.Flow(lk.Normal(1), lk.Exponential(lk.linalg.Dense(matrix), degree=2)).double()
    context = lk.Context(structure=lk.GraphBatch.complete(sizes))
    certificate = flow.certificate(torch.zeros(12, 1, dtype=torch.float64), context)
    off = abs(math.log(2.5) - 1)
    for nats, size in zip(certificate.nats.tolist(), sizes, strict=True):
        assert size * off <= nats < 20 * size * off


def test_certificates_of_inverses_on_the_way_are_those_of_the_items():
    rotation = lk.rotation(3, context_features=2).double()
    testing.randomize(rotation, scale=0.3)
    flow = lk.Flow(lk.Normal(3), lk.transforms.Inverse(rotation)).double()
    x, told = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    assert flow.certificate(x, told).nats.shape == (5,)
    residual = lk.LipschitzResidual(nets.LipschitzMLP(3, (5,)), log_det="truncated")
    flow = lk.Flow(lk.Normal(3), lk.transforms.Inverse(residual)).double()
    assert flow.certificate(x[:1]).nats.shape == (1,)


def test_distributions_expand_as_those_of_torch():
    flow = spline_flow()
    wide = flow.distribution().expand((6, 4))
    assert (wide.batch_shape, wide.sample((3,)).shape) == ((6, 4), (3, 6, 4, 2))
    x = wide.sample()
    assert torch.allclose(wide.log_prob(x), flow.log_prob(x.reshape(24, 2)).reshape(6, 4))
    again = wide.expand((2, 6, 4))
    assert again.rsample().shape == (2, 6, 4, 2)
    for other in ((5, 4), (4,)):
        with pytest.raises(ShapeError, match="cannot be expanded"):
            wide.expand(other)
    conditional, condition = spline_flow(context=3), torch.randn(1, 3, dtype=torch.float64)
    many = conditional.distribution(condition).expand((6, 4))
    x = many.sample((2,))
    assert x.shape == (2, 6, 4, 2)
    assert torch.allclose(many.log_prob(x)[1], conditional.log_prob(x[1], condition.expand(4, 3)))
