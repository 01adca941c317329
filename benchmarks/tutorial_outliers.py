"""Foreign images told by a classifier's likelihood: AUROC with intervals, beside max-softmax and a Glow of equal time.

Behind `docs/tutorials/outliers.md`. A classifier of digits is flowified with its weights, and its likelihood tuned:
with the weights kept, so that the classifier stays as it is, and with all of it free. A full run also draws the page's
picture.
"""

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import likelify as lk
from benchmarks import tutorial_digits
from benchmarks.fits import timed
from benchmarks.report import Entry, arguments, report
from benchmarks.tutorial_digits import LEVELS, SHAPE, converted, scaled, tune, whitened
from likelify import zoo
from likelify.data import Source, open_source, resized, subset
from likelify.errors import LikelifyError
from likelify.fitting import recipes
from likelify.fitting.loop import fit
from likelify.fitting.metrics import bits_per_dim, evaluate

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "tutorial-outliers.png"
CLASSES = 10
MAX_SOFTMAX, KEPT, TUNED, FRESH, GLOW = (
    "max softmax",
    "flowified, weights kept",
    "flowified, all tuned",
    "flowified, never a classifier",
    "Glow",
)
LOGITS, RATIO, TYPICAL, PIXELS = (
    "density of the logits",
    "ratio to independent pixels",
    "typicality",
    "independent pixels",
)
WINNING, FASHION = "upside down", "Fashion-MNIST"
Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Foreign:
    """A set of images that are no digits, or digits spoilt; `paired` if image i is made of test digit i."""

    images: Tensor
    paired: bool


def network() -> nn.Sequential:
    """Build the classifier: 64 pixels, 32 features, 10 logits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, CLASSES))


def train(net: nn.Module, source: Source, steps: int) -> None:
    """Train a classifier by cross-entropy, with pixels anywhere in their levels."""
    data = source.read_all("train")
    labels = data.labels
    assert labels is not None

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(net(scaled(data.x[rows], torch.rand(len(rows), *SHAPE))), labels[rows])

    tutorial_digits.train(net, loss, len(data), steps, lr=3e-3, weight_decay=1e-2)


def accuracy(classify: Callable[[Tensor], Tensor], source: Source) -> float:
    """Return the share of test digits that are recognised."""
    data = source.read_all("test")
    with torch.no_grad():
        return float((classify(scaled(data.x)).argmax(1) == data.labels).double().mean())


def flowified(net: nn.Module, *, keep: bool) -> lk.Flow:
    """Turn the classifier into a density of images, with a linear layer behind that makes the logits white."""
    return whitened(converted(net, keep=keep))


def mean_logits(flow: lk.Flow) -> Callable[[Tensor], Tensor]:
    """Return the classifier inside a flowified one, a function of scaled images."""
    return flow.transform[0][2].mean_forward  # pyright: ignore[reportIndexIssue]


def fitted_glow(source: Source, seconds: float, seed: int) -> lk.Flow:
    """Fit a Glow with the settings that the command line takes for digits."""
    flow = zoo.build("glow", event_shape=SHAPE, pixel_levels=LEVELS, **recipes.images.SOURCES["digits"].models["glow"])
    fit(flow, source, timed(recipes.FITS["glow"], seconds, seed))
    return flow


def foreign_sets(source: Source) -> dict[str, Foreign]:
    """Make the sets of foreign images; Fashion-MNIST is left out, and this said, where it is not installed."""
    digits = source.read_all("test").x
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(len(digits), 64, generator=generator).argsort(1)
    sets = {
        "upside down": Foreign(digits.rot90(2, (2, 3)), paired=True),
        "mirrored": Foreign(digits.flip(3), paired=True),
        "turned by 90 degrees": Foreign(digits.rot90(1, (2, 3)), paired=True),
        "inverted": Foreign(LEVELS - 1 - digits, paired=True),
        "pixels shuffled": Foreign(digits.flatten(1).gather(1, order).reshape(digits.shape), paired=True),
        "uniform noise": Foreign(torch.randint(LEVELS, digits.shape, generator=generator), paired=False),
    }
    try:
        return {FASHION: Foreign(fashion().read_all("test").x, paired=False), **sets}
    except LikelifyError as error:
        print(f"left out: Fashion-MNIST ({error})")
        return sets


def fashion() -> Source:
    """Open 2,000 test images of Fashion-MNIST in the format of the digits."""
    return resized(subset(open_source("fashion-mnist"), train=10, validation=10, test=2000), SHAPE[1:], levels=LEVELS)


def log_likelihood(flow: lk.Flow, draws: int = 8) -> Score:
    """Return the score of a density, with the same noise at each call."""

    def score(x: Tensor) -> Tensor:
        with torch.no_grad(), lk.seeded(1), flow.frozen():
            return torch.cat([flow.elbo(part, samples=draws).value for part in x.split(500)]).double()

    return score


def max_softmax(net: nn.Module) -> Score:
    """Return the classifier's confidence as the log-odds of its largest probability, which has fewer ties."""

    def score(x: Tensor) -> Tensor:
        with torch.no_grad():
            logits = net(scaled(x)).double().sort(1).values
        return logits[:, -1] - logits[:, :-1].logsumexp(1)

    return score


