"""Facts of layers made of layers, and the refusal of events that a layer was not built for."""

import pytest
import torch

import likelify as lk
from likelify import linalg, nets, transforms
from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError
from likelify.transforms.core import Composite


def integers(*shape):
    return torch.randint(0, 4, shape)


def test_facts_of_a_chain_are_those_of_its_layers_now():
    chain = lk.Chain([lk.ActNorm(2), lk.Flatten(2)])
    assert (chain.likelihood, chain.random_inverse, chain.takes_integers) == ("exact", False, False)
    chain.transforms[0] = lk.Dequantize(4)
    assert (chain.likelihood, chain.random_inverse, chain.takes_integers) == ("bound", False, True)
    chain.transforms.append(lk.linear_exponential(torch.nn.Linear(2, 2, bias=False), trace="hutchinson"))
    assert chain.likelihood == "estimate"
    with pytest.raises(AttributeError):
        chain.random_forward = False


def test_facts_go_through_all_combinators():
    narrow = lk.linear(2, 1)
    assert lk.Chain([narrow]).random_inverse
    assert lk.Inverse(lk.Chain([narrow])).random_forward
    assert lk.Conjugate(lk.rotation(2), lk.Inverse(lk.Dequantize(4))).random_inverse
    assert lk.Parallel([narrow, None], [2, 1], [1, 1]).random_inverse
    assert lk.Chain([lk.Inverse(lk.Chain([lk.Inverse(lk.Chain([transforms.ReLU()]))]))]).likelihood == "exact"
    assert lk.Chain([lk.ActNorm(2), lk.Parallel([transforms.ReLU(), None], [1, 1], [1, 1])]).has_atoms
    assert lk.Parallel([lk.Permute([1, 0]), lk.Chain([transforms.Flip((1,))])], [2, 2], [2, 2]).moves_elements
    assert not lk.Chain([lk.Flatten((2, 1)), lk.ActNorm(2)]).moves_elements


def test_a_flow_takes_integers_that_all_branches_take():
    def flow(second):
        return lk.Flow(lk.Normal((2,)), lk.Parallel([lk.Dequantize(4), second], [1, 1], [1, 1]))

    flow(lk.Dequantize(4)).initialize(integers(8, 2))
    lk.Flow(lk.Normal((2,)), lk.Chain([lk.Chain([lk.Dequantize(4)]), lk.ActNorm(2)])).initialize(integers(8, 2))
    for second in (None, lk.ActNorm(1)):
        with pytest.raises(DomainError, match="integers"):
            flow(second).initialize(integers(8, 2))


def test_raw_data_pass_layers_that_move_elements():
    moved = lk.Chain([lk.Permute([1, 0]), lk.Chain([transforms.Flip((1,)), lk.Dequantize(4)])])
    assert moved.takes_integers
    lk.Flow(lk.Normal(2), lk.Chain([moved, lk.ActNorm(2)])).initialize(integers(8, 2))
    assert not lk.Chain([lk.Permute([1, 0])]).takes_integers
    assert not lk.Chain([lk.Permute([1, 0]), lk.ActNorm(2), lk.Dequantize(4)]).takes_integers

    times = torch.tensor([[0.0, 1.7e9], [1.0, 1.7e9 + 10]], dtype=torch.float64)
    columns = lk.Chain([lk.Permute([1, 0]), transforms.Columns(2)])
    assert columns.takes_float64
    assert columns.initialize(times).abs().allclose(torch.ones(2, 2))
    z, contribution = columns(times)
    assert z.dtype == contribution.dtype == torch.float32
    x, back = columns.inverse(z)
    assert torch.equal(x, times)
    assert torch.allclose(contribution, -back.float())


def test_the_inverse_of_a_relu_has_no_atoms():
    assert lk.Inverse(lk.Chain([lk.Inverse(transforms.ReLU())])).has_atoms
    assert lk.Inverse(lk.Inverse(transforms.ReLU())).has_atoms
    turned = lk.Inverse(transforms.ReLU())
    assert not turned.has_atoms
    lk.Flow(lk.Normal(2), turned)


@pytest.mark.parametrize(
    "build", [lk.Inverse, lambda part: lk.Conjugate(part, lk.ActNorm(2)), lambda part: lk.Chain([part])]
)
def test_layers_made_of_layers_take_nothing_else(build):
    with pytest.raises(UnsupportedError, match="takes Transforms, not Linear"):
        build(torch.nn.Linear(2, 2))


