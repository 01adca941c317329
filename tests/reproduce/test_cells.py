"""Cells, their files, the runner and the reports, on models of seconds."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from likelify.errors import ConfigError, DataError
from likelify.reproduce.cell import Cell, DataChoice, Facts, Measuring, changes, slug
from likelify.reproduce.experiment import DataSet, Experiment, Method, Paper, Printed, most_hours
from likelify.reproduce.measure import code_hash, measure, run_cell, training_hash
from likelify.reproduce.render import to_html, to_markdown
from likelify.reproduce.results import read_state, result_file
from likelify.reproduce.runner import Place, run_cells
from likelify.reproduce.session import Session
from likelify.reproduce.sources import open_data

TINY = {"model": "marginal-spline", "couplings": 1, "hidden": (8,), "bins": 2}
METHODS = (
    Method("Plain <b> & simple", TINY | {"bins": 3}),
    Method("Splines", TINY, picture="inverses"),
)


def experiment(**changed):
    values = {
        "name": "trial",
        "title": "A <trial> of | things",
        "scale": "quick",
        "methods": METHODS,
        "data": (DataSet("digits", DataChoice(source="digits", limits={"train": 200, "validation": 40, "test": 50})),),
        "seeds": 2,
        "fit": {"steps": 4, "batch_size": 32, "validations": 2, "clock": "processor"},
        "budget": None,
        "measuring": Measuring(iw_samples=4, iw_items=10, seconds=60.0),
        "baseline": METHODS[0].title,
        "paper": Paper("A. Nobody", (Printed("Splines", "digits", "1.5"), Printed("Splines", "MNIST", "0.9"))),
        "caveat": "Means <nothing>.",
    }
    return Experiment(**(values | changed))


def silent(*_):
    pass


def run_here(cells, folder, **words):
    for cell in cells:
        run_cell(cell, folder, **words, report=silent)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """All cells of the trial, run in this process."""
    out = tmp_path_factory.mktemp("reproduce")
    session = Session.open(experiment(), out=out)
    torch.set_num_threads(1)
    run_here(session.todo(), session.results, weights=session.weights)
    return out


def test_a_cell_writes_one_complete_file(finished):
    folder = finished / "trial-quick"
    names = sorted(file.name for file in folder.iterdir())
    assert names == [
        "plain-b-simple.digits.0.json",
        "plain-b-simple.digits.1.json",
        "splines.digits.0.json",
        "splines.digits.0.png",
        "splines.digits.1.json",
    ]
    assert (folder / names[3]).read_bytes().startswith(b"\x89PNG")
    text = (folder / names[2]).read_text()
    values = json.loads(text)
    assert values["facts"]["sizes"] == {"train": 200, "validation": 40, "test": 50}
    assert values["elbo"]["items"] == 50
    assert values["iw"]["items"] == 10
    assert values["iw"]["samples"] == 4
    assert values["course"]["steps"] == 4
    assert [point["step"] for point in values["course"]["curve"]] == [0, 2, 4]
    assert values["settings"]["model"]["event_shape"] == [1, 8, 8]
    assert values["settings"]["fit"]["seed"] == 0
    assert values["versions"]["torch"] == torch.__version__
    assert values["machine"]["threads"] == 1
    assert 'curve": [\n      {"step": 0, ' in text


def test_seeds_pair_the_data_and_differ_in_their_figures(finished):
    states = Session.open(experiment(), out=finished).states
    results = {(s.result.method, s.result.seed): s.result for s in states}
    plain = METHODS[0].title
    assert results[plain, 0].elbo.bits != results[plain, 1].elbo.bits
    assert len({r.facts.fingerprint for r in results.values()}) == 1
    assert results["Splines", 0].settings["fit"] == results[plain, 0].settings["fit"]


def test_nothing_is_run_twice(finished):
    session = Session.open(experiment(), out=finished)
    assert [state.status for state in session.states] == ["finished"] * 4
    assert session.checked().todo() == []
    assert session.todo(again=True) == []


def test_changed_settings_make_stale_cells_that_are_named(finished):
    session = Session.open(experiment(fit={"steps": 5, "batch_size": 32, "clock": "processor"}), out=finished)
    assert {state.status for state in session.states} == {"stale"}
    assert session.states[0].why == "fit.steps 4 -> 5; fit.validations 2 -> 15"
    assert session.todo() == []
    assert len(session.todo(again=True)) == 4
    table = session.report().tables[0]
    assert table.rows[0][2] == "0"
    assert any("have other settings: plain-b-simple.digits.0" in note for note in table.notes)


def test_settings_that_came_later_do_not_make_old_cells_stale(finished, tmp_path):
    cell = Session.open(experiment(), out=finished).cells[0]
    values = json.loads(result_file(cell, finished / "trial-quick").read_text())
    del values["settings"]["model"]["pseudo_count"], values["settings"]["fit"]["patience"]
    result_file(cell, tmp_path).write_text(json.dumps(values))
    assert read_state(cell, tmp_path).status == "finished"
    values["settings"]["model"]["abolished"] = 1
    result_file(cell, tmp_path).write_text(json.dumps(values))
    state = read_state(cell, tmp_path)
    assert state.status == "stale"
    assert "abolished" in state.why


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 1}', b'{"format": 99}', b"[" * 100_000, b'{"format": "1"}'],
)
def test_damaged_files_are_run_again(tmp_path, content):
    session = Session.open(experiment(), out=tmp_path)
    file = result_file(session.cells[0], session.results)
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    state = read_state(session.cells[0], session.results)
    assert state.status == "damaged"
    assert state.why
    again = session.again()
    assert session.cells[0] in again.todo()
    assert any("cannot be read" in note for note in again.report().tables[0].notes)


def test_a_file_in_the_place_of_a_folder_is_damage(tmp_path):
    cell = experiment().cells()[0]
    result_file(cell, tmp_path).mkdir()
    assert read_state(cell, tmp_path).status == "damaged"


def test_other_data_make_stale_cells(finished, monkeypatch):
    from likelify.reproduce import session as module

    other = DataChoice(source="digits", limits={"train": 199})
    monkeypatch.setattr(module, "open_data", lambda choice: open_data(other))
    session = Session.open(experiment(), out=finished).checked()
    assert {state.status for state in session.states} == {"stale"}
    assert "fingerprint" in session.states[0].why


def test_data_that_are_not_there_are_left_out(tmp_path):
    data = (
        *experiment().data,
        DataSet("MNIST", DataChoice(source="mnist"), from_files=True),
    )
    without = Session.open(experiment(data=data), out=tmp_path)
    assert {cell.data.source for cell in without.cells} == {"digits"}
    session = Session.open(experiment(data=data), files=str(tmp_path), out=tmp_path).checked()
    assert "mnist needs the file" in session.absent["mnist"]
    assert {cell.data.source for cell in session.todo()} == {"digits"}
    with pytest.raises(ConfigError, match="needs your files of MNIST: name their folder with --data"):
        Session.open(experiment(data=data[1:]), out=tmp_path)


def test_weights_are_taken_again_only_for_the_same_fit(finished, tmp_path):
    cell = experiment().cells()[1]
    first = json.loads(result_file(cell, finished / "trial-quick").read_text())
    run_here([cell], tmp_path, weights=finished / "weights", reuse=True)
    again = json.loads(result_file(cell, tmp_path).read_text())
    assert again["trained_here"] is False
    assert again["course"] == first["course"]
    assert again["elbo"] == first["elbo"]
    settings, facts = first["settings"], Facts.parse(first["facts"])
    other = settings | {"fit": settings["fit"] | {"lr": 1.0}}
    assert training_hash(settings, facts) != training_hash(other, facts)
    measured = settings | {"measuring": {}}
    assert training_hash(settings, facts) == training_hash(measured, facts)


def test_damaged_weights_are_fitted_again(tmp_path):
    cell = experiment().cells()[0]
    run_here([cell], tmp_path, weights=tmp_path / "weights")
    (file,) = tmp_path.glob("weights/*/model.safetensors")
    file.write_bytes(b"nothing")
    run_here([cell], tmp_path, weights=tmp_path / "weights", reuse=True)
    assert json.loads(result_file(cell, tmp_path).read_text())["trained_here"] is True


class Clock:
    """Every look at it takes a second."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        self.time += 1.0
        return self.time


