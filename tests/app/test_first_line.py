"""Who types a command sees something before two seconds of a processor have passed, whatever is imported or read."""

import os
import signal
import subprocess
import sys

import pytest

from tests.data.photographs import write_photographs

SECONDS = 2.0


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as handle:
        fields = handle.read().rpartition(") ")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs the times that Linux keeps of a process")
@pytest.mark.parametrize("source", ["photographs", "sample-photos"])
def test_the_first_line_comes_before_what_takes_long(source, tmp_path):
    if source == "photographs":
        write_photographs(tmp_path / source, 50)
    words = [sys.executable, "-m", "likelify.app.cli", "fit", source, "--max-time", "1s"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path) as command:
        first = command.stdout.readline()
        spent = processor_seconds(command.pid)
        command.send_signal(signal.SIGKILL)
    assert first == f"Opening {source}\n"
    assert spent < SECONDS
