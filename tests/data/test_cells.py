"""What a spreadsheet would run."""

import math

import pytest

from likelify.data.cells import as_cell, plain_cell

RUN = (
    "=cmd|' /C calc'!A0",
    "+cmd",
    "-x",
    "-1+1",
    "@sum(a)",
    "\tb",
    "\r=1",
    "\n",
    " =1",
    "\0=1",
    "＝1+1",
    "－a",
    "+1-1",
    "-",
)
LEFT = ("", "a-b", "'c'", "'=1", "1=1", "-1.5", "+1", "-.5e-3", "-inf", "NaN", "3.", "x\n=1", "a@b.c")


@pytest.mark.parametrize("text", RUN)
def test_text_that_would_run_gets_an_apostrophe(text):
    assert as_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", LEFT)
def test_other_text_is_left_alone(text):
    assert as_cell(text) == text


@pytest.mark.parametrize("value", [-1.5, -3, -math.inf, None, True])
def test_numbers_are_never_changed(value):
    assert as_cell(value) is value


@pytest.mark.parametrize("text", [*RUN, *(text for text in LEFT if text != "'=1")])
def test_what_is_written_is_read(text):
    assert plain_cell(as_cell(text)) == text
