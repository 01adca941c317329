"""What a flow refuses at its door, and what it lets in."""

import numpy as np
import pytest
import torch
from torch import nn

import likelify as lk
from likelify import nets, testing, transforms
from likelify.errors import (
    ConfigError,
    DomainError,
    InexactLikelihoodError,
    NonFiniteError,
    ShapeError,
    UnsupportedError,
)


def coupling(context_features=0, dims=2):
    split, bijector = lk.ChannelSplit(dims), lk.AffineBijector()
    net = nets.MLP(split.sizes[0], 2 * split.sizes[1], (4,), context_features=context_features)
    return testing.randomize(lk.Coupling(split, bijector, net))


def plain():
    return lk.Flow(lk.Normal(2), lk.Chain([lk.ActNorm(2), coupling()]))


def conditional():
    return lk.Flow(lk.Normal(2), lk.Chain([lk.ActNorm(2), coupling(3)]))


METHODS = {
    "log_prob": lambda flow, x, context: flow.log_prob(x, context),
    "forward": lambda flow, x, context: flow(x, context),
    "elbo": lambda flow, x, context: flow.elbo(x, context).value,
    "iw_log_prob": lambda flow, x, context: flow.iw_log_prob(x, context, samples=3).value,
    "bound_gaps": lambda flow, x, context: flow.bound_gaps(x, context, samples=(1, 2))[2].value,
    "certificate": lambda flow, x, context: flow.certificate(x, context).nats,
    "initialize": lambda flow, x, context: flow.initialize(x, context),
}
DRAWS = {
    "sample": lambda flow, context: flow.sample(2, context),
    "rsample": lambda flow, context: flow.rsample(2, context),
    "sample_and_log_prob": lambda flow, context: flow.sample_and_log_prob(2, context)[0],
    "distribution": lambda flow, context: flow.distribution(context).sample(2),
}
every_method = pytest.mark.parametrize("call", METHODS.values(), ids=METHODS)
every_draw = pytest.mark.parametrize("call", DRAWS.values(), ids=DRAWS)


@every_method
def test_every_method_refuses_the_same_inputs(call):
    x = torch.randn(4, 2)
    for wrong, error, message in (
        (x.numpy(), UnsupportedError, "torch.as_tensor"),
        (x.tolist(), UnsupportedError, "got a list"),
        (x.double(), DomainError, r"torch.float64 and this flow is in torch.float32.*x.to\(torch.float32\)"),
        (x.half(), DomainError, r"give x.to\(torch.float32\)"),
        (x.long(), DomainError, "integers.*lk.Dequantize"),
        (x.bool(), DomainError, "lk.Dequantize"),
        (torch.complex(x, x), DomainError, "complex"),
        (x[:, :1], ShapeError, r"\(rows, 2\) and got one of shape \(rows, 1\)"),
        (torch.randn(4, 2, 3), ShapeError, r"\(rows, 2, 3\)"),
        (torch.tensor(1.0), ShapeError, "works on inputs"),
        (x.to("meta"), UnsupportedError, "on meta and the flow on cpu"),
    ):
        with pytest.raises(error, match=message):
            call(plain(), wrong, None)
    with pytest.raises(UnsupportedError, match="no part of this flow reads"):
        call(plain(), x, torch.randn(4, 3))
    call(plain(), x, None)


@every_method
def test_every_method_compares_rows_and_condition(call):
    x, flow = torch.randn(3, 2), conditional()
    for condition, error, message in (
        (torch.randn(7, 3), ShapeError, "The data have 3 rows and the condition 7"),
        (torch.randn(3, 4), ShapeError, "context_features=3, and got 1 channels and a condition of 4"),
        (torch.randn(3, 3).double(), DomainError, "condition.float()"),
        (torch.tensor(1.0), ShapeError, "single number"),
        (lk.Context(np.ones((3, 3))), UnsupportedError, "A condition is a tensor"),
        (np.ones((3, 3)), UnsupportedError, "context is a ndarray"),
        (None, ShapeError, "context_features=3, and got 1 channels and no condition"),
    ):
        with pytest.raises(error, match=message):
            call(flow, x, condition)
    call(flow, x, torch.randn(3, 3))
    call(flow, x, torch.randn(1, 3))