def logit_density(flow: lk.Flow) -> Score:
    """Return the log-density of the logits alone, under the white base."""

    def score(x: Tensor) -> Tensor:
        with torch.no_grad():
            logits = mean_logits(flow)(scaled(x))
            z, contribution = flow.transform[1](logits)  # pyright: ignore[reportIndexIssue]
            return (flow.base.log_prob(z) + contribution).double()

    return score


def detectors(source: Source, seed: int, seconds: float) -> tuple[dict[str, Score], dict[str, float], lk.Flow]:
    """Train everything for one seed; return the scores, further figures, and the flow whose weights were kept."""
    start = time.process_time()
    with lk.seeded(seed):
        fresh = network().eval()
        net = copy.deepcopy(fresh)
        train(net, source, steps=600)
    spent = time.process_time() - start
    flows: dict[str, lk.Flow] = {}
    for name, start_from, keep in ((KEPT, net, True), (TUNED, net, False), (FRESH, fresh, False)):
        with lk.seeded(seed):
            flows[name] = flowified(start_from, keep=keep)
        tune(flows[name], source, seconds + (spent if start_from is fresh else 0), seed)
    with lk.seeded(seed):
        flows[GLOW] = fitted_glow(source, seconds + spent, seed)
    facts = {"accuracy of the classifier": accuracy(net, source)}
    for name in (KEPT, TUNED):
        facts[f"accuracy, {name}"] = accuracy(mean_logits(flows[name]), source)
    for name, flow in flows.items():
        facts[f"bits/dim, {name}"] = evaluate(flow, source, elbo_samples=8, iw_samples=0).elbo.bits.mean
    scores = {MAX_SOFTMAX: max_softmax(net)} | {name: log_likelihood(flow) for name, flow in flows.items()}
    return scores | variants(scores[KEPT], flows[KEPT], source), facts, flows[KEPT]


def variants(likelihood: Score, flow: lk.Flow, source: Source) -> dict[str, Score]:
    """Return other scores of the flow whose weights were kept, and that of independent pixels."""
    pixels = zoo.build("marginal-spline", event_shape=SHAPE, couplings=1, exponentials=0, pixel_levels=LEVELS)
    pixels.initialize(source.read_all("train").x)
    independent = log_likelihood(pixels)
    usual = likelihood(source.read_all("validation").x).mean()
    return {
        LOGITS: logit_density(flow),
        RATIO: lambda x: likelihood(x) - independent(x),
        TYPICAL: lambda x: -(likelihood(x) - usual).abs(),
        PIXELS: independent,
    }


@dataclass(frozen=True)
class Placements:
    """For each known image the share of foreign ones that score below it, and for each foreign one of those above."""

    known: Tensor
    foreign: Tensor

    @staticmethod
    def of(known: Tensor, foreign: Tensor) -> "Placements":
        """Compare scores; ties count half."""
        wins = (known[:, None] > foreign).double() + 0.5 * (known[:, None] == foreign).double()
        return Placements(wins.mean(1), wins.mean(0))

    def __sub__(self, other: "Placements") -> "Placements":
        return Placements(self.known - other.known, self.foreign - other.foreign)


@dataclass(frozen=True)
class Area:
    """An area under the receiver operating characteristic, or a difference of two, with its 95 % interval."""

    value: float
    half_width: float

    @staticmethod
    def of(seeds: list[Placements], *, paired: bool) -> "Area":
        """Average over seeds. The interval is for other images, by DeLong et al. (1988), and for other seeds.

        Images: the variance of the mean placements over seeds; where foreign images are made of the known ones, that of
        the sum of both. Seeds: the variance of the areas over their number. The quantile is that of Student's t with
        Satterthwaite's degrees of freedom, since three seeds tell their own variance badly.
        """
        from scipy.stats import t

        known = torch.stack([placements.known for placements in seeds]).mean(0)
        foreign = torch.stack([placements.foreign for placements in seeds]).mean(0)
        images = float((known + foreign).var() / len(known) if paired else known.var() / len(known) + _share(foreign))
        areas = [float(placements.known.mean()) for placements in seeds]
        others = statistics.variance(areas) / len(seeds) if len(seeds) > 1 else 0.0
        freedom = (images + others) ** 2 * (len(seeds) - 1) / others**2 if others > 0 else math.inf
        return Area(statistics.mean(areas), float(t.ppf(0.975, freedom)) * math.sqrt(images + others))


