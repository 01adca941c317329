import torch

from likelify.fitting.cost import made_up_batch, one_step
from likelify.fitting.training import Objective
from tests.fitting.toys import QUICK, stripes, tiny_flow


def test_a_step_on_made_up_items_is_one_of_the_loop():
    batch = made_up_batch(stripes(labels=True).facts(), 6)
    assert batch.x.shape == (6, 1, 2, 2)
    assert batch.x.unique().tolist() == [0, 1, 2]
    assert batch.labels.tolist() == [0, 1, 2, 0, 1, 2]
    flow = tiny_flow()
    flow.initialize(batch.x)
    before = [p.clone() for p in flow.parameters()]
    seconds, kept = one_step(Objective(flow), QUICK, batch)
    assert seconds > 0
    assert kept > batch.x.numel() * 4
    assert not all(torch.equal(old, new) for old, new in zip(before, flow.parameters(), strict=True))
