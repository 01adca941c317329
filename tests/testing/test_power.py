"""The laws see faults: layers and maps that are wrong in one way each, and right ones that look unusual."""

import math
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import likelify as lk
from likelify import testing
from likelify.errors import LikelifyError
from likelify.structure import as_context, sum_items
from likelify.support import Interval
from likelify.testing.law import close

D = torch.float64


class Good(lk.Transform):
    """A right layer: `z = exp(a) x + b`."""

    def __init__(self, size=3):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(size))

    def forward(self, x, context=None):
        return x * self.a.exp() + self.b, sum_items(self.a.expand_as(x), context)

    def inverse(self, z, context=None):
        return (z - self.b) * (-self.a).exp(), -sum_items(self.a.expand_as(z), context)


class Wrapped(Good):
    """The right layer with results changed by a function of each direction."""

    def after(self, value, contribution, sign):
        return value, contribution

    def forward(self, x, context=None):
        return self.after(*super().forward(x, context), 1)

    def inverse(self, z, context=None):
        return self.after(*super().inverse(z, context), -1)


class Constant(Wrapped):
    def after(self, value, contribution, sign):
        return value, contribution + sign * 1e-6


class Sign(Wrapped):
    def after(self, value, contribution, sign):
        return value, -contribution


class OnlyWhenTraining(Wrapped):
    def after(self, value, contribution, sign):
        return value, contribution if self.training else 0 * contribution


class InverseOnlyWhenTraining(Wrapped):
    def after(self, value, contribution, sign):
        return (value if sign > 0 or self.training else 0 * value), contribution


class WrongWhileFrozen(Wrapped):
    on = False

    @contextmanager
    def frozen(self):
        self.on = True
        try:
            yield
        finally:
            self.on = False

    def after(self, value, contribution, sign):
        return value, contribution + sign * self.on


class OneForAll(Wrapped):
    def after(self, value, contribution, sign):
        return value, contribution if sign > 0 else contribution[:1]


class Float32(Wrapped):
    def after(self, value, contribution, sign):
        return value.float().double(), contribution


class ReadsTheBatch(Good):
    def forward(self, x, context=None):
        z, contribution = super().forward(x, context)
        return z - 1e-3 * z.mean(0), contribution


class StartsByItself(Good):
    def __init__(self):
        super().__init__()
        self.register_buffer("done", torch.tensor(False))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x, context=None):
        if not self.done:
            self.mean.copy_(x.detach().mean(0))
            self.done.fill_(True)
        return super().forward(x - self.mean, context)

    def inverse(self, z, context=None):
        x, contribution = super().inverse(z, context)
        return x + self.mean, contribution


class RemembersItsInput(Good):
    def forward(self, x, context=None):
        self.last = x
        return super().forward(x, context)

    def inverse(self, z, context=None):
        return self.last, super().inverse(z, context)[1]


class ChangesItsInput(Good):
    def forward(self, x, context=None):
        found = super().forward(x, context)
        with torch.no_grad():
            x.mul_(1.5)
        return found


class CutOff(Good):
    """Part of the value is cut off from autograd, and from the log-determinant with it."""

    def forward(self, x, context=None):
        z, contribution = super().forward(x, context)
        return z + 0.3 * x.tanh().detach(), contribution

    def inverse(self, z, context=None):
        x = super().inverse(z, context)[0]
        for _ in range(80):
            x = super().inverse(z - 0.3 * x.tanh(), context)[0]
        return x, super().inverse(z, context)[1]


class CutOffContribution(Wrapped):
    def after(self, value, contribution, sign):
        return value, contribution.detach()


class WrongTwice(Good):
    """Right first derivatives whose own derivatives are lost."""

    def forward(self, x, context=None):
        z, contribution = super().forward(x, context)
        return z, contribution + 0 * x.flatten(1).sum(1)

    def inverse(self, z, context=None):
        return _Once.apply(z, self.a, self.b), -sum_items(self.a.expand_as(z), context)


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, a, b):
        ctx.save_for_backward(z, a, b)
        return (z - b) * (-a).exp()

    @staticmethod
    def backward(ctx, g):
        z, a, b = (tensor.detach() for tensor in ctx.saved_tensors)
        scale = (-a).exp()
        return g * scale, (-g * (z - b) * scale).sum(0), (-g * scale).sum(0)


