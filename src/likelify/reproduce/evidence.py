"""What the finished cells of an experiment show, for the sentences below its tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from likelify.fitting.figures import Unit
from likelify.reproduce.costs import Cost, CostResult
from likelify.reproduce.course import at_steps, at_time, common_steps, shared_time
from likelify.reproduce.numbers import DIGITS, difference_text, listed, seconds_text
from likelify.reproduce.results import divergences
from likelify.reproduce.shown import Rows
from likelify.reproduce.statistics import Paired, paired_difference

Reading = Literal["test", "steps", "time", "truth"]


@dataclass(frozen=True)
class Evidence:
    """The results of an experiment.

    Attributes:
        unit: of the figures.
        rows: for each data set by its title the results of each method.
        costs: for each data set by its title the costs, where they were measured.
        equal: figures in the middle of a fit are those of a fit that ends there.
    """

    unit: Unit
    rows: dict[str, Rows]
    costs: dict[str, CostResult]
    equal: bool = True

    @property
    def midway(self) -> tuple[Reading, ...]:
        """The readings off the courses of the fits, where these can be compared."""
        return ("steps", "time") if self.equal else ()

    def figures(self, method: str, data: str, reading: Reading = "test") -> dict[int, float]:
        """Return the figures of a method by seed.

        Those of the test split, of validation at equal steps or times, or how far the true density lies above.
        """
        rows = self.rows.get(data, {})
        results = rows.get(method, [])
        if reading == "truth":
            return {seed: kl.mean for seed, kl in divergences(results).items()}
        if reading == "steps":
            return at_steps(results, self.steps(data), self.unit)
        if reading == "time":
            return at_time(results, shared_time(rows, self.unit), self.unit)
        return {r.seed: self.unit.pick(r.elbo.bits.mean, r.elbo.nats.mean) for r in results}

    def steps(self, data: str) -> float:
        """Return the number of steps that all fits of the data have made."""
        return common_steps(result for results in self.rows.get(data, {}).values() for result in results)

    def place(self, data: str, reading: Reading) -> str:
        """Return where a reading is: words such as `at equal steps (400)`."""
        if reading == "test":
            return "on the test split"
        if reading == "truth":
            return "in its divergence from the truth"
        if reading == "steps":
            return f"at equal steps ({self.steps(data):,.0f})"
        return f"at equal time ({seconds_text(shared_time(self.rows.get(data, {}), self.unit))})"

    def compare(self, ours: str, theirs: str, data: str, reading: Reading = "test") -> Paired:
        """Return the difference of two methods, ours minus theirs, paired by seed."""
        return paired_difference(self.figures(ours, data, reading), self.figures(theirs, data, reading))

    def verdict(self, ours: str, theirs: str, data: str, reading: Reading = "test") -> str:
        """Return one sentence without its end: which of two methods is better, or that this cannot be told.

        A difference counts if its 95 % interval leaves out zero.
        """
        paired = self.compare(ours, theirs, data, reading)
        where = self.place(data, reading)
        if paired.count == 0 or not math.isfinite(paired.difference):
            return f"{ours} against {theirs} {where}: not measured yet"
        if paired.count == 1:
            text = f"{paired.difference:+.{DIGITS}f} {self.unit.name}"
            return f"{where} {ours} minus {theirs} is {text}, of one pair only"
        text = f"{difference_text(paired)} {self.unit.name}, {paired.count} pairs"
        side = self.side(paired)
        if side == 0:
            return f"{where} {ours} and {theirs} cannot be told apart ({text})"
        return f"{where} {ours} is {'better' if side > 0 else 'worse'} than {theirs} ({text})"

    def side(self, paired: Paired) -> int:
        """Return 1 if the first of two methods is better, -1 if it is worse, 0 if the interval does not say."""
        if paired.count < 2 or not paired.low * paired.high > 0:
            return 0
        return 1 if (paired.difference > 0) == self.unit.higher_is_better else -1

    def order(self, methods: list[str], data: str, reading: Reading = "test") -> str:
        """Return the methods from best to worst with their means, or an empty text if none has figures."""
        means = {}
        for method in methods:
            values = list(self.figures(method, data, reading).values())
            if values and all(map(math.isfinite, values)):
                means[method] = sum(values) / len(values)
        ranked = sorted(means, key=means.__getitem__, reverse=self.unit.higher_is_better)
        return listed([f"{method} ({means[method]:.{DIGITS}f})" for method in ranked]) if ranked else ""

    def cost(self, method: str, data: str) -> Cost | None:
        """Return the costs of a method, or None where they were not measured."""
        found = self.costs.get(data)
        return None if found is None else found.costs.get(method)
