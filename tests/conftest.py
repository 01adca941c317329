import signal

import pytest
import torch

import likelify as lk


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where the laws of layers and maps are tested, such as cuda")


def pytest_configure(config):
    # A shell lets what it starts in the background ignore Ctrl-C, which tests press.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    device = config.getoption("--device")
    try:
        torch.ones((), device=device).item()
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise pytest.UsageError(f"--device {device}: nothing can be computed there ({reason}).") from None


@pytest.fixture
def device(request):
    """The device that `--device` names; what it does not reach is tested on the CPU."""
    return request.config.getoption("--device")


@pytest.fixture(autouse=True)
def _one_thread_and_a_fixed_seed():
    torch.set_num_threads(1)
    with lk.seeded(0):
        yield