# The ELBO of 50 items takes a second, so a draw costs 0.02 s and an item 0.22 s. 14 s are left of 15, of which 70 %
# allow 44 items; of 10 s, 28; of 2 s, 3, which are fewer than are worth it.
@pytest.mark.parametrize(("seconds", "items"), [(None, 30), (15.0, 30), (10.0, 28), (2.0, None)])
def test_importance_weighting_keeps_to_the_time(seconds, items):
    cell = experiment().cells()[0]
    source = open_data(cell.data)
    flow = cell.model_config_for(Facts.of(source, "digits")).build()
    measuring = Measuring(iw_samples=10, iw_items=30, seconds=seconds)
    elbo, iw, spent = measure(flow, source, measuring, Clock(), silent)
    assert (iw.items if iw else None) == items
    assert elbo.items == 50
    assert spent >= 1.0
    assert measure(flow, source, Measuring(iw_samples=0), Clock(), silent)[1] is None


def test_reports_hold_the_figures_and_escape_what_they_quote(finished):
    session = Session.open(experiment(), out=finished)
    report = session.report()
    results, course, paper = report.tables
    assert results.headings[5] == "ELBO minus Plain <b> & simple [95 %]"
    plain, splines = results.rows
    bits = [s.result.elbo.bits for s in session.states if s.result.method == "Splines"]
    assert splines[3].startswith(f"{sum(bits) / 2:.3f} +- ")
    assert plain[5] == "0"
    assert re.fullmatch(r"[+-]\d+\.\d{3} \[[+-]\d+\.\d{3}, [+-]\d+\.\d{3}\]", splines[5])
    assert (plain[6], splines[6]) == ("-", "1.5")
    assert paper.rows == [["Splines", "MNIST", "0.9"]]
    assert len(course.headings) == 7
    assert course.rows[1][4] == "4"
    html = to_html(report)
    assert "A &lt;trial&gt; of | things" in html
    assert "Plain &lt;b&gt; &amp; simple" in html
    assert "<b>" not in html
    assert "Means &lt;nothing&gt;." in html
    # The curves and the picture are inside the page.
    assert html.count('src="data:image/png;base64,') == 2
    assert 'src="' not in html.replace('src="data:', "")
    markdown = to_markdown(report, session.results)
    assert "# A \\<trial\\> of \\| things" in markdown
    assert "](splines.digits.0.png)" in markdown
    assert f"| Splines | {splines[1]} | 2 |" in markdown
    widths = {line.count(" | ") for line in markdown.splitlines() if line.startswith("| Splines | 1")}
    assert len(widths) == 1


