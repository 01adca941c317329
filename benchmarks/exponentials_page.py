"""The page "when exponentials pay", written from the figures of `benchmarks.exponentials_pay` alone."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from likelify.reproduce.numbers import difference_text
from likelify.reproduce.render import markdown_rows
from likelify.reproduce.statistics import Paired, paired_difference

BASELINE = "1x1"
NAMES = {
    "1x1": "1x1 convolution",
    "emerging": "emerging convolution",
    "conv-exponential": "1x1 and convolution exponential",
    "axis-exponential": "1x1 and axis exponential",
}
FRONT = """\
# When exponentials pay

A layer that mixes neighbouring pixels costs time, and a fit of a given time has fewer steps with it. Whether it pays
depends on the images. Here the same small glow, with about as many parameters, is fitted for the same time of one
processor, everything included, to four kinds of images.
"""
READING = """\
## How to read this

- *Correlation* is that of horizontally neighbouring values, *equal neighbours* the share of them that are the same;
  both of test images. Our reading, which these fits do not prove: the higher the correlation, the more a linear layer
  takes away at once of what couplings would have to learn step by step. Equal neighbours alone explain nothing: emoji
  have the most of them and gain, Fashion-MNIST has nearly as many and does not.
- The two exponentials differ in reach: 3x3 taps between all channels, or a row and a column of [any
  length](axis-exponential.md) within each channel.
- The difference to 1x1 is paired by seed; the interval is Student's, of few seeds. One that holds 0 decides nothing;
  one that does not is of fits of {seconds:.0f} seconds, this size of model and these data.
- Equal time is a hard judge of expensive layers, and a short time the hardest: with more steps for all, the price of a
  step matters less.

To choose for images of your own, fit both for as long as you mean to fit, and compare on validation images:

```
likelify fit my-pictures/ --model glow --mixing 1x1 --max-time 5m
likelify fit my-pictures/ --model glow --mixing axis-exponential --max-time 5m
```

For images above 16x16 the default model is the pyramid, which has no mixing layers at all: see the [models](models.md).
What is said here is about flows that are built of couplings and mixing layers; [which exponential is
which](choosing-an-exponential.md) has its own page.
"""
COMMAND = """\
The figures are printed by `python -m benchmarks.exponentials_pay` and kept in `results/exponentials_pay.json`, from
which this page is made (`--page`). The emoji are those of the npm archive `emoji-datasource-google`, which the
benchmark downloads (`python -m benchmarks.emoji`); pictures that differ in a colour of skin only are in one split.
"""


def page(content: Mapping[str, Any]) -> str:
    """Return the page as Markdown.

    Args:
        content: what `benchmarks.exponentials_pay --json` writes.
    """
    seconds, data = content["seconds"], content["data"]
    parts = [FRONT, _overview(content), "\n".join(_verdict(name, content) for name in data) + "\n"]
    if missing := content["wanted"] - len(content["cells"]):
        parts.append(f"{missing} of {content['wanted']} fits have not been run yet.\n")
    for name, looks in data.items():
        parts.append(f"## {name[0].upper()}{name[1:]}\n")
        parts.append(f"{looks['description']}.\n")
        parts.append(_table(_rows(content, name)))
    parts += [READING.format(seconds=seconds), COMMAND]
    return "\n".join(parts)


def _rows(content: Mapping[str, Any], name: str) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the cells of a data set by mixing and seed."""
    rows: dict[str, dict[int, dict[str, Any]]] = {mixing: {} for mixing in NAMES}
    for cell in content["cells"]:
        if cell["data"] == name:
            rows[cell["mixing"]][cell["seed"]] = cell
    return {mixing: cells for mixing, cells in rows.items() if cells}


def _bits(cells: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
    return {seed: cell["bits"] for seed, cell in cells.items()}


def _difference(rows: Mapping[str, Mapping[int, Any]], mixing: str) -> Paired:
    return paired_difference(_bits(rows[mixing]), _bits(rows.get(BASELINE, {})))


def _overview(content: Mapping[str, Any]) -> str:
    used = [mixing for mixing in NAMES if any(cell["mixing"] == mixing for cell in content["cells"])]
    heading = ["images", "equal neighbours", "correlation", *(NAMES[mixing] for mixing in used)]
    lines = [heading]
    for name, looks in content["data"].items():
        rows = _rows(content, name)
        means = {mixing: statistics.mean(_bits(cells).values()) for mixing, cells in rows.items()}
        best = min(means.values())
        figures = [_marked(means[mixing], best) if mixing in means else "-" for mixing in used]
        lines.append([name, f"{100 * looks['equal']:.0f} %", f"{looks['correlation']:.2f}", *figures])
    time = f"{content['seconds']:.0f} processor seconds"
    return f"Test bits/dim (ELBO) after {time}, mean of the seeds; the best in bold:\n\n{markdown_rows(lines)}\n"


def _marked(value: float, best: float) -> str:
    return f"**{value:.3f}**" if value == best else f"{value:.3f}"


def _table(rows: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    seeds = sorted({seed for cells in rows.values() for seed in cells})
    heading = ["mixing", *(f"seed {seed}" for seed in seeds), "mean", f"minus {BASELINE} [95 %]", "steps", "parameters"]
    lines = [heading]
    for mixing, cells in rows.items():
        bits = _bits(cells)
        steps = [cell["steps"] for cell in cells.values()]
        lines.append(
            [
                NAMES[mixing],
                *(f"{bits[seed]:.3f}" if seed in bits else "-" for seed in seeds),
                f"{statistics.mean(bits.values()):.3f}",
                "" if mixing == BASELINE else difference_text(_difference(rows, mixing)),
                _range(steps),
                f"{next(iter(cells.values()))['parameters']:,}",
            ]
        )
    return markdown_rows(lines) + "\n"


def _range(numbers: Sequence[int]) -> str:
    return " to ".join(str(number) for number in sorted({min(numbers), max(numbers)}))


def _verdict(name: str, content: Mapping[str, Any]) -> str:
    """Return a sentence on the layers of a data set: what the intervals allow to say, and no more."""
    rows = _rows(content, name)
    found = [_said(mixing, _difference(rows, mixing)) for mixing in rows if mixing != BASELINE and BASELINE in rows]
    text = "; ".join(found) or "nothing has been compared yet"
    best = min(rows, key=lambda mixing: statistics.mean(_bits(rows[mixing]).values()))
    return f"- **{name[0].upper()}{name[1:]}**: {text}. The best mean has the {NAMES[best]}."


def _said(mixing: str, paired: Paired) -> str:
    what = NAMES[mixing].removeprefix("1x1 and ")
    size = f"{abs(paired.difference):.3f} bits/dim"
    if paired.count == 0:
        return f"the {what} has not been compared yet"
    if paired.count == 1:
        direction = "gains" if paired.difference < 0 else "loses"
        return f"the {what} {direction} {size} in the one seed that was compared"
    if paired.high < 0:
        return f"the {what} pays, it gains {size} over 1x1"
    if paired.low > 0:
        return f"the {what} loses {size} to 1x1"
    direction = "a gain" if paired.difference < 0 else "a loss"
    return f"the {what} is not told from 1x1 ({direction} of {size}, the interval holds 0)"
