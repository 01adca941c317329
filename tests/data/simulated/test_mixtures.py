import math
from itertools import permutations

import numpy as np
import pytest
import torch

from likelify.data import SimulatedGraphs, entropy, open_source, true_log_prob
from likelify.data.simulated.mixtures import MIXTURES
from likelify.data.simulated.permanents import log_permanent
from likelify.data.simulated.streams import normals, uniforms
from likelify.errors import DataError

NAMES = list(MIXTURES)


def test_numbers_are_those_of_splitmix64():
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    found = uniforms(1234567, np.array([0, 1]), 2).ravel()
    assert np.allclose(found, np.array(known) / 2.0**64, rtol=0, atol=2.0**-53)
    far = uniforms(2**63 - 1, np.array([2**40]), 3)
    assert far.shape == (1, 3)
    assert far.min() > 0
    assert far.max() < 1


def test_normal_numbers_have_the_moments_of_the_normal_distribution():
    drawn = normals(uniforms(3, np.arange(20_000), 4))
    assert np.abs(drawn.mean(0)).max() < 4 / math.sqrt(20_000)
    assert np.abs(np.cov(drawn.T) - np.eye(4)).max() < 0.05
    assert np.abs((drawn**4).mean(0) - 3).max() < 0.3


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_is_a_function_of_seed_split_and_number(name):
    source = open_source(name)
    assert (source.kind, source.event_shape, source.size("train")) == ("graph", (2,), 4_000_000)
    assert source.facts().graphs.sizes == {MIXTURES[name].nodes: 4_000_000}
    assert source.node_counts("test").tolist() == [MIXTURES[name].nodes] * 4_000
    numbers = torch.tensor([3_999_999, 0, 17])
    batch = source.read("train", numbers)
    nodes = MIXTURES[name].nodes
    assert batch.structure.is_complete
    assert batch.structure.sizes.tolist() == [nodes] * 3
    alone = source.read("train", numbers[2:])
    assert torch.equal(alone.x, batch.x[2 * nodes :])
    assert not torch.equal(source.read("test", torch.arange(3)).x, source.read("train", torch.arange(3)).x)
    other = SimulatedGraphs(name, train=10, seed=1)
    assert not torch.equal(other.read("train", torch.tensor([0])).x, batch.x[nodes : 2 * nodes])
    assert len({source.fingerprint(), other.fingerprint(), SimulatedGraphs(name, train=10).fingerprint()}) == 3


def test_nodes_stand_around_a_centred_grid_in_any_order():
    x = open_source("mog-9").read_all("test").x.reshape(-1, 9, 2).numpy()
    nearest = np.rint(x / 10)
    assert (np.abs(nearest) <= 1).all(), "noise of 5 standard deviations"
    codes = (nearest @ [3, 1] + 4).astype(int)
    assert (np.sort(codes, 1) == np.arange(9)).all()
    counts = np.stack([np.bincount(codes[:, place], minlength=9) for place in range(9)])
    expected = len(x) / 9
    assert ((counts - expected) ** 2 / expected).sum() < 64 + 5 * math.sqrt(2 * 64)
    noise = x - nearest * 10
    assert abs(noise.mean()) < 4 / math.sqrt(noise.size)
    assert abs(noise.var() - 1) < 0.03


def test_rings_are_turned_by_all_angles():
    x = open_source("mog-ring").read_all("test").x.reshape(-1, 4, 2).numpy()
    points = x[..., 0] + 1j * x[..., 1]
    turned = np.angle((points**4).mean(1)) / (2 * math.pi) % 1
    assert abs(np.exp(2j * math.pi * turned).mean()) < 4 / math.sqrt(len(x))
    assert abs(np.abs(points).mean() - 7.14) < 0.05


@pytest.mark.parametrize("name", ["mog-4", "mog-9"])
def test_the_density_of_a_grid_is_a_sum_over_all_assignments(name):
    mixture = MIXTURES[name]
    x = open_source(name).read("test", torch.arange(1)).x.reshape(1, -1, 2)
    x = torch.cat([x, x * 0.3]) if name == "mog-4" else x
    noise = torch.distributions.Normal(torch.tensor(mixture.means), 1.0)
    each = noise.log_prob(x[:, :, None]).sum(-1)
    orders = torch.tensor(list(permutations(range(mixture.nodes))))
    sums = each[:, torch.arange(mixture.nodes), orders].sum(-1)
    expected = sums.logsumexp(1) - math.log(len(orders))
    assert torch.allclose(true_log_prob(name, x), expected, rtol=0, atol=1e-9)


def test_the_density_of_rings_is_the_mean_over_180_angles():
    x = open_source("mog-ring").read("test", torch.arange(20)).x.reshape(20, 4, 2).numpy()
    x = np.concatenate([x, x * 0.2, x + 3])
    found, angles = [], np.arange(180) * (math.pi / 2 / 180)
    for angle in angles:
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        squares = ((x[:, :, None] - MIXTURES["mog-ring"].means @ turn) ** 2).sum(-1)
        found.append(log_permanent(-squares / 2))
    expected = np.logaddexp.reduce(found) - math.log(180 * 24) - 4 * math.log(2 * math.pi)
    assert np.abs(true_log_prob("mog-ring", torch.from_numpy(x)).numpy() - expected).max() < 1e-10


@pytest.mark.parametrize(
    ("name", "known", "near", "graphs"),
    [("mog-4", 3.6324, 5e-5, 4000), ("mog-9", 4.2603, 5e-5, 4000), ("mog-16", 4.7549, 5e-5, 60)]
    + [("mog-ring", 4.0528, 1e-3, 4000)],
)
def test_entropies_are_known_and_are_those_of_the_densities(name, known, near, graphs):
    nodes = MIXTURES[name].nodes
    assert abs(entropy(name) / nodes - known) < near
    batch = open_source(name).read("train", torch.arange(graphs))
    nats = -true_log_prob(name, batch.x, batch.structure.sizes) / nodes
    assert abs(float(nats.mean()) - entropy(name) / nodes) < 4 * float(nats.std()) / math.sqrt(graphs)


def test_faulty_numbers_and_names_are_refused():
    source = open_source("mog-4")
    with pytest.raises(DataError, match=r"has the graphs 0\.\.3999999"):
        source.read("train", torch.tensor([4_000_000]))
    with pytest.raises(DataError, match=r"has the graphs 0\.\.3999"):
        source.read("test", torch.tensor([-1]))
    with pytest.raises(DataError, match="Did you mean 'mog-9'"):
        entropy("mog9")
    with pytest.raises(DataError, match="4 nodes of 2 features each"):
        true_log_prob("mog-4", torch.zeros(9, 2))
    with pytest.raises(DataError, match="4 nodes of 2 features each"):
        true_log_prob("mog-4", torch.zeros(8, 2), torch.tensor([3, 5]))
    with pytest.raises(DataError, match=r"train= .* from 1 to 2.40 - 1, got 0"):
        SimulatedGraphs("mog-4", train=0)
