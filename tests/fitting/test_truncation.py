"""What the tolerance of exponentials in training steps did to the objective is measured, bounded, and said."""

import json

import pytest
import torch

import likelify as lk
from likelify import nets, testing
from likelify.data import Batch
from likelify.errors import ConvergenceError, LikelifyWarning, NonFiniteError, RunError
from likelify.fitting import loop
from likelify.fitting.checkpoint import Facts
from likelify.fitting.figures import Course, Unit
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.fitting.truncation import loosens, measure_truncation
from likelify.linalg import recorded
from tests.fitting.toys import stripes, tiny_config, tiny_flow

BRIEF = FitSettings(steps=4, lr=1e-2, batch_size=64, validations=1, warmup=0)


def image_flow():
    torch.manual_seed(0)
    layers = [lk.ActNorm(2), lk.conv_exponential(2), lk.Conv1x1(2), lk.orthogonal_convolution(2)]
    return testing.randomize(lk.Flow(lk.Normal((2, 5, 5)), lk.Chain(layers)), scale=0.2).double()


@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-4])
def test_the_change_is_what_it_is_and_within_the_bound(tol):
    flow = image_flow()
    x = torch.randn(6, 2, 5, 5, dtype=torch.float64)
    state = torch.get_rng_state()
    found = measure_truncation(flow, Batch(x), tol)
    assert torch.equal(state, torch.get_rng_state())
    with nets.regularized(flow, exp_tol=tol):
        loose = flow.log_prob(x)
        proved = flow.certificate(x).nats
    change = float((loose - flow.log_prob(x)).detach().mean())
    assert change != 0
    assert found.change_nats == pytest.approx(change, abs=1e-12)
    assert found.change_bits == pytest.approx(-change / 50 / 0.6931471805599453, abs=1e-12)
    assert found.exponentials == 2
    assert found.log_det_nats == pytest.approx(float(proved.mean()))
    assert abs(change) <= found.bound_nats
    assert found.bound_bits == pytest.approx(found.bound_nats / 50 / 0.6931471805599453)
    assert found.bound_nats < 2000 * tol


def test_what_is_computed_in_full_has_nothing_to_report():
    x = torch.randn(3, 2, 4, 4)
    for layer in (lk.conv_exponential(2, tol=1e-3), lk.conv_exponential(2, degree=4), lk.Conv1x1(2)):
        assert not loosens(lk.Flow(lk.Normal((2, 4, 4)), layer))
        assert measure_truncation(lk.Flow(lk.Normal((2, 4, 4)), layer), Batch(x), 0.03) is None
    flow = lk.Flow(lk.Normal((2, 4, 4)), lk.conv_exponential(2))
    assert loosens(flow)
    assert measure_truncation(flow, Batch(x), 1e-9) is None


def test_without_a_gradient_at_the_value_there_is_a_change_and_no_bound():
    fixed = lk.Exponential(lk.ConvMap(0.3 * torch.randn(2, 2, 3, 3)))
    flow = lk.Flow(lk.Normal((2, 4, 4)), lk.Chain([lk.Dequantize(4), fixed]))
    found = measure_truncation(flow, Batch(torch.randint(4, (3, 2, 4, 4))), 1e-2)
    assert (found.value_nats, found.bound_bits, found.bound_nats) == (None, None, None)
    assert found.change_nats != 0
    assert "allow" not in found.words(Unit.of("image"))


def test_items_count_as_much_as_they_weigh():
    flow, weights = image_flow(), torch.tensor([0.0, 0.5, 1.5, 2.0, 1.0, 1.0], dtype=torch.float64)
    x = torch.randn(6, 2, 5, 5, dtype=torch.float64)
    plain, same, triple = (
        measure_truncation(flow, Batch(x, weights=each), 1e-2) for each in (None, weights, 3 * weights)
    )
    assert same.log_det_nats == pytest.approx(plain.log_det_nats)
    assert triple.log_det_nats == pytest.approx(3 * plain.log_det_nats)


