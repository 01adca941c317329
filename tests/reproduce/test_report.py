"""Reports: the tables that finished cells make, as Markdown and HTML."""

import copy
import math
import re
import shutil

import pytest

from likelify.fitting.figures import Point, Unit
from likelify.reproduce.course import course_table, equal_table
from likelify.reproduce.render import to_html, to_markdown
from likelify.reproduce.session import Session
from likelify.reproduce.store import read_cells, save_cell
from tests.reproduce.trial import METHODS, experiment


def test_reports_hold_the_figures_and_escape_what_they_quote(finished):
    session = Session.open(experiment(), out=finished)
    report = session.report()
    results, course, paper = report.tables
    assert results.headings[5] == "ELBO minus Plain <b> & simple [95 %]"
    plain, splines = results.rows
    bits = [s.result.elbo.bits.mean for s in session.states if s.result.method == "Splines"]
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


def test_a_trial_is_not_discussed_and_nothing_is_no_difference(finished, tmp_path):
    def discuss(evidence):
        return ["Splines are better."]

    assert Session.open(experiment(discuss=discuss), out=finished).report().discussion == []
    empty = Session.open(experiment(scale="cpu", discuss=discuss), out=tmp_path).report()
    assert empty.discussion == ["Splines are better."]
    assert [row[5] for row in empty.tables[0].rows] == ["-", "-"]


def test_incomplete_tables_say_so(finished):
    report = Session.open(experiment(seeds=3), out=finished).report()
    notes = " ".join(report.tables[0].notes)
    assert "2 of 6 cells are not there yet: plain-b-simple.digits.2, splines.digits.2." in notes
    empty = Session.open(experiment(), out=finished / "nowhere").report()
    assert empty.tables[0].rows[0][1:5] == ["-", "0", "-", "-"]
    assert to_markdown(empty)
    assert to_html(empty)


def notes_for_versions(finished, folder, versions):
    """Return the notes below a table whose four cells have these versions."""
    shutil.copytree(finished / "trial-quick", folder / "trial-quick", dirs_exist_ok=True)
    for (name, values), changed in zip(read_cells(finished / "trial-quick").items(), versions, strict=True):
        values = copy.deepcopy(values)
        values["versions"] = {"torch": "2.0"} | changed
        save_cell(folder / "trial-quick", name, values)
    return " ".join(Session.open(experiment(), out=folder).report().tables[0].notes)


def test_cells_of_different_code_are_noted(finished, tmp_path):
    alike = [{"code": "a", "fitting": "f"}] * 4
    assert "versions of the code" not in notes_for_versions(finished, tmp_path, alike)
    own = [{"code": str(number), "fitting": "f"} for number in range(4)]
    assert "4 versions of the code" in notes_for_versions(finished, tmp_path, own)
    shared = [*alike[:2], *[{"code": "a", "fitting": "g"}] * 2]
    assert "2 versions of the code" in notes_for_versions(finished, tmp_path, shared)
    before = [{"code": "whole"}] * 4
    assert "versions of the code" not in notes_for_versions(finished, tmp_path, before)
    assert "3 versions of the code" in notes_for_versions(finished, tmp_path, [*before[:2], {"code": "b"}, *own[:1]])


def test_the_weighted_column_says_of_what_it_is(finished, tmp_path):
    table = Session.open(experiment(), out=finished).report().tables[0]
    notes = " ".join(table.notes)
    assert "compare the weighted column from row to row, not with the ELBO beside it" in notes
    assert "Not weighted" not in notes
    values = read_cells(finished / "trial-quick")
    gains = [v["gain"]["mean"] / (64 * math.log(2)) for v in values.values() if v["method"] == "Splines"]
    column = table.headings.index("weighting gains")
    assert float(table.rows[1][column].split(" ")[0]) == pytest.approx(sum(gains) / 2, abs=5e-4)
    shutil.copytree(finished / "trial-quick", tmp_path / "trial-quick")
    save_cell(tmp_path / "trial-quick", "splines.digits.1", values["splines.digits.1"] | {"iw": None, "gain": None})
    notes = " ".join(Session.open(experiment(), out=tmp_path).report().tables[0].notes)
    assert "Not weighted, for want of time, so that the column has fewer seeds: Splines, seed 1." in notes


@pytest.mark.parametrize("shown", [course_table, equal_table])
def test_what_is_read_at_a_time_is_of_a_trained_model_and_of_the_time_printed(finished, shown):
    session = Session.open(experiment(), out=finished)
    curve = ((0, 0.1, 8.0), (2, 10.2, 3.0), (4, 20.7, 2.0))
    points = [Point(step=k, seconds=s, train_bits=None, train_nats=None, validation_bits=b, validation_nats=-b)
              for k, s, b in curve]  # fmt: skip
    rows = {method.title: [] for method in METHODS}
    for state in session.states:
        course = state.result.course.model_copy(update={"points": points})
        rows[state.result.method].append(state.result.model_copy(update={"course": course}))
    table = shown(session.experiment, session.experiment.data[0], rows)
    line = dict(zip(table.headings, table.rows[1], strict=True))
    assert line["by 21 s"] == "2.000 +- 0.000"
    if shown is course_table:
        # A quarter of the time, where only fresh weights had been looked at, and a half: 10.5, printed as 11.
        assert (line["by 5.3 s"], line["by 11 s"]) == ("-", "3.000 +- 0.000")


def test_nats_are_better_when_higher(finished):
    bits, nats = (Session.open(experiment(unit=Unit.of(kind)), out=finished).report() for kind in ("image", "table"))
    scale = -64 * 0.6931471805599453
    last_bits, last_nats = (float(report.tables[1].rows[1][3].split(" ")[0]) for report in (bits, nats))
    assert last_nats == pytest.approx(scale * last_bits, abs=0.05)
    one = float(nats.tables[0].rows[1][3].split(" ")[0])
    assert one == pytest.approx(scale * float(bits.tables[0].rows[1][3].split(" ")[0]), abs=0.05)
