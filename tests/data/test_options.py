import pytest

from likelify.data import SourceOptions, open_source
from likelify.data.catalog import FROM_FILES, OPTIONS
from likelify.errors import ConfigError, DataError
from likelify.fitting.sources import DataChoice, chosen, open_data


@pytest.mark.parametrize(
    ("given", "size"), [(32, (32, 32)), ("32", (32, 32)), (" 32 X 48 ", (32, 48)), ((4, 5), (4, 5)), ([4, 5], (4, 5))]
)
def test_sizes_are_numbers_or_height_and_width(given, size):
    assert SourceOptions(image_size=given).image_size == size


@pytest.mark.parametrize("given", ["", "x", "32x", "32x32x3", "-3", "3.5", 0, True, (1, 2, 3), "99999", "9" * 5000])
def test_other_sizes_are_refused(given):
    with pytest.raises(ConfigError, match="image_size"):
        SourceOptions(image_size=given)


def test_only_what_was_given_is_given():
    assert SourceOptions().chosen() == {}
    assert SourceOptions(labels="folders").chosen() == {"labels": "folders"}


@pytest.mark.parametrize("name", ["digits", "mnist:nothere"])
def test_an_option_without_effect_is_refused(name):
    with pytest.raises(DataError, match=r"--image-size has no effect on '(digits|mnist)'; leave it out"):
        open_source(name, SourceOptions(image_size=32))


def test_options_are_of_sources_and_settings_that_there_are():
    assert set(OPTIONS) <= set(FROM_FILES)
    assert {option for taken in OPTIONS.values() for option in taken} <= set(SourceOptions.model_fields)


def test_a_run_remembers_options_only_where_there_are_some():
    digits = open_source("digits")
    assert chosen(digits, None) is None
    assert chosen(digits, SourceOptions()) is None
    choice = chosen(digits, SourceOptions(crop="centre"))
    assert DataChoice.parse(choice.model_dump(mode="json")) == choice
    with pytest.raises(DataError, match="--crop has no effect on 'digits'"):
        open_data(choice)


@pytest.mark.parametrize(
    ("words", "said"), [({"columns": ""}, "no column is named"), ({"image_size": 0}, "0 is no size")]
)
def test_what_says_nothing_is_refused_in_words(words, said):
    with pytest.raises(ConfigError, match=said):
        SourceOptions.parse(words)