class NoRows(Good):
    def forward(self, x, context=None):
        z, contribution = super().forward(x, context)
        return z + 0 * z.detach().mean(0) * self.a, contribution


class OneDraw(lk.Transform):
    """Noise that all rows of a batch share."""

    random_forward = True

    def forward(self, x, context=None):
        return x + torch.rand(x.shape[1:], dtype=x.dtype), x.new_zeros(len(x))

    def inverse(self, z, context=None):
        return z, z.new_zeros(len(z))


class NoFloor(lk.Transform):
    """A dequantization whose inverse forgets to round down."""

    random_forward = takes_integers = takes_float64 = True

    def forward(self, x, context=None):
        z = x.double() + torch.rand(x.shape, dtype=D)
        return z, z.new_zeros(len(x))

    def inverse(self, z, context=None):
        return z, z.new_zeros(len(z))


class LeavesItsImage(Good):
    image = Interval(0.0, 1.0)


class LeavesItsDomain(Good):
    domain = Interval(0.0, 1.0)


class NormalizesTheCondition(Good):
    reads_condition = True

    def forward(self, x, context=None):
        with torch.no_grad():
            as_context(context).condition.mul_(0.5)
        return super().forward(x, context)


def rows():
    return torch.randn(4, 3, dtype=D)


@pytest.mark.parametrize(
    ("layer", "law", "said"),
    [
        (Constant, testing.check_transform, "log-determinant: off by 1e-06"),
        (Sign, testing.check_transform, "log-determinant"),
        (OnlyWhenTraining, testing.check_transform, "train.. and eval.*contribution of forward"),
        (InverseOnlyWhenTraining, testing.check_transform, "inverse of InverseOnlyWhenTraining cannot be trusted"),
        (WrongWhileFrozen, testing.check_transform, "frozen.. = not frozen: contribution of forward"),
        (OneForAll, testing.check_transform, r"shape \(1,\), not \(4,\)"),
        (Float32, testing.check_transform, "round trip"),
        (StartsByItself, testing.check_transform, "independence of an earlier call: value of forward"),
        (RemembersItsInput, testing.check_transform, "."),
        (ChangesItsInput, testing.check_transform, "the input was modified"),
        (CutOff, testing.check_transform, "Jacobian of autograd = that of differences"),
        (LeavesItsImage, testing.check_transform, r"the latent leaves \(0, 1\)"),
        (LeavesItsDomain, testing.check_transform, r"the data leaves \(0, 1\)"),
        (ReadsTheBatch, testing.check_rows, "value of a batch of 4 = item by item"),
        (OneDraw, testing.check_rows, "forward: 16 items that are alike share one draw"),
        (CutOffContribution, testing.check_gradients, "forward: the gradient by a gives the slope"),
        (WrongTwice, testing.check_second_order, "inverse: the second derivative by"),
        (NoRows, testing.check_no_rows, "forward of no rows: the gradient of a is not zero"),
    ],
)
def test_the_laws_of_layers_see_faults(layer, law, said):
    faulty = testing.randomize(layer().double())
    # What an inverse says of itself is a law as well.
    with pytest.raises((AssertionError, RuntimeError, LikelifyError), match=said):
        law(faulty, rows())


@pytest.mark.parametrize("layer", [Constant, ReadsTheBatch, CutOffContribution, WrongTwice, NoRows])
def test_all_laws_at_once_see_what_one_does_not(layer):
    with pytest.raises((AssertionError, RuntimeError, LikelifyError)):
        testing.check_layer(testing.randomize(layer().double()), rows())


def test_a_condition_that_is_changed_is_seen():
    layer = testing.randomize(NormalizesTheCondition().double())
    with pytest.raises(AssertionError, match="the condition was modified"):
        testing.check_transform(layer, rows(), torch.randn(4, 2, dtype=D))


def test_an_inverse_that_does_not_round_is_seen():
    with pytest.raises(AssertionError, match="round trip"):
        testing.check_transform(NoFloor(), torch.randint(4, (4, 3)))


