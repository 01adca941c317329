"""What cannot be converted is refused: everything at once, with the place, the reason and a remedy."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from likelify.distributions import RectifiedNormal
from likelify.errors import UnsupportedError
from likelify.flowification import flowify
from likelify.testing import check_mass
from likelify.zoo import converted_flow


def refuse(net, *shape, match, **options):
    with pytest.raises(UnsupportedError, match=match) as caught:
        flowify(net, torch.randn(3, *shape), **options)
    return str(caught.value)


def sequence(*layers):
    return nn.Sequential(nn.Linear(4, 4), *layers, nn.Linear(4, 4))


class Calls(nn.Module):
    """One call between two linear layers."""

    def __init__(self, call):
        super().__init__()
        self.a, self.b, self.call = nn.Linear(4, 4), nn.Linear(4, 4), call

    def forward(self, x):
        return self.b(self.call(self, self.a(x)))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Softmax(1), "1 .Softmax.: Softmax lands on a simplex.*give the logits"),
        (nn.LayerNorm(4), "1 .LayerNorm.: LayerNorm drops mean and scale.*nn.BatchNorm"),
        (nn.GELU(), "1 .GELU.: GELU is not monotone.*nn.LeakyReLU"),
        (nn.SiLU(), "1 .SiLU.: SiLU is not monotone.*nn.LeakyReLU"),
        (nn.ReLU(), "1: a ReLU sends half of the line to zero.*relu='noisy'.*nn.LeakyReLU"),
        (nn.ELU(), r"1: ELU only reaches \(-1, inf\).*last step"),
        (nn.Tanh(), r"1: Tanh only reaches \(-1, 1\).*last step"),
        (nn.Sigmoid(), r"1: Sigmoid only reaches \(0, 1\)"),
        (nn.Softplus(), r"1: Softplus only reaches \(0, inf\)"),
        (nn.Hardtanh(), "1 .Hardtanh.: Hardtanh is flat"),
        (nn.LeakyReLU(0.0), "1 .LeakyReLU.: has slope 0.0"),
        (nn.BatchNorm1d(4, track_running_stats=False), "1 .BatchNorm1d.: normalizes by the statistics of the batch"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_layers(layer, reason):
    refuse(sequence(layer), 4, match=reason)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda self, x: F.softmax(x, 1), "softmax .call.: softmax lands on a simplex"),
        (lambda self, x: F.gelu(x), "gelu is not monotone"),
        (lambda self, x: x * torch.sigmoid(x), "mul .call.: mul multiplies two things that depend on the input"),
        (lambda self, x: x.clamp(0, 1), "clamp .call.: clamp is flat"),
        (lambda self, x: x**2, "pow is not monotone"),
        (lambda self, x: 1 / x, "divides by the data"),
        (lambda self, x: 0 * x, "multiplies by 0.0, which forgets"),
        (lambda self, x: x - x, "multiplies by 0"),
        (lambda self, x: F.dropout(x), "drops values in evaluation too"),
        (lambda self, x: x.view(-1)[:4].view(1, 4).expand(x.shape[0], 4), "mixes the 3 rows"),
        (lambda self, x: x - x.mean(0), "mean: mixes the 3 rows"),
        (lambda self, x: x - x.mean(1, keepdim=True), "adds events of different shapes"),
        (lambda self, x: x.transpose(0, 1).contiguous().transpose(0, 1), "mixes the 3 rows|away from axis 0"),
        (lambda self, x: x if x.sum() > 0 else -x, "forward: cannot be traced.*branches and loops"),
        (lambda self, x: x * int(x.sum()), "forward: cannot be traced.*a value that depends on data"),
        (lambda self, x: x.reshape(len(x), 4), "forward: cannot be traced.*the number of rows"),
        (lambda self, x: x.reshape(int(x.shape[0]), 4), "forward: cannot be traced.*the number of rows"),
        (lambda self, x: x if x.shape[0] > 3 else -x, "forward: cannot be traced.*the number of rows"),
        (lambda self, x: x + x.max().item(), "Python float|mixes the 3 rows"),
        (lambda self, x: torch.logit(x), "there is no rule for logit. Write one: @flowification.rule"),
        (lambda self, x: self.a(x), "a, a#2: share the weights a.weight, a.bias.*copy.deepcopy.*shared='copy'"),
    ],
)
def test_calls(call, reason):
    refuse(Calls(call), 4, match=reason)


def test_gates():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Bilinear(4, 4, 4)

        def forward(self, x):
            return self.gate(x, x)

    refuse(Gate(), 4, match=r"gate \(Bilinear\): Bilinear multiplies two things")
    refuse(nn.LSTM(4, 4, batch_first=True), 5, 4, match="gives a tuple")


def test_attention():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            return x + self.mix(x, x, x)[0]

    refuse(Attention(), 5, 4, match=r"mix \(MultiheadAttention\): MultiheadAttention mixes positions.*a mixer")
    refuse(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 5, 4, match="TransformerEncoderLayer mixes positions")

    class ByHand(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return torch.softmax(self.q(x) @ self.k(x).transpose(1, 2), -1) @ self.v(x)

    text = refuse(ByHand(), 5, 4, match="not series-parallel|multiplies two things")
    assert "softmax lands on a simplex" in text
    assert text.count("matmul multiplies two things") == 2


@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.Conv1d(2, 3, 2), nn.ConvTranspose1d(2, 3, 2)])
def test_rank_deficient_weights(layer):
    with torch.no_grad():
        layer.weight[1] = 2 * layer.weight[0]
        if isinstance(layer, nn.Conv1d):
            layer.weight[2] = 0
    shape = (4,) if isinstance(layer, nn.Linear) else (2, 4)
    text = refuse(nn.Sequential(nn.LeakyReLU(), layer), *shape, match="has rank .*dead or duplicate units")
    assert f"1 ({type(layer).__name__})" in text
    assert "smallest singular value" in text


@pytest.mark.parametrize("padding", [1, "same"])
def test_padding_that_repeats_the_image(padding):
    refuse(nn.Conv2d(1, 2, 3, padding=padding, padding_mode="circular"), 1, 4, 4, match="padding_mode='circular'")
    flowify(nn.Conv2d(1, 2, 3, padding_mode="circular"), torch.randn(2, 1, 4, 4))


def test_graphs_that_are_not_series_parallel():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(3, 3) for _ in range(4))

        def forward(self, x):
            p, q = self.a(x), self.b(x)
            return self.c(p) + self.d(p + q) + q

    text = refuse(Crossed(), 3, match=r"from 'input' to 'add#3' are not series-parallel.*pass 'b', 'a' and part")
    assert "nested like those of residual blocks or of a U-Net" in text


def test_everything_is_reported_at_once():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"),
        nn.GELU(),
        nn.GroupNorm(1, 2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Flatten(),
        nn.Tanh(),
        nn.Linear(32, 3),
        nn.Softmax(1),
    )
    text = refuse(net, 1, 2, 2, match="because of 6 constructs")
    for place in ("0 (Conv2d)", "1 (GELU)", "2 (GroupNorm)", "3 (Upsample)", "5: Tanh", "7 (Softmax)"):
        assert place in text


def test_without_a_graph_the_layers_are_still_looked_at():
    class Hopeless(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(4)

        def forward(self, x):
            return self.norm(x) if bool(x.min() > 0) else x

    text = refuse(Hopeless(), 4, match="forward: cannot be traced")
    assert "norm (LayerNorm)" in text


def test_inputs_and_outputs():
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    refuse(Two(), 3, match="gives a tuple; return one tensor")

    class Optional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x, mask=None):
            return self.layer(x if mask is None else x * mask)

    assert flowify(Optional(), torch.randn(2, 3)).likelihood == "exact"

    class Fixed(nn.Module):
        def forward(self, x):
            return x.view(3, 2, 2)

    refuse(Fixed(), 4, match="forward: works on 3 rows and fails on 4")
    refuse(nn.Identity(), 3, match="does nothing to its input")

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Parameter(torch.ones(3, 2))

        def forward(self, x):
            return self.value

    refuse(Constant(), 3, match="does not depend on the input|drops them")


def test_changes_in_place_that_are_read_again_are_found_out():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            y = self.layer(x)
            z = F.leaky_relu(y, 0.2, inplace=True)
            return z + 0.5 * y

    refuse(InPlace(), 3, match="mul: reads again what 'leaky_relu' has changed in place.*inplace=False")


def test_settings_in_the_call_of_a_layer():
    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose1d(2, 2, 3, stride=2)

        def forward(self, x):
            return self.up(x, [8])

    refuse(Sized(), 2, 3, match="up: is called with more than its input")


def test_shared_weights_can_be_copied():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.act = nn.Linear(3, 3), nn.LeakyReLU(0.1)

        def forward(self, x):
            return self.act(self.layer(self.act(self.layer(x))))

    net, x = Twice(), torch.randn(2, 3)
    refuse(net, 3, match="layer, layer#2: share the weights layer.weight, layer.bias")
    torch.testing.assert_close(flowify(net, x, shared="copy").mean_forward(x), net(x))
    tied = nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU(), nn.Linear(3, 3))
    tied[2].weight = tied[0].weight
    refuse(tied, 3, match="0, 2: share the weights 0.weight")


@pytest.mark.parametrize(
    ("last", "place"),
    [
        (nn.Sigmoid(), "(0, 1)"),
        (nn.Tanh(), "(-1, 1)"),
        (nn.Softplus(), "(0, inf)"),
        (nn.ELU(0.5), "(-0.5, inf)"),
        (nn.SELU(), "(-1.7581, inf)"),
        (nn.ReLU(), "[0, inf)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_bounded_activations_may_come_last(last, place):
    net, x = nn.Sequential(nn.Linear(4, 4), last, nn.Flatten()), torch.randn(6, 4)
    flow = converted_flow(net, x)
    assert flow.transform.conversion.latent_range.startswith(place[:4])
    assert "give it such a base" in str(flow.transform.conversion)
    assert isinstance(flow.base, RectifiedNormal) == isinstance(last, nn.ReLU)
    torch.testing.assert_close(flow.transform.mean_forward(x), net(x))
    assert flow.log_prob(flow.sample((3,))).shape == (3,)


def test_absolute_values_may_come_last():
    class Absolute(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(x).abs()

    flow = converted_flow(Absolute(), torch.randn(3, 2))
    assert flow.likelihood == "exact"
    reach = 1.5 * float(flow.sample((2000,)).abs().max())
    check_mass(flow, -reach, reach, 400, tol=2e-2)


def test_relu_with_noise():
    net, x = sequence(nn.ReLU()), torch.randn(3, 4)
    layer = flowify(net, x, relu="noisy")
    torch.testing.assert_close(layer.mean_forward(x), net(x))
    assert layer.likelihood == "bound"


class Any(nn.Module):
    def forward(self, *xs):
        return xs[0]


class Weighed(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(2))

    def forward(self, x):
        return torch.einsum("bi,oi->bo", x, self.weight)


class Chosen(nn.Module):
    def forward(self, x):
        return torch.where(x > 0, x, 0.1 * x)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda x: x, "takes an nn.Module, as it was before torch.jit, and got a function"),
        (Any(), r"any number of inputs \(\*args\)"),
        (Weighed(), "there is no rule for einsum"),
        (Chosen(), "where chooses by the values of its input"),
    ],
)
def test_what_cannot_be_looked_into_is_refused_in_words(module, message):
    with pytest.raises(UnsupportedError, match=message):
        flowify(module, torch.randn(3, 2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripts_are_refused_in_words():
    with pytest.raises(UnsupportedError, match="as it was before torch.jit, and got a RecursiveScriptModule"):
        flowify(torch.jit.script(nn.LeakyReLU()), torch.randn(3, 2))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_are_computed_in_the_old_way_are_named():
    module = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(2, 2)))
    module(torch.randn(3, 2))
    with pytest.raises(UnsupportedError, match="remove_weight_norm"):
        flowify(module, torch.randn(3, 2))


def test_functional_forms_in_place_are_those_of_modules():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2)

        def forward(self, x):
            x = torch.negative(torch.subtract(F.leaky_relu_(self.a(x), 0.2), 1.0))
            return F.elu_(torch.divide(x, 2.0).multiply(3.0))

    net, x = Net().double(), torch.randn(4, 2, dtype=torch.float64)
    layer = flowify(net, x)
    torch.testing.assert_close(layer.mean_forward(x), net(x))


def test_a_selection_counts_from_the_end():
    class Last(nn.Module):
        def forward(self, x):
            return x.narrow(1, -1, 1)

    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(flowify(Last(), x).mean_forward(x), x[:, 2:])
