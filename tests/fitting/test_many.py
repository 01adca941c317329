"""Fits in two processes, started once for all of them."""

import math

import numpy as np
import pytest
import torch

import likelify as lk
from likelify import nets, zoo
from likelify.data import ArraySource
from likelify.errors import ConfigError, DataError, NonFiniteError, ProcessError
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.fitting.process import OneProcess, all_know
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings, RunConfig
from tests.fitting.graph_runs import rings as graph_rings
from tests.fitting.pair import in_pair, signalled
from tests.fitting.toys import QUICK, stripes, tiny_flow

# A batch that two processes cannot share evenly, and two batches of validation.
EXACT = FitSettings(steps=60, batch_size=33, validations=3, warmup=10, lr=5e-3)

# Batches of graphs of three to seven nodes, shared unevenly.
GRAPHS = FitSettings(steps=20, batch_size=13, validations=2, warmup=2, lr=5e-2, average=0.0)


def rings():
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * math.pi, 1000), 1 + 0.1 * rng.normal(size=1000)
    rows = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    parts = {"train": rows[:300], "validation": rows[300:900], "test": rows[900:]}
    return ArraySource("rings", parts, kind="table", levels=None)


def exact_flow():
    """Without noise and in float64, so that rounding does not grow into differences."""
    with lk.seeded(0):
        layers = []
        for swap in (False, True):
            bijector = lk.SplineBijector(6, 4.0)
            layers += [lk.ActNorm(2), lk.rotation(2)]
            layers += [lk.Coupling(lk.ChannelSplit(2, swap=swap), bijector, nets.MLP(1, bijector.size, (12,)))]
        return lk.Flow(lk.Normal(2), lk.Chain(layers)).double()


def new_run(folder):
    config = RunConfig(
        data=rings().facts(), model=zoo.MODELS["flowified-mlp"](event_shape=(2,), widths=(3,)), fit=EXACT
    )
    return Run.create(folder, config)


def nats_of(flow):
    return evaluate(flow, rings(), iw_samples=0).elbo.nats.mean


def summary(course):
    figures = [(point.step, point.train_bits, point.validation_nats, point.lr) for point in course.points]
    return course.reason, course.steps, course.best_step, figures


def fits_exactly(place, folder):
    flow = exact_flow()
    if not place.is_first:
        # What the others begin with does not count.
        torch.nn.init.constant_(next(flow.parameters()), 0.3)
    course = fit(flow, rings(), EXACT, fabric=place)
    return summary(course), nats_of(flow), [tensor.tolist() for tensor in flow.state_dict().values()]


def stops_at_a_signal(place, folder):
    """A signal to the second process only; the first one keeps the checkpoint."""
    run = place.from_first(new_run(folder / "from-two") if place.is_first else None)

    def stop(progress):
        if progress.step == 31 and place.rank == 1:
            signalled()

    return summary(fit(exact_flow(), rings(), run=run, fabric=place, on_step=stop))


def goes_on_from_one(place, folder):
    run = Run.load(folder / "from-one")
    flow = exact_flow()
    course = fit(flow, rings(), run=run, fabric=place)
    return summary(course), nats_of(flow), run.course().ended


def is_refused_what_has_ended(place, folder):
    fit(exact_flow(), rings(), run=Run.load(folder / "from-one"), fabric=place)


def cannot_read(place, folder):
    class Broken(ArraySource):
        def read(self, split, indices):
            self.reads = getattr(self, "reads", 0) + 1
            if place.rank == 1 and split == "train" and self.reads > 8:
                raise DataError("the share is gone")
            return super().read(split, indices)

    source = rings()
    source.__class__ = Broken
    fit(exact_flow(), source, EXACT, fabric=place)


def meets_nan(place, folder):
    flow = tiny_flow()
    calls = []

    class Trap(lk.Affine):
        def forward(self, x, context=None):
            z, log_det = super().forward(x, context)
            calls.append(1)
            return z, log_det * (math.nan if place.rank == 1 and len(calls) > 12 else 1.0)

    broken = lk.Flow(flow.base, lk.Chain([*flow.transform, Trap()]), event_shape=(1, 2, 2))
    fit(broken, stripes(), QUICK, fabric=place)


