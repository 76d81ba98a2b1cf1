"""`logs`, `events`, `attach`: the logs of instances, and the events of the supervisor. Control socket, log files."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, json_option

if TYPE_CHECKING:
    from nemotron_ops.paths import Layout

POLL_S = 0.2
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def span(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """`90s`, `10m`, `2h`, `1d` in seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value)
    if not match:
        raise click.BadParameter(f"{value!r} is no time span; write 90s, 10m, 2h or 1d")
    return float(match.group(1)) * UNITS_S[match.group(2) or "s"]


@click.command()
@click.argument("names", nargs=-1, metavar="[INSTANCE|MODEL|gateway]...")
@click.option("-f", "--follow", is_flag=True, help="Keep showing new lines until interrupted.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=50, show_default=True, help="Number of last lines to show."
)
@click.option("--since", callback=span, metavar="SPAN", help="Only lines of the last SPAN (90s, 10m, 2h).")
@json_option
def logs(names: tuple[str, ...], follow: bool, lines: int, since: float | None, as_json: bool) -> None:
    """Show the last lines of instances' logs, or follow them.

    Works without a running supervisor too. `gateway` names the gateway's log.
    """
    from nemotron_ops.processes import logfiles

    with App() as app:
        paths = _paths(app.layout, names)
        if since is None:
            found = {name: _last(path, lines) for name, path in paths.items()}
        else:
            found = {
                name: _recent(app.layout, name, path, time.time() - since)[-lines:] for name, path in paths.items()
            }
        if as_json and not follow:
            app.ui.json([{"name": n, "path": str(paths[n]), "lines": found[n]} for n in found])
            return
        for name, tail in found.items():
            for line in tail:
                app.ui.data(_line(name, line, several=len(paths) > 1))
        offsets = {name: path.stat().st_size for name, path in paths.items()}
        while follow:
            for name, path in paths.items():
                data, offsets[name] = logfiles.read_from(path, offsets[name])
                for raw in data.decode(errors="replace").splitlines():
                    app.ui.data(_line(name, logfiles.clean(raw), several=len(paths) > 1))
            time.sleep(POLL_S)


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Keep showing new events until interrupted.")
@click.option(
    "-n", "--count", type=click.IntRange(0), default=50, show_default=True, help="Number of last events to show."
)
@json_option
def events(follow: bool, count: int, as_json: bool) -> None:
    """Show events: starts, deaths, changes. With --json one object per line."""
    import json

    from nemotron_ops.supervisor.control import client

    with App() as app:
        found: Iterable[dict[str, Any]] = (
            client.follow(app.layout, "events", count=count)
            if follow
            else client.request(app.layout, "events", count=count)["events"]
        )
        for entry in found:
            app.ui.data(json.dumps(entry) if as_json else event_line(entry))


@click.command()
@click.option(
    "-n", "--count", type=click.IntRange(0), default=10, show_default=True, help="Number of earlier events to show."
)
@json_option
def attach(count: int, as_json: bool) -> None:
    """Watch a detached supervisor as if it ran in this terminal. Ctrl-C ends the watching, not the supervisor.

    With --json the first line is the status, every further one an event.
    """
    import json

    from nemotron_ops.cli.status import show
    from nemotron_ops.supervisor.control import client

    with App() as app:
        status = client.request(app.layout, "status")
        app.ui.data(json.dumps(status)) if as_json else show(app, status)
        for entry in client.follow(app.layout, "events", count=count):
            app.ui.data(json.dumps(entry) if as_json else event_line(entry))
        app.ui.say("the supervisor has ended")


def event_line(entry: dict[str, Any]) -> str:
    """`12:00:01 30b-0 ready: pid 4711 after 3.2 s`."""
    clock = time.strftime("%H:%M:%S", time.localtime(entry["time_s"]))
    instance = f" {entry['instance']}" if entry["instance"] else ""
    message = f": {entry['message']}" if entry["message"] else ""
    return f"{clock}{instance} {entry['kind']}{message}"


def _paths(layout: Layout, names: Sequence[str]) -> dict[str, Path]:
    """Log name -> file, for the named (model names reach all their instances) or for all instances."""
    from nemotron_ops.errors import ControlError

    files = {p.name.removesuffix(".log"): p for p in sorted(layout.logs.glob("*.log")) if p.is_file()}
    if not names:
        return {n: p for n, p in files.items() if n not in ("gateway", "supervisor")}
    found: dict[str, Path] = {}
    for name in names:
        hits = {n: p for n, p in files.items() if n == name or re.fullmatch(re.escape(name) + r"(-\d+)?(~\d+)?", n)}
        if not hits:
            raise ControlError(
                f"cannot find a log of {name!r}", hint=f"logs: {', '.join(files) or 'none'} in {layout.logs}"
            )
        found |= hits
    return found


def _last(path: Path, count: int) -> list[str]:
    """The last `count` lines, rotated files included."""
    from collections import deque

    from nemotron_ops.processes import logfiles

    return list(deque(logfiles.read_lines(path), maxlen=count))


def _recent(layout: Layout, name: str, path: Path, after_s: float) -> list[str]:
    """Lines written after `after_s` (Unix time).

    llama-server writes times since its own start, which is in the record of the running process. Without a record, only
    the time of the whole file is known.
    """
    from nemotron_ops.processes import logfiles
    from nemotron_ops.supervisor.records import record

    began = next((r for r in record.read_all(layout) if r.id == name), None)
    if began is None:
        return _last(path, 1000) if path.stat().st_mtime >= after_s else []
    tail = logfiles.tail(path, lines=100_000, offset=began.log_offset)
    first = next((n for n, line in enumerate(tail) if began.wall_s + (line_s(line) or 0.0) >= after_s), len(tail))
    return tail[first:]


def line_s(line: str) -> float | None:
    """The time at the start of a line of llama-server, `MINUTES.SS.mmm.uuu`, in seconds; None if it has none."""
    match = re.match(r"(\d+)\.(\d\d)\.(\d{3})\.(\d{3}) ", line)
    if not match:
        return None
    minutes, seconds, milli, micro = (int(g) for g in match.groups())
    return minutes * 60 + seconds + milli / 1e3 + micro / 1e6


def _line(name: str, line: str, *, several: bool) -> str:
    return f"{name} | {line}" if several else line
