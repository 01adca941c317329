import numpy as np
import pytest

from likelify.data.published import PUBLISHED, published_facts
from likelify.data.source import hold_out


@pytest.mark.parametrize("name", PUBLISHED)
def test_facts_are_those_of_the_files_that_the_authors_published(name):
    shape, training, test = PUBLISHED[name]
    count = training + test
    # Of the items no more than their number is looked at here; the pixels of one stand for those of all.
    images = np.broadcast_to(np.zeros((1, 1, 1), np.uint8), (count, 1, 1, 1))
    source = hold_out(name, images, np.arange(count) % 10, test, "")
    known = published_facts(name)
    assert known == source.facts().model_copy(update={"event_shape": shape, "fingerprint": "", "description": ""})


def test_of_other_sets_nothing_is_known():
    assert published_facts("iris") is None
