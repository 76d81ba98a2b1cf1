"""`nemotron-ops tools run`: code in a sandbox. Prints."""

from __future__ import annotations

import base64
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, json_option, progress_option
from nemotron_ops.cli.options import option, options_of
from nemotron_ops.errors import UsageError

if TYPE_CHECKING:
    from nemotron_ops.sandbox.limits import Limits
    from nemotron_ops.sandbox.open import Room
    from nemotron_ops.sandbox.outcome import Item, Outcome

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How code is run."""

    session: str | None = option("Run in this session: variables stay for 10 minutes.", metavar="NAME")
    files: tuple[Path, ...] = option(
        "Copy this file into the work folder first (repeatable).", "--file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
    )  # fmt: skip
    out: Path | None = option(
        "Write files and images that the code leaves into this folder.",
        type=click.Path(file_okay=False, path_type=Path),
    )
    timeout_s: float | None = option(
        "Longest time in seconds; default: 60.", "--timeout", type=click.FloatRange(min=0.1)
    )
    memory: int | None = option("Longest memory of all processes, in MiB; default: 512.", type=click.IntRange(min=64))
    backend: str | None = option("Use this wall only; `tools doctor` lists them.", metavar="NAME")
    toolbox: bool = option("Make the toolbox first, if it is not there: numpy, pandas, matplotlib, sympy, scipy.")


@click.command()
@click.argument("language", type=click.Choice(["python", "bash"]))
@click.argument("file", default="-", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@options_of(RunOptions)
@progress_option
@json_option
def run(language: str, file: str, wanted: RunOptions, as_json: bool) -> int:
    """Run Python or bash from FILE, or from standard input, in a sandbox.

    The code has no network and sees nothing of this machine but programs; whatever it starts ends with it. Prints what
    the code printed, without control characters, and ends with its exit code: 124 after a time-out, 137 after another
    limit.
    """
    with App() as app:
        from nemotron_ops.sandbox.open import Room

        room = Room(layout=app.layout, env=app.env, report=app.ui.report)
        code = text_of(file)
        if wanted.toolbox:
            make_toolbox(room)
        outcome = in_session(app, wanted, language, code) if wanted.session else once(room, wanted, language, code)
        if wanted.out:
            write(wanted.out, (*outcome.files, *outcome.images))
        if as_json:
            app.ui.json(outcome.as_json())
        else:
            show(app, outcome, wanted)
        return outcome.exit_code


def once(room: Room, wanted: RunOptions, language: str, code: str) -> Outcome:
    """One call in a sandbox of its own."""
    session = room.open(limits_of(wanted), only=wanted.backend)
    try:
        for path in wanted.files:
            session.put(path.name, path.read_bytes())
        return session.run(language, code)
    finally:
        session.end()


def in_session(app: App, wanted: RunOptions, language: str, code: str) -> Outcome:
    """One call in a session that outlives this command."""
    from nemotron_ops.sandbox import server

    if wanted.timeout_s or wanted.memory or wanted.backend:
        raise UsageError("cannot use --timeout, --memory or --backend with --session: a session has the default limits")
    given = {path.name: base64.b64encode(path.read_bytes()).decode() for path in wanted.files}
    return server.ask(app.layout, wanted.session or "", {"lang": language, "code": code, "files": given})


def limits_of(wanted: RunOptions) -> Limits:
    from nemotron_ops.sandbox.limits import Limits

    changed: dict[str, Any] = {}
    if wanted.timeout_s:
        changed |= {"call_s": wanted.timeout_s, "first_call_s": wanted.timeout_s}
    if wanted.memory:
        changed |= {"memory_bytes": wanted.memory * MIB}
    return Limits(**changed)


def text_of(file: str) -> str:
    """The program. Raises UsageError if it is no UTF-8."""
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise UsageError(f"cannot read {file}: expected UTF-8: {exc}") from exc


def make_toolbox(room: Room) -> None:
    from nemotron_ops.sandbox import interpreter, toolbox

    toolbox.make(room.toolboxes, interpreter.present().python, room.report)


def show(app: App, outcome: Outcome, wanted: RunOptions) -> None:
    """What the code printed, then what it left."""
    app.ui.end_bars()
    print(outcome.stdout, end="", flush=True)
    print(outcome.stderr, end="", file=sys.stderr, flush=True)
    for item in (*outcome.files, *outcome.images):
        where = f" -> {wanted.out / Path(item.name).name}" if wanted.out else ""
        app.ui.say(f"left: {item.name} ({item.mime}, {len(item.content)} bytes){where}")
    if (outcome.files or outcome.images) and not wanted.out:
        app.ui.say("hint: --out FOLDER writes these files")
    if "ModuleNotFoundError" in outcome.stderr and any(
        f"'{n}'" in outcome.stderr for n in ("numpy", "pandas", "sympy")
    ):
        app.ui.say("hint: --toolbox makes numpy, pandas, matplotlib, sympy and scipy available")
    if outcome.limits_hit:
        app.ui.say(f"limits hit: {', '.join(outcome.limits_hit)}")
    if outcome.ended and wanted.session:
        app.ui.say(f"the session {wanted.session!r} is over; its variables are lost")


def write(folder: Path, items: tuple[Item, ...]) -> None:
    """Write files under their last names; a name that is taken gets a number. Nothing there is overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        name = Path(item.name).name.lstrip(".") or "file"
        for number in range(1000):
            path = folder / (name if not number else f"{Path(name).stem}-{number}{Path(name).suffix}")
            fd, new = tempfile.mkstemp(dir=folder, prefix=".new-")
            with os.fdopen(fd, "wb") as f:
                f.write(item.content)
            try:
                os.link(new, path)
                break
            except FileExistsError:
                continue
            finally:
                os.unlink(new)
