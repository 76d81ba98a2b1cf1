"""Checks that a service has settled as its release asks: `… status --json | python -m …on_target.settled`. stdin.

A new release is up as soon as its supervisor has adopted the running models. Changed models load after that, beside the
old ones, and only then is the outcome known. The supervisor undoes a change that fails its canary: then every instance
is ready, but the release does not serve what it asks for.

stdin: the supervisor's status. Argument: the build that must serve, if the release brought one. stdout: the failure.
Exit code 0: settled; 2: still changing; 1: an instance has failed, or stdin is not a status.
"""

from __future__ import annotations

import json
import sys
from typing import Any

SETTLED, FAILED, CHANGING = 0, 1, 2


def verdict(status: Any, *, build: str = "") -> tuple[int, str]:
    """The exit code for a supervisor's status, and why it is not 0."""
    try:
        used = [i for i in status["instances"] if i["wanted"] or i["state"] != "stopped"]
        states = {str(i["name"]): str(i["state"]) for i in used}
        others = [str(i["name"]) for i in used if build and i["build"] != build]
        refused = dict(status["refused"])
        changing = bool(status["changing"])
    except (LookupError, TypeError, ValueError):
        return FAILED, "not a status"
    if changing:
        return CHANGING, "a change is running"
    if bad := [f"{name} is {state}" for name, state in states.items() if state in ("failed", "backoff")]:
        return FAILED, "; ".join(bad)
    if not status["instances"]:
        return FAILED, "there is no instance"
    if not set(states.values()) <= {"ready", "stopped"}:
        return CHANGING, "an instance is loading"
    if refused:
        return FAILED, "; ".join(f"{name} still runs its old configuration: {why}" for name, why in refused.items())
    if others:
        return FAILED, f"{', '.join(others)}: another build than {build} serves"
    return SETTLED, ""


def main(text: str, *, build: str) -> int:
    try:
        code, why = verdict(json.loads(text), build=build)
    except ValueError:
        code, why = FAILED, "not a status"
    if code == FAILED:
        sys.stdout.write(f"{why}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.stdin.read(), build="".join(sys.argv[1:2])))
