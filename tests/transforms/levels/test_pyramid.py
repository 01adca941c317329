"""The pyramid: probabilities of all images, round trips, draws."""

import copy
import itertools
import math
import threading

import pytest
import safetensors.torch
import torch

import likelify as lk
from likelify import distributions, nets, transforms, zoo
from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError
from likelify.testing import randomize
from likelify.transforms import LevelPyramid
from likelify.transforms.levels.mixture import _plain_log_mass, as_levels, log_mass, probability_below
from likelify.transforms.levels.planes import image_sizes, planes_at, served_by, written_places

# Shape and levels of images that are few enough to go through all of them.
TINY = {(1, 2, 3): 3, (3, 1, 2): 3, (2, 2, 2): 2, (1, 3, 3): 2, (2, 1, 1): 17}
SHAPES = {(1, 1, 1): 2, (1, 5, 7): 16, (4, 9, 3): 2**16, (1, 1, 6): 3, (2, 6, 1): 4000, (3, 4, 4): 256}


def pyramid(shape, levels, dtype=torch.float64, scale=0.5, **settings):
    torch.manual_seed(0)
    flow = zoo.build("pyramid", event_shape=shape, pixel_levels=levels, width=6, head=4, **settings)
    return randomize(flow.to(dtype), scale=scale)


def every(shape, levels):
    return torch.tensor(list(itertools.product(range(levels), repeat=math.prod(shape)))).reshape(-1, *shape)


@pytest.mark.parametrize("networks", ["per-level", "shared"])
@pytest.mark.parametrize("classes", [None, 2])
@pytest.mark.parametrize("shape", TINY, ids=str)
@torch.no_grad()
def test_the_probabilities_of_all_images_sum_to_one(shape, classes, networks):
    settings = {"classes": classes, "aligned": classes is None, "networks": networks}
    flow, x = pyramid(shape, TINY[shape], **settings), every(shape, TINY[shape])
    labels = None if classes is None else torch.ones(len(x), dtype=torch.long)
    assert flow.likelihood == "exact"
    assert abs(float(flow.log_prob(x, labels).exp().sum()) - 1) < 1e-12


@pytest.mark.parametrize("networks", ["per-level", "shared"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_round_trips_are_exact(shape, dtype, networks):
    flow = pyramid(shape, SHAPES[shape], dtype, scale=0.2, networks=networks)
    x = torch.randint(SHAPES[shape], (16, *shape))
    x[0], x[1] = 0, SHAPES[shape] - 1
    z, contribution = flow.transform(x)
    back, undone = flow.transform.inverse(z)
    assert z.dtype == contribution.dtype == back.dtype == dtype
    assert torch.equal(back.long(), x)
    assert torch.allclose(undone, -contribution, rtol=0, atol=1e-4 if dtype == torch.float32 else 1e-9)
    assert torch.equal(flow.transform.mean_inverse(z), back)
    assert torch.equal(flow.from_noise(flow.to_noise(x)).long(), x)


@torch.no_grad()
def test_draws_come_as_often_as_their_probabilities_say():
    flow, x = pyramid((1, 2, 3), 2), every((1, 2, 3), 2)
    torch.manual_seed(1)
    count = 20_000
    drawn, log_prob = flow.sample_and_log_prob((count,))
    assert torch.allclose(log_prob, flow.log_prob(drawn), rtol=0, atol=1e-9)
    place = (drawn.flatten(1).long() * 2 ** torch.arange(5, -1, -1)).sum(1)
    expected = count * flow.log_prob(x).exp()
    common = expected > 5
    found = torch.bincount(place, minlength=len(x)).double()
    chi_square = float(((found - expected)[common] ** 2 / expected[common]).sum())
    freedom = int(common.sum()) - 1
    assert freedom > 20
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


def test_every_element_is_written_once():
    places = written_places((2, 5, 6), 3, torch.device("cpu"))
    real = places[places < 180]
    assert torch.equal(real.sort().values, torch.arange(180))
    assert image_sizes(5, 6) == [(1, 1), (2, 2), (3, 3), (5, 6)]
    assert [planes_at(*size) for size in [(1, 1), (1, 2), (2, 1), (2, 2)]] == [
        [],
        [(0, 1)],
        [(1, 0)],
        [(1, 1), (0, 1), (1, 0)],
    ]


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (3, 1), (2, 3), (5, 2), (8, 8), (6, 97)], ids=str)
def test_networks_write_each_plane_once_and_in_order(size):
    sizes = image_sizes(*size)
    counts = []
    for shared in (False, True):
        networks = served_by(sizes, shared=shared)
        for level in range(1, len(sizes)):
            there = [each for each in networks if level in each.levels]
            assert [each.place for each in there] == planes_at(*sizes[level])
            assert [each.known for each in there] == [
                ((0, 0), *planes_at(*sizes[level])[:number]) for number in range(len(there))
            ]
        counts.append(sum(len(each.levels) for each in networks))
        assert len({(each.known, each.place) for each in networks}) == len(networks) or not shared
    assert counts[0] == counts[1] == len(served_by(sizes, shared=False))


