"""`tools heal`: what healing makes of tool calls in a file. Prints."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nemotron_ops.cli.app import App, json_option
from nemotron_ops.errors import UsageError


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.jsonl")
@click.option("--level", type=click.Choice(["safe", "full", "off"]), default="safe", help="How far healing goes.")
@json_option
def heal(file: Path, level: str, as_json: bool) -> None:
    """Show what healing makes of tool calls: one case a line, with `tools` and what the engine said.

    A case has `raw_content`, `raw_calls`, `raw_stream` or `raw_history_arguments`. With --json, one object a line.
    """
    with App() as app:
        from nemotron_ops.gateway.toolcalls.corpus import CaseError, healed
        from nemotron_ops.gateway.toolcalls.heal import Level

        try:
            lines = file.read_bytes().splitlines()
        except OSError as exc:
            raise UsageError(f"cannot read {file}: {exc.strerror or exc}") from exc
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                case = json.loads(line)
                if not isinstance(case, dict):
                    raise CaseError("it is no object")
                found = healed(case, Level(level))
            except (ValueError, RecursionError, TypeError, AttributeError) as exc:
                raise UsageError(f"cannot read {file}, line {number}: {exc}") from exc
            if as_json:
                app.ui.data(json.dumps(found, ensure_ascii=False))
                continue
            steps = ", ".join(found["steps"]) or "untouched"
            app.ui.data(f"{found['id'] or number}: {steps}")
            for call in found.get("calls", ()):
                app.ui.data(f"  call {call['name']} {json.dumps(call['arguments'], ensure_ascii=False)}")
            if "arguments" in found:
                app.ui.data(f"  arguments {json.dumps(found['arguments'], ensure_ascii=False)}")
            elif found["content"]:
                app.ui.data(f"  text {found['content']!r}")
