"""What the convolution exponential paper printed in tables 1 to 3, and what is said about our figures beside it."""

from __future__ import annotations

from likelify.reproduce.evidence import Evidence, Reading
from likelify.reproduce.experiment import Scale

SOURCE = (
    "E. Hoogeboom, V. Garcia Satorras, J. M. Tomczak, M. Welling, 'The convolution exponential and generalized "
    "Sylvester flows', 2020"
)
CIFAR = "CIFAR-10"
EXPONENTIAL = "convolution exponential"

# Negative ELBO, importance-weighted with 1,000 draws, and costs of training and sampling in % of 1x1.
TABLE_1 = {
    ("1x1", CIFAR): "3.285 +- 0.008",
    ("Emerging", CIFAR): "3.245 +- 0.002",
    ("Woodbury", CIFAR): "3.247 +- 0.003",
    ("convolution exponential", CIFAR): "3.237 +- 0.002",
}
TABLE_1_WEIGHTED = {
    ("1x1", CIFAR): "3.266 +- 0.007",
    ("Emerging", CIFAR): "3.226 +- 0.002",
    ("Woodbury", CIFAR): "3.228 +- 0.003",
    ("convolution exponential", CIFAR): "3.218 +- 0.003",
}
TABLE_1_COSTS = {
    "1x1": ("100.0", "100.0"),
    "Emerging": ("103.2", "1223.5"),
    "Woodbury": ("133.2", "135.4"),
    "convolution exponential": ("104.6", "115.8"),
}
TABLE_2 = {
    ("coupling, uniform", CIFAR): "3.38",
    ("residual, uniform", CIFAR): "3.37",
    ("residual (equal memory), uniform", CIFAR): "3.44",
    ("Sylvester, uniform", CIFAR): "3.32",
    ("coupling, variational", CIFAR): "3.27",
    ("residual, variational", CIFAR): "3.26",
    ("residual (equal memory), variational", CIFAR): "3.35",
    ("Sylvester, variational", CIFAR): "3.21",
}
TABLE_2_WEIGHTED = {
    ("coupling, uniform", CIFAR): "3.35",
    ("Sylvester, uniform", CIFAR): "3.29",
    ("coupling, variational", CIFAR): "3.25",
    ("Sylvester, variational", CIFAR): "3.19",
}
TABLE_3 = {("full", CIFAR): "3.21", ("without f_AR", CIFAR): "3.44", ("without the basis", CIFAR): "3.27"}
TABLE_3_WEIGHTED = {("full", CIFAR): "3.19", ("without f_AR", CIFAR): "3.42", ("without the basis", CIFAR): "3.25"}

CPU_CAVEATS = {
    "table-1": (
        "CPU scale: the paper's model (DenseNet couplings, a mixing layer before the first and after each, two scales) "
        "with four couplings a scale and small networks instead of ten and large ones, uniform instead of variational "
        "noise, on 32x32 photographs and on Fashion-MNIST instead of CIFAR-10, and a minute and a half of one "
        "processor instead of 1,000 epochs. The networks are narrowed until every row has the parameters of 1x1 "
        "within 2 %: where the mixing layer is large (Woodbury's and 5x5 kernels on photographs) they are much smaller."
    ),
    "table-2": (
        "CPU scale: the paper's models with four layers a scale on two scales and networks of width 96 instead of 16, "
        "three and 528, on 32x32 photographs instead of CIFAR-10, and minutes of one processor instead of 1,000 "
        "epochs. As in the paper the width of the networks is the same, not the number of parameters."
    ),
    "table-3": (
        "CPU scale: the models of table 2 with variational noise, fitted as there; the full model is that of table 2."
    ),
}
PAPER_CAVEAT = (
    "Paper scale: the published settings of models and fits (1,000 epochs in batches of 256), without augmentation. "
    "What differs from the published code, and why, is in docs/models-convexp.md."
)
QUICK_CAVEAT = "A trial of the machinery: a second of fitting tiny models on 8x8 digits. The figures mean nothing."
TEST: Reading = "test"
# A cost of sampling in % of that of 1x1 up to which a layer is not set aside for it.
AFFORDABLE = 200.0


def caveat(name: str, scale: Scale) -> str:
    """Return what a reader of a table must know before comparing."""
    return {"cpu": CPU_CAVEATS[name], "paper": PAPER_CAVEAT, "quick": QUICK_CAVEAT}[scale]


