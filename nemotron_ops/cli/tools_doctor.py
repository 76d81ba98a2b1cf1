"""`nemotron-ops tools doctor`: which walls this machine has, and what they held. Prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, json_option
from nemotron_ops.errors import HostError

if TYPE_CHECKING:
    from nemotron_ops.sandbox.open import Room, Tried


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Hold eight attacks on every sandbox that this machine can have.

    The first that holds all of them runs code. Ends with 4 if there is none: code is then refused.
    """
    with App() as app:
        from nemotron_ops.sandbox import choose, enabled, interpreter, toolbox
        from nemotron_ops.sandbox.open import Room

        room = Room(layout=app.layout, env=app.env)
        tried = room.tried(anew=True, every=True)
        used = next((t for t in tried if t.works), None)
        packages = toolbox.current(room.toolboxes, interpreter.present().python)
        tools = enabled.allowed(app.layout.config)
        if as_json:
            app.ui.json(as_data(tried, used, str(packages or ""), tools))
        else:
            for found in tried:
                mark = "used" if found is used else "ok" if found.works else "-"
                app.ui.data(f"{mark.ljust(6)}{found.candidate.backend.ljust(18)}{line(found)}")
                if not found.works and used is None and found.candidate.fix:
                    app.ui.data(f"{' ' * 24}fix: {found.candidate.fix}")
            app.ui.data(f"toolbox: {packages or 'not made (nemotron-ops tools run python --toolbox)'}")
            app.ui.data(f"enabled: {', '.join(tools) or 'none (nemotron-ops tools enable python)'}")
        if used is None:
            text, hint = refused(room, choose)
            raise HostError(text, hint=hint or None)


def line(found: Tried) -> str:
    """What one backend is and gave."""
    from nemotron_ops.sandbox.choose import ABOUT

    if found.works and found.verdict:
        return f"{found.verdict.held} of {found.verdict.of} attacks held; {ABOUT[found.candidate.backend]}"
    return found.reason


def refused(room: Room, choose: Any) -> tuple[str, str]:
    from dataclasses import replace

    text, hint = choose.refusal(tuple(replace(t.candidate, reason=t.reason) for t in room.tried(every=True)))
    return str(text), str(hint)


def as_data(tried: tuple[Tried, ...], used: Tried | None, packages: str, tools: tuple[str, ...]) -> dict[str, Any]:
    return {
        "backend": str(used.candidate.backend) if used else None,
        "backends": [
            {
                "backend": str(t.candidate.backend),
                "works": t.works,
                "attacks_held": t.verdict.held if t.verdict else 0,
                "attacks": t.verdict.of if t.verdict else 0,
                "reason": t.reason,
                "fix": t.candidate.fix,
            }
            for t in tried
        ],
        "toolbox": packages,
        "enabled": list(tools),
    }
