"""Plots of the report: matplotlib's SVG, in which text stays text and colours are the page's own.

Matplotlib rather than plotly or Vega: their scripts alone weigh 0.8 to 4 MB and build functions from strings, which the
page's Content-Security-Policy forbids. A static SVG is a few kB, prints, and needs no script. Every style becomes a
class of the page's style sheet and every colour one of its variables, so one drawing serves light and dark mode.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

_INK, _GRID = "#00000a", "#00000b"  # placeholders, replaced by CSS variables
_COLOURS = [f"#00000{place}" for place in range(1, 7)]
_VARIABLES = {_INK: "var(--ink)", _GRID: "var(--grid)"} | {
    colour: f"var(--c{place})" for place, colour in enumerate(_COLOURS, 1)
}
_DASHES: list[Any] = [
    "-",
    (0, (5, 2)),
    (0, (1, 1.5)),
    (0, (5, 1.5, 1, 1.5)),
    "-",
    (0, (5, 2)),
]  # series differ by more than colour
_MARKS = "osD^vP"
_WIDTH, _HEIGHT = 5.4, 2.7  # inches of 72 px; on a screen of 390 px, text is still 9 px high
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # dollar signs in names are no formulas
    "svg.hashsalt": "augkd",  # ids from content and salt, not from a random number: the same bytes each time
    "font.size": 10,
    "axes.titlesize": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.transparent": True,
    "figure.constrained_layout.use": True,
}


@dataclass
class StyleSheet:
    """The style rules that all plots of a page share."""

    classes: dict[str, str] = field(default_factory=dict)  # style → class name
    figures: int = 0

    def name(self, style: str) -> str:
        """The class for a style."""
        return self.classes.setdefault(style, f"m{len(self.classes)}")

    @property
    def css(self) -> str:
        """The rules of all classes, as CSS."""
        return "\n".join(f".{name} {{ {style} }}" for style, name in self.classes.items())


@dataclass(frozen=True)
class Series:
    """A line, or a set of points."""

    name: str
    x: Sequence[float] | NDArray[Any]
    y: Sequence[float] | NDArray[Any]


def lines(
    sheet: StyleSheet,
    description: str,
    series: Sequence[Series],
    x: str,
    y: str,
    *,
    log: bool = False,
    steps: bool = False,
    marks: bool = False,
    ends: Sequence[float] = (),
) -> str:
    """Lines over `x`; `description` is for screen readers; `ends` are drawn as vertical lines."""

    def draw(axes: Axes) -> None:
        for place, line in enumerate(series):
            look = _look(place) | ({"marker": _MARKS[place % 6], "markersize": 4} if marks or len(line.x) == 1 else {})
            axes.plot(line.x, line.y, drawstyle="steps-post" if steps else "default", label=line.name, **look)
        for end in ends:
            axes.axvline(end, color=_INK, linewidth=0.8, linestyle=(0, (2, 2)))
        if log and any(np.any(np.asarray(line.y, dtype=float) > 0) for line in series):
            axes.set_yscale("log")
            _plain(axes.yaxis)
        _labelled(axes, x, y, len(series))

    return _svg(sheet, description, draw)


def bars(sheet: StyleSheet, description: str, values: Mapping[str, float], x: str, text: Callable[[float], str]) -> str:
    """A horizontal bar for each name, with its value as text."""

    def draw(axes: Axes) -> None:
        names = list(values)
        places = np.arange(len(names))
        axes.barh(places, list(values.values()), color=_COLOURS[0], height=0.6)
        for place, value in enumerate(values.values()):
            axes.annotate(text(value), (value, place), xytext=(4, 0), textcoords="offset points", va="center")
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.18)
        axes.set_xlabel(x)
        axes.xaxis.set_major_locator(MaxNLocator(5))

    return _svg(sheet, description, draw, 0.8 + 0.36 * len(values))


def densities(sheet: StyleSheet, description: str, groups: Sequence[tuple[str, NDArray[Any]]], x: str) -> str:
    """Histograms of positive numbers over a logarithmic axis, as shares of each group."""

    def draw(axes: Axes) -> None:
        positive = [np.maximum(values, 1e-6) for _, values in groups if len(values)]
        low, high = min(values.min() for values in positive), max(values.max() for values in positive)
        edges = np.geomspace(low, max(high, low * 1.01), 41)
        for place, (name, values) in enumerate(groups):
            share = np.histogram(np.maximum(values, 1e-6), edges)[0] / max(1, len(values))
            axes.stairs(share, edges, fill=place == 0, alpha=0.35 if place == 0 else 1.0, color=_COLOURS[place])
            axes.stairs(share, edges, label=name, **_look(place))
        axes.set_xscale("log")
        _plain(axes.xaxis)
        _labelled(axes, x, "share of candidates", len(groups))

    return _svg(sheet, description, draw)


def points(
    sheet: StyleSheet,
    description: str,
    series: Sequence[Series],
    x: str,
    y: str,
    *,
    log: bool = False,
    diagonal: bool = False,
) -> str:
    """Scatter plot of named series; `diagonal` draws the line of equal values."""

    def draw(axes: Axes) -> None:
        for place, line in enumerate(series):
            look: dict[str, Any] = {"marker": _MARKS[place % 6], "color": _COLOURS[place % 6], "linestyle": "none"}
            axes.plot(line.x, line.y, label=line.name, markersize=3.5 if len(line.x) > 50 else 6, alpha=0.75, **look)
        if diagonal:
            x_values = np.concatenate([np.asarray(line.x) for line in series])
            ends = [x_values.min(), x_values.max()]
            axes.plot(ends, ends, color=_INK, linewidth=0.8)
        if log:
            axes.set_xscale("log")
            _plain(axes.xaxis)
        _labelled(axes, x, y, len(series))

    return _svg(sheet, description, draw, 3.0)


@dataclass(frozen=True)
class Effect:
    """A row of a forest plot: a score or a difference."""

    name: str
    mean: float
    interval: tuple[float, float] | None
    values: Sequence[float]  # by seed


def forest(sheet: StyleSheet, description: str, effects: Sequence[Effect], x: str, *, zero: bool = True) -> str:
    """Scores or differences from top to bottom: ticks for seeds, a diamond for their mean, a bar for the interval."""

    def draw(axes: Axes) -> None:
        for place, effect in enumerate(effects):
            axes.plot(effect.values, [place + 0.22] * len(effect.values), "|", color=_COLOURS[1], markersize=7)
            if effect.interval is not None:
                axes.plot(effect.interval, [place, place], color=_COLOURS[0], linewidth=2.4)
            axes.plot([effect.mean], [place], "D", color=_COLOURS[0], markersize=6)
        if zero:
            axes.axvline(0, color=_INK, linewidth=0.9)
        axes.set_yticks(range(len(effects)), [effect.name for effect in effects])
        axes.set_ylim(len(effects) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(x)

    return _svg(sheet, description, draw, 0.9 + 0.42 * len(effects))


def _look(place: int) -> dict[str, Any]:
    return {"color": _COLOURS[place % 6], "linestyle": _DASHES[place % 6]}


def _labelled(axes: Axes, x: str, y: str, series: int) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if series > 1:
        axes.figure.legend(loc="outside upper left", ncols=min(3, series), fontsize=9, borderaxespad=0.2)


def _plain(axis: Axis) -> None:
    """Plain numbers such as 0.05 on a logarithmic axis: matplotlib draws powers of ten letter by letter."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 200 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _svg(sheet: StyleSheet, description: str, draw: Callable[[Axes], None], height: float = _HEIGHT) -> str:
    sheet.figures += 1
    stream = io.StringIO()
    with rc_context():
        rcdefaults()  # ignore the user's matplotlibrc
        rcParams.update(_RC)
        figure = Figure(figsize=(_WIDTH, height))
        draw(figure.add_subplot())
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return themed(stream.getvalue(), description, sheet, f"f{sheet.figures}")


def themed(svg: str, description: str, sheet: StyleSheet, name: str) -> str:
    """Matplotlib's SVG as part of a page: with a label, unique ids, classes for styles and variables for colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<style type="text/css">.*?</style>', "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[^"]*_\d+"', "", svg)  # ids that nothing refers to
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r' style="([^"]*)"', lambda match: f' class="{sheet.name(_coloured(match[1]))}"', svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = re.sub(r"\s+", " ", svg)  # line ends within paths and between tags; no text needs two spaces
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    opening = f'<svg class="plot" role="img" aria-label="{html.escape(description)}" {box[0]}>'
    return opening + svg[svg.index(">") + 1 :].replace(" xlink:href=", " href=")


def _coloured(style: str) -> str:
    for colour, variable in _VARIABLES.items():
        style = style.replace(colour, variable)
    return re.sub(r"font-family: [^;]*; ?", "", style)  # the page's own font
