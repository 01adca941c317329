"""Pictures of graphs and point sets: many small panels with one scale, data beside samples.

Nodes with two features are points of the plane, with three points of space seen from above. With other numbers of
features, edges say where nodes lie and a colour what they are; without edges, one feature is a place on a line, and of
many the two main directions are shown.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from likelify.errors import ConfigError, ShapeError
from likelify.plots.files import new_figure
from likelify.plots.layout import graph_layout
from likelify.plots.pictures import grid_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from likelify.structure import GraphBatch

MOST_GRAPHS = 400
# Inches of a panel: in a picture of few, and of many; what lies between them, in panels; letters above and below.
LARGE, SMALL, GAP, HEAD, FOOT, LINE_HEIGHT = 1.45, 0.8, 0.09, 0.34, 0.3, 0.32
# Limits are at most so many times the width of nine tenths of the values beyond these; and the room beside them.
INNER, FENCE, ROOM = (0.05, 0.95), 0.5, 0.08
# Two features have one scale unless one of them is so many times as wide.
ONE_SCALE = 5.0
# From where points of space are seen: turned about the third axis, then from above, in degrees.
TURN, ABOVE = 35.0, 22.0
COLOUR_MAP, FAR = "viridis", 1e100
# Of the words below: letters of an inch, and inches of a line.
LETTERS, LINE = 19, 0.12
Layout = Callable[[int, np.ndarray], np.ndarray]
Kind = Literal["plane", "space", "line", "directions", "layout"]


@dataclass(frozen=True, eq=False)
class GraphPanel:
    """A graph in a picture.

    Attributes:
        features: of its nodes, `(nodes, features)`.
        edges: between them, integers `(2, edges)`; None where each two nodes are joined, which is not drawn.
        title: below it.
    """

    features: np.ndarray
    edges: np.ndarray | None = None
    title: str = ""


def graph_panels(x: Tensor | np.ndarray, structure: GraphBatch, titles: Sequence[str] = ()) -> list[GraphPanel]:
    """Return the graphs of a batch one by one, to be drawn.

    Args:
        x: features of all nodes, `(nodes, *features)`.
        structure: the graphs that they belong to.
        titles: below each, or none.

    Raises:
        ShapeError: if there are other numbers of nodes or titles than the graphs have.
    """
    rows = (x.detach().cpu().double().numpy() if isinstance(x, Tensor) else np.asarray(x, np.float64)).astype(float)
    if len(rows) != len(structure.owner) or (titles and len(titles) != len(structure)):
        raise ShapeError(
            f"There are {len(rows)} nodes and {len(titles)} titles; the batch has {len(structure.owner)} nodes in "
            f"{len(structure)} graphs."
        )
    rows, ends = rows.reshape(len(rows), -1), np.cumsum(structure.sizes.cpu().numpy())
    parts = np.split(rows, ends[:-1])
    edges: list[np.ndarray | None] = [None] * len(parts)
    if not structure.is_complete:
        edges = [own.numpy() for own, _ in structure.edges_by_graph()]
    return [
        GraphPanel(part, own, title) for part, own, title in zip(parts, edges, titles or [""] * len(parts), strict=True)
    ]


@dataclass(frozen=True, eq=False)
class View:
    """Where nodes lie in a panel and what colour they have, the same for all panels of a picture.

    `View.of` makes one that suits some graphs.

    Attributes:
        kind: how features are shown.
        names: of the features.
        shown: what is shown along each axis.
        low: of what is shown along each axis; of colours for `layout`.
        high: the other end.
        centre: that is taken away before features are seen along `axes`.
        axes: `(features, shown)`.
        layout: places nodes by their edges.
    """

    kind: Kind
    names: tuple[str, ...]
    shown: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    centre: np.ndarray
    axes: np.ndarray
    layout: Layout = graph_layout

    @staticmethod
    def of(panels: Sequence[GraphPanel], names: Sequence[str] | None = None, layout: Layout | None = None) -> View:
        """Return a view of graphs: usually those of the data, in which samples are then seen as well.

        Args:
            panels: at least one node among them.
            names: of the features.
            layout: places nodes by their number and their edges, in place of `graph_layout`; then also nodes whose
                features could be places.

        Raises:
            ShapeError: if there are no nodes, or names for other numbers of features.
        """
        rows = _finite([panel.features for panel in panels])
        size = rows.shape[1]
        names = tuple(names or (f"x{number + 1}" for number in range(size)))
        if len(names) != size:
            raise ShapeError(f"There are {len(names)} names of {size} features.")
        places = _places(names)
        complete = all(panel.edges is None for panel in panels)
        kind = _kind(len(places), complete=complete, placed=layout is not None)
        centre, axes = np.zeros(size), np.eye(size)[:, places]
        if size > 1 and kind in ("directions", "layout"):
            centre, axes = _directions(rows, 2 if kind == "directions" else 1)
        low, high = _limits((rows - centre) @ axes, one_scale=kind in ("plane", "space"))
        shown = tuple(names[at] for at in places) if kind != "directions" else ("main direction", "second")
        return View(kind, names, shown, low, high, centre, axes, layout or graph_layout)

    @property
    def height(self) -> float:
        """Height of a panel beside its width."""
        return LINE_HEIGHT if self.kind == "line" else 1.0

    @property
    def words(self) -> str:
        """What is shown in all panels, in words."""
        if self.kind == "layout":
            return f"Nodes lie where their edges place them; their colour is {self.colour_words}."
        named = [
            f"{name} {_span(low, high, ' to ')}"
            for name, low, high in zip(self.shown, self.low, self.high, strict=True)
        ]
        if self.kind == "space":
            return f"Seen from above, nearer points larger; {', '.join(named)}."
        of = f" of {len(self.names)} features" if len(self.shown) < len(self.names) else ""
        return f"All panels: {', '.join(named)}{of}."

    @property
    def colour_words(self) -> str:
        """What colours of nodes mean."""
        what = self.names[0] if len(self.names) == 1 else f"the main direction of {len(self.names)} features"
        return f"{what}, {_span(self.low[0], self.high[0], ' (dark) to ')} (light)"

    def nodes(self, panel: GraphPanel) -> Nodes:
        """Return where the nodes of a graph lie in a panel of width one, and how they look there."""
        # What is not finite lies at the edge, too.
        finite = np.nan_to_num(panel.features, nan=FAR, posinf=FAR, neginf=-FAR)
        values = (finite - self.centre) @ self.axes
        wide = np.where(self.high > self.low, self.high - self.low, 1.0)
        unit = (values - self.low) / wide
        if self.kind == "layout":
            outside = np.asarray(~np.isfinite(panel.features).all(1))
            places = _fitted(self.layout(len(unit), _edges(panel)))
            return Nodes(places, colour=unit[:, 0].clip(0, 1), outside=outside)
        outside, unit = np.asarray(((unit < 0) | (unit > 1)).any(1)), unit.clip(0, 1)
        if self.kind == "space":
            places, depth = seen(unit)
            return Nodes(places, near=depth, outside=outside)
        if self.kind == "line":
            unit = np.stack([unit[:, 0], np.full(len(unit), LINE_HEIGHT / 2)], 1)
        return Nodes(unit, outside=outside)


@dataclass(frozen=True, eq=False)
class Nodes:
    """Nodes in a panel.

    Attributes:
        places: `(nodes, 2)`.
        near: how near each is, from 0 to 1, in space.
        colour: of each, from 0 to 1, or None where all have one.
        outside: which lie beyond the limits, and are shown hollow at their edge.
    """

    places: np.ndarray
    near: np.ndarray | None = None
    colour: np.ndarray | None = None
    outside: np.ndarray | None = None


@dataclass(frozen=True)
class Look:
    """Colours and sizes of a picture of graphs.

    Attributes:
        node: colour of nodes.
        edge: of edges.
        frame: of what surrounds a panel.
        text: of titles.
        rim: around nodes that are large enough.
        letters: size of titles.
        size: of nodes, times what suits their number.
    """

    node: str = "#2f74b5"
    edge: str = "#8d99a6"
    frame: str = "#d5dbe1"
    text: str = "#3d4752"
    rim: str = "white"
    letters: float = 7.0
    size: float = 1.0


# Of the first group of a picture, of the second, ...
LOOKS = (Look(), Look(node="#d4772c"), Look(node="#4c9a5b"), Look(node="#8a5aa8"))


def draw_graphs(
    axes: Axes, panels: Sequence[GraphPanel], view: View, *, columns: int | None = None, look: Look | None = None
) -> None:
    """Draw graphs on axes, in rows, each in a frame of width one.

    Args:
        axes: of matplotlib, which get equal scales and lose their ticks.
        panels: the graphs.
        view: how they are seen.
        columns: graphs in a row; by default what suits their number.
        look: colours and sizes.
    """
    look, columns = look or Look(), min(columns or grid_columns(len(panels), 1 / view.height), len(panels))
    step = view.height + GAP + (0.16 if any(panel.title for panel in panels) else 0.0)
    rows = -(-len(panels) // columns)
    axes.set(xlim=(-0.02, columns * (1 + GAP) - GAP + 0.02), ylim=(-rows * step + GAP - 0.02, 0.02), aspect="equal")
    axes.axis("off")
    origins = [(place % columns * (1 + GAP), -(place // columns) * step - view.height) for place in range(len(panels))]
    _frames(axes, origins, view, look)
    nodes = [view.nodes(panel) for panel in panels]
    _draw_edges(axes, panels, nodes, origins, look)
    _draw_nodes(axes, nodes, origins, look)
    for (left, bottom), panel in zip(origins, panels, strict=True):
        if panel.title:
            where = {"ha": "center", "va": "top", "fontsize": look.letters, "color": look.text}
            axes.text(left + 0.5, bottom - 0.03, panel.title, parse_math=False, **where)


def graphs_of(
    groups: Mapping[str, Sequence[GraphPanel]],
    *,
    names: Sequence[str] | None = None,
    view: View | None = None,
    columns: int | None = None,
) -> Figure:
    """Return a picture of graphs or point sets: for each group a grid of panels, side by side, all in one scale.

    `png_of` and `svg_of` make files of it. Nodes beyond the limits, which nearly all of the graphs decide, are drawn
    hollow at their edge.

    Args:
        groups: for each title its graphs, see `graph_panels`.
        names: of the features.
        view: how they are seen; by default what suits all of them.
        columns: graphs in a row of a group; by default what suits their number.

    Raises:
        ConfigError: if there are more than 400 graphs in a group, or none.
        ShapeError: as `View.of`.
    """
    most = max(map(len, groups.values()), default=0)
    if not 0 < most <= MOST_GRAPHS or not all(groups.values()):
        raise ConfigError(f"A picture shows 1 to {MOST_GRAPHS} graphs in a group, not {most if most else 'none'}.")
    view = view or View.of([panel for panels in groups.values() for panel in panels], names)
    columns = min(columns or grid_columns(most, 1 / view.height), most)
    cell = max(SMALL, LARGE * min(1.0, math.sqrt(12 / most)))
    titled = any(panel.title for panels in groups.values() for panel in panels)
    wide = cell * (columns * (1 + GAP) - GAP + 0.04)
    tall = cell * (-(-most // columns) * (view.height + GAP + 0.16 * titled) - GAP + 0.04)
    head = HEAD if any(groups) else 0.08
    between, coloured = 0.25, view.kind == "layout"
    width = max(len(groups) * (wide + between) + between / 2, 3.2)
    words = textwrap.wrap(view.colour_words if coloured else view.words, int(LETTERS * width))
    below = LINE * (len(words) - 1)
    foot = FOOT + 0.16 * coloured + below
    height = head + tall + foot
    figure = new_figure(width, height, arranged=False)
    left = (width - len(groups) * (wide + between) + between) / 2
    for (title, panels), look in zip(groups.items(), LOOKS * len(groups), strict=False):
        axes = figure.add_axes((left / width, foot / height, wide / width, tall / height), anchor="N")
        draw_graphs(axes, panels, view, columns=columns, look=look)
        where = {"ha": "center", "va": "center", "fontsize": 10, "color": Look.text}
        figure.text((left + wide / 2) / width, 1 - head / 2 / height, title, parse_math=False, **where)
        left += wide + between
    _foot(figure, view, words, foot / height, (foot - below) / height)
    return figure


def seen(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where points of the unit cube are seen in the unit square, and how near each is, from 0 to 1."""
    turn, above = math.radians(TURN), math.radians(ABOVE)
    x, y, z = (unit - 0.5).T
    across, away = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
    up, away = z * math.cos(above) + away * math.sin(above), away * math.cos(above) - z * math.sin(above)
    # The cube fills the square.
    wide = math.cos(turn) + math.sin(turn)
    places = np.stack([across, up], 1) / max(wide, math.cos(above) + wide * math.sin(above)) + 0.5
    return places, np.clip(0.5 - away / wide, 0, 1)


