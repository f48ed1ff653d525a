"""Plots as SVG text, the same bytes for the same numbers: curves with bands, values with intervals."""

import io
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by the colour-blind too (Okabe and Ito 2008, "Color Universal Design"); its yellow is lost on white."""
MARKERS = "os^DvPX*"
DASHES: tuple[Literal["solid", "dashed", "dotted"], ...] = ("solid", "dashed", "dotted")
MOST_BANDS = 3
"""Curves whose bands can be told apart where they overlap; of more, intervals are bars beside each other."""

_STYLE: Any = {  # versions of matplotlib type its keys differently
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    # Text stays text: it can be searched and read aloud, and a page of plots stays small.
    "svg.fonttype": "none",
    "svg.hashsalt": "mad",
    # A model may be called cost_$: no name is a formula.
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Curve:
    """Values over x, with a band from `low` to `high` where there are intervals; all of one length, NaN for a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Interval:
    """A value from `low` to `high`; `is_target` tells the target's versions from the other models."""

    name: str
    value: float
    low: float
    high: float
    is_target: bool = True


def curves_svg(
    curves: Sequence[Curve],
    *,
    title: str,
    x_label: str,
    y_label: str,
    whole_x: bool = False,
    most: float | None = None,
) -> str:
    """An `<svg>` element of lines with markers, bands or bars for intervals, and the legend at the right of the data.

    `whole_x`: x counts something, so ticks are whole numbers. `most`: what y cannot exceed, where its axis ends.
    """
    with _figure(6.0, 3.4) as figure:
        axes = figure.add_subplot()
        shift = _shifts(curves)
        lines = [_draw(axes, curve, number, shift[number]) for number, curve in enumerate(curves)]
        axes.set_title(textwrap.fill(title, 70))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if whole_x:
            from matplotlib.ticker import MaxNLocator

            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if most is not None:
            # Room for half a marker; a tenth at least, lest a curve that stays there look like noise enlarged.
            bottom = min(axes.get_ylim()[0], most - 0.1)
            axes.set_ylim(bottom, most + 0.03 * (most - bottom))
        if len(curves) > 1:
            figure.legend(lines, [_folded(c.name) for c in curves], loc="outside right upper")
        return _svg(figure, title)


def intervals_svg(
    panels: Mapping[str, Sequence[Interval]], *, title: str, x_label: str, zero: bool = False
) -> str:
    """An `<svg>` element of dots with their intervals, a panel a key, one below the other on one x axis.

    `zero`: values are differences, and a line is drawn where there is none. NaN: the row stays empty.
    """
    sizes = [max(1, len(rows)) for rows in panels.values()]
    with _figure(6.0, 0.9 + sum(0.42 + 0.24 * size for size in sizes)) as figure:
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=sizes)[:, 0]
        for place, (name, rows) in zip(axes, panels.items(), strict=True):
            for n, row in enumerate(rows):
                # Grey squares for the models that rounds leave as they are, blue dots for what they change.
                colour, marker = (COLOURS[0], "o") if row.is_target else ("#666666", "s")
                place.plot([row.low, row.high], [n, n], color=colour, linewidth=2, alpha=0.55)
                place.plot([row.value], [n], color=colour, marker=marker, linestyle="none")
            place.set_yticks(range(len(rows)), [_folded(row.name) for row in rows])
            place.set_ylim(len(rows) - 0.5, -0.5)
            place.set_title(name, fontsize="medium")
            place.grid(visible=False, axis="y")
            if zero:
                place.axvline(0, color="#000000", linewidth=0.8)
        axes[-1].set_xlabel(x_label)
        return _svg(figure, title)


def _shifts(curves: Sequence[Curve]) -> list[float | None]:
    """How far right of its point each curve's bars stand, so that none hides another; None: it has a band."""
    if len(curves) <= MOST_BANDS:
        return [None] * len(curves)
    ends = [x for curve in curves for x in curve.x]
    step = 0.009 * (max(ends) - min(ends))
    return [step * (number - (len(curves) - 1) / 2) for number in range(len(curves))]


def _draw(axes: "Axes", curve: Curve, number: int, shift: float | None) -> Any:
    """Draws one curve and returns the line that stands for it in the legend."""
    colour = COLOURS[number % len(COLOURS)]
    dashes = DASHES[number // len(COLOURS) % len(DASHES)]
    if curve.low is not None and curve.high is not None:
        if shift is None:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
        else:
            places = [x + shift for x in curve.x]
            axes.vlines(
                places, curve.low, curve.high, colors=colour, linestyles=dashes, linewidth=1, alpha=0.6
            )
    (line,) = axes.plot(
        curve.x,
        curve.y,
        color=colour,
        marker=MARKERS[number % len(MARKERS)],
        linestyle=dashes,
    )
    return line


@contextmanager
def _figure(width_in: float, height_in: float) -> Iterator["Figure"]:
    """A figure that belongs to nobody's window, in our own style whatever the user's matplotlibrc says."""
    # Late: it takes most of a second, and only those who plot need it.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield Figure(figsize=(width_in, height_in), layout="constrained")


def _svg(figure: "Figure", title: str) -> str:
    """The `<svg>` element alone, fit for a page and for a file, and without a date, so that its bytes stay the same."""
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    svg = written.getvalue()
    svg = re.sub(r" <metadata>.*?</metadata>\n", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)


def _folded(name: str) -> str:
    return textwrap.fill(name, 24)