def test_a_total_that_graphs_share_is_seen():
    graphs = lk.Context(structure=lk.GraphBatch.complete([2, 3]))

    class Shared(Good):
        def forward(self, x, context=None):
            z, contribution = super().forward(x, context)
            return z, contribution.mean().expand(len(contribution))

        def inverse(self, z, context=None):
            x, contribution = super().inverse(z, context)
            return x, contribution.mean().expand(len(contribution))

    with pytest.raises(AssertionError, match="log-determinant"):
        testing.check_transform(testing.randomize(Shared().double()), torch.randn(5, 3, dtype=D), graphs)


class Unsaved(Good):
    def __init__(self, *, persistent):
        super().__init__()
        self.register_buffer("scale", torch.ones(3), persistent=persistent)

    def initialize(self, x, context=None):
        self.scale.copy_(x.std(0))
        return self(x, context)[0]

    def forward(self, x, context=None):
        z, contribution = super().forward(x / self.scale, context)
        return z, contribution - self.scale.log().sum()

    def inverse(self, z, context=None):
        x, contribution = super().inverse(z, context)
        return x * self.scale, contribution + self.scale.log().sum()


@pytest.mark.parametrize("persistent", [True, False])
def test_what_is_not_saved_is_seen(persistent):
    x = rows()
    layer = testing.randomize(Unsaved(persistent=persistent).double())
    layer.initialize(x)
    testing.check_layer(layer, x)
    if persistent:
        testing.check_saving(lambda: Unsaved(persistent=persistent), layer, x)
        return
    with pytest.raises(AssertionError, match="the layer that loaded its state: value of forward"):
        testing.check_saving(lambda: Unsaved(persistent=persistent), layer, x)


def test_a_right_layer_passes_all_laws_at_once_and_keeps_the_gradients_it_holds():
    layer = testing.randomize(Good().double())
    layer.a.grad = torch.ones_like(layer.a)
    assert testing.check_layer(layer, rows()) == []
    assert bool((layer.a.grad == 1).all())
    large = testing.randomize(lk.ActNorm(3).double())
    assert testing.check_forward_mode(large, 5e4 + 1e4 * rows()) == []
    roulette = testing.randomize(lk.LipschitzResidual(lk.nets.LipschitzMLP(3, (8,))).double())
    testing.check_rows(roulette, rows())
    integers = torch.randint(4, (4, 2, 4, 4))
    testing.check_transform(lk.Squeeze(), integers)
    testing.check_no_rows(lk.Squeeze(), integers)
    testing.check_threads(lk.Squeeze(), integers)


@dataclass(frozen=True)
class Scaled(lk.linalg.LinearMap):
    """Each row times its own number, with results that may be told wrongly."""

    scale: Tensor
    fault: str = ""

    @property
    def rows(self):
        return len(self.scale)

    def apply(self, x):
        factor = self.scale.reshape(-1, *[1] * (x.ndim - 1))
        return factor * x + (0.1 if self.fault == "not linear" else 0.0)

    def adjoint(self):
        return Scaled(-self.scale if self.fault == "adjoint" else self.scale)

    def trace(self, event_shape):
        return self.scale * (math.prod(event_shape) + (self.fault == "trace"))

    def norm_bound(self, event_shape):
        bound = self.scale.detach().abs()
        return bound**2 if self.fault == "norm" else bound

    def growth_bound(self, event_shape):
        return self.scale.detach().abs() * torch.tensor([0.0, 0.0, 1.0] if self.fault == "growth" else 1.0)


@pytest.mark.parametrize("fault", ["", "not linear", "adjoint", "trace", "norm", "growth"])
def test_the_laws_of_maps_see_faults(fault):
    # The largest row has a right bound, the others have not.
    map_ = Scaled(torch.tensor([0.3, 0.5, 1.2], dtype=D), fault)
    x = torch.randn(3, 2, dtype=D)
    if not fault:
        testing.check_linear_map(map_, x)
        testing.check_exponential(map_, x)
        return
    with pytest.raises(AssertionError, match={"not linear": "linearity"}.get(fault, fault)):
        testing.check_linear_map(map_, x)