@every_draw
def test_draws_compare_conditions_too(call):
    assert call(plain(), None).shape == (2, 2)
    assert call(conditional(), torch.randn(5, 3)).shape == (2, 5, 2)
    with pytest.raises(UnsupportedError, match="no part of this flow reads"):
        call(plain(), torch.randn(5, 3))
    with pytest.raises(DomainError, match="condition.float()"):
        call(conditional(), torch.randn(5, 3).double())
    with pytest.raises(ShapeError, match="no condition"):
        call(conditional(), None)


def test_conditions_have_one_row_for_each_row_or_one_for_all():
    flow, x, condition = conditional(), torch.randn(4, 2), torch.randn(1, 3)
    assert torch.equal(flow.log_prob(x, condition), flow.log_prob(x, condition.expand(4, 3)))
    assert flow.elbo(x, lk.Context(condition)).value.shape == (4,)


@pytest.mark.parametrize("call", [METHODS[name] for name in METHODS if name not in ("forward", "initialize")])
def test_what_was_drawn_can_be_put_in_again(call):
    flow, conditions = conditional(), torch.randn(4, 3)
    x, log_prob = flow.sample_and_log_prob((5, 2), conditions)
    assert torch.allclose(flow.log_prob(x, conditions), log_prob, atol=1e-5)
    assert call(flow, x, conditions).shape == (5, 2, 4)
    assert call(flow, x, conditions[:1]).shape == (5, 2, 4)
    assert call(plain(), plain().sample((5, 3)), None).shape == (5, 3)
    assert call(plain(), plain().sample(), None).shape == ()
    assert call(flow, x[0, 0, 0], conditions[:1]).shape == ()
    with pytest.raises(ShapeError, match="5 rows and the condition 4"):
        call(flow, x.movedim(0, -2), conditions)
    with pytest.raises(ShapeError, match="have 1 rows and the condition 4"):
        call(flow, x[0, 0, 0], conditions)


def test_graphs_keep_their_rows_and_may_have_draws_in_front():
    graphs = lk.Context(structure=lk.GraphBatch(torch.tensor([2, 3]), torch.empty(2, 0, dtype=torch.long)))
    flow = plain()
    x, log_prob = flow.sample_and_log_prob(3, graphs)
    assert torch.allclose(flow.log_prob(x, graphs), log_prob, atol=1e-5)
    assert flow.log_prob(x, graphs).shape == (3, 2)
    with pytest.raises(ShapeError, match="4 rows, its GraphBatch has 5 nodes"):
        flow.log_prob(x[0, :4], graphs)


def test_numbers_are_shapes_of_draws_and_a_single_draw_has_a_scalar_density():
    flow = plain()
    d = flow.distribution()
    assert d.log_prob(d.sample()).shape == ()
    assert d.sample(3).shape == d.rsample(3).shape == flow.rsample(3).shape == (3, 2)
    assert flow.sample(np.int64(3)).shape == lk.Normal((np.int64(2),)).sample(3).shape == (3, 2)
    assert flow.sample(torch.Size([2, 3])).shape == (2, 3, 2)
    batch = conditional().distribution(torch.randn(4, 3))
    assert batch.log_prob(batch.sample()).shape == (4,)
    assert batch.log_prob(torch.zeros(2)).shape == (4,)
    assert batch.log_prob(torch.zeros(6, 1, 2)).shape == (6, 4)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: plain().sample(-1), ShapeError),
        (lambda: plain().sample(2.5), ShapeError),
        (lambda: plain().sample((2, -3)), ShapeError),
        (lambda: plain().sample("2"), ShapeError),
        (lambda: plain().sample(temperature=-1), ConfigError),
        (lambda: plain().sample(temperature=float("nan")), ConfigError),
        (lambda: plain().sample(temperature="hot"), ConfigError),
        (lambda: plain().elbo(torch.zeros(1, 2), samples=0), ConfigError),
        (lambda: plain().elbo(torch.zeros(1, 2), samples=2.5), ConfigError),
        (lambda: plain().iw_log_prob(torch.zeros(1, 2), samples=-1), ConfigError),
        (lambda: plain().iw_log_prob(torch.zeros(1, 2), samples=2, chunk=1.5), ConfigError),
        (lambda: plain().bound_gaps(torch.zeros(1, 2), samples=(0, 2)), ConfigError),
        (lambda: lk.Normal(-1), ShapeError),
        (lambda: lk.Normal(0), ShapeError),
        (lambda: lk.Normal(2.5), ShapeError),
        (lambda: lk.Normal(()), ShapeError),
        (lambda: lk.ActNorm(0), ConfigError),
        (lambda: lk.ActNorm(2.5), ConfigError),
        (lambda: lk.ChannelSplit(2.5), ConfigError),
        (lambda: lk.ChannelSplit(1), ConfigError),
        (lambda: lk.Slice(0, lk.Normal(1)), ConfigError),
        (lambda: lk.Augment(-1, lk.Normal(1)), ConfigError),
        (lambda: lk.Squeeze(1.5), ShapeError),
        (lambda: nets.MLP(2.5, 1), ConfigError),
    ],
)
def test_sizes_are_whole_numbers_that_are_large_enough(call, error):
    with pytest.raises(error, match="must be|whole number|at least one axis|temperature is a number"):
        call()


