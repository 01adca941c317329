"""What looking at inverses must leave as it is: calls, networks that are noisy just now, errors of users, and speed."""

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import nets, transforms
from likelify.errors import ConvergenceError, LikelifyError
from likelify.transforms import unchecked
from likelify.transforms.sessions import SESSION
from tests.transforms.test_inversion import ill_conditioned, noisy


def doubled(x):
    return x * 2, torch.full((len(x),), 0.7)


def halved(z):
    return z / 2, torch.full((len(z),), -0.7)


class Flagged(lk.Transform):
    def forward(self, x, context=None, *, flag=False):
        return doubled(x)

    def inverse(self, z, context=None, *, flag=False):
        x, contribution = halved(z)
        return x + flag, contribution


class OtherName(lk.Transform):
    def forward(self, x, cond=None):
        return doubled(x if cond is None else x + cond)

    def inverse(self, z, cond=None):
        x, contribution = halved(z)
        return x if cond is None else x - cond, contribution


class KeywordOnly(lk.Transform):
    def forward(self, x, *, context=None):
        return doubled(x)

    def inverse(self, z, *, context=None):
        return halved(z)


class WithoutContext(lk.Transform):
    def forward(self, x):
        return doubled(x)

    def inverse(self, z):
        return halved(z)


def test_arguments_are_passed_on_as_the_caller_gave_them():
    z, condition = torch.ones(5, 1), torch.arange(5.0)[:, None]
    assert bool((Flagged().inverse(z, flag=True)[0] == 1.5).all())
    assert bool((Flagged().inverse(z, None, flag=True)[0] == 1.5).all())
    for found in (OtherName().inverse(z, cond=condition), OtherName().inverse(z, condition)):
        assert torch.equal(found[0], 0.5 - condition)
    for layer in (KeywordOnly(), WithoutContext()):
        assert torch.equal(layer.inverse(z)[0], z / 2)
    assert torch.equal(WithoutContext().checked_inverse(z).value, z / 2)
    assert torch.equal(KeywordOnly().inverse(z, context=condition)[0], z / 2)
    with pytest.raises(TypeError):
        WithoutContext().inverse(z, condition)


class WithParts(lk.Transform):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def forward(self, x, context=None):
        return doubled(x)

    def inverse(self, z, context=None):
        return halved(z)


@pytest.mark.parametrize("parts", [3, nn.ModuleList([nn.Linear(1, 1)])], ids=["number", "modules"])
def test_layers_may_have_an_attribute_called_parts(parts):
    layer = WithParts(parts)
    assert lk.Flow(lk.Normal((1,)), layer).sample(4).shape == (4, 1)
    assert lk.Chain([layer, lk.ActNorm(1)]).inverse(torch.ones(2, 1))[0].shape == (2, 1)


def coupling(net):
    return lk.Coupling(lk.ChannelSplit(2), lk.AffineBijector(), noisy(net, 0.3))


def test_dropout_is_no_fault_of_the_inverse():
    flow = lk.Flow(lk.Normal((2,)), lk.Inverse(coupling(nets.MLP(1, 2, (64,), dropout=0.5))))
    with nets.regularized(flow):
        assert bool(flow.log_prob(torch.randn(16, 2)).isfinite().all())
    layer = coupling(nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 2)))
    chain = lk.Chain([layer, lk.ActNorm(2), lk.Conv1x1(2), layer])
    assert lk.Flow(lk.Normal((2,)), chain).sample(7).shape == (7, 2)
    assert chain.mean_inverse(torch.randn(7, 2)).shape == (7, 2)
    assert chain.checked_inverse(torch.randn(7, 2)).value.shape == (7, 2)