def test_graphs_count_by_graph():
    torch.manual_seed(0)
    structure = lk.GraphBatch.complete([2, 3])
    layers = [lk.ActNorm(2), lk.graph_exponential(2), lk.rotation(2)]
    flow = testing.randomize(lk.Flow(lk.Normal((2,)), lk.Chain(layers)), scale=0.3).double()
    x = torch.randn(5, 2, dtype=torch.float64)
    found = measure_truncation(flow, Batch(x, structure=structure), 1e-1)
    with nets.regularized(flow, exp_tol=1e-1), recorded() as seen:
        flow.log_prob(x, lk.Context(structure=structure))
    graphs, nodes = (torch.as_tensor(d.log_det_error_bound) for d in seen)
    assert (graphs.numel(), nodes.numel()) == (2, 1)
    assert found.log_det_nats == pytest.approx(float(graphs.sum() + 5 * nodes) / 2)
    assert abs(found.change_nats) <= found.bound_nats


def test_a_fit_reports_it_once_at_its_end():
    flow = lk.Flow(lk.Normal((3,)), lk.dense_exponential(3))
    settings = {"steps": 3, "batch_size": 8, "validations": 1, "lr": 0.02, "warmup": 0}
    data = 3 * torch.randn(40, 3)
    course = lk.fit(flow, data, **settings)
    assert course.truncation.exp_tol == 1e-3
    assert course.truncation.exponentials == 1
    assert Course.parse(json.loads(course.model_dump_json())) == course
    assert "tolerance of 0.001" in course.truncation.words(Unit.of("table"))


FAILURES = [
    ConvergenceError("Too many terms."),
    NonFiniteError("The value is not finite."),
    RunError("No space is left."),
    MemoryError(),
    RuntimeError("CUDA out of memory"),
]


def failing(error):
    def measure(*args, **settings):
        raise error

    return measure


@pytest.mark.parametrize("error", FAILURES, ids=[type(error).__name__ for error in FAILURES])
def test_a_fit_is_kept_when_it_cannot_be_measured(error, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "measure_truncation", failing(error))
    run = Run.create(tmp_path / "run", RunConfig(data=stripes().facts(), model=tiny_config(), fit=BRIEF))
    with pytest.warns(LikelifyWarning, match="is kept; only what its tolerance") as seen:
        course = lk.fit(tiny_flow(), stripes(), run=run)
    assert len(seen) == 1
    assert (course.reason, course.truncation) == ("finished", None)
    assert Run.load(run.path).course() == course
    assert not (run.path / "checkpoint.safetensors").exists()
    with pytest.raises(RunError, match="has ended"):
        lk.fit(tiny_flow(), stripes(), run=run)


def test_ctrl_c_while_it_is_measured_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "measure_truncation", failing(KeyboardInterrupt()))
    with pytest.warns(LikelifyWarning, match="It was interrupted"):
        assert lk.fit(tiny_flow(), stripes(), BRIEF).reason == "finished"
    run = Run.create(tmp_path / "run", RunConfig(data=stripes().facts(), model=tiny_config(), fit=BRIEF))
    with pytest.raises(KeyboardInterrupt):
        lk.fit(tiny_flow(), stripes(), run=run)
    assert run.course().reason == "finished"
    assert not (run.path / "checkpoint.safetensors").exists()
    assert run.flow()


def without_tolerance(values):
    """Settings as a version wrote them that had no tolerance of training steps."""
    del values["fit"]["exp_tol"]
    return values


def test_a_run_of_an_earlier_version_goes_on_at_full_tolerance(tmp_path):
    full = BRIEF.model_copy(update={"exp_tol": None, "checkpoint_seconds": 0})
    run = Run.create(tmp_path / "run", RunConfig(data=stripes().facts(), model=tiny_config(), fit=full))

    def kill(progress):
        raise KeyboardInterrupt

    assert lk.fit(tiny_flow(), stripes(), run=run, on_step=kill).reason == "interrupted"
    facts = without_tolerance(json.loads(run.saved().facts.model_dump_json()))
    assert Facts.parse(facts).fit == full
    config = run.path / "config.json"
    config.write_text(json.dumps(without_tolerance(json.loads(config.read_text()))))
    earlier = Run.load(run.path)
    assert earlier.config.fit == full
    with pytest.raises(RunError, match="exp_tol is None, not 0.001"):
        lk.fit(tiny_flow(), stripes(), full.model_copy(update={"exp_tol": 1e-3}), run=earlier)
    assert earlier.resume(stripes()).truncation is None
