"""The command that makes a fit again, put through the command line itself."""

import shlex

import numpy as np
import pytest

from likelify.app import cli
from likelify.app import fit as command
from likelify.data import SourceOptions, open_source
from likelify.fitting.choose import choose
from likelify.fitting.report.sections.settings import fit_command, read_settings
from likelify.fitting.settings import RunConfig
from likelify.fitting.sources import DataChoice, chosen
from tests.fitting.toys import stripes, tiny_config


def config_of(source, options=None, **words):
    choice = choose(source.facts(), **words)
    return RunConfig(data=source.facts(), opened=chosen(source, options), **choice.configured())


def again(words, monkeypatch):
    """Return the configuration to which the command line comes with some words, without fitting."""
    found = {}
    monkeypatch.setattr(
        command, "fit_command", lambda name, chosen, **given: found.update(given, name=name, words=chosen)
    )
    assert words[:2] == ["likelify", "fit"]
    cli.app(words[1:], exit_on_error=False, print_error=False, result_action="return_value")
    return config_of(open_source(found["name"], found["options"]), found["options"], **found["words"])


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"model": "glow", "settings": {"levels": 2, "lr": 1e-3, "clip": None}, "model_settings": {"mixing": "1x1"}},
        {
            "conditional": True,
            "settings": {"hidden": [8, 8]},
            "fit_settings": {"steps": 7, "max_time": 90.0, "seed": 5},
        },
        {"preset": "table2-sylvester", "size": "small"},
    ],
)
def test_the_command_leads_to_the_same_settings(words, monkeypatch):
    config = config_of(open_source("digits"), **words)
    found = again(shlex.split(fit_command(config)), monkeypatch)
    assert read_settings(found.model) == read_settings(config.model)
    assert (found.fit, found.conditional, found.data) == (config.fit, config.conditional, config.data)


def test_the_command_opens_the_data_as_they_were(tmp_path, monkeypatch):
    file = tmp_path / "my rows.csv"
    rng = np.random.default_rng(0)
    lines = ["length,a b,'x',id", *(",".join(map(str, row)) for row in rng.normal(size=(40, 4)).round(3))]
    file.write_text("\n".join(lines))
    options = SourceOptions(drop=("id", "a b"))
    config = config_of(open_source(str(file), options), options)
    found = again(shlex.split(fit_command(config)), monkeypatch)
    assert found.data == config.data
    assert found.data.columns == ("length", "'x'")
    assert found.opened == config.opened


def test_there_is_no_command_for_what_the_command_line_cannot_do():
    config = RunConfig(data=stripes().facts(), model=tiny_config(), fit={})
    assert fit_command(config) is None
    config = config_of(open_source("iris"))
    assert fit_command(config) == "likelify fit iris --model table-flow"
    halves = DataChoice(source="iris", limits={"train": 20})
    assert fit_command(config.model_copy(update={"opened": halves})) is None
