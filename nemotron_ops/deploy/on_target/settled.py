"""Whether a service has come to rest as its release wants it: `… status --json | python -m …deploy.settled`. stdin.

A new release is up as soon as its supervisor has taken over the models that it found. What has to change is loaded
after that, beside the old; only when that is over is it known how the release fares. A change that fails its canary is
undone by the supervisor: all is well then but for the release, which does not serve what it asks for.

stdin: the supervisor's status. Argument: the build that must serve, if the release brought one. stdout: what is wrong.
Exit code 0: at rest; 2: on the way; 1: something has failed, or that was no status.
"""

from __future__ import annotations

import json
import sys
from typing import Any

AT_REST, FAILED, MOVING = 0, 1, 2


def verdict(status: Any, *, build: str = "") -> tuple[int, str]:
    """The exit code for a supervisor's status, and why it is not 0."""
    try:
        used = [i for i in status["instances"] if i["wanted"] or i["state"] != "stopped"]
        states = {str(i["name"]): str(i["state"]) for i in used}
        others = [str(i["name"]) for i in used if build and i["build"] != build]
        refused = dict(status["refused"])
        changing = bool(status["changing"])
    except (LookupError, TypeError, ValueError):
        return FAILED, "that is no status"
    if changing:
        return MOVING, "a change is under way"
    if bad := [f"{name} is {state}" for name, state in states.items() if state in ("failed", "backoff")]:
        return FAILED, "; ".join(bad)
    if not status["instances"]:
        return FAILED, "there is no instance"
    if not set(states.values()) <= {"ready", "stopped"}:
        return MOVING, "something is loading"
    if refused:
        return FAILED, "; ".join(f"{name} runs what it ran before: {why}" for name, why in refused.items())
    if others:
        return FAILED, f"{', '.join(others)}: another build than {build} serves"
    return AT_REST, ""


def main(text: str, *, build: str) -> int:
    try:
        code, why = verdict(json.loads(text), build=build)
    except ValueError:
        code, why = FAILED, "that is no status"
    if code == FAILED:
        sys.stdout.write(f"{why}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.stdin.read(), build="".join(sys.argv[1:2])))