def test_numpy_counts_are_sizes():
    two = np.int64(2)
    flow = lk.Flow(lk.Normal(two), lk.Chain([lk.ActNorm(two), lk.Reshape(two, (two, 1)), lk.Flatten((two, 1))]))
    assert flow.elbo(torch.zeros(3, 2), samples=two).value.shape == (3,)
    assert type(flow.event_shape[0]) is int


def test_flows_in_half_precision_are_refused_with_the_remedy():
    glow = lk.zoo.build("glow", event_shape=(1, 4, 4), levels=1, steps=1, hidden=4, pixel_levels=4).half()
    for call in (lambda: glow.elbo(torch.zeros(1, 1, 4, 4, dtype=torch.uint8)), lambda: glow.sample(2)):
        with pytest.raises(DomainError, match=r"flow.float\(\)\), and use torch.autocast"):
            call()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(glow.float().elbo(torch.zeros(1, 1, 4, 4, dtype=torch.uint8)).value).all()


def test_a_float64_flow_wants_float64_and_columns_take_both():
    flow = plain().double()
    with pytest.raises(DomainError, match=r"this flow is in torch.float64: give x.to\(torch.float64\)"):
        flow.log_prob(torch.zeros(1, 2))
    table = lk.Flow(lk.Normal(2), lk.Chain([lk.transforms.Columns(2), coupling()]))
    rows = torch.randn(3, 2).double()
    assert torch.allclose(table.log_prob(rows), table.log_prob(rows.float()), atol=1e-5)
    with pytest.raises(DomainError, match="integers"):
        table.log_prob(rows.long())


def test_integers_need_a_first_layer_that_takes_them():
    levels = torch.randint(4, (3, 2))
    beside = lk.transforms.Parallel([lk.Dequantize(4), None], [1, 1], [1, 1])
    for layer in (lk.ActNorm(2), lk.transforms.Columns(2), beside):
        with pytest.raises(DomainError, match="Dequantize"):
            lk.Flow(lk.Normal(2), layer).elbo(levels)
    assert lk.Flow(lk.Normal(2), lk.Chain([lk.Permute([1, 0]), lk.Dequantize(4)])).elbo(levels).value.shape == (3,)


def test_parts_that_are_none_are_refused_when_the_flow_is_built():
    chain = lk.Chain([lk.ActNorm(2)])
    for build, message in (
        (lambda: lk.Flow(chain, lk.Normal(2)), r"wrong order.*lk.Flow\(base, transform\)"),
        (lambda: lk.Flow(lk.Normal(2), [lk.ActNorm(2)]), r"not list.*lk.Chain\(\[\.\.\.\]\)"),
        (lambda: lk.Flow(lk.Normal(2), nn.Sequential(lk.ActNorm(2))), r"lk.Chain\(\[\.\.\.\]\)"),
        (lambda: lk.Flow(lk.Normal(2), nn.Sequential(nn.Linear(2, 2))), "lk.flowify"),
        (lambda: lk.Flow(lk.Normal(2), nn.Linear(2, 2)), "lk.flowify"),
        (lambda: lk.Flow(lk.Normal(2), lk.ActNorm), r"an object of the class: ActNorm\(\.\.\.\)"),
        (lambda: lk.Flow(lk.Normal(2), torch.distributions.ExpTransform()), "Write a Transform"),
        (lambda: lk.Flow(lk.Normal(2), torch.tanh), "no inverse"),
        (lambda: lk.Flow(torch.distributions.Normal(0, 1), chain), "torch's Normal is none. Take lk.Normal"),
        (lambda: lk.Flow(nn.Linear(2, 2), chain), "Linear is none"),
        (lambda: lk.Flow(None, chain), "NoneType is none"),
        (lambda: lk.Flow(lk.Normal(2), None), "not NoneType"),
        (lambda: lk.Flow(lk.Normal(2), chain, encoder=torch.relu), "encoder of a Flow is a torch.nn.Module"),
        (lambda: lk.Chain([nn.Linear(2, 2)]), "lk.flowify"),
        (lambda: lk.Chain(lk.ActNorm(2), lk.ActNorm(2)), r"one list of layers.*lk.Chain\(\[first, second\]\)"),
        (lambda: lk.Chain(lk.ActNorm(2)), "one list of layers"),
        (lambda: lk.Inverse(nn.Linear(2, 2)), "lk.flowify"),
        (lambda: lk.Coupling(lk.AffineBijector(), lk.ChannelSplit(2), nn.Linear(1, 2)), "in this order"),
        (lambda: lk.Coupling(lk.ChannelSplit(2), lk.AffineBijector(), torch.relu), "torch.nn.Module"),
    ):
        with pytest.raises(UnsupportedError, match=message):
            build()