def test_shared_networks_have_their_weights_once_and_a_start_of_each_level():
    torch.manual_seed(0)
    sizes = {"width": 6, "head": 4, "components": 3}
    flow, own = (zoo.build("pyramid", event_shape=(2, 8, 8), networks=n, **sizes) for n in ("shared", "per-level"))
    layer = flow.transform
    assert [net.levels for net in layer.nets] == [3, 3, 3]
    assert len(own.transform.nets) == 9
    state = flow.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    assert sum(tensor.numel() for tensor in state.values()) == sum(p.numel() for p in flow.parameters())
    # What levels have of their own: a kernel of predictions, links, biases of the heads, a shift.
    starts = sum(2 * 2 * len(net.known) * 9 + 4 + 2 * 11 + 6 for net in layer.nets)
    trunks = sum(p.numel() for net in own.transform.nets[:3] for p in net.parameters()) - starts + 3 * 6
    top = sum(p.numel() for p in layer.top.parameters())
    assert sum(p.numel() for p in flow.parameters()) == top + trunks + 3 * starts
    twin = zoo.build("pyramid", event_shape=(2, 8, 8), networks="shared", **sizes)
    x = torch.randint(256, (40, 2, 8, 8))
    flow.initialize(x)
    # It refuses tensors that share memory.
    saved = safetensors.torch.save({name: tensor.contiguous() for name, tensor in flow.state_dict().items()})
    twin.load_state_dict(safetensors.torch.load(saved))
    copied = copy.deepcopy(flow)
    assert torch.equal(twin.log_prob(x), flow.log_prob(x))
    assert torch.equal(copied.log_prob(x), flow.log_prob(x))
    with torch.no_grad():
        copied.transform.nets[0].enter.weight.add_(1)
    assert torch.equal(twin.log_prob(x), flow.log_prob(x))


@pytest.mark.parametrize("aligned", [False, True])
@torch.no_grad()
def test_shared_networks_do_what_copies_of_them_on_each_level_do(aligned):
    shared = pyramid((2, 5, 6), 8, networks="shared", aligned=aligned)
    # Of the networks of one level only aligned ones have a shift.
    own = pyramid((2, 5, 6), 8, networks="per-level", aligned=True)
    own.transform.top.load_state_dict(shared.transform.top.state_dict())
    for net, served in zip(own.transform.nets, own.transform._served, strict=True):
        (level,) = served.levels
        source = next(
            (net, each.levels.index(level))
            for net, each in zip(shared.transform.nets, shared.transform._served, strict=True)
            if (each.known, each.place) == (served.known, served.place)
        )
        give(*source, net)
    x = torch.randint(8, (4, 2, 5, 6))
    assert torch.allclose(own.log_prob(x), shared.log_prob(x), rtol=0, atol=1e-9)


def give(net, number, single):
    """Give the weights of a network on one of its levels to one that serves no other."""
    state = net.state_dict()
    sizes = [height * width for height, width in net.positions]
    of_level = {
        "start": state["start"].split(sizes, 1)[number].expand(single.start.shape),
        "links": state["links"][number : number + 1],
        "heads.bias": state["heads.bias"][number : number + 1],
        "predict.0.weight": state[f"predict.{number}.weight"],
    }
    rest = {name: tensor for name, tensor in state.items() if not name.startswith("predict.")}
    single.load_state_dict(rest | of_level)


def test_an_element_depends_on_earlier_ones_alone():
    flow = pyramid((2, 5, 6), 8)
    x = torch.randint(8, (1, 2, 5, 6))
    order = written_places((2, 5, 6), 1, torch.device("cpu"))
    order = order[order < x.numel()]
    before = flow.to_noise(x).flatten()
    for step, place in enumerate(order):
        changed = x.flatten().clone()
        changed[place] = (changed[place] + 3) % 8
        moved = (flow.to_noise(changed.view(x.shape)).flatten() != before).nonzero()[:, 0]
        assert place in moved
        assert set(moved.tolist()) <= set(order[step:].tolist())


