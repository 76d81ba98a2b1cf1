"""Draws a chart as PNG or SVG. matplotlib, disk.

Colours are Okabe and Ito's, which colour-blind people tell apart. An SVG holds no date and the same ids each time, so
that the same numbers make the same file. Names of models and URLs are text, never mathematics (`$`).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotron_ops.errors import HostError
from nemotron_ops.files import write_atomic
from nemotron_ops.measure.pictures.chart import Bars, Chart, Lines, Panel, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "font.size": 10,
    "grid.color": "#e5e5e5",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,
}
DPI = 150


def draw(chart: Chart, kind: str = "svg") -> bytes:
    """The picture's bytes; `kind` is svg or png. Raises HostError where matplotlib is not installed."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as exc:
        hint = "install it with the extra [plots]: pip install 'nemotron-ops[plots]'"
        raise HostError("cannot draw: matplotlib is not installed", hint=hint) from exc
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc would change every picture
        matplotlib.rcParams.update({**STYLE, "svg.hashsalt": chart.name})
        figure = Figure(layout="constrained")
        _lines(figure, chart) if isinstance(chart, Lines) else _bars(figure, chart)
        out = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(out, format=kind, dpi=DPI, metadata=metadata)
    return out.getvalue()


def write(charts: Sequence[Chart], folder: Path, kinds: Sequence[str]) -> tuple[Path, ...]:
    """Draw all charts into `folder`; returns the files. Raises OSError as the disk does."""
    found = []
    for chart in charts:
        for kind in kinds:
            path = folder / f"{chart.name}.{kind}"
            write_atomic(path, draw(chart, kind))
            found.append(path)
    return tuple(found)


def _lines(figure: Figure, chart: Lines) -> None:
    figure.set_size_inches(7.5, 4.2)
    axes = figure.subplots()
    for series in chart.series:
        _line(axes, series, COLOURS[series.colour % len(COLOURS)], chart)
    axes.set_title(chart.title, fontweight="bold")
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.06)
    if chart.log_x:
        axes.set_xscale("log", base=2)
    if not chart.dates:
        _ticks(axes, sorted({x for s in chart.series for x in s.x}))
    else:
        figure.autofmt_xdate(rotation=0, ha="center")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _line(axes: Axes, series: Series, colour: str, chart: Lines) -> None:
    x = [datetime.fromtimestamp(v) for v in series.x] if chart.dates else list(series.x)
    axes.plot(x, series.y, marker="o", markersize=4, linestyle=series.dash, color=colour, label=series.name)  # type: ignore[arg-type]
    if series.low and len(series.x) > 1:
        axes.fill_between(x, series.low, series.high, color=colour, alpha=0.15, linewidth=0)  # type: ignore[arg-type]
    for at, y, note in zip(x, series.y, series.notes, strict=False):
        if note:
            axes.annotate(note, (at, y), xytext=(0, 8), textcoords="offset points", fontsize=7, color=colour)


def _ticks(axes: Axes, values: Sequence[float]) -> None:
    """A tick at each measured point, where there are few."""
    if len(values) <= 12:
        axes.set_xticks(values, [f"{v:g}" for v in values])
        axes.minorticks_off()


def _bars(figure: Figure, chart: Bars) -> None:
    rows = sum(len(p.bars) for p in chart.panels)
    figure.set_size_inches(7.5, 0.7 + 0.55 * len(chart.panels) + 0.24 * rows)
    figure.suptitle(chart.title, fontweight="bold", x=0.01, ha="left")
    heights = [len(p.bars) + 0.6 for p in chart.panels]
    names = list(dict.fromkeys(b.name for p in chart.panels for b in p.bars))
    grid = figure.subplots(len(chart.panels), 1, squeeze=False, height_ratios=heights)
    for axes, panel in zip(grid[:, 0], chart.panels, strict=True):
        _panel(axes, panel, names, chart.largest)


def _panel(axes: Axes, panel: Panel, names: Sequence[str], largest: float | None) -> None:
    bars = panel.bars
    end = largest or max((b.high if b.high is not None else b.value for b in bars), default=0) or 1
    colours = [COLOURS[names.index(b.name) % len(COLOURS)] for b in bars]
    axes.barh(range(len(bars)), [b.value for b in bars], color=colours, height=0.7)
    for row, bar in enumerate(bars):
        if bar.low is not None and bar.high is not None:
            axes.plot([bar.low, bar.high], [row, row], color="#333333", linewidth=1.2, solid_capstyle="butt")
        right = max(bar.value, bar.high or 0)
        axes.annotate(_digits(bar.value), (right, row), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(bars)), [b.name for b in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, end * 1.12)
    axes.grid(visible=False, axis="y")
    axes.set_title(panel.title, fontsize=10)


def _digits(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
