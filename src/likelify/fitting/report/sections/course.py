"""How the fit went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from likelify.fitting.figures import Course, Point
from likelify.fitting.report.blocks import Picture, Section, Text
from likelify.fitting.report.drawing import DATA, INK, LINE, MODEL, figure
from likelify.fitting.report.material import Material

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What a fit that ended says of how it did.
ENDS = {
    "finished": "made all its steps",
    "time is up": "ended when its time was up",
    "stopped early": "stopped early, since validation no longer got better",
    "interrupted": "was interrupted",
    "diverged": "diverged: its loss was no longer a number",
}


def course(material: Material, section: Section) -> None:
    """Show the learning curves and say how the fit ended."""
    found = material.course
    section.doubts += found.doubts + unfinished(found)
    best = found.best
    took = "processor time" if found.clock == "processor" else "wall time"
    text = f"The fit {ENDS.get(found.reason, 'has not ended')} after {found.steps:,} steps"
    text += f", {found.seconds:,.0f} s of {took}." if found.seconds else "."
    if best is not None:
        shown = material.unit.show(best.validation_bits, best.validation_nats)
        text += f" Kept are the weights of step {best.step:,}, the best on the validation split ({shown})."
    if found.truncation is not None:
        text += f" {found.truncation.words(material.unit)}"
    if found.recording is not None:
        text += f" {found.recording}"
    section.add(Text(text))
    section.tiles.append((f"{found.steps:,} steps", f"in {found.seconds:,.0f} s of {took}"))
    if len(found.points) > 1:
        section.add(_picture(material, found))


def unfinished(found: Course) -> list[str]:
    """Return what to know of a fit that has not ended by itself."""
    if found.reason == "running":
        return [
            "The fit has not ended: it was killed, or is still running. This page shows the best weights so far, of "
            f"step {found.best_step:,}."
        ]
    if found.reason == "interrupted":
        return [f"The fit was interrupted after {found.steps:,} steps; more of them may make the model better."]
    return []


def _picture(material: Material, found: Course) -> Picture:
    def of(point: Point, which: str) -> float:
        value = getattr(point, f"{which}_{material.unit.word}")
        return np.nan if value is None else value

    steps = np.array([point.step for point in found.points])
    train, validation = (np.array([of(point, which) for point in found.points]) for which in ("train", "validation"))
    low, high = _limits([train, validation], higher=material.unit.higher_is_better)

    def draw(axes: Axes) -> None:
        if not found.matches:
            axes.plot(steps, train, color=DATA, marker="o", markersize=3, linewidth=1.2, label="training")
        axes.plot(steps, validation, color=MODEL, marker="o", markersize=3, label="validation")
        axes.axvline(found.best_step, color=INK, linewidth=0.8, linestyle=":", label="kept")
        axes.set_ylim(low, high)
        axes.set_xlabel("step")
        axes.set_ylabel(f"{material.unit.name} ({material.better})")
        axes.grid(color=LINE, alpha=0.25, linewidth=0.6)
        axes.legend(loc="best")

    values = np.concatenate([train, validation])
    beyond = int(((values < low) | (values > high)).sum())
    first = "One point lies" if beyond == 1 else f"{beyond} points lie"
    more = f" {first} beyond the picture." if beyond else ""
    best = found.best
    alt = f"{'Validation' if found.matches else 'Training and validation'} figures against the step of the fit."
    if best is not None:
        alt += f" Validation is best at step {best.step}."
    losses = [point.train_matching for point in found.points if point.train_matching is not None]
    if found.matches:
        caption = (
            "Validation is of averaged weights and unseen items. Training minimised the loss of flow matching, which "
            f"is no likelihood: {losses[0]:.4f} at the start, {losses[-1]:.4f} at the end, of an element.{more}"
        )
        return figure("course", draw, alt=alt, caption=caption)
    caption = (
        "Validation is of averaged weights and unseen items; training is the mean loss since the point before. "
        f"Where training goes on getting better and validation does not, the fit memorises.{more}"
    )
    return figure("course", draw, alt=alt, caption=caption)


def _limits(curves: Sequence[np.ndarray], *, higher: bool) -> tuple[float, float]:
    """Return limits that show all of the curves but for first points that are far away from what follows."""
    kept = [_without_start(curve[np.isfinite(curve)], higher=higher) for curve in curves]
    values = np.concatenate(kept)
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _without_start(values: np.ndarray, *, higher: bool) -> np.ndarray:
    """Return a curve without first points that are far worse than its middle, as far as its best is better."""
    if not len(values):
        return values
    gains = values if higher else -values
    middle, best = float(np.median(gains)), float(gains.max())
    far = gains < middle - 4 * (best - middle)
    return values[int(np.argmin(far)) :] if best > middle else values
