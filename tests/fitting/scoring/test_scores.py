"""What a table of scores calls its columns."""

import numpy as np

from likelify.fitting.scoring.scores import Scores
from likelify.fitting.scoring.summary import Summary


def test_names_of_an_earlier_scoring_are_neither_taken_for_ours_nor_lost():
    earlier = {"nats_given": ["first"], "nats": ["second"], "is_outlier": ["False"], "outlier_rank": ["0.5"]}
    table = Scores(np.array([-1.0]), carried=earlier).to_arrow()
    assert table.column_names == [
        "item", "nats_given", "nats_given_given", "is_outlier_given", "outlier_rank_given", "nats",
    ]  # fmt: skip
    assert table["nats_given"].to_pylist() == ["first"]
    assert table["nats_given_given"].to_pylist() == ["second"]
    summary = Summary(top=1)
    summary.add(table)
    assert summary.marked is None
    assert summary.rare is None