def test_networks_that_look_at_the_batch_see_its_rows_alone_and_once():
    layer = coupling(nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)))
    z, norm = torch.randn(6, 2), layer.net[1]
    with unchecked():
        expected, _ = layer.inverse(z)
    for whole in (layer, lk.Chain([layer])):
        norm.reset_running_stats()
        assert torch.equal(whole.inverse(z)[0], expected)
        assert int(norm.num_batches_tracked) == 1
    norm.eval()
    assert torch.allclose(layer.inverse(z)[0], layer.eval().inverse(z)[0])


def test_the_layers_beside_noisy_networks_are_looked_at():
    net = nn.Sequential(nn.Linear(24, 8), nn.Dropout(0.5), nn.Linear(8, 48))
    noisy_layer = lk.Coupling(lk.ChannelSplit(48), lk.AffineBijector(), net)
    chain = lk.Chain([noisy_layer, ill_conditioned(), noisy_layer])
    with pytest.raises(ConvergenceError, match=r"^In layer 2 of 3 \(Conv1x1\)"):
        chain.inverse(torch.randn(8, 48))


class Failing(lk.Transform):
    def __init__(self, error):
        super().__init__()
        self.error, self.calls = error, 0

    def forward(self, x, context=None):
        return doubled(x)

    def inverse(self, z, context=None):
        self.calls += 1
        raise self.error("mine")


def test_only_errors_of_the_library_are_looked_into():
    for error, calls in ((RuntimeError, 1), (KeyboardInterrupt, 1), (LikelifyError, 2)):
        layer = Failing(error)
        with pytest.raises(error, match="mine"):
            lk.Chain([lk.ActNorm(1), layer]).inverse(torch.ones(2, 1))
        assert layer.calls == calls


class Seen(lk.Transform):
    """Keeps how many rows come, and whether anything looks at them."""

    def __init__(self, check):
        super().__init__()
        self.inverse_check, self.rows, self.looked = check, [], []

    def forward(self, x, context=None):
        return doubled(x)

    def inverse(self, z, context=None):
        self.rows.append(len(z))
        self.looked.append(SESSION.get() is not None and not SESSION.get().off)
        return halved(z)


def test_layers_without_a_check_cost_one_sum():
    layer = Seen(None)
    for whole in (layer, lk.Chain([lk.ActNorm(1), layer, transforms.Permute([0])]), lk.Chain([layer, lk.Logit()])):
        whole.inverse(torch.ones(5, 1))
    assert layer.rows == [5, 5, 5]
    assert not any(layer.looked)


def test_small_batches_carry_one_row_along():
    layer = Seen(transforms.InverseCheck("none"))
    for rows in (1, 3, 4, 9):
        layer.inverse(torch.ones(rows, 1))
    assert layer.rows == [2, 4, 6, 11]


def test_sums_beyond_half_precision_are_no_values_that_are_not_finite():
    many = torch.full((4, 2, 200, 200), 3.0, dtype=torch.float16)
    assert torch.equal(lk.ActNorm(2).half().inverse(many)[0], many)


def test_exponentials_with_a_matrix_for_each_row_get_no_more_rows():
    layer = lk.Exponential(lk.Dense(0.1 * torch.randn(3, 2, 2)))
    z = torch.randn(3, 2)
    for whole in (layer, lk.Chain([lk.ActNorm(2), layer, lk.Conv1x1(2)])):
        torch.testing.assert_close(whole(whole.inverse(z)[0])[0], z, atol=1e-4, rtol=1e-4)


def test_a_change_of_basis_is_looked_at_in_evaluation_and_not_in_training():
    calls = []

    class Basis(lk.Affine):
        def inverse(self, z, context=None):
            calls.append(len(z))
            return super().inverse(z, context)

    basis = Basis(scale=2.0)
    basis.inverse_check = transforms.InverseCheck("some rows", unit=0.0)
    layer, x = lk.Conjugate(basis, lk.ActNorm(3)), torch.randn(8, 3)
    layer(x)
    assert calls == [8]
    with torch.no_grad():
        layer(x)
    assert calls[1] > 8
