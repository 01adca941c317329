import math
import re

import pytest

from likelify.errors import ConfigError
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.zoo import build


def test_settings_are_validated():
    with pytest.raises(ConfigError, match="no setting 'lrr'. Did you mean 'lr'"):
        FitSettings.parse({"lrr": 1})
    with pytest.raises(ConfigError, match="average"):
        FitSettings.parse({"average": 1.5})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: FitSettings(lr=math.inf),
            r"of the fit do not fit\. lr: Input should be a finite number",
        ),
        (
            lambda: FitSettings(stps=3),
            r"the fit do not fit\. There is no setting 'stps'\. Did you mean 'steps'",
        ),
        (lambda: FitSettings.parse([1]), r"settings of the fit do not fit\. They must have names"),
        (lambda: RunConfig(fit=3), r"fit: Input should be names with values"),
        (
            lambda: build("glow", event_shape=(1, 4, 4), levels=0),
            r"of the model 'glow' do not fit\. levels:",
        ),
        (
            lambda: build("glow", event_shape=(1, 4, 4), steps=10**7),
            r"steps: Input .* less than or equal to 4096",
        ),
        (lambda: build("glow", event_shape=[65536] * 3), r"has at most 67108864 elements here, not 65536x65536x65536"),
        (lambda: FitSettings(**{f"k{n}" * 99: 1 for n in range(99)}), r"And 94 more\.$"),
    ],
)
def test_settings_that_do_not_fit_are_named_in_the_users_words(make, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert not re.search(r"FitSettings|GlowConfig|RunConfig|validation error", str(caught.value))
    assert len(str(caught.value)) < 3000