def _places(names: Sequence[str]) -> list[int]:
    """Return which features say where a node lies: all, or those that are called x, y and perhaps z among others."""
    lower = [name.lower() for name in names]
    called = [lower.index(axis) for axis in "xyz" if axis in lower]
    return called if len(called) > 1 and lower.count("x") == lower.count("y") == 1 else list(range(len(names)))


def _kind(size: int, *, complete: bool, placed: bool) -> Kind:
    if placed or (size not in (2, 3) and not complete):
        return "layout"
    if size in (2, 3):
        return "plane" if size == 2 else "space"
    return "line" if size == 1 else "directions"


def _span(low: float, high: float, between: str) -> str:
    """Write the ends of a range with as many digits as tell them apart."""
    wide, largest = abs(high - low), max(abs(low), abs(high))
    digits = 3 if not 0 < wide < largest else 3 + math.ceil(math.log10(largest / wide))
    return f"{low:.{digits}g}{between}{high:.{digits}g}"


def _finite(parts: Sequence[np.ndarray]) -> np.ndarray:
    if not sum(map(len, parts)):
        raise ShapeError("There are no nodes to show.")
    rows = np.concatenate(parts)
    rows = rows[np.isfinite(rows).all(1)]
    return rows if len(rows) else np.zeros((1, rows.shape[1]))


