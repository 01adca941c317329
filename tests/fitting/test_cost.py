import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from likelify import seeded, zoo
from likelify.data import Facts
from likelify.fitting.cost import made_up_batch, one_step
from likelify.fitting.memory import KeptMemory, in_memory_of
from likelify.fitting.settings import FitSettings
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
    with KeptMemory(in_memory_of(flow.parameters())) as memory:
        assert one_step(Objective(flow), QUICK, batch) > 0
    assert memory.most > batch.x.numel() * 4
    assert memory.now == 0
    assert not all(torch.equal(old, new) for old, new in zip(before, flow.parameters(), strict=True))


def test_memory_counts_a_storage_once_and_forgets_what_is_let_go():
    x = torch.ones(8, requires_grad=True)
    with KeptMemory() as memory:
        y = x.exp()  # 32 bytes, its own result
        z = y.square() + y.view(2, 4).flatten().cos()  # of the same storage
        assert memory.now == 32
        inner = z.detach().requires_grad_().exp()
        assert memory.now == 64
        del inner
        assert memory.now == 32
        z.sum().backward()
    assert (memory.now, memory.most) == (0, 64)


def allocated(run):
    """Return how far the memory that torch has allocated rises during a call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        run()
    events = [event for event in measured.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


# The residual blocks differentiate in their forward passes, and both they and checkpoints run networks again.
@pytest.mark.parametrize(
    "model",
    [
        {"model": "residual"},
        {"model": "sylvester", "checkpoint": True},
        {"model": "coupling-flow"},
    ],
)
def test_memory_is_what_the_allocator_says(model):
    small = {"levels": 1, "steps": 5, "hidden": 24, "width": 8, "growth": 4, "depth": 1}
    with seeded(0):
        flow = zoo.config_from_dict(model | small | {"event_shape": (1, 8, 8)}).build()
    facts = Facts(name="", family="", kind="image", fingerprint="", event_shape=(1, 8, 8), levels=256, sizes={})
    objective, batch, settings = Objective(flow), made_up_batch(facts, 64), FitSettings()
    flow.initialize(batch.x)
    one_step(objective, settings, batch)
    with seeded(1), KeptMemory(in_memory_of(flow.parameters())) as memory:
        one_step(objective, settings, batch)
    assert memory.now == 0
    with seeded(1):
        most = allocated(lambda: one_step(objective, settings, batch))
    assert 0.5 * most < memory.most <= 1.01 * most
