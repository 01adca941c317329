"""The symmetries: what commutes with a map commutes with its exponential, and what should not, does not."""

import pytest
import torch

import likelify as lk
from likelify.errors import ShapeError
from likelify.linalg.equivariant import PairMap, SetMap, rotate_features, rotation_kernel


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def commutes(map_, x, action):
    """Tell how far acting and exponentiating are from commuting, relative to the result."""
    expected = action(lk.exp_action(map_, x).value)
    return float((lk.exp_action(map_, action(x)).value - expected).norm() / expected.norm())


@pytest.mark.parametrize("padding", ["zeros", "circular", "reflect"])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_p4_convolutions_and_their_exponentials_commute_with_rotations(padding, turns):
    conv = lk.ConvMap(rotation_kernel(0.1 * normal(2, 2, 4, 3, 3)), padding)
    x = normal(2, 8, 4, 5)
    assert torch.allclose(conv.apply(rotate_features(x, turns)), rotate_features(conv.apply(x), turns))
    assert commutes(conv, x, lambda x: rotate_features(x, turns)) < 1e-10
    plain = lk.ConvMap(0.1 * normal(8, 8, 3, 3), padding)
    assert commutes(plain, x, lambda x: rotate_features(x, turns)) > 1e-2


def test_rotating_features_is_the_cyclic_group_of_order_four():
    x = normal(1, 8, 3, 2)
    assert torch.equal(rotate_features(x, 4), x)
    assert torch.equal(rotate_features(rotate_features(x, 1), 2), rotate_features(x, 3))
    assert torch.equal(rotate_features(rotate_features(x, 1), -1), x)


def test_rotation_kernels_are_differentiable_and_need_not_be_square_in_channels():
    weight = normal(3, 2, 4, 3, 3).requires_grad_()
    kernel = rotation_kernel(weight)
    assert kernel.shape == (12, 8, 3, 3)
    (grad,) = torch.autograd.grad(kernel.sum(), weight)
    assert torch.equal(grad, torch.full_like(weight, 4))


def test_circular_convolutions_commute_with_translations_and_padded_ones_do_not():
    kernel, x = 0.2 * normal(2, 2, 3, 3), normal(2, 2, 5, 4)
    assert commutes(lk.ConvMap(kernel, "circular"), x, lambda x: x.roll((2, 1), (2, 3))) < 1e-10
    assert commutes(lk.ConvMap(kernel, "zeros"), x, lambda x: x.roll((2, 1), (2, 3))) > 1e-2
    volume = lk.ConvMap(0.1 * normal(2, 2, 3, 3, 3), "circular")
    assert commutes(volume, normal(1, 2, 3, 4, 3), lambda x: x.roll((1, 2, 1), (2, 3, 4))) < 1e-10


@pytest.mark.parametrize("rows", [(), (2,)])
def test_set_maps_commute_with_permutations_of_the_elements(rows):
    order = torch.tensor([3, 0, 4, 1, 2])
    map_ = SetMap(0.4 * normal(*rows, 3, 3), normal(*rows, 3, 3))
    assert commutes(map_, normal(2, 3, 5), lambda x: x[:, :, order]) < 1e-10


@pytest.mark.parametrize("rows", [(), (2,)])
def test_pair_maps_commute_with_permutations_of_the_nodes(rows):
    order = torch.tensor([3, 0, 4, 1, 2])
    map_, x = PairMap(0.1 * normal(*rows, 15, 2, 2)), normal(2, 2, 5, 5)
    assert commutes(map_, x, lambda x: x[:, :, order][:, :, :, order]) < 1e-10
    assert commutes(map_, x, lambda x: x[:, :, order]) > 1e-2


def unit(operation):
    return PairMap(torch.eye(15, dtype=torch.float64)[operation][:, None, None])


@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_the_operations_on_pairs_have_norm_one(nodes):
    for k in range(15):
        matrix = unit(k).materialize((1, nodes, nodes))
        assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(1, abs=1e-12)
        assert 1 <= float(unit(k).norm_bound((1, nodes, nodes))) < 1.02


