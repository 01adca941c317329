"""Reports: the tables that finished cells make, as Markdown and HTML."""

import copy
import re

import pytest

from likelify.fitting.figures import Unit
from likelify.reproduce.render import to_html, to_markdown
from likelify.reproduce.session import Session
from likelify.reproduce.store import read_cells, save_cell
from tests.reproduce.trial import experiment


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


def test_nats_are_better_when_higher(finished):
    bits, nats = (Session.open(experiment(unit=Unit.of(kind)), out=finished).report() for kind in ("image", "table"))
    scale = -64 * 0.6931471805599453
    last_bits, last_nats = (float(report.tables[1].rows[1][3].split(" ")[0]) for report in (bits, nats))
    assert last_nats == pytest.approx(scale * last_bits, abs=0.05)
    one = float(nats.tables[0].rows[1][3].split(" ")[0])
    assert one == pytest.approx(scale * float(bits.tables[0].rows[1][3].split(" ")[0]), abs=0.05)
