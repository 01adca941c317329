"""Whether the latents of held-out items look like draws of the base."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from likelify.errors import DataError
from likelify.fitting.report.blocks import Row, Section, Text
from likelify.fitting.report.drawing import INK, LINE, MODEL, figure
from likelify.fitting.report.material import Material

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from likelify.fitting.report.blocks import Picture

MOST, POINTS, FEWEST = 400_000, 120, 20


def latents(material: Material, section: Section) -> None:
    """Compare quantiles of latents and of the base: of all elements, and of the log-density of each item.

    Raises:
        DataError: if there are too few items, or none whose latent is finite.
    """
    facts = material.facts
    if len(material.held) < FEWEST:
        raise DataError(f"Left out: {len(material.held)} held-out {facts.items} are too few.")
    z, base = material.latents
    drawn = "" if material.flow.likelihood == "exact" else " The way to it is random here; one draw is shown."
    if material.flow.transform.writes_elements:
        drawn = " Each level stands for an interval of the latent, in which one value is drawn."
    mapped = "node, given the others of its graph," if facts.kind == "graph" else facts.item
    should = "should look like a draw of its base distribution"
    other = "the base"
    if material.compares_draws:
        should, other = "should look like those of rows that the model draws", "rows drawn"
    section.add(
        Text(
            f"The model maps each {mapped} to a latent of {z.shape[1]:,} elements, which for {facts.items} like "
            f"those of the training split {should}.{drawn} Points on the line are what that looks like; at their ends "
            "few items count."
        ),
        Row(
            (
                _quantiles("elements", _flat(z), _flat(base), "elements of the latent", f"elements of {other}"),
                _quantiles("lengths", _lengths(z), _lengths(base), "root mean squares of latents", "those of draws"),
            )
        ),
    )


def _flat(values: Tensor) -> np.ndarray:
    flat = values.detach().flatten()
    if len(flat) > MOST:
        # At random: every so many elements would be the same ones of each item.
        flat = flat[torch.randint(len(flat), (MOST,), generator=torch.Generator().manual_seed(0)).to(flat.device)]
    return _finite(flat)


def _lengths(z: Tensor) -> np.ndarray:
    """Return the root mean square of the elements of each item, by which dependence among them shows."""
    return _finite(z.detach().double().square().mean(1).sqrt())


def _finite(values: Tensor) -> np.ndarray:
    array = values.detach().cpu().to(torch.float64).numpy()
    return array[np.isfinite(array)]


def _quantiles(name: str, found: np.ndarray, base: np.ndarray, y: str, x: str) -> Picture:
    # Up to where ten values are beyond, in steps that are equal for a normal distribution.
    from scipy.special import ndtr, ndtri

    if not len(found) or not len(base):
        raise DataError(f"Left out: the {y if not len(found) else x} are not finite, in none of the items.")
    end = ndtri(min(10 / max(len(found), 1), 0.1))
    at = ndtr(np.linspace(end, -end, POINTS))
    across, up = np.quantile(base, at), np.quantile(found, at)

    def draw(axes: Axes) -> None:
        ends = [min(across[0], up[0]), max(across[-1], up[-1])]
        axes.plot(ends, ends, color=INK, linewidth=0.8, linestyle=":")
        axes.plot(across, up, color=MODEL, marker="o", markersize=2.5, linewidth=0)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(color=LINE, alpha=0.25, linewidth=0.6)

    largest = float(np.abs(up - across).max())
    alt = f"Quantiles of {y} against {x}; the largest difference is {largest:.3g}."
    caption = f"Quantiles of {len(found):,} values against {x}; furthest apart {largest:.3g}."
    return figure(f"latents-{name}", draw, alt=alt, caption=caption, size=(4.0, 3.4), width=400)
