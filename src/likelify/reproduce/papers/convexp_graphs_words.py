"""What the convolution exponential paper printed in table 4, and what is said about our figures beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from likelify.reproduce.divergences import entropy_of
from likelify.reproduce.evidence import Evidence
from likelify.reproduce.experiment import Scale
from likelify.reproduce.numbers import listed
from likelify.reproduce.papers.convexp_words import SOURCE as SOURCE
from likelify.reproduce.results import divergences
from likelify.reproduce.statistics import Paired

FLAT = "coupling flow"
PLAIN = "graph normalizing flow"
EXPONENTIAL = "graph exponential"
PER_NODE = "per-node mixing"
ZERO_START = "graph normalizing flow, zero start"
SPLINES = "exponential, splines"
ATTENTION = "exponential, attention"
BOTH = "exponential, splines and attention"
SYLVESTER = "graph Sylvester flow"
MATCHING = "flow matching"
AUTOREGRESSIVE = "autoregressive over nodes"
CANONICAL = "canonicalised"
LONG_COUPLINGS = "couplings, ten minutes"
LONG_MATCHING = f"{MATCHING}, ten minutes"

BIJECTION, SOLVED = "equivariant bijection", "equivariant, by a solver"
KINDS: dict[str, str] = {
    FLAT: "sees the order",
    **dict.fromkeys((PLAIN, EXPONENTIAL, PER_NODE, ZERO_START, SPLINES, ATTENTION, BOTH, SYLVESTER), BIJECTION),
    MATCHING: SOLVED,
    AUTOREGRESSIVE: "random orders: a bound",
    CANONICAL: "places first: a bound",
}
EQUAL = (FLAT, PLAIN, EXPONENTIAL, PER_NODE, ZERO_START)
COUPLINGS = (EXPONENTIAL, SPLINES, ATTENTION, BOTH, LONG_COUPLINGS)
EQUIVARIANT = (*COUPLINGS, PLAIN, PER_NODE, ZERO_START, SYLVESTER, MATCHING, LONG_MATCHING)

# Negative log-likelihoods in nats per node.
TABLE_4 = {
    (FLAT, "MoG-4"): "3.89 +- 0.012",
    (FLAT, "MoG-9"): "6.14 +- 0.012",
    (FLAT, "MoG-16"): "7.20 +- 0.021",
    (FLAT, "MoG-Ring"): "4.35 +- 0.023",
    (PLAIN, "MoG-4"): "3.69 +- 0.016",
    (PLAIN, "MoG-9"): "4.60 +- 0.067",
    (PLAIN, "MoG-16"): "5.38 +- 0.048",
    (PLAIN, "MoG-Ring"): "4.22 +- 0.025",
    (EXPONENTIAL, "MoG-4"): "3.68 +- 0.017",
    (EXPONENTIAL, "MoG-9"): "4.52 +- 0.047",
    (EXPONENTIAL, "MoG-16"): "5.26 +- 0.047",
    (EXPONENTIAL, "MoG-Ring"): "4.19 +- 0.036",
}
ENTROPIES = "The paper estimates the entropies as 3.63, 4.26 and 4.05 (MoG-4, MoG-9, Ring) and leaves MoG-16 blank."

DEFINED = (
    "MoG-4, MoG-9 and the ring are those of Liu et al. 2019; the paper does not say what MoG-16 is, and a 4x4 grid is "
    "what continues them."
)
CAVEATS: dict[Scale, str] = {
    "cpu": "CPU scale: small networks, and about a minute and a half of one processor for a row without 'ten "
    "minutes'. The paper's layers, widths and numbers of steps are in an appendix that is not at hand, so its figures "
    f"stand beside ours without equal effort. {DEFINED} {ENTROPIES} The rows of the paper and the controls have the "
    "same number of steps on a data set, the others 90 seconds each, the canonicalised one 30. The couplings of ten "
    "minutes are those that were best after 90 seconds: affine ones with attention on MoG-4, splines on the ring, "
    "splines with attention elsewhere.",
    "paper": "Paper scale: the paper's settings are in an appendix that is not at hand. The nearest published ones are "
    "the defaults of the graph normalizing flows' code (Liu et al. 2019): 12 layers that change both halves, attention "
    "of eight heads, width 256, 15,000 steps of 32 graphs. Normalization is ActNorm in place of batch norm, and the "
    f"networks have one round of messages. {DEFINED} {ENTROPIES}",
    "quick": "A trial of the machinery: a second of fitting tiny models on few graphs. The figures mean nothing.",
}
CLASSES = {
    FLAT: "'{}' takes the features of all nodes as one vector: it sees the order of the nodes and has to learn of "
    "every one of the N! orders by itself.",
    PLAIN: "'{}' and all rows of the kind 'equivariant bijection' commute with permutations of the nodes and have "
    "exact likelihoods from one pass.",
    MATCHING: "'{}' is an equivariant bijection as well, but a continuous one: its likelihood is the solution of an "
    "equation by a numerical method, so exact up to the error of that, and measured on fewer graphs.",
    AUTOREGRESSIVE: "'{}' gives each node a density given those before it, in a random order. That density is not "
    "invariant; the figure is a bound of its average over all orders, from some of them for each graph.",
    CANONICAL: "'{}' assigns the nodes to fitted anchors (sorts them by angle on the ring) and models the rest as one "
    "vector, which is nearly how these data were made: a ceiling to measure the others by, not a rival.",
}
# Nodes, and the variance of the means of the nodes in each feature; that of the noise is one.
MOMENTS = {"MoG-4": (4, 25.0), "MoG-9": (9, 200 / 3), "MoG-16": (16, 125.0), "MoG-Ring": (4, 25.0)}
RADIUS = math.sqrt(50.0)
NORMAL = math.log(2 * math.pi * math.e)
# A flow this near to the saddle has not left it, in nats per node.
NEAR = 0.02
# Standard errors that a difference has to have.
SURE = 2.0


def discuss(evidence: Evidence) -> list[str]:
    """Return what the table shows."""
    fitted = {title for rows in evidence.rows.values() for title, results in rows.items() if results}
    found = [text.format(title) for title, text in CLASSES.items() if title in fitted]
    measured = [data for data, rows in evidence.rows.items() if any(rows.values())]
    gains = {data: gain for data in measured if (gain := _gain(evidence, data)).count}
    found += [_verdict(data, gain, _steps(evidence, data)) for data, gain in gains.items()] + _why(gains)
    for data in measured:
        found += _order(evidence, data) + _starts(evidence, data) + _alone(evidence, data) + _printed(evidence, data)
    return found


def linear_gain(data: str) -> float:
    """Return what two matrices, of the mean and of the deviations, gain over one in a flow of nothing else.

    In nats per node: the difference of the entropies of the two normal distributions that have the moments of the data,
    with the covariance of all nodes and with that of independent ones. The means of the nodes add up to zero, so their
    mean is noise of variance `1 / N`.
    """
    nodes, spread = MOMENTS[data]
    variance = spread + 1.0
    return math.log(variance) - (nodes - 1) / nodes * math.log((nodes * variance - 1) / (nodes - 1))


def saddle(data: str) -> float | None:
    """Return the divergence at which a flow without mixing stands still that starts at zero; None without a saddle."""
    if data == "MoG-Ring":
        return None
    nodes, spread = MOMENTS[data]
    return math.log(spread + 1.0) - math.lgamma(nodes + 1) / nodes


def independent(data: str) -> float:
    """Return the negative log-likelihood of the best model whose nodes know nothing of one another, per node."""
    return math.log(2 * math.pi * RADIUS) + NORMAL / 2 if data == "MoG-Ring" else NORMAL + math.log(MOMENTS[data][0])


def _steps(evidence: Evidence, data: str) -> set[int]:
    """Return the numbers of steps that rows of equal steps have made."""
    return {result.course.steps for title in EQUAL for result in evidence.rows[data].get(title, [])}


def _order(evidence: Evidence, data: str) -> list[str]:
    steps = _steps(evidence, data)
    if not steps:
        return []
    order = evidence.order(list(EQUAL), data, "truth")
    if len(steps) > 1:
        return [f"{data}: the numbers of steps differ ({min(steps):,} to {max(steps):,}); by KL, best first: {order}."]
    return [f"{data}, KL after {min(steps):,} steps each, best first: {order}."]


def _starts(evidence: Evidence, data: str) -> list[str]:
    zero, other = (evidence.figures(title, data, "truth") for title in (ZERO_START, PLAIN))
    place = saddle(data)
    if not zero or not other:
        return []
    stuck = [seed for seed, value in zero.items() if place is not None and abs(value - place) < NEAR]
    text = f"{data}: {evidence.verdict(ZERO_START, PLAIN, data, 'truth')}."
    if place is None:
        return [text]
    if stuck:
        count = f"{len(stuck)} of {len(zero)}"
        return [f"{text} Of the fits that start at zero {count} stand at the saddle, whose KL is {place:.3f}."]
    return [f"{text} The saddle at zero has a KL of {place:.3f}; none of these fits stands there."]


def _alone(evidence: Evidence, data: str) -> list[str]:
    """Name the rows that are no better than independent nodes."""
    entropy = entropy_of(evidence.rows[data])
    if entropy is None:
        return []
    limit = independent(data)
    totals = {title: _total(evidence, title, data) for title in evidence.rows[data]}
    above = [title for title, total in totals.items() if total is not None and total >= limit]
    if not above:
        return []
    return [f"{data}: no better than nodes that know nothing of one another ({limit:.3f}): {listed(above)}."]


def _printed(evidence: Evidence, data: str) -> list[str]:
    """Compare with the paper: row by row, then the best of our bijections with its best."""
    found, printed = [], {title: _number(text) for (title, name), text in TABLE_4.items() if name == data}
    ours = {title: _total(evidence, title, data) for title in printed}
    pairs = [f"{title} {ours[title]:.3f} ({printed[title]:.2f})" for title in printed if ours[title] is not None]
    if pairs:
        found.append(f"{data}, entropy + KL, and what the paper printed: {', '.join(pairs)}.")
    best = min(printed.values())
    for what, titles in (("couplings with the graph exponential", COUPLINGS), ("equivariant bijections", EQUIVARIANT)):
        title, total = _best(evidence, titles, data)
        if title:
            side = "below" if total < best else "not below"
            found.append(
                f"{data}: the best of the {what} is '{title}', {total:.3f}{_of_fewer(evidence, title, titles, data)}, "
                f"{side} the paper's best ({best:.2f})."
            )
    return found


def _best(evidence: Evidence, titles: Sequence[str], data: str) -> tuple[str, float]:
    totals = {title: total for title in titles if (total := _total(evidence, title, data)) is not None}
    return min(totals.items(), key=lambda pair: pair[1], default=("", math.nan))


def _of_fewer(evidence: Evidence, title: str, titles: Sequence[str], data: str) -> str:
    """Say it if a row has fewer test graphs than others that it is compared with."""
    counts = {name: {kl.count for kl in divergences(evidence.rows[data].get(name, ())).values()} for name in titles}
    own, most = min(counts[title], default=0), max(set().union(*counts.values()), default=0)
    return f" (of {own:,} test graphs, the first of the {most:,} of others)" if own < most else ""


def _gain(evidence: Evidence, data: str) -> Paired:
    """Return how far per-node mixing lies above the exponential."""
    return evidence.compare(PER_NODE, EXPONENTIAL, data, "truth")


def _verdict(data: str, gain: Paired, steps: set[int]) -> str:
    where = "at equal steps" if len(steps) == 1 else "at unequal steps"
    start = f"{data}: the graph exponential's gain over per-node mixing {where} is {gain.difference:+.4f}"
    if gain.count < 2:
        return f"{start}, of one pair only, which has no error."
    text = (
        f"{start} +- {gain.error:.4f} nats per node (standard error of {gain.count} paired seeds; 95 %: "
        f"{gain.low:+.4f} to {gain.high:+.4f})"
    )
    if gain.low > 0:
        return f"{text}: it shows."
    if gain.high < 0:
        return f"{text}: it is a loss."
    if abs(gain.difference) > SURE * gain.error:
        return f"{text}: more than {SURE:.0f} standard errors, but the interval does not leave out zero."
    return f"{text}: less than {SURE:.0f} standard errors, it does not show."


def _why(gains: Mapping[str, Paired]) -> list[str]:
    """Say what the exponential can do on a complete graph, and how much of it is seen."""
    if not gains:
        return []
    parts = [f"{data} {gain.difference:+.3f} ({linear_gain(data):.3f})" for data, gain in gains.items()]
    return [
        "What the exponential can do that a matrix on each node's features cannot: on a complete graph it is one "
        "matrix for the mean of the nodes and another for the deviations from it (docs/maths/graphs.md). In all of "
        "these data the mean of the nodes is noise alone, of variance 1/N, and that is one direction of N in each "
        "feature. For a flow of nothing but one such layer the covariance says what that is worth; couplings that read "
        f"the other nodes can learn of it by themselves. Measured gain (that of the linear flow): {', '.join(parts)}."
    ]


def _total(evidence: Evidence, title: str, data: str) -> float | None:
    values, entropy = evidence.figures(title, data, "truth"), entropy_of(evidence.rows[data])
    return None if not values or entropy is None else entropy + sum(values.values()) / len(values)


def _number(text: str) -> float:
    return float(text.partition(" ")[0])
