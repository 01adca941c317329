import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import weakref

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch

from likelify.data import open_items
from likelify.errors import ConfigError, DataError, LikelifyError, ProcessError, RunError
from likelify.fitting.locks import locked
from likelify.fitting.outliers import log_volume
from likelify.fitting.run import Run
from likelify.fitting.scoring import likelihoods, parts, scoring, sharing
from likelify.fitting.scoring.passes import read_part, rows_of, write_part
from likelify.fitting.scoring.reference import held_out
from likelify.fitting.scoring.scorer import Wanted
from likelify.fitting.scoring.scoring import Scoring, items_of, score_file
from likelify.fitting.scoring.summary import Summary
from likelify.fitting.scoring.tables import as_schema, carried_column, common_schema
from tests.fitting.scoring.runs import COLUMNS, image_run, rows, scored, stripes, table_run, write_rows


def test_scores_have_what_belongs_to_each_item_in_order(run, tmp_path):
    values = rows(100, seed=5)
    values[7] = 40.0
    file = write_rows(tmp_path / "new.csv", values)
    scores = run.score(file, draws=2)
    assert len(scores) == 100
    assert list(scores.carried) == ["id", "note"]
    assert list(scores.carried["id"]) == [f"r{number}" for number in range(100)]
    # As an array the same rows have the same scores, whatever holds them.
    assert np.array_equal(run.score(values, draws=2).nats, scores.nats)
    assert np.array_equal(scores.rank, (1 + (run.reference(draws=2)[:, None] <= scores.nats).sum(0)) / 41)
    assert (scores.standard_error > 0).all()
    assert scores.bits is None
    assert scores.least_likely(3)[0] == 7
    assert scores.rank[7] == 1 / 41
    frame = pl.DataFrame(scores)
    assert frame.columns == ["item", "id", "note", "nats", "standard_error", "rank", "outlier", "outlier_rank"]
    assert scores.to_arrow().to_pandas()["nats"].tolist() == scores.nats.tolist()
    assert "100 items: nats, standard_error, rank, outlier, outlier_rank" in repr(scores)
    assert run.score(values, draws=2, reference=None).rank is None
    held = run.score(draws=2, split="validation")
    assert len(held) == 40
    assert not np.array_equal(held.nats, run.reference(draws=2))  # draws of their own, also for the same items


def test_rows_have_an_outlier_score_its_rank_and_marks(run, tmp_path):
    values = rows(60, seed=5)
    values[7] = 40.0
    scores = run.score(values, draws=2, contamination=0.05)
    with torch.no_grad():
        volume = log_volume(run.flow().transform, torch.from_numpy(values))
    # The log-likelihoods of this model are estimated, and the score is made of just these.
    np.testing.assert_allclose(scores.outlier, volume.numpy() - scores.nats, rtol=1e-5)
    held = held_out(run, draws=2)
    assert np.array_equal(scores.outlier_rank, (1 + (held.outlier[:, None] >= scores.outlier).sum(0)) / 41)
    assert np.array_equal(scores.is_outlier, scores.outlier_rank <= 0.05)
    assert scores.is_outlier[7]
    assert scores.oddest(1) == [7]
    # What is kept of the held-out rows is read again, and made again where a part of it is gone.
    again = held_out(run, draws=2)
    assert np.array_equal(again.outlier, held.outlier)
    assert again.digest() == held.digest()
    (run.path / "scores" / "validation-2-draws-outlier.safetensors").unlink()
    assert held_out(run, draws=2).digest() == held.digest()
    summary = score_file(scored(run, write_rows(tmp_path / "new.csv", values), contamination=0.05), tmp_path / "s.csv")
    assert summary.marked == scores.is_outlier.sum()
    with pytest.raises(ConfigError, match="no rank among them is below 1/41. Take a contamination of at least 0.025"):
        run.score(values, draws=2, contamination=0.01)
    with pytest.raises(ConfigError, match="by their rank among held-out ones"):
        run.score(values, draws=2, contamination=0.1, reference=None)


def test_images_have_bits_and_labels(tmp_path, monkeypatch):
    run = image_run(tmp_path / "run", monkeypatch)
    scores = run.score(split="test", draws=4)
    assert scores.bits == pytest.approx(-scores.nats / (4 * np.log(2)))
    assert np.array_equal(scores.carried["label"], stripes(labels=True).read_all("test").labels)
    assert scores.reliable is None
    many = run.score(split="test", draws=30)
    assert many.to_arrow()["reliable"].to_pylist() == many.reliable.tolist()
    assert 0 < many.reliable.mean() < 1
    assert np.isnan(run.score(split="test", draws=1).standard_error).all()
    assert run.score(split="test", draws=1).to_arrow()["standard_error"].null_count == 80
    with pytest.raises(ConfigError, match="Columns are blamed in rows of tables, and .* is a model of images"):
        run.score(blame=True)
    with pytest.raises(ConfigError, match="Outliers are marked among rows of tables, and .* is a model of images"):
        run.score(contamination=0.1)
    assert scores.outlier is None
    assert np.array_equal(scores.oddest(5), scores.least_likely(5))


