"""The curves as one SVG picture that can be read on a white page and on a dark one.

Matplotlib draws it on no background, with its text as text; a style sheet in the file gives dark pages light ink. Grey and two colours of
middle brightness are readable on both.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.curves import MB

INK, FAINT = "#24292f", "#8b949e"
COLOURS = ("#1f7fd4", "#d9730d", "#2da44e")
COLUMNS = 4
#: What a dark page changes. `!important` because matplotlib writes its colours into each element.
DARK = f"""<style>
@media (prefers-color-scheme: dark) {{
  [style*="{INK}"] {{ fill: #e6edf3 !important; }}
}}
</style>"""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lamson",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"],
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
}


def svg(curves: Mapping[str, Mapping[str, Any]]) -> str:
    """The picture of what `Curve.plain` gives, by name."""
    with matplotlib.rc_context(STYLE):
        down = -(-len(curves) // COLUMNS)
        figure = Figure(figsize=(3.2 * COLUMNS, 2.9 * down), layout="constrained")
        places = list(figure.subplots(down, COLUMNS, squeeze=False).flat)
        for place, (name, curve) in zip(places, curves.items(), strict=False):
            draw(place, name, curve)
        for place in places[len(curves) :]:
            place.set_axis_off()
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return re.sub(r"(<svg [^>]*>)", lambda opening: f"{opening[1]}\n{DARK}", out.getvalue(), count=1)


def draw(place: Axes, name: str, curve: Mapping[str, Any]) -> None:
    """One curve into its place."""
    unit = MB if name == "size" else 1
    for (line, points), colour in zip(curve["lines"].items(), COLOURS, strict=False):
        place.plot([x / unit for x, _ in points], [y for _, y in points], "o-", color=colour, label=line)
    place.set_title(curve["title"], loc="left")
    place.set_xlabel(curve["x"])
    place.set_ylabel(curve["y"])
    place.grid(True)
    scale(place, name, curve)
    if len(curve["lines"]) > 1:
        place.legend(frameon=False, fontsize=8, loc="upper left")


def scale(place: Axes, name: str, curve: Mapping[str, Any]) -> None:
    """Logarithmic where orders of magnitude are spanned, and then with plain numbers beside it."""
    if name == "workers":
        place.set_xticks([1, 2])
        place.set_xlim(0.5, 2.5)
    elif name == "outbox":
        place.set_xscale("symlog", linthresh=10)
    elif name != "size":
        place.set_xscale("log")
    highest = max(y for points in curve["lines"].values() for _, y in points)
    if curve["y_log"]:
        lowest = min(y for points in curve["lines"].values() for _, y in points)
        place.set_yscale("log")
        place.set_ylim(lowest / 3, max(highest, lowest * 100) * 3)  # two decades at least, or noise would look like growth
        place.yaxis.set_minor_formatter(NullFormatter())
    else:
        place.set_ylim(0, highest * 1.3)
    for axis in (place.xaxis, place.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda number, _: short(number)))


def short(number: float) -> str:
    """1,000 as 1k, a million as 1M."""
    for limit, letter in ((1e6, "M"), (1e4, "k")):
        if abs(number) >= limit:
            return f"{number / (1e6 if letter == 'M' else 1e3):g}{letter}"
    return f"{number:,g}"
