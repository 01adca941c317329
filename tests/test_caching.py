"""What is kept inside frozen(), and what becomes of it."""

import asyncio
import copy
import pickle
import threading

import pytest
import torch

import likelify as lk
from likelify import nets, testing
from likelify.errors import StateError
from tests.test_flows import spline_flow


def test_frozen_caches_and_refuses_stale_parameters():
    layer = lk.Conv1x1(3)
    x = torch.randn(2, 3)
    with layer.frozen():
        first, _ = layer(x)
        with layer.frozen():
            assert torch.equal(layer(x)[0], first)
        assert torch.equal(layer(x)[0], first)
        with torch.no_grad():
            layer.log_diagonal.add_(1.0)
        with pytest.raises(StateError, match=r"inside frozen\(\)"):
            layer(x)
    assert not torch.equal(layer(x)[0], first)


@pytest.mark.parametrize(
    "layer", [lk.conv_exponential(2), lk.conv_exponential(2, norm_limit=None), lk.axis_exponential(2, centre_taps=True)]
)
def test_exponentials_are_cached_inside_flows_and_their_parameters_count_as_constants(layer):
    flow = lk.Flow(lk.Normal((2, 4, 4)), lk.Chain([layer, lk.Conv1x1(2)]))
    x = torch.randn(3, 2, 4, 4)
    with flow.frozen():
        flow.log_prob(x)
        assert all(part._cache for part in flow.transform)
        value = flow.log_prob(x.requires_grad_())
        assert value.requires_grad
        grads = torch.autograd.grad(value.sum(), list(layer.parameters()), allow_unused=True)
        assert all(grad is None for grad in grads)
        with torch.no_grad():
            next(layer.parameters()).add_(1.0)
        with pytest.raises(StateError, match="Exponential"):
            flow.log_prob(x)


def test_copies_made_inside_a_block_do_not_stay_in_it():
    flow = spline_flow().float()
    with flow.frozen(), nets.regularized(flow):
        flow.log_prob(torch.zeros(1, 2))
        twin = copy.deepcopy(flow)
    testing.randomize(twin)
    twin.log_prob(torch.zeros(1, 2)).sum().backward()
    assert all(p.grad is not None for p in twin.parameters())
    dropout = nets.Dropout(0.5)
    with nets.regularized(dropout):
        assert not copy.deepcopy(dropout).active


def elsewhere(run):
    """Call a function in another thread and return its value."""
    found = []
    thread = threading.Thread(target=lambda: found.append(run()))
    thread.start()
    thread.join()
    return found[0]


def slope(flow, x):
    """How much the first layer's kernel would move in training."""
    (grad,) = torch.autograd.grad(flow.log_prob(x).sum(), [flow.transform[0].parametrization.weight], allow_unused=True)
    return 0.0 if grad is None else float(grad.abs().max())


@pytest.fixture
def flow():
    return testing.randomize(lk.Flow(lk.Normal((2, 4, 4)), lk.Chain([lk.conv_exponential(2), lk.Conv1x1(2)])))


def test_a_block_freezes_the_thread_that_opened_it_and_no_other(flow):
    x = torch.randn(3, 2, 4, 4)
    with flow.frozen():
        inside = flow.log_prob(x)
        assert slope(flow, x) == 0 < elsewhere(lambda: slope(flow, x))

        def frozen_too():
            with flow.frozen():
                return slope(flow, x), flow.log_prob(x).detach()

        assert elsewhere(frozen_too)[0] == 0
        # The end of the other thread's block is not the end of this one.
        assert all(layer._cache for layer in flow.transform)
        assert torch.equal(flow.log_prob(x), inside)
    assert slope(flow, x) > 0


def test_a_step_in_another_thread_makes_the_caches_of_this_one_stale(flow):
    x = torch.randn(3, 2, 4, 4)
    with flow.frozen():
        flow.log_prob(x)
        optimizer = torch.optim.SGD(flow.parameters(), 0.1)

        def step():
            optimizer.zero_grad()
            (-flow.log_prob(x).mean()).backward()
            optimizer.step()

        elsewhere(step)
        with pytest.raises(StateError, match=r"inside frozen\(\)"):
            flow.log_prob(x)


def test_blocks_of_generators_end_in_any_order(flow):
    x = torch.randn(3, 2, 4, 4)

    def opened():
        with flow.frozen():
            yield slope(flow, x)

    first, second = opened(), opened()
    assert next(first) == next(second) == 0
    first.close()
    second.close()
    assert slope(flow, x) > 0
    with lk.Conv1x1(2).frozen():
        third = opened()
        assert next(third) == 0
    # It began inside of a block that is over, and ends in another thread.
    assert slope(flow, x) == 0
    elsewhere(third.close)
    assert slope(flow, x) > 0


def test_tasks_are_frozen_by_themselves(flow):
    x = torch.randn(3, 2, 4, 4)

    async def frozen_for(steps):
        with flow.frozen():
            for _ in range(steps):
                assert slope(flow, x) == 0
                await asyncio.sleep(0)

    async def training(steps):
        for _ in range(steps):
            assert slope(flow, x) > 0
            await asyncio.sleep(0)

    async def outlives_the_block_it_began_in():
        with flow.frozen():
            task = asyncio.ensure_future(training(2))
        await task

    async def main():
        await asyncio.gather(frozen_for(3), training(4), frozen_for(2))
        await outlives_the_block_it_began_in()

    asyncio.run(main())


def test_dropout_acts_in_the_thread_that_asked_for_it_and_in_its_replicas():
    net, ones = nets.Dropout(0.5), torch.ones(64)
    with nets.regularized(net):
        assert bool((net(ones) == 0).any())
        assert torch.equal(elsewhere(lambda: net(ones)), ones)
        replica = net._replicate_for_data_parallel()
        assert bool((elsewhere(lambda: replica(ones)) == 0).any())
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        assert bool((compiled(ones) == 0).any())
    assert torch.equal(net(ones), ones)
    assert torch.equal(compiled(ones), ones)


def test_replicas_are_not_frozen():
    layer = lk.Conv1x1(2)
    with layer.frozen():
        layer(torch.randn(1, 2))
        assert layer._cache
        assert layer._replicate_for_data_parallel()._cache is None


def test_what_pickle_makes_inside_a_block_is_not_frozen(flow):
    x = torch.randn(3, 2, 4, 4)
    with flow.frozen():
        flow.log_prob(x)
        assert slope(pickle.loads(pickle.dumps(flow)), x) > 0


def test_caches_of_inference_mode_can_be_used_outside_of_it(flow):
    x = torch.randn(3, 2, 4, 4)
    with flow.frozen():
        with torch.inference_mode():
            inside = flow.log_prob(x)
        x.requires_grad_()
        value = flow.log_prob(x)
        assert torch.equal(value, inside)
        value.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("transform", ["grad", "vmap"])
def test_transforms_of_torch_leave_nothing_in_the_caches(flow, transform):
    x = torch.randn(3, 2, 4, 4)
    layer = flow.transform[1]
    functions = {
        "grad": torch.func.grad(lambda x: flow.transform[1](x)[0].pow(2).sum()),
        "vmap": torch.func.vmap(lambda x: layer(x[None])[0][0]),
    }
    expected = functions[transform](x)
    with flow.frozen():
        assert torch.equal(functions[transform](x), expected)
        layer(x)[0].sum()
        assert torch.equal(functions[transform](x), expected)
        assert not any(torch._C._functorch.is_functorch_wrapped_tensor(v) for _, v in layer._cache.values())