def test_bounds_that_are_numbers_of_python_and_functions_of_double_precision_are_right():
    testing.check_linear_map(lk.Function(lambda v: 0.7 * v.roll(1, -1), norm=0.7), torch.randn(3, 4, dtype=D))
    linear = nn.Linear(4, 4, bias=False).double()
    norm = float(torch.linalg.matrix_norm(linear.weight.detach(), 2))
    testing.check_linear_map(lk.Function(linear, norm=norm * (1 + 1e-9)), torch.randn(3, 4, dtype=D))


class Weak(lk.Normal):
    """Its samples are not those of its density."""

    def __init__(self, shape, drawn):
        super().__init__(shape)
        self.drawn = drawn

    def sample(self, *words):
        return self.drawn(super().sample(*words))


def same_for_both(z):
    return z[..., :1].expand_as(z)


def laplace(z):
    uniform = torch.special.ndtr(z) - 0.5
    return -uniform.sign() * torch.log1p(-2 * uniform.abs()) / math.sqrt(2)


@pytest.mark.parametrize("drawn", [same_for_both, laplace])
def test_samples_that_agree_in_the_moments_of_each_axis_alone_are_seen(drawn):
    box = [(-7.0, 7.0), (-7.0, 7.0)]
    testing.check_flow(lk.Flow(lk.Normal((2,)), Good(2)).double(), box=box)
    with pytest.raises(AssertionError, match="characteristic functions differ"):
        testing.check_flow(lk.Flow(Weak((2,), drawn), Good(2)).double(), box=box)


def test_flows_without_parameters_and_of_other_shapes_are_checked():
    flow = lk.Flow(lk.Normal((2, 1, 1)), lk.transforms.Affine(shift=0.5, scale=-2.0))
    testing.check_flow(flow, box=[(-4.0, 4.0), (-4.0, 4.0)], event_shape=(2, 1, 1))


def test_weights_of_a_model_that_is_elsewhere_are_refused():
    values = torch.cartesian_prod(*[torch.arange(4)] * 2)

    def flow(shift):
        layers = [lk.Dequantize(4), lk.transforms.Affine(scale=0.25), lk.Logit()]
        return lk.Flow(lk.Normal((2,)), lk.Chain([*layers, lk.transforms.Affine(shift=shift)]))

    testing.check_weights(flow(0.0), values)
    with pytest.raises(AssertionError, match="overlap by .* only"):
        testing.check_weights(flow(9.0), values)


def test_close_is_of_one_shape_and_of_numbers():
    with pytest.raises(AssertionError, match="shape"):
        close(torch.zeros(3), torch.zeros(1), 1.0, "x")
    with pytest.raises(AssertionError, match="off by nan"):
        close(torch.tensor([math.nan]), torch.zeros(1), 1.0, "x")


class Attends(nn.Module):
    """Four numbers off two, by PyTorch's attention, which adds up in another order in eval()."""

    def __init__(self):
        super().__init__()
        self.mix, self.out = nn.MultiheadAttention(2, 1, batch_first=True), nn.Linear(2, 4)

    def forward(self, x):
        h = x[:, None].repeat(1, 3, 1)
        return self.out(self.mix(h, h, h, need_weights=False)[0][:, 0])


def test_layers_with_attention_pass_and_derivatives_that_pytorch_lacks_are_named():
    split = lk.transforms.ChannelSplit(4)
    layer = lk.Coupling(split, lk.transforms.AffineBijector(), Attends()).double()
    refused = testing.check_layer(layer, torch.randn(5, 4, dtype=D))
    assert any("PyTorch has no such derivative" in line for line in refused)


def test_a_grid_that_is_too_coarse_is_told_from_a_wrong_density():
    flow = lk.Flow(lk.Normal((1,)), lk.Chain([lk.LeakyReLU(0.1)])).double()
    with pytest.raises(AssertionError, match="moved by half a cell to .*: take more points"):
        testing.check_flow(flow, box=[(-45.0, 6.0)], points=60)
    testing.check_flow(flow, box=[(-45.0, 6.0)], points=4000)

    class Half(lk.Normal):
        def log_prob(self, x, context=None):
            return super().log_prob(x, context) - math.log(2)

    with pytest.raises(AssertionError, match="integrates to 0.5\\."):
        testing.check_flow(lk.Flow(Half((1,)), lk.Affine(scale=1.0)).double(), box=[(-9.0, 9.0)])
