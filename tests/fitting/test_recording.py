"""Training steps that are replayed: what is recorded, what is refused, and what a recording is held beside."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import likelify as lk
from likelify.data import Batch, as_source
from likelify.errors import DomainError, LikelifyWarning
from likelify.fitting import gradients, recording
from likelify.fitting.figures import Course
from likelify.fitting.gradients import Gradients
from likelify.fitting.process import OneProcess
from likelify.fitting.recording import MOST, PROOFS, WARM, Recording
from likelify.fitting.settings import FitSettings
from likelify.fitting.training import build_optimizer
from likelify.nets import MLP
from likelify.structure import ContextLike, GraphBatch
from likelify.support import Doubt

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class HostTape:
    """Stands in for a CUDA graph on the CPU: it makes the recorded operations again, and writes where they wrote.

    As a graph it knows nothing of what Python does in between: with `frozen` it gives what it gave at first.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        frozen: bool = False,
        waits: bool = False,
        breaks: bool = False,
        wordless: bool = False,
    ) -> None:
        self.model, self.frozen, self.waits, self.breaks, self.wordless = model, frozen, waits, breaks, wordless
        self.made = self.replays = 0

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        if self.waits:
            raise RuntimeError("called a synchronizing CUDA operation")
        yield

    def record(self, run: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        if self.breaks:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        if self.wordless:
            raise RuntimeError
        self.made += 1
        losses = run()
        grads = [p.grad for p in self.model.parameters()]

        def replay() -> None:
            self.replays += 1
            if self.frozen:
                return
            found = run()
            losses.copy_(found)
            for parameter, grad in zip(self.model.parameters(), grads, strict=True):
                if grad is not None and parameter.grad is not None:
                    grad.copy_(parameter.grad)

        return losses, replay


class Quadratic(nn.Module):
    """A loss of a batch, with a number on the host that no graph can see."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.idle = nn.Parameter(torch.ones(1))
        self.factor = 1.0

    def run(self, batch: Batch) -> Tensor:
        self.zero_grad(set_to_none=True)
        loss = self.factor * (batch.x * self.weight).square().mean()
        loss.backward()
        return torch.stack((loss.detach(), -loss.detach()))

    @property
    def grad(self) -> Tensor:
        assert self.weight.grad is not None
        return self.weight.grad

    @torch.no_grad()
    def descend(self) -> None:
        self.weight.sub_(0.1 * self.grad)


def batch_of(step: int, rows: int = 4) -> Batch:
    return Batch(torch.randn(rows, 3, generator=torch.Generator().manual_seed(step)))


def made(model: Quadratic, **kinds: bool) -> tuple[Recording, HostTape]:
    tape = HostTape(model, **kinds)
    return Recording(model.run, model, tape), tape


def test_steps_are_replayed_after_some_by_themselves_with_the_losses_and_gradients_of_the_step() -> None:
    model = Quadratic()
    recording, tape = made(model)
    for step in range(WARM + 6):
        batch = batch_of(step)
        found = recording.losses(batch, seed=step)
        if found is None:
            assert step < WARM
            model.run(batch)
        else:
            kept = model.grad.clone()
            expected = model.run(batch)
            assert torch.equal(found, expected)
            assert torch.equal(kept, model.grad)
        model.descend()
    assert recording.replayed == tape.replays == 6
    assert tape.made == 1
    assert recording.why_not is None
    recording.release()
    assert model.weight.grad is None
    assert model.idle.grad is None


def test_losses_are_kept_when_the_next_step_is_replayed() -> None:
    model = Quadratic()
    recording, _ = made(model)
    found = [recording.losses(batch_of(step), seed=0) for step in range(WARM + 5)][WARM:]
    assert len({tuple(losses.tolist()) for losses in found if losses is not None}) == 5


def test_a_recording_that_gives_something_else_is_given_up_and_the_step_is_right() -> None:
    model = Quadratic()
    recording, _ = made(model, frozen=True)
    # The first proof is of the batch that was recorded, which a frozen recording knows.
    for step in range(WARM + 1):
        recording.losses(batch_of(step), seed=step)
    found = recording.losses(batch_of(99), seed=0)
    assert found is not None
    assert recording.why_not is not None
    assert "differed" in recording.why_not
    kept = model.grad
    expected = model.run(batch_of(99))
    assert torch.equal(found, expected)
    assert torch.equal(kept, model.grad)
    assert recording.losses(batch_of(100), seed=0) is None


def test_what_changes_on_the_host_later_is_found_at_the_next_validation_and_said() -> None:
    model = Quadratic()
    recording, tape = made(model)
    for step in range(WARM + PROOFS + 2):
        recording.losses(batch_of(step), seed=step)
    tape.frozen = True  # as a graph is
    recording.losses(batch_of(1000), seed=0)
    assert recording.why_not is None
    recording.doubt()
    with pytest.warns(LikelifyWarning, match="cuda_graph=False"):
        recording.losses(batch_of(1001), seed=0)
    assert recording.why_not is not None


def test_what_is_not_finite_proves_nothing_and_is_what_the_step_says() -> None:
    model = Quadratic()
    recording, tape = made(model)
    for step in range(WARM):
        recording.losses(batch_of(step), seed=step)
    broken = Batch(torch.full((4, 3), torch.nan))
    for _ in range(3):
        tape.frozen = bool(tape.made)
        found = recording.losses(broken, seed=0)
        assert found is not None
        assert bool(found.isnan().all())
        assert bool(model.grad.isnan().all())
        assert recording.why_not is None
    assert recording._to_prove == PROOFS
    assert recording.replayed == 0


def test_a_small_gradient_that_turns_round_is_seen_beside_a_large_one() -> None:
    class Two(Quadratic):
        def run(self, batch: Batch) -> Tensor:
            self.zero_grad(set_to_none=True)
            loss = (batch.x * self.weight).square().mean() + self.factor * 1e-3 * self.idle.sum()
            loss.backward()
            return torch.stack((loss.detach(), -loss.detach()))

    model = Two()
    recording, tape = made(model)
    for step in range(WARM + PROOFS):
        recording.losses(batch_of(step), seed=step)
    assert recording.why_not is None
    tape.frozen, model.factor = True, -1.0
    recording.doubt()
    # The batch of the last replay, so that all else is the same.
    recording.losses(batch_of(WARM + PROOFS - 1), seed=0)
    assert recording.why_not is not None
    assert "differed" in recording.why_not


def test_where_there_is_no_room_for_a_proof_the_fit_goes_on_without() -> None:
    model = Quadratic()
    recording, _ = made(model)
    for step in range(WARM + PROOFS):
        recording.losses(batch_of(step), seed=step)

    def full(batch: Batch) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    recording.run = full
    recording.doubt()
    assert recording.losses(batch_of(0), seed=0) is None
    assert recording.why_not is not None
    assert "memory" in recording.why_not


def test_a_step_that_changes_buffers_is_refused_and_they_are_put_back() -> None:
    model = Quadratic()
    model.register_buffer("calls", torch.zeros(1))
    calls, plain = model.get_buffer("calls"), model.run

    def counting(batch: Batch) -> Tensor:
        calls.add_(1)
        return plain(batch)

    recording, _ = made(model)
    recording.run = counting
    for step in range(WARM + 2):
        assert recording.losses(batch_of(step), seed=step) is None
    assert not calls.any()
    assert recording.why_not is not None
    assert "buffers" in recording.why_not


@pytest.mark.parametrize("change", ["hook", "gradient", "everywhere", "mode"])
def test_who_listens_later_is_heard(change: str) -> None:
    model = Quadratic()
    recording, _ = made(model)
    for step in range(WARM + PROOFS):
        recording.losses(batch_of(step), seed=step)
    handle = {
        "hook": lambda: model.register_forward_hook(lambda *_: None),
        "gradient": lambda: model.weight.register_hook(lambda grad: grad * 0),
        "everywhere": lambda: nn.modules.module.register_module_forward_hook(lambda *_: None),
        "mode": model.eval,
    }[change]()
    try:
        assert recording.losses(batch_of(0), seed=0) is None
    finally:
        if change != "mode":
            handle.remove()


def test_sparse_buffers_do_not_matter() -> None:
    model = Quadratic()
    model.register_buffer("lap", torch.eye(3).to_sparse(), persistent=False)
    recording, _ = made(model)
    for step in range(WARM + 3):
        recording.losses(batch_of(step), seed=step)
    assert recording.replayed == 3


def test_a_short_fit_says_why_nothing_was_replayed() -> None:
    recording, _ = made(Quadratic())
    recording.losses(batch_of(0), seed=0)
    recording.release()
    assert recording.why_not is not None
    assert f"more than {WARM} steps" in recording.why_not


def test_host_draws_waits_hooks_graphs_and_failures_are_refused_in_words() -> None:
    def drawing(batch: Batch) -> Tensor:
        torch.rand(1)
        return model.run(batch)

    model = Quadratic()
    draws, _ = made(model)
    draws.run = drawing
    hooked = Quadratic()
    hooked.register_forward_hook(lambda *_: None)
    heard = Quadratic()
    heard.weight.register_hook(lambda _: None)
    cases = {
        "draws random numbers": draws,
        "reads values": made(Quadratic(), waits=True)[0],
        "Recording failed: operation not permitted when stream is capturing": made(Quadratic(), breaks=True)[0],
        "of Quadratic": made(hooked)[0],
        "of the parameter 'weight'": made(heard)[0],
    }
    for words, case in cases.items():
        for step in range(WARM + 2):
            assert case.losses(batch_of(step), seed=step) is None
        assert case.why_not is not None
        assert words in case.why_not
    cast, _ = made(Quadratic())
    with torch.autocast("cpu"):
        for step in range(WARM + 1):
            assert cast.losses(batch_of(step), seed=step) is None
    assert cast.why_not is not None
    assert "autocast" in cast.why_not
    points, _ = made(Quadratic())
    for step in range(WARM + 1):
        batch = Batch(batch_of(step).x, structure=GraphBatch.complete(torch.tensor([4])))
        assert points.losses(batch, seed=step) is None
    assert points.why_not is not None
    assert "Graphs" in points.why_not
    silent, _ = made(Quadratic(), wordless=True)
    for step in range(WARM + 1):
        assert silent.losses(batch_of(step), seed=step) is None
    assert silent.why_not == "Recording failed: RuntimeError"


def test_another_form_is_recorded_anew_and_not_for_ever() -> None:
    model = Quadratic()
    recording, tape = made(model)
    for turn in range(MOST + 1):
        for step in range(WARM + 3):
            recording.losses(batch_of(step, rows=4 + turn), seed=step)
    assert tape.made == MOST
    assert recording.why_not is not None
    assert "form" in recording.why_not
    frozen, tape = made(model := Quadratic())
    for step in range(WARM + 3):
        frozen.losses(batch_of(step), seed=step)
    model.idle.requires_grad_(False)
    assert frozen.losses(batch_of(0), seed=0) is None
    assert model.weight.grad is None


def test_buffers_that_are_put_in_the_place_of_others_are_never_recorded() -> None:
    model = Quadratic()
    count = torch.zeros(1)
    model.register_buffer("count", count)
    recording, tape = made(model)
    for step in range(3 * WARM):
        count = count + 1
        model.count = count
        assert recording.losses(batch_of(step), seed=step) is None
    assert not tape.made


def small_flow() -> lk.Flow:
    with lk.seeded(0):
        return lk.Flow(
            lk.Normal(4),
            lk.Chain(
                [
                    lk.ActNorm(4),
                    lk.dense_exponential(4, norm_limit=0.9),
                    lk.Coupling(lk.ChannelSplit(4), lk.AffineBijector(), MLP(2, 4, (8,))),
                ]
            ),
        )


def test_a_fit_with_replayed_steps_is_the_fit_without(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(80, 4, generator=torch.Generator().manual_seed(0)) @ torch.randn(4, 4).tril()
    fitted = {}
    for kind in ("plain", "replayed"):
        flow = small_flow().double()
        if kind == "replayed":
            monkeypatch.setattr(gradients, "CudaTape", lambda _, flow=flow: HostTape(flow))
            monkeypatch.setattr(Gradients, "_why_not_recorded", lambda _: None)
        course = lk.fit(flow, rows.double(), steps=WARM + 20, batch_size=16, validations=3, device="cpu")
        assert course.recorded == (20 if kind == "replayed" else 0)
        assert course.unrecorded is None
        fitted[kind] = flow.state_dict()
        assert (kind == "plain") or all(p.grad is None for p in flow.parameters())
    for name, tensor in fitted["plain"].items():
        assert torch.allclose(tensor, fitted["replayed"][name], rtol=0, atol=1e-12), name


def test_the_course_says_it_in_words_and_the_cpu_says_nothing() -> None:
    assert Course().recording is None
    assert Course(recorded=90).recording == "90 steps were replayed from a CUDA graph."
    assert "after the other: The fit has" in str(Course(unrecorded="The fit has cuda_graph=False.").recording)
    both = Course(recorded=90, unrecorded="A replayed step differed.").recording
    assert both == "90 steps were replayed from a CUDA graph; then no more: A replayed step differed."
    flow, settings = small_flow(), FitSettings(cuda_graph=False)
    made = Gradients(flow, build_optimizer(flow, settings), settings, OneProcess("cpu"), items=4, conditional=False)
    assert made.end() == {"recorded": 0, "unrecorded": None}


def test_what_replayed_steps_found_outside_of_a_domain_is_raised_at_the_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow, settings = small_flow(), FitSettings()
    made = Gradients(flow, build_optimizer(flow, settings), settings, OneProcess("cpu"), items=4, conditional=False)
    made._asked = [Doubt(torch.tensor(0), 12, "Logit", "(0, 1)")]
    monkeypatch.setattr(made.recording, "losses", lambda *_: torch.tensor([1.0, -1.0, 5.0]))
    assert made.forward(Batch(torch.randn(4, 4)), 0).tolist() == [1.0, -1.0]
    with pytest.raises(DomainError, match="Logit: 5 of 12"):
        made.settle()
    assert made.doubts == []


class Sleepy(lk.Transform):
    """A layer that reads a value on the host."""

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        del context
        return (x if float(x.detach().sum()) < 1e9 else -x), x.new_zeros(len(x))

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        return self.forward(z, context)


@needs_cuda
def test_on_a_device_a_fit_replays_and_ends_as_without() -> None:
    rows = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    fitted = {}
    for graph in (True, False):
        flow = small_flow().double()
        course = lk.fit(flow, rows.double(), steps=60, batch_size=50, validations=3, device="cuda", cuda_graph=graph)
        assert course.recorded == (50 if graph else 0), course.unrecorded
        fitted[graph] = flow.state_dict()
    for name, tensor in fitted[True].items():
        assert torch.allclose(tensor, fitted[False][name], rtol=0, atol=1e-6), name


@needs_cuda
def test_on_a_device_noise_is_that_of_the_step() -> None:
    pixels = torch.randint(16, (200, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    losses = {}
    for graph in (True, False):
        with lk.seeded(0):
            flow = lk.zoo.build("glow", event_shape=(1, 4, 4), pixel_levels=16, levels=1, steps=2, hidden=8)
        source = as_source(pixels.long(), levels=16)
        course = lk.fit(flow, source, steps=40, batch_size=20, validations=2, device="cuda", cuda_graph=graph)
        assert course.recorded == (30 if graph else 0), course.unrecorded
        losses[graph] = course.points[-1].train_bits
    assert abs(losses[True] - losses[False]) < 1e-3


@needs_cuda
def test_on_a_device_what_waits_is_not_recorded_and_the_generator_goes_on() -> None:
    flow = lk.Flow(lk.Normal(4), lk.Chain([lk.ActNorm(4), Sleepy()]))
    course = lk.fit(flow, torch.randn(60, 4), steps=30, batch_size=20, validations=1, device="cuda")
    assert course.recorded == 0
    assert "reads values" in str(course.unrecorded)
    torch.rand(3, device="cuda")


@needs_cuda
def test_on_a_device_a_recording_that_fails_leaves_the_generator_sound() -> None:
    tape = recording.CudaTape(torch.device("cuda"))

    def run() -> Tensor:
        found = torch.rand(3, device="cuda")
        return found + float(found.sum())

    run()
    with pytest.raises(RuntimeError), warnings.catch_warnings():
        tape.record(run)
    with lk.seeded(0):
        first = torch.rand(3, device="cuda")
    with lk.seeded(0):
        assert torch.equal(first, torch.rand(3, device="cuda"))
