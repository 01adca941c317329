"""From data to a run in one call."""

import numpy as np
import pytest
import torch

import likelify as lk
from likelify.data import SourceOptions
from likelify.errors import ConfigError, DataError, RunError


def test_a_named_source_becomes_a_run_that_can_be_read_again(tmp_path):
    steps = []
    run = lk.fit_run(
        "iris", tmp_path / "iris", settings={"width": 8}, steps=4, on_step=lambda at: steps.append(at.step)
    )
    assert run.config.model.model == "table-flow"
    assert (run.config.model.width, run.config.fit.steps, steps[-1]) == (8, 4, 4)
    again = lk.Run.load(tmp_path / "iris")
    assert again.sample(3).shape == (3, 4)
    with pytest.raises(RunError, match="iris"):
        lk.fit_run("iris", tmp_path / "iris", steps=4)


def test_it_is_the_fit_of_the_command(tmp_path):
    from likelify.fitting.choose import choose

    run = lk.fit_run("iris", tmp_path / "one", steps=3, device="cpu")
    iris = lk.data.open_source("iris")
    choice = choose(iris.facts(), fit_settings={"steps": 3})
    with lk.seeded(choice.fit.seed):
        flow = choice.model.build()
    lk.fit(flow, iris, choice.fit, device=torch.device("cpu"))
    for name, weight in run.flow().state_dict().items():
        assert torch.equal(weight, flow.state_dict()[name]), name


@pytest.mark.filterwarnings("ignore:The fit never beat")
def test_data_in_memory_and_a_model_by_name(tmp_path):
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0)).double()
    run = lk.fit_run(x.numpy(), tmp_path / "rows", model="table-coupling", steps=2)
    assert run.config.model.model == "table-coupling"
    assert run.config.data.sizes["train"] == 270


@pytest.mark.filterwarnings("ignore:The fit never beat")
def test_options_are_kept_and_belong_to_names(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("a,b,c\n" + "\n".join(f"{i % 7}.5,{i % 11}.25,{i}" for i in range(60)))
    options = SourceOptions(drop=("c",))
    run = lk.fit_run(str(file), tmp_path / "run", options=options, steps=2)
    assert run.config.data.columns == ("a", "b")
    assert lk.Run.load(tmp_path / "run").score(str(file)).nats.shape == (60,)
    with pytest.raises(ConfigError, match="open already"):
        lk.fit_run(lk.data.open_source("iris"), tmp_path / "x", options=options)


@pytest.mark.filterwarnings("ignore:The fit never beat")
def test_what_is_wrong_with_data_in_memory_is_mended_as_it_says(tmp_path):
    import pandas as pd

    random = np.random.default_rng(0)
    rows = pd.DataFrame({"a": random.normal(size=90), "b": random.normal(size=90)})
    rows["both"] = rows["a"] + rows["b"]
    with pytest.raises(DataError, match=r"options=lk.data.SourceOptions\(dependent='function'\)"):
        lk.fit_run(rows, tmp_path / "refused", steps=2)
    options = lk.data.SourceOptions(dependent="function")
    run = lk.fit_run(rows, tmp_path / "run", options=options, steps=2)
    assert run.config.data.meaning[2].function is not None
    again = lk.Run.load(tmp_path / "run")
    assert again.score(rows).nats.shape == (90,)
    with pytest.raises(DataError, match="was fitted to data in memory"):
        again.source()


def test_a_device_that_is_not_there_leaves_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="no device 'cuda:9'"):
        lk.fit_run("iris", tmp_path / "run", device="cuda:9")
    assert not (tmp_path / "run").exists()


def test_a_device_is_looked_for_and_is_not_beside_a_fabric():
    flow, rows = lk.Flow(lk.Normal(2, trainable=True), lk.ActNorm(2)), torch.randn(50, 2)
    with pytest.raises(ConfigError, match="no device 'cuda:9'"):
        lk.fit(flow, rows, steps=1, device="cuda:9")
    from likelify.fitting.process import OneProcess

    with pytest.raises(ConfigError, match="not both"):
        lk.fit(flow, rows, steps=1, device="cpu", fabric=OneProcess("cpu"))