def meets_infinity_alone(place, folder):
    """Only one process meets it, in a layer, so that it is an error there and a word in the other."""
    calls = []

    class Trap(lk.Affine):
        def forward(self, x, context=None):
            calls.append(1)
            if place.rank == 1 and len(calls) > 12:
                raise NonFiniteError("met infinity")
            return super().forward(x, context)

    with lk.seeded(0):
        flow = exact_flow()
    broken = lk.Flow(flow.base, lk.Chain([*flow.transform, Trap().double()]), event_shape=(2,))
    fit(broken, rings(), EXACT, fabric=place)


def a_callback_fails_in_the_first(place, folder):
    def fail(progress):
        if place.is_first and progress.step == 3:
            raise DataError("the callback failed")

    fit(exact_flow(), rings(), EXACT, fabric=place, on_step=fail)


def has_too_small_batches(place, folder):
    fit(exact_flow(), rings(), EXACT, fabric=place, batch_size=1)


def learns_from_dequantized_images(place, folder):
    flow = tiny_flow()
    fit(flow, stripes(), QUICK, fabric=place)
    measured = evaluate(flow, stripes(), iw_samples=0).elbo.bits
    return measured.mean, measured.standard_error


def table_flow():
    """Two members that are trained apart, and weighted by validation rows before each validation."""
    with lk.seeded(0):
        small = {"members": ("autoregressive", "couplings"), "width": 8, "components": 2, "hidden": (8,)}
        return zoo.build("table-flow", event_shape=2, **small).double()


def fits_a_table(place, folder):
    flow = table_flow()
    course = fit(flow, rings(), EXACT, fabric=place, steps=12)
    return summary(course), nats_of(flow), flow.base.weights.tolist()


def graph_flow():
    """Mixes along the edges, so that the graphs of a share have to be those of its nodes."""
    with lk.seeded(0):
        return lk.Flow(lk.Normal((1,)), lk.Chain([lk.ActNorm(1), lk.graph_exponential(1)])).double()


def fits_graphs(place, folder):
    flow = graph_flow()
    course = fit(flow, graph_rings(), GRAPHS, fabric=place)
    return summary(course), [tensor.tolist() for tensor in flow.state_dict().values()]


def ends_for_lack_of_patience(place, folder):
    return summary(fit(exact_flow(), rings(), EXACT, fabric=place, lr=0.5, patience=1, average=0.0))


def ends_in_time(place, folder):
    return summary(fit(exact_flow(), rings(), EXACT, fabric=place, steps=10**6, max_time=0.5, validations=2))


TASKS = [
    fits_exactly,
    fits_a_table,
    fits_graphs,
    stops_at_a_signal,
    goes_on_from_one,
    is_refused_what_has_ended,
    cannot_read,
    meets_nan,
    meets_infinity_alone,
    a_callback_fails_in_the_first,
    has_too_small_batches,
    ends_for_lack_of_patience,
    ends_in_time,
]


def interrupted_in_one(folder):
    def stop(progress):
        if progress.step == 31:
            raise KeyboardInterrupt

    return fit(exact_flow(), rings(), run=new_run(folder), fabric=OneProcess("cpu"), on_step=stop)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("many")


@pytest.fixture(scope="module")
def found(folder):
    assert interrupted_in_one(folder / "from-one").reason == "interrupted"
    ranks = in_pair(TASKS, folder, folder)
    assert None not in ranks
    return {task: [given[number] for given in ranks] for number, task in enumerate(TASKS)}


@pytest.fixture(scope="module")
def alone():
    flow = exact_flow()
    return summary(fit(flow, rings(), EXACT, fabric=OneProcess("cpu"))), nats_of(flow)


def same(course, other):
    assert course[:3] == other[:3]
    assert [point[0] for point in course[3]] == [point[0] for point in other[3]]
    for point, expected in zip(course[3], other[3], strict=True):
        assert [x or 0.0 for x in point] == pytest.approx([x or 0.0 for x in expected], abs=1e-4)