def test_the_operations_on_pairs_are_a_basis_of_all_equivariant_maps():
    found = torch.stack([unit(k).materialize((1, 4, 4)).flatten() for k in range(15)])
    assert int(torch.linalg.matrix_rank(found)) == 15
    # A map commutes with all permutations if it does with these two, which generate them.
    conditions = []
    for order in (torch.tensor([1, 0, 2, 3]), torch.tensor([1, 2, 3, 0])):
        one = torch.eye(4, dtype=torch.float64)[order]
        pairs = torch.kron(one, one)
        identity = torch.eye(16, dtype=torch.float64)
        conditions.append(torch.kron(pairs, identity) - torch.kron(identity, pairs.T.contiguous()))
    equations = torch.cat(conditions)
    assert 256 - int(torch.linalg.matrix_rank(equations)) == 15


def test_the_operations_on_pairs_are_what_they_are_called():
    x = normal(1, 1, 3, 3)
    matrix = x[0, 0]
    rows, columns, diagonal = matrix.sum(1), matrix.sum(0), matrix.diag()
    ones, identity, root = torch.ones_like(matrix), torch.eye(3).to(matrix), 3**0.5
    expected = {
        1: matrix,
        2: matrix.T,
        3: rows[:, None] * ones / 3,
        4: columns[:, None] * ones / 3,
        5: rows[None] * ones / 3,
        6: columns[None] * ones / 3,
        7: matrix.sum() * ones / 9,
        8: matrix.trace() * ones / 3 / root,
        9: diagonal[None] * ones / root,
        10: diagonal[:, None] * ones / root,
        11: matrix.sum() * identity / 3 / root,
        12: matrix.trace() * identity / 3,
        13: rows.diag() / root,
        14: columns.diag() / root,
        15: diagonal.diag(),
    }
    for number, value in expected.items():
        assert torch.allclose(unit(number - 1).apply(x)[0, 0], value), number


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_bounds_from_the_blocks_are_rigorous_and_tight(size):
    maps = {
        (2, size): SetMap(normal(3, 2, 2), normal(3, 2, 2)),
        (2, size, size): PairMap(normal(3, 15, 2, 2)),
    }
    for shape, map_ in maps.items():
        matrix = map_.materialize(shape)
        for found, exact in (
            (map_.norm_bound(shape), torch.linalg.matrix_norm(matrix, 2)),
            (map_.growth_bound(shape), torch.linalg.matrix_norm((matrix + matrix.mT) / 2, 2)),
            (map_.frobenius_bound(shape), torch.linalg.matrix_norm(matrix)),
        ):
            assert bool((found >= exact * (1 - 1e-13)).all())
            # With one or two nodes some kinds of arrays do not exist, and are counted all the same.
            assert size < 3 or bool((found <= exact * (1 + 1e-2)).all())


def test_one_map_serves_every_size():
    pairs, sets = PairMap(normal(15, 2, 2)), SetMap(normal(2, 2), normal(2, 2))
    for size in (1, 2, 7):
        for map_, shape in ((pairs, (2, size, size)), (sets, (2, size))):
            exact = map_.materialize(shape).trace()
            assert torch.allclose(map_.trace(shape), exact)


def test_centering_takes_off_the_mean_of_the_diagonal():
    pairs = PairMap(0.1 * normal(15, 2, 2) + 3 * torch.eye(15, dtype=torch.float64)[0, :, None, None] * torch.eye(2))
    for map_, shape in ((pairs, (2, 4, 4)), (SetMap(normal(2, 2) + 3 * torch.eye(2), normal(2, 2)), (2, 4))):
        shift, rest = map_.centered(shape)
        assert float(rest.trace(shape)) == pytest.approx(0, abs=1e-9)
        assert float(shift) == pytest.approx(float(map_.trace(shape)) / map_.materialize(shape).shape[0])
        assert float(rest.norm_bound(shape)) < float(map_.norm_bound(shape))


def test_what_does_not_fit_is_refused_with_the_reason():
    for build in (
        lambda: rotation_kernel(normal(2, 2, 3, 3, 3)),
        lambda: rotation_kernel(normal(2, 2, 4, 3, 5)),
        lambda: rotate_features(normal(1, 6, 3, 3), 1),
        lambda: SetMap(normal(2, 2), normal(3, 3)),
        lambda: SetMap(normal(2, 2), normal(2, 2)).apply(normal(1, 2)),
        lambda: PairMap(normal(14, 2, 2)),
        lambda: PairMap(normal(15, 2, 2)).apply(normal(1, 2, 3, 4)),
        lambda: PairMap(normal(15, 2, 2)).apply(normal(1, 3, 4, 4)),
    ):
        with pytest.raises(ShapeError):
            build()