def discuss_mixing(evidence: Evidence) -> list[str]:
    """Return what table 1 shows."""
    found = []
    for data in _measured(evidence):
        methods = list(evidence.rows[data])
        for reading in evidence.midway or (TEST,):
            order = evidence.order(methods, data, reading)
            found.append(f"{data}, {evidence.place(data, reading)}, best first: {order}.")
        found += _compared(evidence, data, "convolution exponential", ("1x1", "Woodbury", "Emerging"))
        found += _compared(evidence, data, "axis exponential", ("1x1", "Emerging", "convolution exponential"))
        found += _compared(evidence, data, "two 1x1", ("1x1",), "The control: ")
        for variant in ("no limit", "5x5"):
            found += _compared(evidence, data, f"convolution exponential ({variant})", ("convolution exponential",))
        found += _compared(evidence, data, "orthogonal", ("convolution exponential",))
        found += _emerging(evidence, data)
    return found


def _emerging(evidence: Evidence, data: str) -> list[str]:
    """Say what the paper's ordering becomes with an inverse of Emerging convolutions that is not slow."""
    costs = evidence.cost("Emerging", data), evidence.cost(EXPONENTIAL, data)
    if None in costs:
        return [f"{data}: costs are not measured yet, so nothing is said of Emerging's sampling."]
    emerging, exponential = (cost.sample_percent for cost in costs if cost is not None)
    text = (
        f"{data}: the paper sets Emerging aside because sampling takes 1,223.5 % of the time of 1x1, against 115.8 % "
        f"of the convolution exponential. With the inverse that Emerging has here it takes {emerging:,.0f} %, the "
        f"convolution exponential {exponential:,.0f} %"
    )
    if emerging > AFFORDABLE:
        return [f"{text}: more than twice that of 1x1 for Emerging, so sampling still speaks against it."]
    verdicts = ", ".join(
        f"{evidence.place(data, reading)} {_ahead(evidence, data, reading)}" for reading in evidence.midway or (TEST,)
    )
    return [f"{text}: at most twice that of 1x1 for Emerging, so the likelihood decides: {verdicts}."]


def _ahead(evidence: Evidence, data: str, reading: Reading) -> str:
    """Say whether the convolution exponential or Emerging is ahead."""
    paired = evidence.compare(EXPONENTIAL, "Emerging", data, reading)
    if paired.count < 2:
        return "one pair says nothing" if paired.count else "nothing is measured yet"
    side = evidence.side(paired)
    return {1: f"the {EXPONENTIAL} is ahead", 0: "the two cannot be told apart", -1: "Emerging is ahead"}[side]


def discuss_residual(evidence: Evidence) -> list[str]:
    """Return what table 2 shows."""
    found = []
    for data in _measured(evidence):
        for noise in ("uniform", "variational"):
            for ours, theirs in (
                ("Sylvester", "coupling"),
                ("Sylvester", "residual"),
                ("Sylvester", "residual (equal memory)"),
                ("Sylvester (axis basis)", "Sylvester"),
                ("residual", "coupling"),
            ):
                found += _compared(evidence, data, f"{ours}, {noise}", (f"{theirs}, {noise}",))
            found += _memory(evidence, data, noise)
        found.append(
            f"{data}: the log-determinants of residual blocks are estimates, so their figures have the noise of these, "
            "and importance weighting, which it would bias, is left out."
        )
    return found


def _memory(evidence: Evidence, data: str, noise: str) -> list[str]:
    """Say what the blocks need, against the paper's claim that a residual block needs twice the memory."""
    titles = ("Sylvester", "residual", "residual (equal memory)")
    costs = {title: evidence.cost(f"{title}, {noise}", data) for title in titles}
    kept = {title: cost.kept_bytes for title, cost in costs.items() if cost is not None}
    if len(kept) < len(titles):
        return []
    shares = ", ".join(f"{title} {kept[title] / kept['Sylvester']:.2f}" for title in titles[1:])
    return [
        f"{data}, {noise} noise: memory of a training step in multiples of the Sylvester model's: {shares}. The paper "
        "takes half as many residual blocks for equal memory. The residual layers here run their networks again in the "
        "backward pass, so what equal memory allows them is to be read off these numbers."
    ]


def discuss_ablations(evidence: Evidence) -> list[str]:
    """Return what table 3 shows."""
    found = []
    for data in _measured(evidence):
        for part in ("without f_AR", "without the basis"):
            found += _compared(evidence, data, "full", (part,))
    return found


def _measured(evidence: Evidence) -> list[str]:
    """Return the data of which there are results."""
    return [data for data, rows in evidence.rows.items() if any(rows.values())]


def _compared(evidence: Evidence, data: str, ours: str, rivals: tuple[str, ...], start: str = "") -> list[str]:
    """Return one sentence for each rival: on the test split, at equal steps and at equal times."""
    found = []
    for rival in rivals:
        readings: tuple[Reading, ...] = (TEST, *evidence.midway)
        if evidence.compare(ours, rival, data).count:
            found.append(f"{start}{data}: {'; '.join(evidence.verdict(ours, rival, data, r) for r in readings)}.")
    return found