def test_two_processes_learn_what_one_does_at_equal_global_batches(found, alone):
    first, second = found[fits_exactly]
    assert first == second
    same(first[0], alone[0])
    assert first[1] == pytest.approx(alone[1], abs=1e-4)
    assert alone[0][3][-1][2] > alone[0][3][0][2] + 0.3


def test_members_of_a_table_flow_weigh_the_same_in_all_processes(found):
    first, second = found[fits_a_table]
    assert first == second
    flow = table_flow()
    course = fit(flow, rings(), EXACT, fabric=OneProcess("cpu"), steps=12)
    same(first[0], summary(course))
    assert first[1] == pytest.approx(nats_of(flow), abs=1e-4)
    assert first[2] == pytest.approx(flow.base.weights.tolist(), abs=1e-4)


def test_graphs_of_different_sizes_are_learnt_by_two_processes(found):
    first, second = found[fits_graphs]
    assert first == second
    flow = graph_flow()
    course = fit(flow, graph_rings(), GRAPHS, fabric=OneProcess("cpu"))
    same(first[0], summary(course))
    for tensor, values in zip(flow.state_dict().values(), first[1], strict=True):
        assert tensor.flatten().tolist() == pytest.approx(torch.tensor(values).flatten().tolist(), abs=1e-4)


def test_a_fit_goes_on_in_another_number_of_processes(found, alone, folder):
    stopped, also = found[stops_at_a_signal]
    assert stopped == also
    assert stopped[:2] == ("interrupted", 31)
    flow = exact_flow()
    with pytest.warns(lk.errors.LikelifyWarning, match="processes 2 -> 1"):
        course = fit(flow, rings(), run=Run.load(folder / "from-two"), fabric=OneProcess("cpu"))
    same(summary(course), alone[0])
    assert nats_of(flow) == pytest.approx(alone[1], abs=1e-4)
    for course, nats, ended in found[goes_on_from_one]:
        same(course, alone[0])
        assert nats == pytest.approx(alone[1], abs=1e-4)
        assert ended
    told, also = found[is_refused_what_has_ended]
    assert "has ended" in str(told)
    assert isinstance(also, ProcessError)
    assert str(told) in str(also)


def test_what_one_process_meets_ends_all(found):
    told, own = found[cannot_read]
    assert isinstance(own, DataError)
    assert str(told) == "Process 1 of 0..1 stopped, and all others with it. the share is gone"
    nan, also = found[meets_nan]
    assert isinstance(nan, NonFiniteError)
    assert "became nan at step" in str(nan)
    assert str(nan) == str(also)
    own, told = found[a_callback_fails_in_the_first]
    assert isinstance(own, DataError)
    assert str(told) == "Process 0 of 0..1 stopped, and all others with it. the callback failed"
    told, own = found[meets_infinity_alone]
    assert isinstance(own, NonFiniteError)
    assert "met infinity" in str(own)
    assert "the weights of step" in str(own)
    assert isinstance(told, ProcessError)
    assert "met infinity" in str(told)
    assert all_know(own)
    small, also = found[has_too_small_batches]
    assert isinstance(small, ConfigError)
    assert "cannot be shared by 2" in str(small)
    assert all(all_know(error) for pair in (found[cannot_read], found[has_too_small_batches]) for error in pair)


@pytest.mark.slow
def test_dequantized_images_are_learnt_as_well(tmp_path):
    first, second = in_pair([learns_from_dequantized_images], tmp_path, tmp_path)
    assert first == second
    mean, error = first[0]
    flow = tiny_flow()
    fit(flow, stripes(), QUICK, fabric=OneProcess("cpu"))
    measured = evaluate(flow, stripes(), iw_samples=0).elbo.bits
    assert abs(mean - measured.mean) < 2 * math.hypot(error, measured.standard_error)


def test_all_decide_alike_when_to_end(found):
    first, second = found[ends_for_lack_of_patience]
    assert first == second
    assert first[0] == "stopped early"
    first, second = found[ends_in_time]
    assert first == second
    assert first[0] == "time is up"