def _directions(rows: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean, and the main directions of features in their spreads."""
    spread = np.where(rows.std(0) > 0, rows.std(0), 1.0)
    _, _, directions = np.linalg.svd((rows - rows.mean(0)) / spread, full_matrices=False)
    directions = directions[:number] * np.sign(directions[:number].sum(1, keepdims=True) + 1e-12)
    # Fewer nodes than that have fewer directions.
    directions = np.concatenate([directions, np.zeros((number - len(directions), rows.shape[1]))])
    return rows.mean(0), (directions / spread).T


def _limits(values: np.ndarray, *, one_scale: bool) -> tuple[np.ndarray, np.ndarray]:
    inner = np.quantile(values, INNER, axis=0)
    fence = FENCE * (inner[1] - inner[0])
    low, high = np.maximum(values.min(0), inner[0] - fence), np.minimum(values.max(0), inner[1] + fence)
    wide = high - low
    if one_scale and wide.max() < ONE_SCALE * wide.min():
        wide = np.full_like(wide, wide.max())
    wide = np.where(wide > 0, wide, wide.max() or 1.0)
    middle, half = (low + high) / 2, (0.5 + ROOM) * wide
    return middle - half, middle + half


def _fitted(places: np.ndarray) -> np.ndarray:
    """Return places in the unit square, in their own proportions."""
    if not len(places):
        return places
    low, high = places.min(0), places.max(0)
    half = (0.5 + ROOM) * (float((high - low).max()) or 1.0)
    return (places - (low + high) / 2) / (2 * half) + 0.5


def _edges(panel: GraphPanel) -> np.ndarray:
    if panel.edges is not None:
        return panel.edges
    return np.stack(np.triu_indices(len(panel.features), 1))


def _frames(axes: Axes, origins: Sequence[tuple[float, float]], view: View, look: Look) -> None:
    from matplotlib.collections import LineCollection

    high = view.height
    frame = [np.array([[0, 0], [1, 0], [1, high], [0, high], [0, 0]])]
    if view.kind == "space":
        # Of the cube the sides behind the points.
        corners, near = seen(np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float))
        nearest = int(near.argmax())
        frame = [
            corners[[one, one ^ axis]]
            for one in range(8)
            for axis in (1, 2, 4)
            if one < one ^ axis and nearest not in (one, one ^ axis)
        ]
    lines = [part + origin for origin in origins for part in frame]
    axes.add_collection(LineCollection(lines, colors=look.frame, linewidths=0.8, capstyle="projecting", zorder=1))


def _draw_edges(
    axes: Axes,
    panels: Sequence[GraphPanel],
    nodes: Sequence[Nodes],
    origins: Sequence[tuple[float, float]],
    look: Look,
) -> None:
    from matplotlib.collections import LineCollection

    lines = [
        (each.places + origin)[np.unique(np.sort(panel.edges, axis=0), axis=1).T]
        for panel, each, origin in zip(panels, nodes, origins, strict=True)
        if panel.edges is not None and panel.edges.size
    ]
    if lines:
        together = np.concatenate(lines)
        thin = 0.8 if len(together) < 40 * len(panels) else 0.35
        axes.add_collection(LineCollection(list(together), colors=look.edge, linewidths=thin, alpha=0.8, zorder=2))


def _draw_nodes(axes: Axes, nodes: Sequence[Nodes], origins: Sequence[tuple[float, float]], look: Look) -> None:
    places = np.concatenate([each.places + origin for each, origin in zip(nodes, origins, strict=True)])
    if not len(places):
        return
    size = look.size * 48 / math.sqrt(max(4.0, len(places) / len(nodes)))
    near = _joined([each.near for each in nodes])
    sizes = np.full(len(places), size) if near is None else size * (0.5 + near)
    colours, outside = _joined([each.colour for each in nodes]), _joined([each.outside for each in nodes])
    outside = np.zeros(len(places), dtype=bool) if outside is None else outside
    order = np.argsort(near) if near is not None else np.arange(len(places))
    how: dict[str, Any] = {"linewidths": 0.4, "zorder": 3, "rasterized": len(places) > 3000}
    inner = order[~outside[order]]
    if colours is not None:
        how |= {"c": colours[inner], "cmap": COLOUR_MAP, "vmin": 0, "vmax": 1, "edgecolors": look.rim}
    else:
        how |= {"color": look.node, "edgecolors": look.rim if size > 6 else "none"}
    if near is not None:
        how["alpha"] = 0.45 + 0.55 * near[inner]
    if len(inner):
        # Matplotlib takes no shares of nothing in three dimensions.
        axes.scatter(*places[inner].T, s=sizes[inner], **how)
    if outside.any():
        hollow = {"facecolors": "none", "edgecolors": look.node, "linewidths": 0.8, "zorder": 3, "clip_on": False}
        axes.scatter(*places[outside].T, s=sizes[outside], **hollow)


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if known else None


def _foot(figure: Figure, view: View, words: Sequence[str], whole: float, share: float) -> None:
    """Say below the panels what they show, with a bar of the colours if there are some.

    Args:
        figure: that the panels are in.
        view: how they are seen.
        words: the lines.
        whole: share of the height that lines and bar have.
        share: what they would have with a single line.
    """
    where = {"ha": "center", "va": "center", "fontsize": 7, "color": Look.text}
    lines = "\n".join(words)
    if view.kind != "layout":
        figure.text(0.5, whole / 2, lines, parse_math=False, **where)
        return
    bar = figure.add_axes((0.3, whole - 0.38 * share, 0.4, 0.16 * share))
    bar.imshow(np.linspace(0, 1, 128)[None], aspect="auto", cmap=COLOUR_MAP)
    bar.axis("off")
    figure.text(0.5, (whole - 0.4 * share) / 2, lines, parse_math=False, **where)
