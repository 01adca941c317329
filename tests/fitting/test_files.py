"""Writing beside other processes, on full and read-only disks, and after kills."""

import errno
import os
import subprocess
import sys
from subprocess import PIPE

import pytest

from likelify.errors import RunError
from likelify.fitting import files
from likelify.fitting.figures import Figure
from likelify.fitting.files import as_json, make_folder, write_atomically, write_new
from likelify.settings import Settings

# Makes one folder after the other as soon as it is told to, and prints which it got.
CREATE = """
import sys
from pathlib import Path
from likelify.data import Facts
from likelify.errors import RunError
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.zoo import config_from_dict

folder = Path(sys.argv[1])
model = config_from_dict({"model": "flowified-mlp", "event_shape": [4]})
facts = Facts(name="rows", family="rows", kind="table", event_shape=(4,), sizes={}, fingerprint="")
config = RunConfig(data=facts, model=model, fit=FitSettings())
print("ready", flush=True)
sys.stdin.readline()
for number in range(30):
    print(Run.create(folder / f"numbered{number}", config, numbered=True).path.name)
    try:
        print(Run.create(folder / f"named{number}", config).path.name)
    except RunError as error:
        assert "exists and is not empty; nothing was overwritten" in str(error), error
"""


def test_of_processes_that_make_the_same_folder_one_gets_it(tmp_path):
    make = [sys.executable, "-c", CREATE, str(tmp_path)]
    workers = [subprocess.Popen(make, stdin=PIPE, stdout=PIPE, text=True) for _ in range(2)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    won = [name for worker in workers for name in worker.communicate()[0].split()]
    assert [worker.returncode for worker in workers] == [0, 0]
    expected = {f"named{number}" for number in range(30)}
    expected |= {f"numbered{number}{end}" for number in range(30) for end in ("", "-2")}
    assert len(won) == len(expected)
    assert set(won) == expected
    for folder in tmp_path.iterdir():
        assert [file.name for file in folder.iterdir()] == ["config.json"]


def test_a_file_is_made_once_also_where_there_are_no_links(tmp_path, monkeypatch):
    assert write_new(tmp_path / "a", b"1")
    assert not write_new(tmp_path / "a", b"2")

    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert write_new(tmp_path / "b", b"1")
    assert not write_new(tmp_path / "b", b"2")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a": b"1", "b": b"1"}


@pytest.mark.parametrize(
    ("number", "words", "remedy"),
    [
        (errno.ENOSPC, "no space left on device", "Make room there"),
        (errno.EROFS, "read-only file system", "that you may write to"),
        (errno.EACCES, "permission denied", "that you may write to"),
        (errno.EIO, "input/output error", "See whether the folder is there"),
    ],
)
def test_what_cannot_be_written_is_named_with_a_remedy(tmp_path, monkeypatch, number, words, remedy):
    file = tmp_path / "figures.json"
    write_atomically(file, b"old")

    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    for write in (write_atomically, write_new):
        with pytest.raises(RunError, match=f"'{file}' cannot be written: {words}. .*{remedy}"):
            write(file, b"new")
    assert [left.name for left in tmp_path.iterdir()] == ["figures.json"]
    assert file.read_bytes() == b"old"


def test_folders_that_cannot_be_made_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(RunError, match=f"'{folder}' cannot be written"):
            make_folder(folder)


def test_what_a_killed_process_left_is_cleared_at_the_next_write(tmp_path):
    file = tmp_path / "weights[1].safetensors"
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    theirs = tmp_path / f".{file.name}.{files.MACHINE}.{killed.pid}.0.part"
    used = tmp_path / f".{file.name}.{files.MACHINE}.{os.getppid()}.0.part"
    elsewhere = tmp_path / f".{file.name}.00000000.{killed.pid}.0.part"
    # Of a container of the same name, where the number of the process says nothing: it may be at work.
    young = tmp_path / f".{file.name}.{files.MACHINE}.{killed.pid}.1.part"
    for left in (theirs, used, elsewhere, young):
        left.write_bytes(b"half")
        if left != young:
            os.utime(left, (0, 0))
    write_atomically(file, b"whole")
    kept = (file, used, elsewhere, young)
    assert sorted(left.name for left in tmp_path.iterdir()) == sorted(left.name for left in kept)


def test_two_processes_of_one_number_do_not_share_a_temporary_file(tmp_path):
    program = (
        "import sys, pathlib; from likelify.fitting import files; files.os.getpid = lambda: 7;"
        "real = files.os.replace;"
        "files.os.replace = lambda old, new: (print(pathlib.Path(old).name), real(old, new));"
        "files.write_atomically(pathlib.Path(sys.argv[1]), b'')"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "file")]
    names = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(2)]
    assert names[0] != names[1]


def test_figures_that_are_not_finite_are_never_written_as_json():
    assert as_json(Figure(mean=1.5, standard_error=None, count=2)).startswith(b'{\n  "mean": 1.5')
    with pytest.raises(RunError, match="infinite or not a number"):
        as_json(Figure(mean=float("inf"), standard_error=None, count=2))


def test_a_name_that_is_no_text_is_refused_in_words():
    class Named(Settings):
        name: str

    with pytest.raises(RunError, match="is no text in UTF-8"):
        as_json(Named(name="caf\udce9"))
