"""Fits in several processes from the command line: real ones, started as a user starts them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from likelify.app import devices, environment, threads
from likelify.app.cli import main
from likelify.app.devices import Where
from likelify.errors import ConfigError, ProcessError

FIT = ["fit", "digits", "--model", "marginal-spline", "--set", "couplings=2", "--set", "hidden=[8]", "--no-report"]
CLI = [sys.executable, "-m", "likelify.app.cli"]


@pytest.fixture
def second_of_two(monkeypatch):
    found = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    for name, value in found.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def failed(capsys, monkeypatch):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["likelify", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, " ".join(capsys.readouterr().err.split())

    return run


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="--devices must be at least 1, got 0"):
        Where(processes=0)
    with pytest.raises(ConfigError, match="--nodes must be at least 1, got -1"):
        Where(nodes=-1)
    assert not Where(processes=1).must_start
    assert Where(processes=2).must_start
    assert Where(nodes=2).must_start


def test_torchrun_is_recognised(second_of_two, monkeypatch):
    assert environment.is_one_of_many()
    assert environment.is_silent()
    assert not Where(processes=2).must_start
    with pytest.raises(ConfigError, match="--devices 3 does not fit: torchrun started 2"):
        Where(processes=3)
    with pytest.raises(ConfigError, match="--nodes 2 does not fit: torchrun started 1"):
        Where(nodes=2)
    monkeypatch.setattr("likelify.app.threads.processors", lambda: 8)
    used = []
    monkeypatch.setattr("torch.set_num_threads", used.append)
    for asked, suitable in ((None, None), (None, 1), (None, 16), (6, 1)):
        threads.use_threads(asked, suitable)
    assert used == [4, 1, 4, 6]


def test_one_process_speaks(second_of_two, monkeypatch):
    agreed, own, lost = ConfigError("agreed"), ConfigError("own"), ProcessError("lost")
    own.add_note(environment.OWN)
    lost.add_note(environment.OWN)
    assert [environment.is_told_by_another(error) for error in (agreed, own, lost)] == [True, False, True]
    monkeypatch.setenv("RANK", "0")
    assert [environment.is_told_by_another(error) for error in (agreed, own, lost)] == [False, False, False]
    # Where likelify started them, what started them sees better why one is lost.
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", f"{environment.STARTED}-7")
    assert [environment.is_told_by_another(error) for error in (agreed, own, lost)] == [False, False, True]


def test_exit_codes_are_those_of_the_processes():
    class Failure:
        def __init__(self, exitcode):
            self.exitcode = exitcode

    assert devices._exit_code({0: Failure(130), 1: Failure(-signal.SIGTERM)}) == 130
    assert devices._exit_code({1: Failure(2)}) == 2
    with pytest.raises(ProcessError, match="Process 1 was ended by SIGKILL, and all others with it"):
        devices._exit_code({0: Failure(2), 1: Failure(-signal.SIGKILL)})


def test_an_absent_device_leaves_nothing_behind(failed, tmp_path):
    code, text = failed(*FIT, "--device", "cuda:77", "--out", str(tmp_path / "run"))
    assert code == 2
    assert "no device 'cuda:77' here; there is:" in text
    assert not (tmp_path / "run").exists()
    code, text = failed(*FIT, "--device", "gpu")
    assert "There is no device 'gpu'. Did you mean 'cpu'?" in text


def test_nodes_have_to_be_told_of_the_first_one(failed, monkeypatch):
    for name in devices.ADDRESS:
        monkeypatch.delenv(name, raising=False)
    code, text = failed(*FIT, "--nodes", "2")
    assert code == 2
    assert "set MASTER_ADDR, MASTER_PORT, NODE_RANK" in text


def started(words, **more):
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | more.pop("env", {}), **more
    )


def ended(process, seconds=300):
    text, _ = process.communicate(timeout=seconds)
    return process.returncode, " ".join(text.split())


def wait_for(process, come):
    for _ in range(1500):
        if come() or process.poll() is not None:
            return
        time.sleep(0.1)


def steps_of(run):
    return json.loads((run / "course.json").read_text())["steps"]


@pytest.mark.slow
def test_a_fit_in_two_processes_is_interrupted_and_goes_on_in_one(tmp_path):
    run = tmp_path / "run"
    words = [*FIT, "--steps", "100000", "--set", "validations=10000", "--out", str(run)]
    process = started([*CLI, *words, "--devices", "2"])
    wait_for(process, lambda: (run / "model.safetensors").exists())
    process.send_signal(signal.SIGTERM)
    code, text = ended(process)
    assert code == 130, text
    # One process speaks.
    assert text.count("Training ended (interrupted)") == text.count("goes on with: ") == 1
    course = json.loads((run / "course.json").read_text())
    assert course["reason"] == "interrupted"
    code, text = ended(started([*CLI, *words, "--devices", "2"]))
    assert code == 2
    assert text.count("It holds a run whose fit has not ended") == 1
    process = started([*CLI, "fit", "--resume", str(run), "--no-report"])
    wait_for(process, lambda: steps_of(run) > course["steps"])
    process.send_signal(signal.SIGINT)
    code, text = ended(process)
    assert code == 130, text
    assert "processes 2 -> 1" in text


@pytest.mark.slow
def test_torchrun_on_two_nodes_is_one_fit(tmp_path):
    """The nodes are this machine, twice."""
    run = tmp_path / "run"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    words = ["-m", "likelify.app.cli", *FIT, "--steps", "4", "--set", "validations=2", "--out", str(run)]
    nodes = [
        started([sys.executable, "-m", "torch.distributed.run", *common, "--node-rank", str(rank), *words])
        for rank in range(2)
    ]
    (code, text), (other, silent) = (ended(node) for node in nodes)
    assert (code, other) == (0, 0), text + silent
    assert "Joining 2 processes." in text
    assert "Training ended (finished) after 4 steps" in text
    assert "Training ended" not in silent
    assert (run / "evaluation.json").exists()