@pytest.mark.parametrize(("networks", "aligned"), [("per-level", False), ("shared", False), ("shared", True)])
def test_gradients_are_those_of_the_probability(networks, aligned):
    flow = pyramid((3, 3, 4), 5, classes=2, networks=networks, aligned=aligned)
    x = torch.randint(5, (4, 3, 3, 4))
    labels = torch.tensor([0, 1, 1, 0])
    parameters = dict(flow.named_parameters())
    grads = torch.autograd.grad(flow.log_prob(x, labels).sum(), list(parameters.values()))
    for (name, parameter), grad in zip(parameters.items(), grads, strict=True):
        # A single pixel differs from none of its neighbours.
        assert bool((grad != 0).any()) or name == "transform.nets.0.predict.0.weight", name
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            values = []
            for step in (1e-6, -2e-6):
                parameter.add_(step * direction)
                values.append(float(flow.log_prob(x, labels).sum()))
            parameter.add_(1e-6 * direction)
        expected = float((grad * direction).sum())
        assert abs((values[0] - values[1]) / 2e-6 - expected) < 1e-5 * (1 + abs(expected)), name


@pytest.mark.parametrize("networks", ["per-level", "shared"])
@torch.no_grad()
def test_it_starts_from_what_a_sample_has_in_closed_form(networks):
    torch.manual_seed(0)
    # Smooth, with colours that follow one another.
    walk = torch.randn(60, 1, 8, 9).cumsum(2).cumsum(3)
    x = (128 + 8 * torch.cat([walk, walk + 0.3 * torch.randn(60, 1, 8, 9)], 1)).round().clamp(0, 255).long()
    flow = zoo.build("pyramid", event_shape=(2, 8, 9), width=6, head=4, networks=networks)
    before = float(flow.log_prob(x[40:]).mean())
    flow.initialize(x[:40])
    assert float(flow.log_prob(x[40:]).mean()) > before + 30
    net = flow.transform.nets[-1]
    known, deviation = torch.randn(2, 5), torch.zeros(2, 5)
    deviation[0] = 1
    assert torch.allclose(net.centres(known, deviation, net.levels - 1)[1] - known[1], torch.ones(5), atol=0.2)
    with pytest.raises(lk.errors.ShapeError, match="empty sample"):
        flow.initialize(x[:0])
    assert flow.log_prob(x[:0]).shape == (0,)
    assert flow.sample((0,)).shape == (0, 2, 8, 9)


@pytest.mark.parametrize("value", [0, 7, 255])
@torch.no_grad()
def test_a_sample_that_is_all_alike_leaves_it_finite(value):
    flow = zoo.build("pyramid", event_shape=(3, 5, 4), width=6, head=4, classes=2)
    x = torch.full((4, 3, 5, 4), value)
    labels = torch.tensor([0, 1, 0, 1])
    flow.initialize(x, labels)
    assert bool(flow.log_prob(x, labels).isfinite().all())
    assert bool(flow.log_prob(255 - x, labels).isfinite().all())


def test_what_it_refuses():
    flow = pyramid((1, 2, 2), 4, torch.float32)
    for bad in (torch.full((1, 1, 2, 2), 4), torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), -1)):
        with pytest.raises(DomainError, match=r"the integers 0\.\.3"):
            flow.log_prob(bad)
    with pytest.raises(UnsupportedError, match=r"nets\.PlaneNet, not Linear"):
        LevelPyramid((1, 2, 2), 4, lambda *where: torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="levels of LevelPyramid"):
        LevelPyramid((1, 2, 2), 1, lambda known, place, sizes: nets.PlaneNet(1, known, place, 17))
    with pytest.raises(ConfigError, match=r"made for 1 levels.*serves 2: give nets\.PlaneNet levels=len\(sizes\)"):
        LevelPyramid((1, 3, 3), 4, lambda known, place, sizes: nets.PlaneNet(1, known, place, 17), shared=True)
    kept = {}
    with pytest.raises(ConfigError, match=r"the same network more than once. With shared=True"):
        LevelPyramid(
            (1, 4, 4), 4, lambda known, place, sizes: kept.setdefault(place, nets.PlaneNet(1, known, place, 17))
        )
    for wrong, what in (
        (lambda known, place, sizes: nets.PlaneNet(3, known, place, 17), "channels=3"),
        (lambda known, place, sizes: nets.PlaneNet(1, [], place, 17), r"known=\[\]"),
        (lambda known, place, sizes: nets.PlaneNet(1, known, (0, 0), 17), r"place=\(0, 0\)"),
        (lambda known, place, sizes: nets.PlaneNet(1, known, place, 17, positions=[(5, 5)]), r"positions=\[\(5, 5\)\]"),
    ):
        with pytest.raises(ConfigError, match=f"has {what}; the factory was asked for"):
            LevelPyramid((1, 2, 2), 4, wrong)
    with pytest.raises(ConfigError, match="for 2 levels needs the size of its plane on each, got 1"):
        nets.PlaneNet(1, [(0, 0)], (1, 1), 17, levels=2, positions=[(1, 1)])
    assert lk.Flow(lk.Normal((1, 2, 2)), flow.transform).event_shape == (1, 2, 2)


