import pytest

from likelify.errors import ConfigError
from likelify.fitting.settings import FitSettings


def test_settings_are_validated():
    with pytest.raises(ConfigError, match="no setting 'lrr'. Did you mean 'lr'"):
        FitSettings.parse({"lrr": 1})
    with pytest.raises(ConfigError, match="average"):
        FitSettings.parse({"average": 1.5})
