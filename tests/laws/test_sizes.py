"""No size is taken for another: where they are equal, a batch still is its items one by one."""

import pytest
import torch

import likelify as lk
from likelify import testing, transforms
from tests.cases import LAYERS
from tests.cases.sizes import BUILT, NO_LAYERS, SIZED, Sizes


@pytest.mark.parametrize("name", SIZED)
def test_a_batch_is_its_items_where_all_sizes_are_equal(name, device):
    testing.check_rows(*SIZED[name].at(Sizes()).ready(device=device))


@pytest.mark.parametrize("name", LAYERS)
def test_no_rows_give_no_rows(name, device):
    testing.check_no_rows(*LAYERS[name].ready(device=device))


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZED)
def test_a_batch_is_its_items_where_the_rows_are_equal_to_another_size(name, device):
    for sizes in SIZED[name].main_coincidences():
        testing.check_rows(*SIZED[name].at(sizes).ready(device=device))


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZED)
def test_a_batch_is_its_items_in_float32(name, device):
    """An allowance for rounding that counts all rows would tell batches apart, and be too small to see in float64."""
    case = SIZED[name].at(Sizes()).ready(dtype=torch.float32, scale=0.1, device=device)
    testing.check_rows(*case, tol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZED)
def test_layer_laws_where_all_sizes_are_equal(name, device):
    testing.check_transform(*SIZED[name].at(Sizes()).ready(device=device))


def test_every_public_layer_has_a_case_at_any_sizes():
    assert set(transforms.__all__) - NO_LAYERS - BUILT == {name.split()[0] for name in SIZED}
    assert all(hasattr(transforms, name) or hasattr(lk, name) for name in NO_LAYERS | BUILT)


@pytest.mark.parametrize(("axes", "ways"), [(2, 2), (3, 5), (4, 14), (5, 41)])
def test_all_ways_to_be_equal_are_tried(axes, ways):
    case = next(case for case in SIZED.values() if len(case.axes) == axes)
    assert len(case.coincidences()) == ways
    assert len(case.main_coincidences()) >= axes - 1