@torch.no_grad()
def test_the_probability_of_each_element_is_one_given_those_before():
    flow = pyramid((2, 2, 3), 3)
    x = torch.randint(3, (5, 2, 2, 3))
    masses = flow.transform.log_masses(x)
    assert torch.allclose(masses.flatten(1).sum(1), flow.log_prob(x), rtol=0, atol=1e-9)
    for place in itertools.product(range(2), range(2), range(3)):
        total = 0.0
        for level in range(3):
            changed = x.clone()
            changed[(..., *place)] = level
            total = total + flow.transform.log_masses(changed)[(..., *place)].exp()
        # Nothing that is written later is read: else these would not be the probabilities of one distribution.
        assert torch.allclose(total, torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-12)


class Whole(transforms.Identity):
    moves_elements, keeps_integers = False, True


BEHIND = {
    "the base Normal": lambda: (lk.Normal((1, 2, 2), trainable=True), []),
    "the base StudentT": lambda: (distributions.StudentT((1, 2, 2)), []),
    "the base Flow": lambda: (lk.Flow(lk.Normal((1, 2, 2)), lk.ActNorm(1)), []),
    "the layer ActNorm": lambda: (lk.Normal((1, 2, 2)), [lk.ActNorm(1)]),
    "the layer Whole": lambda: (lk.Normal((1, 2, 2)), [Whole()]),
    "2 such layers": lambda: (lk.Normal((1, 2, 2)), [pyramid((1, 2, 2), 3, torch.float32).transform]),
}


@pytest.mark.parametrize("name", BEHIND)
def test_nothing_but_a_standard_normal_comes_behind_it(name):
    base, more = BEHIND[name]()
    layers = lk.Chain([pyramid((1, 2, 2), 3, torch.float32).transform, *more])
    with pytest.raises(
        UnsupportedError, match=rf"LevelPyramid gives whole numbers.*its base is lk\.Normal.*This flow has {name}"
    ):
        lk.Flow(base, layers)


def test_it_is_refused_where_its_masses_would_be_something_else():
    flow, base = pyramid((1, 2, 2), 3, torch.float32), lk.Normal((1, 2, 2))
    for wrong in (lk.Inverse(flow.transform), lk.Chain([lk.ActNorm(1), flow.transform])):
        with pytest.raises(UnsupportedError, match="only layers that keep integers"):
            lk.Flow(base, wrong)
    with pytest.raises(UnsupportedError, match="do not keep them whole"):
        lk.Flow(flow, lk.Affine(scale=2.0))
    before = flow.base
    with pytest.raises(UnsupportedError, match="This flow has the base StudentT"):
        flow.base = distributions.StudentT((1, 2, 2))
    assert flow.base is before
    with pytest.raises(UnsupportedError, match="do not add up"):
        distributions.Mixture([flow, base])
    assert distributions.Mixture([flow, flow]).of_integers
    # What moves elements or keeps integers changes no mass.
    assert lk.Flow(flow, transforms.Flip()).likelihood == "exact"


