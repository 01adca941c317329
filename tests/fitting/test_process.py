"""What several processes say to one another; two real ones, started once for all of it."""

import signal

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import FSDPStrategy

from likelify.errors import ConfigError, DataError, ProcessError, UnsupportedError
from likelify.fitting import process
from likelify.fitting.interrupts import Interrupts
from likelify.fitting.process import OneProcess, all_know, chosen_device, processes
from tests.fitting.pair import in_pair, signalled


def shares(place):
    items = torch.arange(7)
    part = place.share(items)
    # A mean over processes of weighted means over parts is the mean over the whole.
    mean = float(part.double().mean()) * place.weight(len(part), len(items))
    with place.together() as numbers:
        numbers += [mean / place.count, float(len(part))]
    return place.rank, part.tolist(), numbers, place.gather(place.rank), place.from_first(f"of {place.rank}")


def sums_are_the_same_for_fewer_numbers(place):
    with place.together() as numbers:
        pass
    return numbers


def fails_in_the_second(place):
    with place.together() as numbers:
        numbers.append(1.0)
        if place.rank == 1:
            raise DataError("the file is gone")
    return "not reached"


def fails_in_both_with_a_bug(place):
    with place.together():
        raise KeyError(place.rank)


def is_interrupted_in_the_second(place):
    steps, ended = [], None
    before = signal.getsignal(signal.SIGINT)
    with Interrupts(place):
        try:
            for step in range(5):
                if step == 2 and place.rank == 1:
                    signalled()
                steps.append(step)
                with place.together():
                    pass
        except KeyboardInterrupt:
            ended = "interrupted"
        # What was said is said once: the fit may still validate and save together.
        with place.together():
            steps.append("saved")
    return ended, steps, signal.getsignal(signal.SIGINT) is before


def a_second_signal_does_not_wait(place):
    with Interrupts(place):
        signalled()
        with pytest.raises(KeyboardInterrupt):
            signalled()
    place.ending = False
    return "raised"


def a_callback_interrupts_the_first(place):
    with place.together():
        if place.is_first:
            raise KeyboardInterrupt


def gradients_of_uneven_shares(place):
    torch.manual_seed(place.rank)
    module = place.join(Branches())
    x = torch.arange(7.0)
    part = place.share(x)
    (module(part).mean() * place.weight(len(part), len(x))).backward()
    return {name: None if p.grad is None else p.grad.tolist() for name, p in module.module.named_parameters()}


class Branches(torch.nn.Module):
    """A weight that all items meet, one that only some shares meet, and one that none does."""

    def __init__(self):
        super().__init__()
        self.all, self.some, self.none = (torch.nn.Parameter(torch.rand(())) for _ in range(3))

    def forward(self, x):
        y = self.all * x
        return y + self.some * x if bool((x == 1).any()) else y


TASKS = [
    shares,
    sums_are_the_same_for_fewer_numbers,
    fails_in_the_second,
    fails_in_both_with_a_bug,
    is_interrupted_in_the_second,
    a_second_signal_does_not_wait,
    a_callback_interrupts_the_first,
    gradients_of_uneven_shares,
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    ranks = in_pair(TASKS, tmp_path_factory.mktemp("pair"))
    return {task: [given[number] for given in ranks] for number, task in enumerate(TASKS)}


def test_shares_are_all_of_a_batch_and_weighted_right(found):
    first, second = found[shares]
    assert sorted(first[1] + second[1]) == list(range(7))
    assert first[2] == second[2] == [3.0, 7.0]
    assert (first[0], second[0]) == (0, 1)
    assert first[3:] == second[3:] == ([0, 1], "of 0")
    assert found[sums_are_the_same_for_fewer_numbers] == [[], []]


def test_an_error_of_one_process_is_one_of_all(found):
    told, own = found[fails_in_the_second]
    assert isinstance(told, ProcessError)
    assert str(told) == "Process 1 of 0..1 stopped, and all others with it. the file is gone"
    assert isinstance(own, DataError)
    assert all_know(told)
    assert all_know(own)
    bugs = found[fails_in_both_with_a_bug]
    assert [type(bug) for bug in bugs] == [KeyError, KeyError]


def test_a_signal_to_one_process_ends_all_at_the_same_step(found):
    assert found[is_interrupted_in_the_second] == [("interrupted", [0, 1, 2, "saved"], True)] * 2
    assert found[a_second_signal_does_not_wait] == ["raised"] * 2
    assert [type(error) for error in found[a_callback_interrupts_the_first]] == [KeyboardInterrupt] * 2


def test_gradients_are_means_also_of_what_one_share_does_not_meet(found):
    first, second = found[gradients_of_uneven_shares]
    assert first == second
    # The item 1 is in the share of the second process.
    assert first["all"] == pytest.approx(3.0)
    assert first["some"] == pytest.approx((1 + 3 + 5) / 7)
    assert first["none"] is None


def test_one_process_does_alone_what_many_do_together():
    place = OneProcess("cpu")
    items = torch.arange(5)
    assert torch.equal(place.share(items), items)
    assert place.weight(5, 5) == 1.0
    with place.together() as numbers:
        numbers.append(2.0)
    assert numbers == [2.0]
    assert place.gather("a") == ["a"]
    with pytest.raises(DataError, match="mine"), place.together():
        raise DataError("mine")


def test_devices_are_found_by_their_words(monkeypatch):
    assert chosen_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(process, "_devices", lambda kind: {"cuda": 2, "mps": 0, "cpu": 1}[kind])
    assert chosen_device() == torch.device("cuda", 0)
    assert chosen_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="no device 'cuda:2' here; there is: cpu, cuda. Of cuda there are 2, from 0"):
        chosen_device("cuda:2")
    with pytest.raises(ConfigError, match="no device 'mps' here; there is: cpu, cuda"):
        chosen_device("mps")
    with pytest.raises(ConfigError, match="no device 'cdua'. Did you mean 'cuda'"):
        chosen_device("cdua")
    monkeypatch.setattr(process, "_devices", lambda kind: int(kind == "cpu"))
    assert chosen_device("auto") == torch.device("cpu")


def test_a_fabric_that_does_not_fit_is_refused():
    assert processes(Fabric(accelerator="cpu", devices=1)).count == 1
    with pytest.raises(ConfigError, match="call fabric.launch"):
        processes(Fabric(accelerator="cpu", devices=2, strategy="ddp"))
    with pytest.raises(UnsupportedError, match="precision='bf16-mixed'.*needs all digits"):
        processes(Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"))
    sharded = Fabric(accelerator="cpu", devices=1)
    # Strategies that need a GPU cannot be asked for here.
    sharded._strategy = FSDPStrategy()
    with pytest.raises(UnsupportedError, match="this Fabric has FSDPStrategy"):
        processes(sharded)


def test_processes_that_know_nothing_of_one_another_are_refused(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="process 1 of the 2 that were started together, and they are not joined"):
        processes(None)
    assert processes(OneProcess("cpu")).count == 1