def test_arguments_are_checked_by_their_names_in_any_order():
    x = torch.randn(4, 3)
    layer = lk.ActNorm(3)
    assert torch.equal(layer(context=None, x=x)[0], x)
    assert torch.equal(layer.inverse(context=None, z=x)[0], x)
    with pytest.raises(ShapeError, match="3 channels"):
        layer(context=None, x=x[:, :2])
    with pytest.raises(TypeError, match="x"):
        layer(context=None)


def test_a_number_is_a_shape():
    assert lk.ActNorm(4).out_shape(4) == lk.Exponential(lk.Dense(torch.eye(4))).data_shape(4) == (4,)
    assert lk.Chain([lk.Permute([1, 0]), lk.Flatten(2)]).out_shape(2) == (2,)
    assert lk.Inverse(lk.Reshape((1, 2), 2)).out_shape(2) == (1, 2)
    maps = (lk.Dense(torch.eye(4)), linalg.Diagonal(torch.ones(4)), lk.Function(lambda x: x, like=torch.zeros(0, 4)))
    for map_ in (*maps, 2 * maps[0], maps[0] @ maps[1], maps[0] + maps[1]):
        assert torch.allclose(map_.trace(4), map_.materialize(4).trace())
        assert torch.allclose(torch.as_tensor(map_.frobenius_bound(4)), torch.as_tensor(map_.frobenius_bound((4,))))
    assert lk.woodbury_conv(3, 4)(torch.zeros(2, 3, 4))[0].shape == (2, 3, 4)


@pytest.mark.parametrize(
    "build",
    [
        lambda: lk.max_pool(4, 2),
        lambda: transforms.global_average_pool(4),
        lambda: transforms.upsample_nearest(4, 2),
        lambda: transforms.Unfold(4, 2),
        lambda: lk.convolution(4, 2, 2),
        lambda: transforms.transposed_convolution(4, 2, 2),
        lambda: transforms.Pad(4, [(1, 1)]),
    ],
)
def test_layers_with_windows_need_positions(build):
    with pytest.raises(ShapeError, match="position"):
        build()


def test_a_layer_shows_the_settings_it_keeps():
    assert repr(transforms.Logit(0.1)) == "Logit(alpha=0.1)"
    assert repr(lk.Normal(2)) == "Normal(event_shape=(2,))"
    assert repr(transforms.Tanh()) == "Tanh()"
    assert repr(lk.ActNorm(2)) == "ActNorm(2 channels, ...)"
    assert "method='auto'" in repr(lk.conv_exponential(2))


def test_a_composite_has_to_name_its_parts():
    with pytest.raises(TypeError, match="parts"):
        Composite()


@pytest.mark.parametrize(
    ("layer", "good", "bad", "words"),
    [
        (lambda: lk.ActNorm(3), (3, 2), (2, 2), r"ActNorm .* \(rows, 3 channels, ...\) .* \(rows, 2, 2\)"),
        (lambda: lk.ActNorm(3), (3,), (), r"got one of shape \(rows\)"),
        (lambda: lk.Permute([1, 0]), (2, 3), (3,), "2 channels"),
        (lambda: lk.Reshape(4, (2, 2)), (4,), (2, 2), r"Reshape .* \(rows, 4\)"),
        (lambda: lk.FittedMarginal((1, 2), 3), (1, 2), (1, 2, 1), r"FittedMarginal .* \(rows, 1, 2\)"),
        (lambda: lk.Coupling(lk.ChannelSplit(2), lk.AffineBijector(), torch.nn.Identity()), (2,), (3,), "Coupling"),
    ],
)
def test_events_that_a_layer_was_not_built_for_are_refused_by_every_method(layer, good, bad, words):
    layer = layer()
    assert layer.out_shape(good)
    x = torch.full((2, *bad), 0.5)
    calls = (layer, layer.mean_forward, layer.initialize)
    for call in (lambda: layer.out_shape(bad), lambda: layer(x=x), *(lambda c=c: c(x) for c in calls)):
        with pytest.raises(ShapeError, match=words):
            call()


def test_the_latent_is_compared_with_what_the_layer_gives():
    layer = lk.Reshape(4, (2, 2))
    with pytest.raises(ShapeError, match=r"\(rows, 2, 2\)"):
        layer.data_shape((4,))
    for inverse in (layer.inverse, layer.mean_inverse):
        assert inverse(torch.zeros(3, 2, 2)) is not None
        with pytest.raises(ShapeError, match=r"\(rows, 2, 2\) and got one of shape \(rows, 4\)"):
            inverse(torch.zeros(3, 4))


