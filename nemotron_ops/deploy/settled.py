"""Whether a service has come to rest: `nemotron-ops status --json | python -m nemotron_ops.deploy.settled`. stdin.

A new release is up as soon as its supervisor has taken over the models that it found. What has to change is loaded
after that, beside the old; only when that is over is it known how the release fares.
Exit code 0: at rest; 2: on the way; 1: something has failed, or that was no status.
"""

from __future__ import annotations

import json
import sys
from typing import Any

AT_REST, FAILED, MOVING = 0, 1, 2


def verdict(status: Any) -> int:
    """The exit code for a supervisor's status."""
    try:
        states = {str(i["state"]) for i in status["instances"] if i["wanted"] or i["state"] != "stopped"}
    except (LookupError, TypeError):
        return FAILED
    if "failed" in states or "backoff" in states or not status["instances"]:
        return FAILED
    return AT_REST if states <= {"ready", "stopped"} else MOVING


def main(text: str) -> int:
    try:
        return verdict(json.loads(text))
    except ValueError:
        return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.stdin.read()))