def test_incomplete_tables_say_so(finished):
    report = Session.open(experiment(seeds=3), out=finished).report()
    notes = " ".join(report.tables[0].notes)
    assert "2 of 6 cells are not there yet: plain-b-simple.digits.2, splines.digits.2." in notes
    empty = Session.open(experiment(), out=finished / "nowhere").report()
    assert empty.tables[0].rows[0][1:5] == ["-", "0", "-", "-"]
    assert to_markdown(empty)
    assert to_html(empty)


def test_cells_of_different_code_are_noted(finished, tmp_path):
    session = Session.open(experiment(), out=finished)
    folder = tmp_path / "trial-quick"
    folder.mkdir()
    for number, cell in enumerate(session.cells):
        values = json.loads(result_file(cell, session.results).read_text())
        values["versions"]["code"] = str(number)
        result_file(cell, folder).write_text(json.dumps(values))
    notes = Session.open(experiment(), out=tmp_path).report().tables[0].notes
    assert any("4 versions of the code" in note for note in notes)
    assert re.fullmatch(r"[0-9a-f]{12}", code_hash())


def test_nats_are_better_when_higher(finished):
    bits, nats = (Session.open(experiment(unit=unit), out=finished).report() for unit in ("bits/dim", "nats"))
    scale = -64 * 0.6931471805599453
    last_bits, last_nats = (float(report.tables[1].rows[1][3].split(" ")[0]) for report in (bits, nats))
    assert last_nats == pytest.approx(scale * last_bits, abs=0.05)
    one = float(nats.tables[0].rows[1][3].split(" ")[0])
    assert one == pytest.approx(scale * float(bits.tables[0].rows[1][3].split(" ")[0]), abs=0.05)


