"""A chart as plain values: what is drawn, not how. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart: points, with the range of each where it is known; `notes` are written beside points.

    Lines of one `colour` number belong together and differ in their `dash`.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    colour: int = 0
    dash: str = "-"  # matplotlib's: "-", "--", ":"


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Lines over a number. `dates`: x is Unix time. `name` is that of the picture's file."""

    name: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    dates: bool = False


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar, with the ends of its interval where there is one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Bars of one quantity."""

    title: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Panels of horizontal bars, one below the other; bars of one name have one colour in all of them."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    largest: float | None = None  # the end of every panel's axis; None: each panel has its own


Chart = Lines | Bars