def test_shapes_go_through_inverses_of_layers_that_know_their_data():
    moved = lk.Chain([lk.Squeeze(), transforms.PermuteAxes((3, 1, 2)), lk.Flatten((3, 4, 2))])
    assert moved.out_shape((1, 4, 6)) == (24,)
    assert lk.Inverse(moved).out_shape((24,)) == (1, 4, 6)
    assert lk.Inverse(lk.Inverse(moved)).out_shape((1, 4, 6)) == (24,)


def test_a_layer_of_ones_own_declares_what_it_takes():
    class Narrow(lk.Transform):
        takes, gives = ("features",), ("features", ...)

        def forward(self, x, context=None):
            return x, x.new_zeros(len(x))

        inverse = forward

    assert Narrow()(torch.zeros(3, 5))[0].shape == (3, 5)
    with pytest.raises(ShapeError, match=r"Narrow works on inputs of shape \(rows, features\)"):
        Narrow()(torch.zeros(3, 5, 1))
    assert Narrow().inverse(torch.zeros(3, 5, 1))[0].shape == (3, 5, 1)


def test_refusals_cost_no_graph_break():
    layer = lk.ActNorm(3)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    x = torch.randn(4, 3)
    assert torch.equal(compiled(x)[0], layer(x)[0])
    each = torch.func.vmap(layer)(x.reshape(2, 2, 3))
    assert torch.equal(each[0].reshape(4, 3), layer(x)[0])
    exported = torch.export.export(layer, (x,)).module()
    assert torch.equal(exported(x)[0], layer(x)[0])


def test_wrong_shapes_and_settings_are_refused():
    with pytest.raises(ShapeError, match="3 channels"):
        lk.ActNorm(3)(torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="multiples of"):
        lk.Squeeze()(torch.zeros(1, 1, 3, 4))
    with pytest.raises(ShapeError, match="each of the 2 position axes"):
        lk.Squeeze((3, 3, 3, 3))(torch.zeros(1, 1, 3, 3))
    with pytest.raises(ShapeError, match="each of the 1 position axes"):
        lk.Squeeze().inverse(torch.zeros(1, 4, 3))
    with pytest.raises(ConfigError, match="at least 1"):
        lk.Squeeze((2, 0))
    with pytest.raises(ShapeError, match="exactly once"):
        lk.Permute([0, 0, 1])
    with pytest.raises(ShapeError, match="sizes differ"):
        lk.Reshape((4,), (3,))
    with pytest.raises(ShapeError, match="returned"):
        lk.Coupling(lk.ChannelSplit(4), lk.AffineBijector(), nets.MLP(2, 3))(torch.zeros(1, 4))
    with pytest.raises(ShapeError, match="each side"):
        lk.MaskSplit(torch.ones(3))
    with pytest.raises(ShapeError, match="more than 2 channels"):
        lk.Slice(2, lk.Normal((1,)))(torch.zeros(1, 2))
    with pytest.raises(ConfigError, match="norm_limit"):
        lk.conv_exponential(2, norm_limit=-1.0)
    with pytest.raises(ConfigError, match="bins"):
        lk.SplineBijector(1)
    with pytest.raises(UnsupportedError, match="Chain takes Transforms"):
        lk.Chain([torch.nn.Linear(2, 2)])
    with pytest.raises(UnsupportedError, match="draws noise"):
        lk.Conjugate(lk.Dequantize(3), lk.ActNorm(1))


def test_conjugation_by_a_linear_basis_keeps_the_inner_log_determinant():
    basis = lk.Exponential(lk.Dense(0.3 * torch.randn(4, 4).double()))
    inner = lk.Chain([lk.ActNorm(4), transforms.Softplus()]).double()
    x = torch.randn(3, 4).double()
    conjugate = lk.Conjugate(basis, inner)
    assert torch.allclose(conjugate(x)[1], inner(basis(x)[0])[1])


def test_chains_are_sequences():
    chain = lk.Chain([lk.ActNorm(2), lk.Conv1x1(2), lk.Squeeze()])
    assert len(chain) == 3
    assert isinstance(chain[1], lk.Conv1x1)
    assert [type(t) for t in chain[:2]] == [lk.ActNorm, lk.Conv1x1]
    assert chain.out_shape((2, 4, 4)) == (8, 2, 2)
    with pytest.raises(ShapeError, match="empty"):
        lk.Chain([])(torch.zeros(1, 2))


@pytest.mark.parametrize("limit", [0.0, -2.0, float("inf"), float("nan")])
def test_limits_of_scales_are_numbers_above_zero(limit):
    with pytest.raises(ConfigError, match="limit of log scales"):
        lk.AffineBijector(limit)