def test_layers_that_do_not_fit_one_another_or_the_base_are_refused_when_built():
    image = lk.Flatten((1, 4, 4))
    for build, message in (
        (lambda: lk.Chain([lk.ActNorm(3), lk.ActNorm(4)]), r"Layer 1 of Chain.*ActNorm, takes.*4.*before it gives.*3"),
        (lambda: lk.Chain([lk.ActNorm(3), lk.Logit(), lk.Conv1x1(4)]), "Layer 2 of Chain"),
        (lambda: lk.Chain([lk.Chain([lk.ActNorm(3)]), lk.ActNorm(2)]), "takes"),
        (lambda: lk.Chain([lk.Slice(2, lk.Normal(1)), lk.ActNorm(3)]), "takes"),
        (lambda: lk.Chain([lk.Inverse(lk.Slice(2, lk.Normal(1))), lk.Reshape((3, 2), 6), lk.ActNorm(5)]), "takes"),
        (lambda: lk.Chain([image, lk.ActNorm(4)]), r"takes events \(4 channels"),
        (lambda: lk.Chain([lk.Reshape(9, (1, 3, 3)), lk.Squeeze()]), "multiples of"),
        (
            lambda: lk.Flow(lk.Normal(3), lk.ActNorm(2)),
            r"give events \(2.*\) to its base.*is for events \(3\)",
        ),
        (lambda: lk.Flow(lk.Normal(3), lk.ActNorm(2), event_shape=2), "Normal is for events"),
        (lambda: lk.Flow(lk.Normal(3), lk.Chain([lk.ActNorm(3), image])), "takes|give events"),
        (lambda: lk.Flow(lk.Normal((1, 4, 4)), lk.Logit(), event_shape=(1, 8, 8)), "Normal is for events"),
        (lambda: lk.Flow(lk.Normal(2), lk.ActNorm(2), event_shape=(3,)), "ActNorm, takes events"),
        (lambda: lk.Flow(lk.Normal(2), lk.ActNorm(2), event_shape=0), "at least 1"),
    ):
        with pytest.raises(ShapeError, match=message):
            build()


def test_the_shape_of_events_is_told_from_the_base_where_it_can_be():
    for flow, shape in (
        (lk.Flow(lk.Normal(2), lk.ActNorm(2)), (2,)),
        (lk.Flow(lk.Normal(16), lk.Flatten((1, 4, 4))), (1, 4, 4)),
        (lk.Flow(lk.Normal((4, 2, 2)), lk.Squeeze()), (1, 4, 4)),
        (lk.Flow(lk.Normal(2), lk.Slice(2, lk.Normal(1))), (3,)),
        (lk.Flow(lk.Normal(3), lk.Augment(1, lk.Normal(1))), (2,)),
        (lk.Flow(lk.Normal(2), lk.transforms.FreeLinear(3, 2)), (3,)),
        (lk.Flow(lk.Flow(lk.Normal(2), lk.ActNorm(2)), lk.Inverse(lk.ActNorm(2))), (2,)),
        (lk.Flow(lk.Normal(2), lk.Slice(2, lk.ConditionalNormal(nn.Linear(2, 2)))), None),
        (lk.Flow(lk.ConditionalNormal(nn.Linear(3, 4)), lk.ActNorm(2)), None),
    ):
        assert flow.event_shape == shape
    with pytest.raises(ShapeError, match=r"\(rows, 2\) and got one of shape \(rows, 1\)"):
        lk.Flow(lk.Normal(2), lk.Affine()).log_prob(torch.zeros(4, 1))


