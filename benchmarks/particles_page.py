"""The page "particles", written from the figures of `benchmarks.particles` alone."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from likelify.reproduce.numbers import listed
from likelify.reproduce.render import markdown_rows

# A gap of fewer standard errors is none that is shown; a change of the solver of less than this is none that counts.
TOLD, SOLVED = 2.0, 0.05
FRONT = """\
# Particles

[`dw4` and `lj13`](../data.md#particles) are systems whose densities are known up to their normalizers, and these by
annealing: so it can be said how far a model is from the best that there is, in nats. Here the model that `likelify fit`
chooses by itself is fitted for {seconds:.0f} seconds of one processor, everything included, to 1,000 and to 10,000
configurations. Its settings are those of that command, but for the number of steps: as many as the time allows.
"""
READING = """\
## How to read this

- *Held-out* is the mean of `-log p` over {items} test configurations, in nats per configuration, lower being better.
  Densities are of centred positions, in orthonormal coordinates of the space in which these have mean zero, of
  dimension {dimensions}.
- The *entropy* is `E U + ln Z` of the same configurations, which a perfect model would have: `U` is known, and `ln Z`
  is by annealed importance sampling in both directions (`python -m benchmarks.graph_truth`).
- The *gap* is the mean of `-log p - U - ln Z`, configuration by configuration, an estimate of the Kullback-Leibler
  divergence of the model from the system. Its error is smaller than those of the two figures whose difference it is,
  since both vary together.
- Standard errors count as many configurations as are independent ({independent}), and that of the gap holds that of
  `ln Z`.
- The *gap of its training configurations* is the same of {trained} configurations that the model was fitted to: how far
  it lies below that of held-out ones is what was learnt by heart.
- *Normal positions* are what is lost without a model: independent normal coordinates of the variance of the training
  configurations.
- Likelihoods of continuous flows are those of a solver with fixed steps; *solver* is how much larger `-log p` is in the
  mean with half the step.
- No published figure stands here: papers differ in the units of the energy, in whether a pair counts once or twice, and
  in whether the constant of the normal density and the centre of mass are counted, and which of these hold for their
  figures could not be checked.
"""
COMMAND = """\
The figures are printed by `python -m benchmarks.particles` and kept in `results/particles.json`, from which this page
is made (`--page`). `likelify fit dw4` and `likelify fit lj13-1000` fit the same models in fewer steps.
"""


def page(content: Mapping[str, Any]) -> str:
    """Return the page as Markdown.

    Args:
        content: what `benchmarks.particles --json` writes.
    """
    cells = content["cells"]
    parts = [FRONT.format(seconds=content["seconds"])]
    if missing := content["wanted"] - len(cells):
        parts.append(f"{missing} of {content['wanted']} fits have not been run yet.\n")
    if cells:
        parts += ["\n".join(_verdict(cell, content) for cell in cells) + "\n", _figures(content), _fits(content)]
        parts.append(READING.format(**_words(content)))
    return "\n".join([*parts, COMMAND])


def _words(content: Mapping[str, Any]) -> dict[str, str]:
    cells, known = content["cells"], content["references"]
    dimensions = {data["system"]: data["dimension"] for data in content["data"].values()}
    return {
        "items": listed(_numbers(cell["test"]["items"] for cell in cells)),
        "trained": listed(_numbers(cell["train"]["items"] for cell in cells)),
        "independent": listed(
            [f"{100 * each['independent']:.0f} % of those of `{name}`" for name, each in known.items()]
        ),
        "dimensions": listed([f"{dimension} (`{name}`)" for name, dimension in dimensions.items()]),
    }


def _numbers(values: Iterable[int]) -> list[str]:
    return [f"{value:,}" for value in sorted(set(values))]


def _with_error(value: float, error: float) -> str:
    # As many digits as mean something beside the error.
    digits = 3 if error < 0.01 else 2
    return f"{value:.{digits}f} +- {error:.{digits}f}"


def _named(cell: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Return what a fit is called: system, training configurations, and the seed where there are several."""
    data = content["data"][cell["data"]]
    seeds = {other["seed"] for other in content["cells"]}
    seed = f", seed {cell['seed']}" if len(seeds) > 1 else ""
    return f"`{data['system']}`, {data['configurations']:,} configurations{seed}"


def _figures(content: Mapping[str, Any]) -> str:
    lines = [["system", "normal positions", "held-out", "entropy", "gap", "gap of its training configurations"]]
    for cell in content["cells"]:
        data = content["data"][cell["data"]]
        reference, test, train = content["references"][data["system"]], cell["test"], cell["train"]
        lines.append(
            [
                _named(cell, content),
                f"{data['normal']:.2f}",
                _with_error(test["nats"], test["nats_error"]),
                _with_error(reference["nats"], reference["error"]),
                f"**{_with_error(test['gap'], test['gap_error'])}**",
                _with_error(train["gap"], train["gap_error"]),
            ]
        )
    return f"Nats per configuration:\n\n{markdown_rows(lines)}\n"


def _fits(content: Mapping[str, Any]) -> str:
    lines = [["fit", "model", "parameters", "steps", "weights kept of step", "solver, nats"]]
    for cell in content["cells"]:
        counts = [f"{cell[word]:,}" for word in ("parameters", "steps", "best_step")]
        lines.append([_named(cell, content), f"`{cell['model']}`", *counts, f"{cell['solver']:+.4f}"])
    return f"The fits:\n\n{markdown_rows(lines)}\n"


def _verdict(cell: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Return a sentence on a fit that says no more than its figures allow."""
    data, test = content["data"][cell["data"]], cell["test"]
    gap, error = test["gap"], test["gap_error"]
    lost = data["normal"] - content["references"][data["system"]]["nats"]
    if gap > TOLD * error:
        said = f"{gap:.2f} nats per configuration above the entropy, where normal positions are {lost:.2f} above it"
    elif gap >= -TOLD * error:
        said = f"not told from the system itself (a gap of {_with_error(gap, error)} nats)"
    else:
        said = f"{-gap:.2f} nats below the entropy, which no density can be: the reference or the solver is off"
    return f"- {_named(cell, content)}: {said}.{_caution(cell)}"


def _caution(cell: Mapping[str, Any]) -> str:
    test, train = cell["test"], cell["train"]
    apart = test["gap"] - train["gap"]
    said = ""
    if apart > TOLD * math.hypot(test["gap_error"], train["gap_error"]):
        said += f" Its own training configurations it misses by {apart:.2f} nats less: so much is learnt by heart."
    if abs(cell["solver"]) > SOLVED:
        said += f" With half the step of the solver the gap changes by {cell['solver']:+.2f} nats."
    return said
