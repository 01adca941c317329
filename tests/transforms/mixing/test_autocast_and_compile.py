"""What all mixing layers do: keep their precision under autocast, compile, and take no rows."""

import pytest
import torch

import likelify as lk
from likelify import transforms


@pytest.mark.parametrize(
    ("build", "condition"),
    [
        (lambda: lk.Conv1x1(4), None),
        (lambda: lk.rotation(4, method="cayley"), None),
        (lambda: transforms.Orthogonal(torch.linalg.qr(torch.randn(4, 4))[0]), None),
        (lambda: lk.rotation(4, method="householder"), None),
        (lambda: lk.rotation(4, method="householder", context_features=2), torch.ones(2, 2)),
        (lambda: lk.emerging_conv(4), None),
        (lambda: transforms.Woodbury(4, (4, 4), channel_rank=2, spatial_rank=3), None),
        (lambda: lk.transforms.periodic_conv(4), None),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixing_layers_leave_autocast(build, condition, dtype):
    layer = lk.testing.randomize(build(), scale=0.1)
    x = torch.randn(2, 4, 4, 4).to(dtype)
    z, log_det = layer(x.float(), condition)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, contribution = layer(x, None if condition is None else condition.to(dtype))
        back, _ = layer.inverse(found, condition)
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert found.dtype == back.dtype == contribution.dtype == torch.float32
    assert torch.equal(found, z)
    assert torch.equal(contribution, log_det)
    assert torch.allclose(back, x.float(), atol=1e-4)


# torch.compile itself makes an object of an autograd function, which PyTorch deprecates.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    "build",
    [
        lambda: lk.Conv1x1(4),
        lambda: lk.rotation(4, method="householder"),
        lambda: lk.emerging_conv(4, 3),
        lambda: transforms.Woodbury(4, (3, 3), channel_rank=2, spatial_rank=3),
    ],
)
def test_mixing_layers_compile_without_graph_breaks_and_take_no_rows(build):
    layer = build()
    x = torch.randn(2, 4, 3, 3)
    z, log_det = layer(x)

    @torch.compile(backend="eager", fullgraph=True)
    def both(x):
        z, log_det = layer(x)
        return z, log_det, layer.inverse(z)[0]

    found, contribution, back = both(x)
    assert torch.allclose(found, z, atol=1e-5)
    assert torch.allclose(contribution, log_det, atol=1e-5)
    assert torch.allclose(back, x, atol=1e-4)
    for call in (layer, layer.inverse):
        value, contribution = call(x[:0])
        assert value.shape == (0, 4, 3, 3)
        assert contribution.shape == (0,)