def _share(placements: Tensor) -> Tensor:
    return placements.var() / len(placements)


def compare(
    seeds: list[dict[str, Score]], known: Tensor, sets: dict[str, Foreign]
) -> dict[tuple[str, str], list[Placements]]:
    """Score everything; return the placements of each seed by set and score."""
    found: dict[tuple[str, str], list[Placements]] = {}
    for scores in seeds:
        for name, score in scores.items():
            own = score(known)
            for title, foreign in sets.items():
                found.setdefault((title, name), []).append(Placements.of(own, score(foreign.images)))
    return found


def fashion_classes(score: Score, known: Tensor) -> dict[str, float]:
    """Return the AUROC of each kind of clothes."""
    names = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
    data, own = fashion().read_all("test"), score(known)
    assert data.labels is not None
    values = score(data.x)
    return {name: float(Placements.of(own, values[data.labels == k]).known.mean()) for k, name in enumerate(names)}


def draw(flow: lk.Flow, source: Source, sets: dict[str, Foreign], file: Path) -> None:
    """Draw the bits of digits and of two foreign sets, and the foreign images that are taken for digits."""
    from matplotlib.figure import Figure

    from likelify.plots import grid_of

    score = log_likelihood(flow)
    shown = {"test digits": source.read_all("test").x, WINNING: sets[WINNING].images, FASHION: sets[FASHION].images}
    bits = {name: bits_per_dim(score(x), math.prod(SHAPE)) for name, x in shown.items()}
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    for name, values in bits.items():
        left.hist(values.clamp(1, 8).numpy(), bins=70, range=(1, 8), density=True, histtype="step", label=name)
    left.set(xlabel="bits/dim (8 and more at the right edge)", yticks=[])
    left.legend(frameon=False)
    best = bits[FASHION].argsort()[:40]
    right.imshow(grid_of(sets[FASHION].images[best], LEVELS, columns=10), cmap="gray", interpolation="nearest")
    right.set_title("Fashion-MNIST images that score highest", fontsize=10)
    right.axis("off")
    figure.savefig(file, dpi=90)


def entries_of(found: dict[tuple[str, str], list[Placements]], sets: dict[str, Foreign]) -> list[Entry]:
    """List areas, and the differences from the rivals, with half-widths of their intervals."""
    areas = {f"{title}: {name}": Area.of(seeds, paired=sets[title].paired) for (title, name), seeds in found.items()}
    for title, foreign in sets.items():
        for rival in (MAX_SOFTMAX, GLOW):
            pairs = zip(found[title, KEPT], found[title, rival], strict=True)
            difference = Area.of([own - other for own, other in pairs], paired=foreign.paired)
            areas[f"{title}: {KEPT} minus {rival}"] = difference
    entries = []
    for name, area in areas.items():
        must = 0.05 if name.startswith(f"{WINNING}: {KEPT} minus") else None
        entries.append(Entry(name, area.value, "AUROC", must, better="higher"))
        entries.append(Entry(f"{name}, half of the 95 % interval", area.half_width, "AUROC"))
    return entries


def main() -> None:
    """Train for all seeds, score, and report."""
    options = arguments(__doc__ or "", seeds=3)
    source = open_source("digits")
    seeds, seconds = (1, 3.0) if options.quick else (options.seeds, 20.0)
    sets, known = foreign_sets(source), source.read_all("test").x
    runs = []
    for seed in range(seeds):
        runs.append(detectors(source, seed, seconds))
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.3f}" for name, value in runs[-1][1].items()), flush=True)
    entries = [
        Entry(name, statistics.mean(facts[name] for _, facts, _ in runs), "bits/dim" if "bits" in name else "share")
        for name in runs[0][1]
    ]
    entries += entries_of(compare([scores for scores, _, _ in runs], known, sets), sets)
    if FASHION in sets:
        kinds = [fashion_classes(scores[KEPT], known) for scores, _, _ in runs]
        means = {name: statistics.mean(kind[name] for kind in kinds) for name in kinds[0]}
        entries += [Entry(f"{FASHION}, {name}: {KEPT}", value, "AUROC") for name, value in means.items()]
        if not options.quick:
            draw(runs[0][2], source, sets, PICTURE)
    report(entries, options.json)


if __name__ == "__main__":
    main()