def test_cells_of_a_seed_stay_together_and_settle():
    cells = experiment().cells(seeds=2)
    assert [cell.seed for cell in cells] == [0, 0, 1, 1]
    assert [cell.picture for cell in cells] == [None, "inverses", None, None]
    facts = Facts.of(open_data(cells[0].data), "digits")
    epochs = cells[0].model_copy(update={"epochs": 3})
    assert epochs.fit_settings_for(facts).steps == 3 * (200 // 32)
    timed = experiment(fit={}, budget=60.0).cells(budget=5.0)[0].fit_settings_for(facts)
    assert timed.max_time == 5.0
    assert timed.steps > 10**6
    assert Cell.parse(json.loads(cells[1].model_dump_json())).settle(facts) == cells[1].settle(facts)
    assert most_hours(experiment(budget=60.0).cells(), 2) == pytest.approx(4 * 120 / 2 / 3600)
    assert most_hours(cells, 2) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: experiment().cells(seeds=0), "--seeds must be at least 1"),
        (lambda: experiment().cells(budget=0.0), "--budget must be longer"),
        (lambda: experiment(methods=(METHODS[1], METHODS[1])).cells(), "share a name"),
        (lambda: slug("+"), "no letters or digits"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_changes_name_both_values():
    assert changes({"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "y": 3, "z": 0}}) == ["a.y 2 -> 3", "a.z nothing -> 0"]


def test_pictures_need_images(tmp_path):
    from likelify.reproduce.pictures import draw_picture

    with pytest.raises(DataError, match="has no images"):
        draw_picture("samples", None, open_data(DataChoice(source="iris")), seed=0)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Two cells of which one fails, in processes of their own."""
    out = tmp_path_factory.mktemp("processes")
    bad = Method("Bad", {"model": "glow", "levels": 4})
    session = Session.open(experiment(methods=(bad, METHODS[1]), baseline=None, seeds=1), out=out)
    events = []
    failures = run_cells(session.todo(), session.place(), jobs=2, on_event=events.append)
    return session.again(), failures, events


def test_processes_run_cells_and_report_failures(processes):
    session, failures, events = processes
    assert [state.status for state in session.states] == ["missing", "finished"]
    assert list(failures) == ["bad.digits.0"]
    assert "ShapeError: glow with 4 levels" in failures["bad.digits.0"]
    kinds = {kind: [e.cell.method for e in events if e.kind == kind] for kind in ("start", "finish", "fail")}
    assert sorted(kinds["start"]) == ["Bad", "Splines"]
    assert kinds["finish"] == ["Splines"]
    assert kinds["fail"] == ["Bad"]
    assert any(event.kind == "progress" and event.phase for event in events)
    assert [cell.name for cell in session.todo()] == ["bad.digits.0"]


def test_processes_give_the_figures_of_this_process(processes, finished):
    here = Session.open(experiment(), out=finished).states[1].result
    there = processes[0].states[1].result
    assert there.elbo == here.elbo
    assert there.machine["threads"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("end", ["parent", "signal"])
def test_an_ended_worker_leaves_nothing(tmp_path, end):
    cell = experiment(budget=300.0, fit={"clock": "processor"}).cells()[0]
    order = {"cell": cell.model_dump(mode="json"), "folder": str(tmp_path), "weights": None, "reuse": False}
    worker = subprocess.Popen(
        [sys.executable, "-m", "likelify.reproduce.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    worker.stdin.write(json.dumps(order | {"threads": 1}) + "\n")
    worker.stdin.flush()
    while json.loads(worker.stdout.readline())["phase"] != "fitting":
        pass
    if end == "parent":
        worker.stdin.close()
    else:
        worker.send_signal(signal.SIGTERM)
    start = time.monotonic()
    worker.wait(20)
    assert time.monotonic() - start < 10
    assert worker.returncode not in (0, None)
    assert list(tmp_path.iterdir()) == []
    worker.stdout.close()
    if not worker.stdin.closed:
        worker.stdin.close()


@pytest.mark.slow
def test_an_error_of_the_caller_ends_the_processes(tmp_path):
    cells = experiment(budget=300.0, fit={"clock": "processor"}).cells()[:2]

    def interrupt(event):
        if event.kind == "progress" and event.phase == "fitting":
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, Place(tmp_path), jobs=2, on_event=interrupt)
    assert time.monotonic() - start < 60
    assert list(tmp_path.iterdir()) == []
