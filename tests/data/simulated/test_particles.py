import math

import numpy as np
import pytest
import torch

from likelify.data import energy
from likelify.data.simulated.annealing import Path, bennett, joined
from likelify.data.simulated.chains import Walkers, effective_size, r_hat
from likelify.data.simulated.particles import SYSTEMS, System, centre, double_well
from likelify.errors import DataError

NAMES = list(SYSTEMS)


def nothing(square):
    return 0.0 * square, 0.0 * square


SPRINGS = System(3, 2, nothing, 4.0, 1.0, 0.0, "springs alone")
PAIR = System(2, 2, double_well, 0.0, 2.5, 0.0, "one double well in a plane")


def positions(system, count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((system.particles, system.axes, count)) * system.spread


def test_energies_are_those_of_the_papers():
    """By hand, pair by pair."""
    x = torch.from_numpy(positions(SYSTEMS["dw4"], 1)[..., 0])
    excess = [float((x[i] - x[j]).norm()) - 4 for i in range(4) for j in range(i)]
    assert float(energy("dw4", x)[0]) == pytest.approx(sum(0.9 * e**4 - 4 * e**2 for e in excess), abs=1e-9)
    x = torch.from_numpy(positions(SYSTEMS["lj13"], 1)[..., 0])
    far = [float((x[i] - x[j]).norm()) for i in range(13) for j in range(i)]
    clusters, springs = sum(d**-12 - 2 * d**-6 for d in far), 0.5 * float((x - x.mean(0)).square().sum())
    assert float(energy("lj13", x)[0]) == pytest.approx(2 * clusters + springs, rel=1e-9)
    assert float(energy("lj13-single", x)[0]) == pytest.approx(clusters + springs, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_energy_and_nothing_changes_under_its_symmetries(name):
    system = SYSTEMS[name]
    x = positions(system, 4)
    tensor = torch.from_numpy(x).permute(2, 0, 1).contiguous().requires_grad_()
    value = energy(name, tensor)
    gradient = torch.autograd.grad(value.sum(), tensor)[0]
    found, slope = system.energy(x)
    assert np.allclose(found, value.detach().numpy(), rtol=1e-9)
    assert np.allclose(slope.transpose(2, 0, 1), gradient.numpy(), rtol=1e-7, atol=1e-7)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(system.axes, system.axes)))[0]
    moved = np.einsum("ab,nbc->nac", turn, x[::-1]) + 7.0
    assert np.allclose(system.energy(moved)[0], found, rtol=1e-7)


def test_positions_of_another_shape_are_refused():
    with pytest.raises(DataError, match="4 particles with 2 coordinates each"):
        energy("dw4", torch.zeros(5, 2))
    with pytest.raises(DataError, match="Did you mean 'lj13'"):
        energy("lj31", torch.zeros(13, 3))


def test_chains_draw_from_a_density_that_is_known():
    """Springs alone are a normal distribution of the positions with mean zero, of dimension 4 and variance 1/4."""
    rng = np.random.default_rng(0)
    walkers = Walkers.at(centre(positions(SPRINGS, 400)), SPRINGS.energy, 0.1)
    for _ in range(40):
        walkers.move(SPRINGS.energy, rng, steps=5, adapt=True)
    step, kept = walkers.step, []
    for _ in range(40):
        for _ in range(4):
            walkers.move(SPRINGS.energy, rng, steps=5)
        kept.append(walkers.energy)
    assert walkers.step == step > 0.2
    draws = np.stack(kept, 1)
    assert np.abs(walkers.x.mean(0)).max() < 1e-12
    size = effective_size(draws)
    assert size > 1500
    assert abs(draws.mean() - 2.0) < 4 * draws.std() / math.sqrt(size)
    assert abs(draws.var() - 2.0) < 0.3
    assert r_hat(draws) < 1.02


def test_chains_that_have_not_mixed_are_noticed():
    rng = np.random.default_rng(0)
    free = rng.standard_normal((400, 20))
    assert abs(effective_size(free) / free.size - 1) < 0.2
    assert abs(r_hat(free) - 1) < 0.05
    stuck = free * 0.1 + rng.standard_normal((400, 1))
    assert r_hat(stuck) > 3
    assert r_hat(np.ones((3, 4))) == math.inf
    assert effective_size(stuck) < 800
    walk = np.cumsum(free, 1)
    assert effective_size(walk) < 1600


def plane_integral():
    """Return `ln int exp(-U) dy` of two particles, whose orthonormal coordinate is their difference over sqrt(2)."""
    radius = np.linspace(0, 9, 20001)[1:]
    weight = np.exp(-double_well(2 * radius**2)[0]) * 2 * math.pi * radius
    return math.log(np.trapezoid(weight, radius))


@pytest.mark.parametrize(
    ("system", "exact"), [(SPRINGS, 2 * math.log(2 * math.pi / 4)), (PAIR, plane_integral())], ids=["springs", "pair"]
)
def test_normalizers_are_those_of_integrals(system, exact):
    rng = np.random.default_rng(3)
    path = Path(system, 60, rng, pilots=20)
    walkers, forth = path.forward(rng, 400)
    walkers = Walkers.at(walkers.x, system.energy, path.steps[-1])
    for _ in range(200):
        walkers.move(system.energy, rng, steps=5)
    found = joined(path, forth, path.backward(walkers.x, rng))
    assert 0.002 < found.error < 0.2
    assert abs(found.value - exact) < 4 * found.error
    assert found.lower < exact < found.upper
    assert found.lower < found.value < found.upper


def test_bennetts_ratio_is_exact_for_normal_weights():
    """Works that are normal both ways, as those of a shift of a normal distribution are."""
    rng, spread = np.random.default_rng(0), 1.5
    forth = rng.normal(2.0 - spread**2 / 2, spread, 4000)
    back = rng.normal(-2.0 - spread**2 / 2, spread, 2000)
    assert abs(bennett(forth, back) - 2.0) < 0.1
    assert bennett(forth + 5, back - 5) == pytest.approx(bennett(forth, back) + 5, abs=1e-9)