@pytest.mark.parametrize(
    ("last", "base"),
    [
        (nn.Sigmoid(), r"lk.Inverse\(lk.transforms.Sigmoid\(\)\)"),
        (nn.Tanh(), r"lk.Inverse\(lk.transforms.Tanh\(\)\)"),
        (nn.Softplus(), r"lk.Inverse\(lk.transforms.Softplus\(\)\)"),
        (nn.Softplus(beta=2), r"lk.Inverse\(lk.transforms.Softplus\(\)\)"),
        (nn.ELU(), "zoo.converted_flow"),
        (nn.ReLU(), "RectifiedNormal"),
    ],
)
def test_a_base_that_reaches_beyond_the_last_layer_is_refused(last, base):
    net = nn.Sequential(nn.Linear(2, 2), last)
    layer = lk.flowify(net, torch.randn(3, 2))
    with pytest.raises(UnsupportedError, match=base):
        lk.Flow(lk.Normal(2), layer)
    flow = lk.zoo.converted_flow(net, torch.randn(3, 2))
    assert torch.isfinite(flow.log_prob(flow.sample((50,)))).all()


def test_only_bases_that_surely_reach_too_far_are_refused():
    inside = lk.Flow(lk.Normal(2), lk.Inverse(lk.transforms.Sigmoid()))
    for layer, base in (
        (lk.transforms.Sigmoid(), inside),
        (
            lk.Chain([lk.transforms.Sigmoid(), lk.Reshape(2, (2, 1))]),
            lk.Flow(lk.Normal((2, 1)), lk.Inverse(lk.transforms.Sigmoid())),
        ),
        (lk.Chain([lk.transforms.Sigmoid(), lk.Logit()]), lk.Normal(2)),
        (lk.Inverse(lk.Logit()), inside),
        (lk.transforms.Abs(), lk.distributions.RectifiedNormal(2)),
        (lk.transforms.Sigmoid(), lk.Flow(inside, lk.Permute([1, 0]))),
    ):
        assert lk.Flow(base, layer).likelihood == "exact"
    with pytest.raises(UnsupportedError, match=r"end in \(0, 1\)"):
        lk.Flow(lk.Normal(2), lk.Chain([lk.transforms.Sigmoid(), lk.Permute([1, 0])]))
    with pytest.raises(UnsupportedError, match=r"end in \(0, 0.5\)"):
        lk.Flow(inside, lk.Chain([lk.transforms.Sigmoid(), lk.Affine(scale=0.5)]))
    for everywhere in (lk.Flow(lk.Normal(2), lk.ActNorm(2)), lk.Flow(lk.Normal(2), lk.Permute([1, 0]))):
        with pytest.raises(UnsupportedError, match=r"its base Flow reaches over \(-inf, inf\)"):
            lk.Flow(everywhere, lk.transforms.Tanh())


def test_plain_networks_serve_in_couplings_without_a_condition():
    split, bijector = lk.ChannelSplit(3), lk.AffineBijector()
    for net in (nn.Linear(1, 4), nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 4))):
        layer = lk.Coupling(split, bijector, net)
        testing.check_transform(layer.double(), torch.randn(4, 3, dtype=torch.float64))
        with pytest.raises(ShapeError, match="cannot read the condition"):
            layer(torch.zeros(2, 3).double(), torch.zeros(2, 1).double())
        with pytest.raises(UnsupportedError, match="no part"):
            lk.Flow(lk.Normal(3), layer).double().log_prob(torch.zeros(2, 3).double(), torch.zeros(2, 1).double())
    with pytest.raises(ShapeError, match="network of Coupling begins with a Linear of 2 inputs.*has 1"):
        lk.Coupling(split, bijector, nn.Linear(2, 4))(torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"returned \(2, 3\).*needs \(2, 4\)"):
        lk.Coupling(split, bijector, nn.Linear(1, 3))(torch.zeros(2, 3))
    with pytest.raises(ShapeError, match="begins with a Linear of 2 inputs"):
        lk.Flow(lk.ConditionalNormal(nn.Linear(2, 4)), lk.ActNorm(2)).log_prob(torch.zeros(3, 2), torch.zeros(3, 5))


