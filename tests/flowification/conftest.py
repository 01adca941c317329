import pytest

from likelify.flowification.rules import RULES


@pytest.fixture(autouse=True)
def _rules_of_tests_end_with_them():
    kept = dict(RULES)
    yield
    RULES.clear()
    RULES.update(kept)
