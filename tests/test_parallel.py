"""`Flow.forward` is what the wrappers of torch call, so gradients of several processes are joined."""

import pytest
import torch
import torch.distributed
from torch.nn.parallel import DataParallel, DistributedDataParallel

import likelify as lk
from likelify import nets, testing


def conditional_flow():
    split, bijector = lk.ChannelSplit(2), lk.SplineBijector(4, 3.0)
    with lk.seeded(0):
        net = nets.MLP(1, bijector.size, (8,), context_features=3)
        layers = [lk.ActNorm(2), lk.Coupling(split, bijector, net), lk.rotation(2)]
    return testing.randomize(lk.Flow(lk.Normal(2, trainable=True), lk.Chain(layers), encoder=nets.OneHot(3)), seed=1)


def batch(rows=6):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 2, generator=generator), torch.randint(3, (rows,), generator=generator)


def gradients(module):
    return [p.grad for p in module.parameters()]


def test_forward_is_the_loss_of_each_item_in_nats():
    flow = conditional_flow()
    x, labels = batch()
    assert torch.equal(flow(x, labels), -flow.log_prob(x, labels))
    levels = torch.randint(4, (3, 2))
    bound = lk.Flow(lk.Normal(2), lk.Chain([lk.Dequantize(4), lk.ActNorm(2)]))
    with lk.seeded(0):
        loss = bound(levels)
    with lk.seeded(0):
        assert torch.equal(loss, -bound.elbo(levels).value)


def test_data_parallel_calls_it():
    flow = conditional_flow()
    x, labels = batch()
    assert torch.equal(DataParallel(flow)(x, labels), flow(x, labels))


def _train(rank, world, place, found):
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=world)
    try:
        module = DistributedDataParallel(conditional_flow())
        x, labels = (part[rank::world] for part in batch())
        module(x, labels).mean().backward()
        found[rank] = [grad.tolist() for grad in gradients(module.module)]
    finally:
        torch.distributed.destroy_process_group()


def test_a_group_of_one_process_trains(tmp_path):
    found = {}
    _train(0, 1, tmp_path / "store", found)
    flow = conditional_flow()
    flow(*batch()).mean().backward()
    for grad, alone in zip(found[0], gradients(flow), strict=True):
        assert torch.allclose(torch.tensor(grad), alone, atol=1e-6)


@pytest.mark.slow
def test_gradients_of_two_processes_are_those_of_one_on_the_joined_batch(tmp_path):
    with torch.multiprocessing.Manager() as manager:
        found = manager.dict()
        torch.multiprocessing.spawn(_train, (2, tmp_path / "store", found), nprocs=2)
        both = dict(found)
    flow = conditional_flow()
    flow(*batch()).mean().backward()
    for rank in range(2):
        for grad, alone in zip(both[rank], gradients(flow), strict=True):
            assert torch.allclose(torch.tensor(grad), alone, atol=1e-6)
