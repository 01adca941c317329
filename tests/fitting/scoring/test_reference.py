import numpy as np
import pytest
import torch

import likelify as lk
from likelify.data import as_source
from likelify.errors import ConfigError, DataError, LikelifyWarning, NonFiniteError
from likelify.fitting.run import Run
from likelify.fitting.scoring import likelihoods
from likelify.fitting.scoring.likelihoods import effort_of, score_source
from likelify.fitting.settings import RunConfig
from likelify.importance import mean
from tests.fitting.toys import QUICK, stripes, tiny_config, tiny_flow


def fitted(folder, monkeypatch):
    """A run of tiny images, whose data are found again."""
    source = stripes()
    run = Run.create(folder / "run", RunConfig(data=source.facts(), model=tiny_config(), fit=QUICK))
    flow = tiny_flow()
    flow.initialize(source.read_all("train").x)
    run.save_weights(flow.state_dict())
    monkeypatch.setattr(Run, "source", lambda _: source)
    return run


def table_source(rows=60, columns=3):
    return as_source(np.random.default_rng(0).normal(size=(rows, columns)))


def test_exact_scores_are_those_of_log_prob_whatever_the_pass():
    source = table_source(4000)
    flow = lk.Flow(lk.Normal((3,)), lk.Affine(scale=2.0)).double()
    expected = flow.log_prob(source.read_all("train").x)
    whole = score_source(flow, source, "train")
    assert whole.standard_error is None
    assert whole.nats.tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    assert whole.bits.tolist() == pytest.approx((-expected / (3 * np.log(2))).tolist())
    shares = []
    assert likelihoods.items_per_pass(source.facts()) == 4096
    score_source(flow, source, "train", on_batch=shares.append)
    assert shares == [1.0]


def test_scores_of_a_bound_repeat_and_come_with_their_error(monkeypatch):
    flow, source = tiny_flow(), stripes()
    flow.initialize(source.read_all("train").x)
    with lk.seeded(5):
        first = score_source(flow, source, "validation", draws=64)
        after = torch.rand(1)
    with lk.seeded(6):
        again = score_source(flow, source, "validation", draws=64)
    with lk.seeded(5):
        assert torch.rand(1) == after  # the caller's generator is left alone
    assert np.array_equal(first.nats, again.nats)
    fine = score_source(flow, source, "validation", draws=512)
    assert (first.standard_error > 0).all()
    # Errors say how far the values are off: squares of that many normal numbers have a mean near one.
    off = (first.nats - fine.nats) / first.standard_error
    assert 0.5 < np.mean(off**2) < 2.0
    # Equal images in two passes, or two splits, have draws of their own.
    monkeypatch.setattr(likelihoods, "PASS_ITEMS", 7)
    parts = score_source(flow, source, "validation", draws=64)
    assert not np.isin(parts.nats[:7], parts.nats[7:]).any()
    assert np.isnan(score_source(flow, source, "validation", draws=1).standard_error).all()


def test_the_effort_is_that_of_the_usual_evaluation_and_no_more():
    flow, facts = tiny_flow(), stripes().facts()
    assert effort_of(flow, facts).draws == 10
    large = facts.model_copy(update={"family": "mnist", "sizes": {"validation": 5000}})
    assert effort_of(flow, large).draws == 500 * 128 // 5000
    assert effort_of(flow, large.model_copy(update={"sizes": {"validation": 10**6}})).draws == 8
    exact = lk.Flow(lk.Normal((3,)), lk.Affine())
    assert effort_of(exact, facts, 9).draws == 1
    for model in (flow, exact):
        with pytest.raises(ConfigError, match="numbers of draws do not fit. draws"):
            effort_of(model, facts, 0)


def test_the_reference_is_kept_with_what_it_depends_on(tmp_path, monkeypatch):
    run = fitted(tmp_path, monkeypatch)
    first = run.reference()
    assert np.array_equal(first, score_source(run.flow(), stripes(), "validation").nats)
    assert len(first) == 60
    calls = []
    monkeypatch.setattr(Run, "source", lambda _: calls.append(1) or stripes())
    assert np.array_equal(run.reference(), first)
    assert not calls
    file = run.path / "scores" / "validation-10-draws.safetensors"
    whole = file.read_bytes()
    for damaged in (
        b"",
        whole[:-3],
        whole.replace(b"values", b"volues"),
        whole + b" " * 2**17,
        whole[:-8] + b"\xff" * 8,
    ):
        file.write_bytes(damaged)
        assert np.array_equal(run.reference(), first)
        assert file.read_bytes() == whole
    assert len(calls) == 5
    # Other draws, another split, other weights: other numbers.
    assert not np.array_equal(run.reference(draws=20), first)
    assert len(run.reference("test")) == 80
    flow = run.flow()
    with torch.no_grad():
        flow.transform[-1].shift.add_(0.1)
    run.save_weights(flow.state_dict())
    assert not np.array_equal(run.reference(), first)


def test_what_has_no_reference_says_so(tmp_path, monkeypatch):
    run = fitted(tmp_path, monkeypatch)
    monkeypatch.setattr(Run, "source", lambda _: table_source())
    with pytest.raises(ConfigError, match="split"):
        run.reference("held-out")
    with pytest.raises(DataError, match="no items in its split 'test'"):
        score_source(lk.Flow(lk.Normal((3,)), lk.Affine()), table_source(), "test")
    broken = lk.Flow(lk.Normal((3,)), lk.Affine())
    monkeypatch.setattr(lk.Flow, "elbo", lambda _self, x, _context, samples: mean(torch.full((1, len(x)), torch.nan)))
    with pytest.raises(NonFiniteError, match=r"item 0 \(counted from 0\) is not a number, and that of 53 more"):
        score_source(broken, table_source(), "train")


def test_a_run_that_cannot_be_written_is_scored_all_the_same(tmp_path, monkeypatch):
    run = fitted(tmp_path, monkeypatch)
    (run.path / "scores").write_text("in the way")
    with pytest.warns(LikelifyWarning, match="What scoring needs was not kept in the run"):
        assert len(run.reference()) == 60