@torch.no_grad()
def test_masses_in_other_orders_and_colours_sum_to_one():
    inner, x = pyramid((3, 1, 1), 4), every((3, 1, 1), 4)
    for layers in ([transforms.Flip(), inner.transform], [inner.transform, transforms.Flip()]):
        flow = lk.Flow(lk.Normal((3, 1, 1)).double(), lk.Chain(layers))
        assert abs(float(flow.log_prob(x).exp().sum()) - 1) < 1e-12
    colours = lk.Chain([lk.Chain([transforms.YCoCgR(4)]), lk.Chain([inner.transform])]).double()
    flow = lk.Flow(lk.Normal((3, 1, 1)).double(), colours)
    assert abs(float(flow.log_prob(x).exp().sum()) - 1) < 1e-12
    assert colours.writes_elements
    assert flow.of_integers
    z, contribution = colours(x)
    assert torch.allclose(flow.log_prob(x), flow.base.log_prob(z) + contribution, rtol=0, atol=1e-9)
    assert torch.allclose(colours.log_masses(x).flatten(1).sum(1), flow.log_prob(x), rtol=0, atol=1e-9)
    assert torch.equal(flow.from_noise(colours.random_latent(x)), x.double())
    assert not lk.Chain([transforms.Flip(), inner.transform]).writes_elements
    with pytest.raises(UnsupportedError, match="no probability of their own in Chain"):
        lk.Chain([transforms.Flip(), inner.transform]).log_masses(x)


def test_a_condition_that_does_not_fit_is_refused():
    layer, x = pyramid((1, 2, 2), 3, classes=2).transform, torch.randint(3, (4, 1, 2, 2))
    for condition in (None, torch.zeros(4, 5).double(), torch.zeros(4).double()):
        with pytest.raises(ShapeError, match=r"condition of shape \(4, 2\)"):
            layer.log_masses(x, condition)
    with pytest.raises(ShapeError):
        layer.log_masses(x, torch.zeros(1, 2).double())


@pytest.mark.parametrize("offset", [0.0, 600.0, -1e5])
@pytest.mark.parametrize("plain", [False, True])
def test_masses_sum_to_one_wherever_logistics_are(offset, plain):
    levels = as_levels(3, 2, "this test")
    raw = torch.tensor([0.5, 0.0, -20, -20, offset, 0.3, 3.0, 0.0], dtype=torch.float64)[:, None].requires_grad_()
    centre = torch.full((1,), 0.1, dtype=torch.float64, requires_grad=True)
    find = _plain_log_mass if plain else log_mass

    def masses(raw, centre):
        return torch.cat([find(levels, raw, centre, torch.full_like(centre, level)) for level in range(3)]).exp()

    found = masses(raw, centre).detach()
    assert abs(float(found.sum()) - 1) < 1e-12
    knots = (torch.full_like(centre, knot) for knot in range(4))
    below = torch.cat([probability_below(levels, raw, centre, knot) for knot in knots]).detach()
    assert torch.allclose(found, below.diff(), rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(masses, (raw, centre))


@torch.no_grad()
def test_random_noise_is_normal_for_draws_and_leads_back():
    flow = pyramid((1, 4, 4), 3)
    torch.manual_seed(1)
    x = flow.sample((2000,))
    noise = flow.transform.random_latent(x)
    assert torch.equal(flow.from_noise(noise), x)
    assert abs(float(noise.mean())) < 5 / math.sqrt(noise.numel())
    assert abs(float(noise.var()) - 1) < 5 * math.sqrt(2 / noise.numel())
    # In the middle of three levels there is less spread.
    assert float(flow.to_noise(x).var()) < 0.97


@torch.no_grad()
def test_its_likelihood_is_the_same_however_it_is_asked_for():
    flow, x, labels = pyramid((2, 5, 4), 9, classes=2), torch.randint(9, (4, 2, 5, 4)), torch.tensor([0, 1, 1, 0])
    expected = flow.log_prob(x, labels)
    # By the noise and its base, which cancel.
    one_hot = flow.encoder(labels)
    z, contribution = flow.transform(x, one_hot)
    assert torch.allclose(flow.base.log_prob(z) + contribution, expected, rtol=0, atol=1e-9)
    turned = lk.Flow(flow.base, lk.Chain([flow.transform, transforms.Flip()]), encoder=flow.encoder)
    assert torch.allclose(turned.log_prob(x, labels), expected, rtol=0, atol=1e-9)
    with flow.frozen():
        assert torch.equal(flow.log_prob(x, labels), expected)
    assert torch.equal(copy.deepcopy(flow).log_prob(x, labels), expected)
    found = []
    workers = [threading.Thread(target=lambda: found.append(flow.log_prob(x, labels))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 3
    assert all(torch.equal(value, expected) for value in found)
    single = flow.float()
    plain = single.log_prob(x, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(single.log_prob(x, labels), plain)
