"""Our layers inside the flows of nflows and normflows, trained there for a few steps."""

import warnings

import pytest
import torch

import likelify as lk
from likelify import nets, transforms

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import normflows
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.permutations import ReversePermutation


def vector_layers():
    """One of each kind for rows of four numbers."""
    split = lk.ChannelSplit(4)
    return {
        "householder": lk.rotation(4, method="householder"),
        "rotation": lk.rotation(4),
        "conv1x1": lk.Conv1x1(4),
        "exponential": lk.dense_exponential(4),
        "triangular": lk.TriangularResidual(nets.AutoregressiveNet(4, dims=0, hidden=24)),
        "sylvester": lk.Conjugate(
            lk.rotation(4, method="householder"),
            lk.TriangularResidual(nets.AutoregressiveNet(4, dims=0, hidden=24)),
        ),
        "residual": lk.LipschitzResidual(nets.LipschitzMLP(4, hidden=(16,)), log_det="exact"),
        "coupling": lk.Coupling(split, lk.AffineBijector(), nets.MLP(2, 4, (16,))),
    }


def image_layers():
    """One of each kind for images of two channels."""
    return {
        "emerging": lk.emerging_conv(2),
        "woodbury": lk.woodbury_conv(2, (4, 4), rank=3),
        "periodic": transforms.periodic_conv(2),
        "conv-exponential": lk.conv_exponential(2),
        "sylvester": lk.conv_sylvester(2, hidden=8),
    }


def data(shape):
    torch.manual_seed(0)
    return 0.5 * torch.randn(64, *shape) + torch.randn(shape)


CASES = [(kind, name) for kind, names in (("vector", vector_layers), ("image", image_layers)) for name in names()]


def build(kind, name):
    shape = (4,) if kind == "vector" else (2, 4, 4)
    torch.manual_seed(1)
    return (vector_layers if kind == "vector" else image_layers)()[name], shape


def falls(loss, parameters):
    """Train for a few steps and see whether the loss goes down."""
    optimizer = torch.optim.Adam(list(parameters), lr=1e-2)
    values = []
    for _ in range(12):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    return values[-1] < values[0] - 0.05


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_inside_an_nflows_composite(kind, name):
    layer, shape = build(kind, name)
    parts = [layer, lk.ActNorm(shape[0])]
    if kind == "vector":
        parts.insert(1, ReversePermutation(4))
    flow = Flow(CompositeTransform(parts), StandardNormal(shape))
    x = data(shape)
    assert falls(lambda: -flow.log_prob(x).mean(), flow.parameters())
    z = flow.transform_to_noise(x)
    assert torch.allclose(flow._transform.inverse(z)[0], x, atol=1e-4)
    assert flow.sample(3).shape == (3, *shape)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_inside_a_normflows_flow(kind, name):
    layer, shape = build(kind, name)
    base = normflows.distributions.DiagGaussian(shape, trainable=False)
    flow = normflows.NormalizingFlow(base, [lk.Inverse(lk.ActNorm(shape[0])), lk.Inverse(layer)])
    x = data(shape)
    assert falls(lambda: flow.forward_kld(x), flow.parameters())
    ours = lk.Flow(lk.Normal(shape), lk.Chain([layer, flow.flows[0].transform]))
    assert torch.allclose(flow.log_prob(x), ours.log_prob(x), atol=1e-4)
    assert flow.sample(3)[0].shape == (3, *shape)