def test_what_reads_a_condition_is_known_of_every_part():
    class Reader(nn.Module):
        def forward(self, x, context):
            return x

    class Own(lk.Affine):
        reads_condition = True

    nowhere = lk.Chain([lk.Slice(1, lk.Normal(1)), lk.Dequantize(3, lk.Flow(lk.Normal(1), lk.Logit()))])
    prior = lk.ConditionalNormal(nets.MLP(1, 2, context_features=0))
    for part, reads in (
        (nowhere, False),
        (lk.LipschitzResidual(nets.LipschitzMLP(2, (4,))), False),
        (lk.LipschitzResidual(nets.LipschitzMLP(2, (4,), context_features=1)), True),
        (lk.LipschitzResidual(Reader(), lipschitz=0.5), True),
        (lk.LipschitzResidual(nn.Identity(), lipschitz=0.5), False),
        (lk.linear_exponential(nn.Linear(2, 2, bias=False)), False),
        (lk.rotation(2, context_features=3), True),
        (lk.transforms.planar(2, context_features=1), True),
        (lk.transforms.planar(2), False),
        (lk.transforms.generalized_sylvester(2), False),
        (lk.transforms.conv_sylvester(2, context_features=2), True),
        (lk.Slice(1, prior), False),
        (lk.Slice(1, lk.ConditionalNormal(nets.MLP(1, 2, context_features=2))), True),
        (lk.Slice(1, lk.ConditionalNormal(nn.Linear(1, 2))), True),
        (lk.transforms.FreeLinear(3, 2), False),
        (lk.transforms.FreeLinear(3, 2, net_factory=nets.density_nets(0, context_features=2)), True),
        (lk.transforms.FreeLinear(3, 2, net_factory=lambda a, b: nn.Linear(a + 2, b)), True),
        (lk.Inverse(lk.Chain([coupling(3)])), True),
        (Own(), True),
        (lk.ConditionalNormal(nn.Linear(2, 4)), True),
        (lk.Normal(2), False),
        (lk.zoo.build("vae", event_shape=(1, 4, 4), pixel_levels=4, hidden=4).transform, False),
        (lk.zoo.build("vae", event_shape=(1, 4, 4), pixel_levels=4, hidden=4, classes=3).transform, True),
        (lk.zoo.build("glow", event_shape=(1, 8, 8), levels=2, steps=1, hidden=4, pixel_levels=4).transform, False),
    ):
        assert part.reads_condition is reads, part


def test_a_condition_reaches_densities_of_what_is_dropped():
    layer = lk.transforms.FreeLinear(3, 2, net_factory=nets.density_nets(0, context_features=2))
    flow = testing.randomize(lk.Flow(lk.Normal(2), layer))
    x = torch.randn(4, 3)
    assert not torch.allclose(flow.log_prob(x, torch.zeros(1, 2)), flow.log_prob(x, torch.ones(1, 2)))
    with pytest.raises(ShapeError, match="context_features=2"):
        flow.log_prob(x, torch.zeros(4, 3))


def test_layers_by_themselves_refuse_what_they_cannot_work_on():
    x = torch.randn(3, 2)
    layers = [
        lk.ActNorm(2),
        lk.Conv1x1(2),
        lk.transforms.ChannelSpline(2),
        lk.linear_exponential(nn.Linear(2, 2, bias=False)),
        lk.rotation(2),
        lk.transforms.planar(2),
        lk.transforms.FreeLinear(2, 2),
        lk.LipschitzResidual(nets.LipschitzMLP(2, (4,))),
        coupling(),
        lk.Chain([lk.ActNorm(2), coupling()]),
        lk.Inverse(lk.ActNorm(2)),
    ]
    for layer in layers:
        for direction in (layer, layer.inverse):
            with pytest.raises(DomainError, match=r"is in torch.float32 and its input in torch.float64"):
                direction(x.double())
            with pytest.raises(DomainError, match="real values and got torch.int64"):
                direction(x.long())
            with pytest.raises(UnsupportedError, match="works on tensors and got a ndarray"):
                direction(x.numpy())
            with pytest.raises(ShapeError, match=r"shape \(3, 2\) and a condition of shape \(7, 1\)"):
                direction(x, torch.randn(7, 1))
    assert lk.Permute([1, 0])(x.long())[0].dtype == torch.int64
    for layer in layers:
        for direction in (layer.double(), layer.inverse):
            with pytest.raises(DomainError, match=r"torch.float64 and its input in torch.float32|same precision"):
                direction(x)
    assert lk.Permute([1, 0]).double()(x)[0].dtype == torch.float32


