"""What docs/coming-from.md and docs/conditioning.md say of other libraries, as far as they are installed."""

import math

import pytest
import torch

import likelify as lk

pytestmark = pytest.mark.filterwarnings("ignore")
ROWS, DRAWS, SIZE, WIDTH = 4, 5, 3, 2


def conditional_flow():
    net = lk.nets.MLP(1, 2 * 2, (8,), context_features=WIDTH)
    return lk.Flow(lk.Normal(SIZE), lk.Coupling(lk.ChannelSplit(SIZE), lk.AffineBijector(), net))


def test_zuko_gives_draws_and_densities_of_the_same_shapes():
    zuko = pytest.importorskip("zuko")
    condition, flow = torch.randn(ROWS, WIDTH), conditional_flow()
    theirs = zuko.flows.NSF(SIZE, context=WIDTH)(condition)
    drawn, ours = theirs.sample((DRAWS,)), flow.sample(DRAWS, condition)
    assert drawn.shape == ours.shape == (DRAWS, ROWS, SIZE)
    assert theirs.log_prob(drawn).shape == flow.log_prob(ours, condition).shape == (DRAWS, ROWS)
    both = theirs.rsample_and_log_prob((DRAWS,))
    for left, right in zip(both, flow.sample_and_log_prob(DRAWS, condition), strict=True):
        assert left.shape == right.shape


def test_zuko_goes_from_data_to_latent():
    zuko = pytest.importorskip("zuko")
    theirs = zuko.flows.NSF(SIZE)()
    x = torch.randn(ROWS, SIZE)
    z = theirs.transform(x)
    expected = theirs.base.log_prob(z) + theirs.transform.log_abs_det_jacobian(x, z)
    torch.testing.assert_close(theirs.log_prob(x), expected)


def test_nflows_has_the_same_signature_and_order_but_other_axes_of_draws():
    flows = pytest.importorskip("nflows.flows")
    from nflows.distributions.normal import StandardNormal
    from nflows.transforms import CompositeTransform, LULinear

    transform = CompositeTransform([LULinear(SIZE, identity_init=False), LULinear(SIZE, identity_init=False)])
    theirs = flows.Flow(transform, StandardNormal([SIZE]))
    first, second = (part.weight().detach() for part in transform._transforms)
    ours = lk.Flow(lk.Normal(SIZE), lk.Chain([Matrix(first), Matrix(second)]))
    x = torch.randn(ROWS, SIZE)
    torch.testing.assert_close(theirs.log_prob(x), ours.log_prob(x))
    torch.testing.assert_close(theirs.transform_to_noise(x), ours.transform(x)[0])


def test_nflows_draws_per_condition_come_first():
    flows = pytest.importorskip("nflows.flows")
    from nflows.distributions.normal import StandardNormal
    from nflows.transforms import MaskedAffineAutoregressiveTransform

    theirs = flows.Flow(MaskedAffineAutoregressiveTransform(SIZE, 8, context_features=WIDTH), StandardNormal([SIZE]))
    condition = torch.randn(ROWS, WIDTH)
    assert theirs.sample(DRAWS, context=condition).shape == (ROWS, DRAWS, SIZE)
    assert conditional_flow().sample(DRAWS, condition).shape == (DRAWS, ROWS, SIZE)


def test_normflows_goes_the_other_way():
    normflows = pytest.importorskip("normflows")
    scale, shift = torch.tensor([[2.0, 0.5, 3.0]]), torch.tensor([[1.0, -1.0, 0.0]])
    layer = normflows.flows.AffineConstFlow(SIZE)
    with torch.no_grad():
        layer.s.copy_(scale.log())
        layer.t.copy_(shift)
    theirs = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(SIZE, trainable=False), [layer])
    x = torch.randn(ROWS, SIZE)
    z, _ = layer.inverse(x)
    torch.testing.assert_close(z, (x - shift) / scale)
    expected = -0.5 * (z**2 + math.log(2 * math.pi)).sum(1) - scale.log().sum()
    torch.testing.assert_close(theirs.log_prob(x), expected)
    ours = lk.Flow(lk.Normal(SIZE), lk.Inverse(Scaled(scale, shift)))
    torch.testing.assert_close(ours.log_prob(x), expected)
    torch.testing.assert_close(ours(x).mean(), theirs.forward_kld(x))
    drawn, density = theirs.sample(DRAWS)
    also, same = ours.sample_and_log_prob(DRAWS)
    assert drawn.shape == also.shape
    assert density.shape == same.shape


class Scaled(lk.Transform):
    def __init__(self, scale, shift):
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x, context=None):
        return x * self.scale + self.shift, self.scale.log().sum().expand(len(x))

    def inverse(self, z, context=None):
        return (z - self.shift) / self.scale, -self.scale.log().sum().expand(len(z))


class Matrix(lk.Transform):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    def forward(self, x, context=None):
        return x @ self.matrix.T, torch.linalg.slogdet(self.matrix)[1].expand(len(x))

    def inverse(self, z, context=None):
        return torch.linalg.solve(self.matrix, z.T).T, -torch.linalg.slogdet(self.matrix)[1].expand(len(z))
