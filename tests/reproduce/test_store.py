"""The file of an experiment's cells: several writers, kills and damage."""

import json
import multiprocessing
import os
import signal

import pytest

from likelify.errors import RunError
from likelify.reproduce.store import CELLS, FORMAT, read_cells, save_cell, to_text


def test_cells_are_added_replaced_and_sorted(tmp_path):
    folder = tmp_path / "new" / "trial"
    assert read_cells(folder) == {}
    save_cell(folder, "b", {"x": 1.5})
    save_cell(folder, "a", {"x": None})
    save_cell(folder, "b", {"x": [1, 2]})
    assert read_cells(folder) == {"a": {"x": None}, "b": {"x": [1, 2]}}
    assert list(json.loads((folder / CELLS).read_text())["cells"]) == ["a", "b"]
    assert [file.name for file in folder.iterdir()] == [CELLS]


def test_text_is_json_with_flat_parts_on_a_line():
    value = {"a": {"b": [1, 2.5, None, True], "c": "ü| [ {\n"}, "long": ["x" * 120, "y" * 120], "empty": {}, "none": []}
    text = to_text(value)
    assert json.loads(text) == value
    assert '\n    "b": [1, 2.5, null, true],\n' in text
    assert '\n  "empty": {},\n  "none": []\n' in text
    assert len(max(text.splitlines(), key=len)) < 130
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_text({"x": float("nan")})


def _save_many(folder, start):
    for number in range(start, start + 20):
        save_cell(folder, f"cell-{number:03}", {"number": number})


def _save_until_killed(folder, ready):
    number = 0
    while True:
        save_cell(folder, f"cell-{number:03}", {"number": number, "text": "x" * 1000})
        number = (number + 1) % 100
        ready.set()


def test_several_processes_lose_nothing(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_save_many, args=(tmp_path, 20 * number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_cells(tmp_path)) == 60
    assert {values["number"] for values in read_cells(tmp_path).values()} == set(range(60))


def test_a_killed_process_leaves_a_file_and_no_lock(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    for _ in range(2):
        ready = spawn.Event()
        writer = spawn.Process(target=_save_until_killed, args=(tmp_path, ready))
        writer.start()
        assert ready.wait(60)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        before = read_cells(tmp_path)
        assert before
        save_cell(tmp_path, "mine", {})
        assert read_cells(tmp_path) == before | {"mine": {}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"format": 1, "cells": {}}',
        b'{"format": 2}',
        b'{"format": "2", "cells": {}}',
        b'{"format": 2, "cells": []}',
        b"[" * 100_000,
        b'<<<<<<< ours\n{"format": 2, "cells": {}}',
    ],
)
def test_a_file_that_cannot_be_read_is_never_overwritten(tmp_path, content):
    file = tmp_path / CELLS
    file.write_bytes(content)
    with pytest.raises(RunError, match="left as it is"):
        read_cells(tmp_path)
    with pytest.raises(RunError, match="left as it is"):
        save_cell(tmp_path, "a", {})
    assert file.read_bytes() == content


def test_the_format_is_named(tmp_path):
    (tmp_path / CELLS).write_text('{"format": 99, "cells": {}}')
    with pytest.raises(RunError, match=f"it has format 99, this likelify reads {FORMAT}"):
        read_cells(tmp_path)


def test_a_folder_in_the_place_of_the_file_is_damage(tmp_path):
    (tmp_path / CELLS).mkdir()
    with pytest.raises(RunError, match="is not an ordinary file"):
        read_cells(tmp_path)