def test_messages_name_the_layer_that_the_user_wrote():
    images = torch.zeros(2, 3, 4, 4)
    for layer, name in (
        (lk.convolution((1, 4, 4), 2, 2, stride=2), "convolution"),
        (lk.convolution((1, 4, 4), 2, 3, padding=1), "convolution"),
        (lk.max_pool((1, 4, 4), 2), "max_pool"),
        (transforms.average_pool((1, 4, 4), 2), "average_pool"),
        (transforms.global_average_pool((1, 4, 4)), "global_average_pool"),
        (transforms.transposed_convolution((1, 4, 4), 1, 2, stride=2), "transposed_convolution"),
    ):
        for call in (layer, layer.inverse, layer.mean_forward):
            with pytest.raises(ShapeError, match=rf"^{name} works on"):
                call(images)


def test_flows_without_parameters_know_their_dtype():
    independent = lk.Flow(lk.Normal(2), lk.Chain([lk.Dequantize(4), lk.transforms.FittedMarginal(2, 4)]))
    assert not list(independent.parameters())
    levels = torch.randint(4, (20, 2))
    independent.initialize(levels)
    assert independent.elbo(levels).value.dtype == torch.float32
    assert independent.double().elbo(levels).value.dtype == torch.float64
    with pytest.raises(DomainError, match="torch.float32"):
        independent.elbo(levels.float())


def test_an_inexact_flow_is_named_before_its_input_is_looked_at():
    with pytest.raises(InexactLikelihoodError, match="Dequantize"):
        lk.Flow(lk.Normal(2), lk.Dequantize(3)).log_prob(torch.zeros(3, 2))


SPREADING = [
    lambda: lk.ActNorm(2),
    lambda: lk.Conv1x1(2),
    lambda: lk.Inverse(lk.rotation(2)),
    lambda: lk.Chain([lk.Permute([1, 0]), coupling()]),
    lambda: lk.Conjugate(lk.rotation(2), lk.LeakyReLU()),
]


@pytest.mark.parametrize("spread", SPREADING)
@pytest.mark.parametrize("bounded", [transforms.Sigmoid, transforms.Tanh, transforms.Softplus])
def test_a_base_that_bounded_layers_cannot_fill_is_refused_behind_others(bounded, spread):
    with pytest.raises(UnsupportedError, match=f"{bounded.__name__} in this flow reaches no further than"):
        lk.Flow(lk.Normal(2), lk.Chain([bounded(), spread()]))
    undone = lk.Chain([bounded(), lk.Inverse(bounded()), spread()])
    assert lk.Flow(lk.Normal(2), undone).log_prob(torch.zeros(1, 2)).isfinite().all()


def test_layers_that_take_an_interval_to_the_line_make_up_for_a_bounded_one():
    flow = lk.Flow(lk.Normal(2), lk.Chain([transforms.Sigmoid(), lk.Logit(), lk.rotation(2)]))
    x = flow.sample(50)
    # The sigmoid and the logit undo each other, and a rotation leaves the normal what it is.
    torch.testing.assert_close(flow.log_prob(x), lk.Normal(2).log_prob(x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("layer", [lk.ActNorm, transforms.ChannelSpline, lk.rotation, transforms.planar])
def test_weights_that_are_not_finite_are_blamed_and_not_the_input(layer):
    flow = lk.Flow(lk.Normal(2), lk.Chain([layer(2), lk.rotation(2)]))
    with torch.no_grad():
        next(flow.transform[0].parameters()).fill_(torch.nan)
        for call in (lambda: flow.log_prob(torch.ones(3, 2)), lambda: flow.sample(3)):
            with pytest.raises(NonFiniteError, match=r"'transform\.transforms\.0\.\S+' .*of this flow are NaN"):
                call()


def test_a_missing_value_in_the_data_is_not_blamed_on_the_weights():
    flow = lk.Flow(lk.Normal(2), transforms.ChannelSpline(2))
    with torch.no_grad():
        found = flow.log_prob(torch.tensor([[torch.nan, 1.0], [1.0, 1.0]]))
    assert found.isnan().tolist() == [True, False]
