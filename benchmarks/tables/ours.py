"""The default model of tables, with all columns taken for real numbers, as the rivals take them."""

import time
from collections.abc import Callable

import likelify as lk
from benchmarks.fits import timed
from benchmarks.tables.data import Split
from benchmarks.tables.rivals import Measured, log_probs, source
from likelify.fitting.choose import choose
from likelify.fitting.loop import fit


def default(split: Split, seconds: float, seed: int) -> Measured:
    """Fit what `likelify fit` fits to a table of real columns, with its settings, for some time."""
    data = source(split)
    choice = choose(data.facts(), model="table-flow")
    with lk.seeded(seed):
        flow = choice.model.build()
    start = time.process_time()
    course = fit(flow, data, timed(choice.fit.model_dump(), seconds, seed))
    spent = time.process_time() - start
    return Measured(log_probs(flow, split), {"steps": course.steps, "seconds": spent})


OURS: dict[str, Callable[[Split, float, int], Measured]] = {"table-flow": default}
