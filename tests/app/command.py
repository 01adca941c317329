"""A command, run in the process of the test."""

import sys

import pytest
import torch

from likelify.app.cli import main


def here(monkeypatch, capsys, *words, code=0):
    """Run a command in this process; return what it prints and what it complains of."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["likelify", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    torch.set_num_threads(threads)
    shown = capsys.readouterr()
    assert ended.value.code == code, shown
    return shown.out, shown.err


def said(monkeypatch, capsys, *words, code=0):
    """Run a command in this process; return what it prints, or, if it fails, what it complains of."""
    printed, complaint = here(monkeypatch, capsys, *words, code=code)
    return complaint if code else printed
