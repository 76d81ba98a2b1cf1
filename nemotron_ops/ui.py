"""Prints results to stdout, remarks and progress to stderr: bars on a terminal, plain lines elsewhere. Terminal.

A `Ui` is made once per command; rooms get its `report` as their progress callable. On a terminal each kind of work has
one bar with rate and time left. Elsewhere it gets a line at its start, one every few seconds, and one at its end. With
`progress="json"` every line of stderr is a JSON object: a `Step`, at most four a second, or a remark as its `note`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from nemotron_ops.progress import Step

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_PERIOD_S = 5.0
JSON_PERIOD_S = 0.25
ENDED = float("inf")
PROGRESS = ("auto", "json", "none")


class Ui:
    """Prints remarks to `err` and data to `out`. A context manager: closes its bars at the end."""

    def __init__(
        self,
        *,
        out: TextIO | None = None,
        err: TextIO | None = None,
        quiet: bool = False,
        progress: str = "auto",
    ) -> None:
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        self.quiet = quiet
        self.progress = progress
        self._bars: _Bars | None = None
        self._shown: dict[str, float] = {}  # when each work's last line was printed
        self._shown_at = 0.0

    def __enter__(self) -> Ui:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.end_bars()

    def say(self, text: str) -> None:
        """A remark for people, above any bar."""
        if self.quiet:
            return
        if self.progress == "json":
            self._json_line(Step(what="", note=text))
        elif self._bars:
            self._bars.say(text)
        else:
            print(text, file=self.err, flush=True)

    def warn(self, text: str) -> None:
        """A warning; shown even when quiet."""
        if self.progress == "json":
            self._json_line(Step(what="", note=text, warning=True))
            return
        quiet, self.quiet = self.quiet, False
        self.say(f"warning: {text}")
        self.quiet = quiet

    def data(self, text: str) -> None:
        """A line of the command's result, on stdout."""
        self.end_bars()
        print(text, file=self.out, flush=True)

    def json(self, value: Any) -> None:
        """The command's result as JSON, on stdout."""
        self.data(json.dumps(value, indent=2, default=str))

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Aligned columns on stdout; numbers to the right."""
        self.data(render_table(header, [[str(c) for c in row] for row in rows]))

    def report(self, step: Step) -> None:
        """Show one step of long-running work: the `Report` that rooms get."""
        if step.note:
            self.warn(step.note) if step.warning else self.say(step.note)
        if step.done is None or self.quiet or self.progress == "none":
            return
        if self.progress == "json":
            if self._is_due(step, JSON_PERIOD_S, together=True):
                self._json_line(replace(step, note="", warning=False))
        elif self.err.isatty():
            if self._bars is None:
                self._bars = _Bars(self.err)
            self._bars.update(step)
        else:
            self._plain_line(step)

    def end_bars(self) -> None:
        if self._bars:
            self._bars.close()
            self._bars = None

    def _plain_line(self, step: Step) -> None:
        if self._is_due(step, PLAIN_PERIOD_S):
            print(plain_line(step), file=self.err, flush=True)

    def _json_line(self, step: Step) -> None:
        print(json.dumps(step.to_json()), file=self.err, flush=True)

    def _is_due(self, step: Step, period_s: float, *, together: bool = False) -> bool:
        """Whether a line is due: at a work's first step, its last, and once a period for it, or for all `together`."""
        now, ended = time.monotonic(), step.total is not None and (step.done or 0) >= step.total
        last = self._shown.get(step.what)
        if last == ENDED:
            return False
        if last is not None and not ended and now - (self._shown_at if together else last) < period_s:
            return False
        self._shown[step.what], self._shown_at = (ENDED if ended else now), now
        return True


class _Bars:
    """The bars of a terminal, drawn by rich, one per `Step.what`."""

    def __init__(self, err: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(file=err)
        self._progress: Progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[amount]}"), TimeElapsedColumn(), TextColumn("{task.fields[left]}"),
            console=self._console, refresh_per_second=8,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def update(self, step: Step) -> None:
        fields = {"amount": amount(step), "left": left(step)}
        if step.what not in self._tasks:
            self._tasks[step.what] = self._progress.add_task(step.what, total=step.total, **fields)  # type: ignore[arg-type]
        self._progress.update(self._tasks[step.what], completed=step.done, total=step.total, **fields)  # type: ignore[arg-type]

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        self._progress.stop()


def plain_line(step: Step) -> str:
    """`step` as one line: `compile: 34 % (68/200), 12 s left`."""
    share = f" {100 * step.done / step.total:.0f} %" if step.total and step.done is not None else ""
    rest = ", ".join(part for part in (amount(step), left(step)) if part)
    return f"{step.what}:{share} {rest}".rstrip()


def amount(step: Step) -> str:
    """The amount done, in its unit: `1.2 GB of 3.4 GB at 85 MB/s`, `68/200`."""
    if step.done is None:
        return ""
    if step.unit == "B":
        text = size(step.done) + (f" of {size(step.total)}" if step.total is not None else "")
        return text + (f" at {size(step.rate_per_s)}/s" if step.rate_per_s else "")
    if step.total is None:
        return f"{step.done:g} {step.unit}".rstrip()
    if step.unit == "%":
        return ""
    return f"{step.done:g}/{step.total:g}"


def left(step: Step) -> str:
    """`3 min left`, or "" while that is unknown."""
    return f"{duration(step.eta_s)} left" if step.eta_s is not None else ""


def size(n: float) -> str:
    """Bytes for people, in powers of ten as disks and downloads use them: `4.23 GB`."""
    value = float(n)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.4g} TB"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60} s" if s < 600 else f"{s // 60} min"
    return f"{s // 3600} h {s % 3600 // 60} min"


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under a header, columns aligned by their widest cell; columns of numbers to the right."""
    cells = [list(header), *(list(r) for r in rows)]
    widths = [max(len(r[i]) for r in cells) for i in range(len(header))]
    right = [bool(rows) and all(_numeric(r[i]) for r in rows) for i in range(len(header))]
    lines = []
    for row in cells:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _numeric(cell: str) -> bool:
    return cell.replace(".", "", 1).replace(" ", "").isdigit() or cell in {"", "-"}
