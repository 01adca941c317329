"""The page, part by part, also where parts cannot be made."""

import re
from html import unescape

import numpy as np
import pytest
import torch

import likelify as lk
from likelify.data import ArraySource
from likelify.errors import ConfigError, LikelifyWarning, MissingDependencyError, RunError
from likelify.fitting.figures import Course
from likelify.fitting.outliers import outlier_score
from likelify.fitting.report import material as materials
from likelify.fitting.report import page
from likelify.fitting.report.blocks import Section
from likelify.fitting.report.material import Material
from likelify.fitting.report.page import SECTIONS, as_html, made, write_report
from likelify.fitting.report.sections.copies import copies
from likelify.fitting.report.sections.extremes import extremes
from likelify.fitting.report.sections.ranks import ranks
from likelify.fitting.report.sections.standing import standing
from likelify.fitting.run import Run
from likelify.fitting.scoring.reference import HeldOut
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.zoo import MODELS, ConvertedConfig, converted_flow
from tests.fitting.report.runs import (
    NASTY,
    SHORT,
    ElementsAlone,
    fitted,
    trap,
    waves,
)
from tests.fitting.toys import stripes, tiny_config
from tests.flowification.networks import mlp

TITLES = [title for _, _, title in SECTIONS]


def words(html):
    """The text of a page without its pictures."""
    html = re.sub(r"<(style|svg).*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def missing(html):
    return re.findall(r'<p class="missing">(.*?)</p>', html)


def doubts(html):
    found = re.search(r'<aside class="doubts">(.*?)</aside>', html, flags=re.DOTALL)
    return words(found[1]) if found else ""


def filled(fill, run, source):
    section = Section("word", "title")
    fill(Material(run, source), section)
    return section


def test_a_page_of_images_has_all_its_parts(images):
    run, source = images
    file = run.report(source=source)
    html = file.read_text()
    assert file == run.path / "report.html"
    assert not missing(html)
    text = words(html)
    for title in TITLES:
        assert title in text
    assert "A model 'marginal-spline' of" in text
    assert "learnt how probable images like these are, given the class of each, from 400 images of 2 × 2 pixels" in text
    assert "On all 80 images of the test split, which the fit never saw, the model has" in text
    assert "groups of items" in text
    assert "likelify report" in text
    assert len(html) < 300_000
    assert len(re.findall("<svg", html)) == 6
    # The same again but for the time, and the figures are those that are kept for ranks.
    again = as_html(run, source=source)
    assert again.partition("Made on")[0] == html.partition("Made on")[0]
    assert (run.path / "scores").is_dir()


def test_what_comes_from_the_data_is_never_markup(rows):
    run, source = rows
    html = as_html(run, source=source)
    assert not missing(html)
    assert "<script" not in html
    assert "<b>secret" not in html
    assert "<i>file" not in html
    assert "\x07" not in html
    text = unescape(html)
    for name in NASTY[:4]:
        assert name in text
    assert "rows.csv" in words(html).partition("learnt")[0]
    assert "/home/me" not in words(html).partition("learnt")[0]
    assert "Of 6 columns" not in text
    assert "The 6 of 15 pairs" in text


def test_pages_of_sequences_and_of_real_images_without_a_test_split(sequences, tmp_path):
    run, source = sequences
    html = as_html(run, source=source)
    assert not missing(html)
    assert "sequences of 2 × 24 elements, real numbers" in words(html)
    assert "nats per sequence" in words(html)
    real = waves("image", (1, 4, 4), (60, 30, 0))
    run = fitted(tmp_path / "real", real, ElementsAlone(event_shape=(1, 4, 4)), SHORT)
    html = as_html(run, source=real)
    assert missing(html) == [
        "Left out: there is no test split, and the ranks of validation items among themselves say nothing."
    ]
    assert "of the validation split, which chose the weights" in words(html)
    assert "there are none for testing" in words(html)


def test_two_items_to_test_are_enough_for_a_page(tmp_path):
    source = waves("table", (3,), (30, 2, 2))
    source.columns = ("a", "b", "c")
    run = fitted(tmp_path / "run", source, ElementsAlone(event_shape=(3,)), SHORT)
    html = as_html(run, source=source)
    assert missing(html) == [
        "Left out: 2 test and 2 validation rows are too few.",
        "Left out: 2 held-out rows are too few.",
    ]
    assert "compared with all 30 rows of the train split, since there are only 2 in the test split" in words(html)


def test_without_the_data_the_page_says_so_and_shows_the_rest(images, monkeypatch):
    run, _ = images
    html = as_html(run)
    assert len(missing(html)) == 7
    assert {re.sub(r"&#\d+;", "'", each) for each in missing(html)} == {
        "Left out: the data cannot be opened again. There is no source 'stripes'."
    }
    assert "Kept are the weights of step" in words(html)


def test_a_fit_that_has_not_ended_is_said_at_the_top(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "SECTIONS", (SECTIONS[0], SECTIONS[4]))
    source = stripes()
    run = fitted(tmp_path / "run", source, tiny_config(), SHORT)
    course = run.course()
    run.save_course(course.model_copy(update={"reason": "running"}))
    assert "The fit has not ended: it was killed, or is still running." in doubts(as_html(run, source=source))
    run.save_course(course.model_copy(update={"reason": "interrupted"}))
    assert "The fit was interrupted after 20 steps" in doubts(as_html(run, source=source))
    empty = Run.create(tmp_path / "empty", run.config)
    html = as_html(empty, source=source)
    assert "no model.safetensors: the fit has not kept any yet" in unescape(html)
    assert "no course of a fit" in html
    empty.save_course(Course())
    assert "The fit has not ended after 0 steps" in as_html(empty, source=source)


def test_a_fault_of_ours_takes_one_part_and_is_not_silent(images, monkeypatch):
    run, source = images

    def broken(material, section):
        section.doubts.append("what was found before")
        raise TypeError("unexpected <thing>")

    monkeypatch.setattr(page, "SECTIONS", (SECTIONS[4], (broken, "Broken", "A part")))
    with pytest.warns(LikelifyWarning, match=r"A part of the report failed. This is a fault of likelify, TypeError in"):
        html = as_html(run, source=source)
    assert "This is a fault of likelify, TypeError in 'A part': unexpected <thing>. Please report it." in words(html)
    assert "what was found before" in doubts(html)
    assert "Kept are the weights of step" in words(html)


def test_what_the_page_needs_and_is_not_installed_is_named(images, monkeypatch):
    run, source = images
    monkeypatch.setattr(page, "PACKAGES", {"sklearn": "scikit-learn", "no_such_package": "no-such-package"})
    with pytest.raises(MissingDependencyError, match=r"'no-such-package'.*likelify\[app\]"):
        as_html(run, source=source)


def test_rows_are_shown_by_how_odd_they_are(rows):
    run, source = rows
    section = made(Material(run, source), extremes, Section("word", "title"))
    assert section.missing is None
    tables = [block for block in section.blocks if hasattr(block, "rows")]
    odd = [[float(row[1]) for row in table.rows] for table in tables]
    assert odd[0] == sorted(odd[0], reverse=True)
    assert odd[1] == sorted(odd[1])
    assert min(odd[0]) >= max(odd[1])
    held = Material(run, source)
    highest = float(outlier_score(held.flow, held.held.batch.x, torch.from_numpy(held.scores.nats)).max())
    assert odd[0][0] == pytest.approx(highest, abs=0.006)


def test_figures_of_other_weights_are_not_shown(tmp_path):
    source = stripes()
    run = fitted(tmp_path / "run", source, tiny_config(), SHORT)
    run.evaluate(source, elbo_samples=1, iw_samples=0)
    assert Material(run, source).evaluation is not None
    run.save_weights({name: value + 1 for name, value in run.flow().state_dict().items()})
    assert Material(run, source).evaluation is None


def test_warnings_on_the_way_are_doubts(images, monkeypatch):
    run, source = images

    def warns(material, section):
        import warnings

        warnings.warn("Look out", LikelifyWarning, stacklevel=1)
        warnings.warn("of another library", FutureWarning, stacklevel=1)

    monkeypatch.setattr(page, "SECTIONS", ((warns, "One", "One"), (warns, "Two", "Two")))
    with pytest.warns(FutureWarning, match="of another library"):
        assert doubts(as_html(run, source=source)) == "Before you trust the figures Look out."


def test_a_model_that_a_simple_density_beats_is_doubted(tmp_path):
    source = waves("table", (4,), (500, 100, 100))
    source.columns = tuple("abcd")
    run = fitted(tmp_path / "run", source, ElementsAlone(event_shape=(4,)), SHORT)
    section = filled(standing, run, source)
    assert re.match(
        r"A simple density describes the held-out rows better than this model: 'Gaussian mixture', by \d",
        section.doubts[0],
    )
    assert section.tiles[1][0].endswith(" worse")


def test_items_without_probability_are_counted_and_do_not_break_the_page(tmp_path, monkeypatch):
    source = waves("table", (2,), (60, 30, 30))
    source.columns = ("a", "b")
    run = fitted(tmp_path / "run", source, ElementsAlone(event_shape=(2,)), SHORT)
    nats = np.zeros(30)
    nats[[3, 7]] = -np.inf
    monkeypatch.setattr(materials, "held_out", lambda *_, **__: HeldOut(nats))
    html = as_html(run, source=source)
    assert "2 of 30 held-out rows lie outside the support of the model" in doubts(html)
    assert "the model has minus infinity nats" in words(html)
    assert words(html).count("likelihood zero") == 2
    assert all("fault" not in each for each in missing(html))


def test_copies_are_found(tmp_path):
    source = waves("table", (3,), (200, 40, 40))
    source.columns = ("a", "b", "c")
    run = fitted(tmp_path / "run", source, ElementsAlone(event_shape=(3,)), SHORT)
    assert filled(copies, run, source).doubts == []
    train = source.read_all("train").x
    for drawn, said in (
        (train[:50], "100% of the samples equal a training row"),
        (train[:50] + 1e-3, "100% of the samples are nearer"),
    ):
        material, section = Material(run, source), Section("word", "title")
        material.__dict__["_kept"] = {"drawn": (drawn, None)}
        copies(material, section)
        assert section.doubts[0].startswith(said)


def test_ranks_of_another_distribution_are_doubted(tmp_path):
    source = waves("table", (2,), (100, 100, 100))
    run = fitted(tmp_path / "run", source, ElementsAlone(event_shape=(2,)), SHORT)
    assert filled(ranks, run, source).doubts == []
    moved = ArraySource(
        "moved",
        {
            split: source.read_all(split).x.numpy() + (4 if split == "test" else 0)
            for split in ("train", "validation", "test")
        },
        kind="table",
        levels=None,
    )
    other = Run.create(tmp_path / "moved", run.config.model_copy(update={"data": moved.facts()}))
    other.save_weights(run.flow().state_dict())
    assert "Test rows are not ranked as validation rows are" in filled(ranks, other, moved).doubts[0]


def test_a_network_of_the_users_needs_to_be_brought(tmp_path):
    source = waves("image", (1, 2, 2), (60, 30, 30), None)
    with lk.seeded(0):
        flow = converted_flow(mlp((4, 3, 4)), torch.rand(2, 1, 2, 2))
    config = RunConfig(data=source.facts(), model=ConvertedConfig.of(flow), fit=FitSettings(steps=1))
    run = Run.create(tmp_path / "run", config)
    run.save_weights(flow.state_dict())
    assert "module" in missing(as_html(run, source=source))[0]
    html = as_html(Run.load(run.path, module=mlp((4, 3, 4))), source=source)
    assert missing(html) == ["The run has no course of a fit that can be read."]
    assert "It was fitted from Python" in html


def test_large_data_are_bounded_and_the_page_says_how_many(tmp_path, monkeypatch):
    source = trap(30_000, ("a", "b"))
    run = fitted(tmp_path / "run", source, ElementsAlone(event_shape=(2,)), SHORT)
    asked = []
    read = type(source).read
    monkeypatch.setattr(
        type(source), "read", lambda self, split, indices: asked.append(len(indices)) or read(self, split, indices)
    )
    text = words(as_html(run, source=source))
    assert "On 2,000 of the 3,000 rows of the test split" in text
    assert "among 20,000 of the 24,000 training rows" in text
    assert max(asked) == 20_000


def test_a_page_that_cannot_be_written_is_an_error(images, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "SECTIONS", (SECTIONS[4],))
    run, source = images
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_report(run, tmp_path / "file" / "page.html", source=source)
    assert write_report(run, tmp_path / "new" / "page.html", source=source).read_text().startswith("<!DOCTYPE html>")


def test_other_files_are_left_as_they_are(images, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "SECTIONS", (SECTIONS[4],))
    run, source = images
    mine = tmp_path / "mine.html"
    mine.write_text("precious")
    with pytest.raises(ConfigError, match="exists, and was left as it is"):
        run.report(mine, source=source)
    with pytest.raises(ConfigError, match="does not end in .html"):
        run.report(tmp_path / "mine.txt", source=source)
    assert mine.read_text() == "precious"
    run.report(mine, source=source, force=True)
    assert mine.read_text().startswith("<!DOCTYPE html>")


def test_a_page_of_the_data_is_not_replaced_by_one_without_them(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "SECTIONS", (SECTIONS[4],))
    source = stripes()
    run = fitted(tmp_path / "run", source, tiny_config(), SHORT)
    before = run.report(source=source).read_text()
    with pytest.raises(RunError, match="The data cannot be opened.*There is no source 'stripes'.*was left as it is"):
        run.report()
    assert (run.path / "report.html").read_text() == before
    run.report(tmp_path / "other.html")
    run.report(force=True)


def test_heavy_tails_of_importance_weights_are_doubts(tmp_path, monkeypatch):
    source = stripes()
    run = fitted(tmp_path / "run", source, tiny_config(), SHORT)
    run.evaluate(source, elbo_samples=1, iw_samples=25)
    material = Material(run, source)
    kept = material.evaluation
    for share, count in ((0.31, 1), (0.01, 0)):
        heavier = kept.model_copy(update={"iw": kept.iw.model_copy(update={"heavy": share})})
        monkeypatch.setattr(Material, "evaluation", heavier)
        section = made(material, standing, Section("word", "title"))
        assert (
            sum("weights of 31% of the held-out images have heavy tails" in doubt for doubt in section.doubts) == count
        )


def test_of_an_exact_model_of_levels_the_page_shows_the_surprise_of_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(
        page, "SECTIONS", tuple(each for each in SECTIONS if each[1] in ("Extremes", "Latents", "Certificate"))
    )
    source = stripes()
    model = MODELS["pyramid"](event_shape=source.event_shape, pixel_levels=3, width=4, head=4)
    run = fitted(tmp_path / "run", source, model, SHORT)
    html = as_html(run, source=source)
    text = words(html)
    assert html.count('alt="Surprise of the pixels of image') == 16
    assert "bits per dimension; the mean is the figure below" in text
    assert "Nothing is dequantized" in text
    assert "in which one value is drawn" in text