def test_names_that_are_taken_are_carried_under_others(run, tmp_path):
    file = tmp_path / "again.csv"
    pd.DataFrame(rows(5), columns=COLUMNS).assign(rank=[1, 2, 3, 4, 5], item="x").to_csv(file, index=False)
    found = run.score(file, draws=2).to_arrow()
    assert found.column_names[:6] == ["item", "rank_given", "item_given", "nats", "standard_error", "rank"]
    assert found["item"].to_pylist() == [0, 1, 2, 3, 4]


def test_files_are_the_same_however_often_the_work_was_interrupted(run, tmp_path, monkeypatch):
    file = write_rows(tmp_path / "new.csv", rows(150, seed=6))
    whole = {}
    for ending in ("csv", "parquet"):
        summary = score_file(scored(run, file), tmp_path / f"whole.{ending}", top=3)
        whole[ending] = (tmp_path / f"whole.{ending}").read_bytes()
        assert summary.count == 150
        assert not (tmp_path / f"whole.{ending}.parts").exists()
    expected = run.score(file, draws=2)
    assert pq.read_table(tmp_path / "whole.parquet")["nats"].to_pylist() == expected.nats.tolist()
    with (tmp_path / "whole.csv").open() as handle:
        read = list(csv.DictReader(handle))
    assert [float(row["nats"]) for row in read] == expected.nats.tolist()
    assert read[3]["note"] == "'=3+1"  # nothing that a spreadsheet would run
    assert summary.oddest["item"].to_pylist() == expected.oddest(3).tolist()
    assert summary.mean["nats"] == pytest.approx(expected.nats.mean())
    assert summary.rare == {at: (expected.outlier_rank <= at).sum() for at in (0.01, 0.05)}
    assert summary.marked is None
    # An end at every write that there is.
    left = [0]

    def ending_at_last(write):
        def ends(*arguments):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            write(*arguments)

        return ends

    for name in ("write_atomically", "write_part"):
        monkeypatch.setattr(parts, name, ending_at_last(getattr(parts, name)))
    for ending in ("csv", "parquet"):
        out, rounds = tmp_path / f"cut.{ending}", 0
        while not out.exists():
            left[0], rounds = 1, rounds + 1
            try:
                score_file(scored(run, file), out)
            except KeyboardInterrupt:
                assert (tmp_path / f"cut.{ending}.parts" / "asked.json").exists()
        assert rounds >= 5
        assert out.read_bytes() == whole[ending]


def test_a_kill_between_the_name_and_the_end_is_put_right(run, tmp_path, monkeypatch):
    file, out = write_rows(tmp_path / "new.csv", rows(60)), tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        patch.setattr(parts.Parts, "remove", lambda _: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            score_file(scored(run, file), out)
    content, folder = out.read_bytes(), tmp_path / "out.csv.parts"
    (folder / "00000000.part").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Scoring, "parts", lambda *_: pytest.fail("nothing is left to do"))
        assert score_file(scored(run, file), out) is None
    assert out.read_bytes() == content
    assert not folder.exists()


def test_nothing_that_was_there_is_lost(run, tmp_path):
    file, out = write_rows(tmp_path / "new.csv", rows(60)), tmp_path / "out.csv"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="exists, and was left as it is. .* --force"):
        score_file(scored(run, file), out)
    assert not (tmp_path / "out.csv.parts").exists()
    with locked(tmp_path / "out.csv.parts"), pytest.raises(ConfigError, match="exists, and was left"):
        score_file(scored(run, file), out)
    score_file(scored(run, file), out, force=True)
    assert out.read_text().startswith("item,id,note,nats")
    for name, message in (("out.txt", "are written to files in .csv or .parquet"), ("run", "none of them")):
        with pytest.raises(ConfigError, match=message):
            score_file(scored(run, file), tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        score_file(scored(run, file), tmp_path / "folder.csv")
    other = tmp_path / "b.csv"
    (tmp_path / "b.csv.parts").mkdir()
    (tmp_path / "b.csv.parts" / "diary.txt").write_text("dear diary")
    for force in (False, True):
        with pytest.raises(RunError, match=r"holds 'diary\.txt', which is none"):
            score_file(scored(run, file), other, force=force)
    assert (tmp_path / "b.csv.parts" / "diary.txt").read_text() == "dear diary"
    # A file that comes there while another is made is left alone as well.
    late, write = tmp_path / "late.csv", scoring.score_file
    items = items_of(run, file)
    read = items.batches

    def batches(size, start=0):
        yield from read(size, start)
        late.write_text("first")

    items.batches = batches
    with pytest.raises(ConfigError, match="exists, and was left as it is"):
        write(Scoring(run, items, Wanted(draws=2)), late)
    assert late.read_text() == "first"


def interrupted(run, file, out, **words):
    """Score all but the last part, as if killed."""
    asked = scored(run, file, **words)
    whole = asked.parts

    def cut(*arguments):
        for number, part in enumerate(whole(*arguments)):
            if number == 2:
                raise KeyboardInterrupt
            yield part

    asked.parts = cut
    with pytest.raises(KeyboardInterrupt):
        score_file(asked, out)


def test_a_changed_file_run_or_option_is_noticed(run, tmp_path, monkeypatch):
    file, out = write_rows(tmp_path / "new.csv", rows(150)), tmp_path / "out.csv"
    interrupted(run, file, out)
    with pytest.raises(RunError, match="differs in the draws, the size of the parts, the held-out items"):
        score_file(Scoring(run, items_of(run, file), Wanted(draws=4)), out)
    with pytest.raises(RunError, match="differs in the held-out items that ranks are among"):
        score_file(scored(run, file, reference=None), out)
    with pytest.raises(RunError, match="differs in whether columns are blamed"):
        score_file(scored(run, file, blame=True), out)
    other = write_rows(tmp_path / "other.csv", rows(151))
    with pytest.raises(RunError, match="differs in the items. Give the words of that one"):
        score_file(scored(run, other), out)
    with locked(tmp_path / "out.csv.parts", wait=False):
        asked = json.loads((tmp_path / "out.csv.parts" / "asked.json").read_text())
    assert asked["format"] == 1
    assert sorted(path.name for path in (tmp_path / "out.csv.parts").glob("0*")) == [
        "00000000.part",
        "00000001.part",
    ]
    state = run.flow().state_dict()
    run.save_weights({name: value + 0.1 if name.endswith("shift") else value for name, value in state.items()})
    with pytest.raises(RunError, match="differs in the weights of the run, the held-out items"):
        score_file(scored(run, file), out)
    assert score_file(scored(run, file), out, force=True).count == 150


@pytest.mark.parametrize("spoil", ["later", "cut", "gone"])
def test_parts_that_nobody_knows_any_more_are_not_lost_without_being_asked(run, tmp_path, spoil):
    file, out = write_rows(tmp_path / "new.csv", rows(150)), tmp_path / "out.csv"
    interrupted(run, file, out)
    asked = tmp_path / "out.csv.parts" / "asked.json"
    if spoil == "later":
        asked.write_text(json.dumps(json.loads(asked.read_text()) | {"format": 2, "unit": "bits"}))
    elif spoil == "cut":
        asked.write_bytes(asked.read_bytes()[:-5])
    else:
        asked.unlink()
    before = {path.name: path.read_bytes() for path in asked.parent.iterdir()}
    with pytest.raises(RunError, match=r"asked\.json\) is missing, damaged, or of another version.* --force"):
        score_file(scored(run, file), out)
    assert {path.name: path.read_bytes() for path in asked.parent.iterdir()} == before
    assert score_file(scored(run, file), out, force=True).count == 150
    assert not asked.parent.exists()


def test_after_an_error_in_the_items_the_same_command_goes_on(run, tmp_path):
    file, out = tmp_path / "new.csv", tmp_path / "out.csv"
    text = write_rows(file, rows(40)).read_text()
    row = text.splitlines()[3]
    file.write_text(text.replace(row, "r2,abc" + row[row.index(",", 3) :]))
    with pytest.raises(DataError, match="abc"):
        score_file(scored(run, file), out)
    file.write_text(text)
    assert score_file(scored(run, file), out).count == 40


def test_what_others_put_beside_the_parts_stays(run, tmp_path):
    file, out = write_rows(tmp_path / "new.csv", rows(40)), tmp_path / "out.csv"
    folder = tmp_path / "out.csv.parts"
    (folder / ".svn").mkdir(parents=True)
    (folder / ".mine").write_text("mine")
    assert score_file(scored(run, file), out).count == 40
    assert sorted(path.name for path in folder.iterdir()) == [".mine", ".svn"]
    with pytest.raises(ConfigError, match="exists, and was left"):
        score_file(scored(run, file), out)
    assert (folder / ".mine").read_text() == "mine"


def test_only_pictures_of_a_folder_can_be_left_out(run, tmp_path):
    file = write_rows(tmp_path / "new.csv", rows(5))
    for what in (file, rows(5), None):
        with pytest.raises(ConfigError, match="Only pictures of a folder can be left out"):
            items_of(run, what, skip_unreadable=True)


def test_damaged_parts_are_made_again_or_named(run, tmp_path):
    file, out = write_rows(tmp_path / "new.csv", rows(150)), tmp_path / "out.csv"
    score_file(scored(run, file), tmp_path / "whole.csv")
    interrupted(run, file, out)
    part = tmp_path / "out.csv.parts" / "00000001.part"
    part.write_bytes(part.read_bytes()[:-1])
    score_file(scored(run, file), out)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    interrupted(run, file, tmp_path / "b.csv")
    part = tmp_path / "b.csv.parts" / "00000001.part"
    content = bytearray(part.read_bytes())
    content[len(content) // 4] ^= 1
    part.write_bytes(bytes(content))
    with pytest.raises(RunError, match=r"00000001\.part' is damaged. Remove it, and give the same words again"):
        score_file(scored(run, file), tmp_path / "b.csv")
    part.unlink()
    score_file(scored(run, file), tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_the_second_of_two_processes_is_told(run, tmp_path):
    file, out = write_rows(tmp_path / "new.csv", rows(20)), tmp_path / "out.csv"
    command = (
        "import sys, time, pathlib; from likelify.fitting.locks import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", command, f"{out}.parts"], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(RunError, match="Another process is at work"):
            score_file(scored(run, file), out)
        other.kill()
    assert score_file(scored(run, file), out).count == 20


def test_several_processes_give_the_same_file(run, tmp_path, monkeypatch):
    source = run.source()
    monkeypatch.undo()
    # The other processes do not find the data, and need not.
    monkeypatch.setattr(Run, "source", lambda _: source)
    file = write_rows(tmp_path / "new.csv", rows(9000, seed=7))
    score_file(Scoring(run, items_of(run, file), Wanted(draws=2), jobs=1), tmp_path / "1.csv")
    # Work that takes long is shared out unasked: here after the first pass.
    monkeypatch.setattr(sharing, "ALONE_SECONDS", 0.0)
    monkeypatch.setattr(sharing, "processors", lambda: 2)
    started = []
    start = sharing._Helper.__init__
    monkeypatch.setattr(sharing._Helper, "__init__", lambda *words: started.append(words[0]) or start(*words))
    score_file(Scoring(run, items_of(run, file), Wanted(draws=2), jobs=None), tmp_path / "2.csv")
    assert (tmp_path / "2.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()
    assert len(started) == 2
    assert all(helper.process.poll() is not None for helper in started)
    # What goes wrong there is said here, with the number of the item; and so is an end of the process.
    asked = Scoring(run, items_of(run, file), Wanted(draws=2), jobs=1)
    with sharing.Helpers(run, Wanted(draws=2), "'new.csv'", 1) as helpers:
        first = next(iter(asked.items.batches(4)))
        first.batch.x[2] = np.nan
        with pytest.raises(LikelifyError) as known:
            asked.scorer(first.batch, 0, "'new.csv'")
        with pytest.raises(type(known.value)) as error:
            list(helpers.scored([(0, first)]))
        assert str(error.value) == " ".join(str(known.value).split())
        with pytest.raises(ProcessError, match="that shares the scoring has ended"):
            list(helpers.scored([(0, first)]))


def test_what_cannot_be_shared_out_says_so(run, tmp_path, monkeypatch):
    file = write_rows(tmp_path / "new.csv", rows(5))
    for jobs in (0, -1, 1.5):
        with pytest.raises(ConfigError, match="number of processes must be 1, 2"):
            run.score(file, jobs=jobs)
    monkeypatch.setattr(run, "module", object())
    with pytest.raises(ConfigError, match="made of a network of yours is scored in one process"):
        next(sharing.scored_passes(run, None, Wanted(), open_items(rows(5), run.config.data), jobs=2))


def test_kinds_of_columns_that_differ_from_part_to_part_become_one():
    import pyarrow as pa

    schemas = [pa.schema({"a": kind}) for kind in (pa.null(), pa.int64(), pa.float64())]
    assert common_schema(schemas).field("a").type == pa.float64()
    text = common_schema([*schemas, pa.schema({"a": pa.string()})])
    assert text.field("a").type == pa.string()
    # What Arrow has no text for has that of Python.
    for values, expected in (([1, None], ["1", None]), ([[1, 2], None], ["[1, 2]", None])):
        assert as_schema(pa.table({"a": values}), text)["a"].to_pylist() == expected


def test_a_pass_is_written_and_let_go_before_the_next(run, tmp_path):
    """Carried values of another type in each pass are kept; nothing of a pass is held while the next is made."""
    import pyarrow as pa

    held, alive = [], []

    def passes():
        for values in ([1, 2], ["a", None], [[0.5]]):
            alive.append(sum(one() is not None for one in held))
            table = pa.table({"a": values})
            held.append(weakref.ref(table))
            yield table
            del table

    file = tmp_path / "00000000.part"
    write_part(file, passes())
    assert alive == [0, 0, 0]
    assert rows_of(file) == 5
    assert [table["a"].to_pylist() for table in read_part(file)] == [[1, 2], ["a", None], [[0.5]]]
    assert [path.name for path in tmp_path.glob("*.part")] == [file.name]
    whole = file.read_bytes()
    for broken in (whole[:-1], whole[:5], b"", whole[:40] + b"x" + whole[41:], whole[40:]):
        file.write_bytes(broken)
        with pytest.raises(RunError, match="is damaged. Remove it"):
            list(read_part(file))


KILLED = """
import os, pathlib, random, signal, sys
import likelify as lk
from likelify.fitting.scoring import likelihoods, scoring
from likelify.fitting.scoring.scorer import Wanted

likelihoods.PASS_ITEMS, scoring.PART_WORK = 256, 256 * 3 * 8
run, left, parts = lk.Run.load(sys.argv[1]), int(sys.argv[4]), 0


def count(event, arguments):
    global left, parts
    names = [str(each) for each in arguments if isinstance(each, str | pathlib.Path)]
    if event in ("open", "os.rename", "os.link", "os.remove", "os.rmdir") and any(".parts" in name for name in names):
        left -= parts > 0
        parts += event in ("os.rename", "os.link") and names[-1].endswith(".part")
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(count)
items = scoring.items_of(run, sys.argv[2])
scoring.score_file(scoring.Scoring(run, items, Wanted(draws=8)), pathlib.Path(sys.argv[3]))
"""


@pytest.mark.slow
def test_killed_at_random_instants_the_file_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(likelihoods, "PASS_ITEMS", 256)
    run = table_run(tmp_path / "run", monkeypatch)
    run.reference(draws=8)
    file = write_rows(tmp_path / "new.csv", rows(8_000, seed=8))

    def score_until(out, left=-1):
        words = [str(run.path), str(file), str(tmp_path / out), str(left)]
        return subprocess.run([sys.executable, "-c", KILLED, *words], check=False).returncode

    def kept():
        return len(list((tmp_path / "cut.parquet.parts").glob("0*.part")))

    assert score_until("whole.parquet") == 0
    generator = random.Random(0)
    for _ in range(3):
        # At one of the next calls that open, name or remove something there, after a new part has got its name.
        before = kept()
        assert score_until("cut.parquet", generator.randint(1, 20)) == -signal.SIGKILL
        assert kept() > before
    assert score_until("cut.parquet") == 0
    assert (tmp_path / "cut.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not (tmp_path / "cut.parquet.parts").exists()


def test_what_is_carried_may_be_of_another_kind_in_later_passes(run, tmp_path):
    import pyarrow as pa

    values = rows(60, seed=5)
    tables = [
        run.score(values[:30], draws=2).to_arrow().append_column("note", pa.nulls(30)),
        run.score(values[30:], draws=2).to_arrow().append_column("note", pa.array(["late"] * 30)),
    ]
    summary = Summary(top=60)
    for table in tables:
        summary.add(table)
    assert sorted(summary.oddest["note"].to_pylist(), key=str) == [None] * 30 + ["late"] * 30
    assert carried_column([2**70, 1]).to_pylist() == [str(2**70), "1"]


def test_the_share_that_is_proposed_is_one_that_is_taken(run):
    values = rows(20, seed=5)
    with pytest.raises(ConfigError, match="at least") as refused:
        run.score(values, draws=2, contamination=0.001)
    least = float(re.search(r"at least ([0-9.]+),", str(refused.value))[1])
    assert run.score(values, draws=2, contamination=least).is_outlier is not None
    assert least < 1.1 / (1 + len(run.reference(draws=2)))
