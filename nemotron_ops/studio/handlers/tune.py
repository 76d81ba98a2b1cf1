"""Training from the page: check data, train, pause, resume, delete. Starlette.

Each is a line of `nemotron-ops tune`, and what is shown is what `tune list` and `tune show` read from the job's record.
"""

from __future__ import annotations

import asyncio
import re

from starlette.requests import Request
from starlette.responses import Response

from nemotron_ops.studio.handlers.asked import Refusal, answer, json_of, shared, word

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
BUSY = frozenset({"wait", "hold", "stop"})
MOST_SHOWN = 20  # jobs with their curves
MOST_STEPS = 1_000_000
CHECK_S = 120.0


async def page_of_jobs(request: Request) -> Response:
    """All training jobs, the newest first, each with its losses."""
    work = shared(request).work
    found, error = await work.json("tune", "list", "--json")
    if not isinstance(found, list):
        raise Refusal(502, error)
    names = [job["name"] for job in found[:MOST_SHOWN]]
    shown = await asyncio.gather(*(work.json("tune", "show", name, "--json") for name in names))
    return answer([value for value, _ in shown if isinstance(value, dict)] + found[MOST_SHOWN:])


async def check(request: Request) -> Response:
    """What is found in a file of training data on this machine."""
    path = _path(word(await json_of(request), "data", most=4096))
    value, error = await shared(request).work.json("tune", "check", path, "--json", timeout_s=CHECK_S)
    if not isinstance(value, dict):
        raise Refusal(400, error)
    return answer(value)


async def train(request: Request) -> Response:
    """Begin to train; the job goes on in a session of its own, also without the page."""
    value = await json_of(request)
    model, path = word(value, "model"), _path(word(value, "data", most=4096))
    words = ["tune", "train", model, "--data", path, "--detach"]
    if value.get("name"):
        words += ["--name", _name(word(value, "name"))]
    if (steps := value.get("steps")) is not None:
        if not isinstance(steps, int) or isinstance(steps, bool) or not 0 < steps <= MOST_STEPS:
            raise Refusal(400, f"steps: expected a number from 1 to {MOST_STEPS}")
        words += ["--steps", str(steps)]
    if (busy := value.get("while_busy")) is not None:
        if busy not in BUSY:
            raise Refusal(400, f"while_busy: one of {', '.join(sorted(BUSY))}")
        words += ["--while-busy", busy]
    return answer((await shared(request).work.begin(f"tune {model}", *words)).value, 201)


async def act(request: Request) -> Response:
    """Pause, resume or delete a job."""
    name, verb = _name(request.path_params["job"]), request.path_params["verb"]
    work = shared(request).work
    if verb == "resume":
        return answer((await work.begin(f"tune {name}", "tune", "resume", name, "--detach")).value, 201)
    if verb not in ("pause", "rm"):
        raise Refusal(404, "known: pause, resume, rm")
    value, error = await work.json("tune", verb, name, "--json")
    if value is None:
        raise Refusal(409, error)
    return answer(value)


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise Refusal(400, "name: small letters, digits and . _ -")
    return name


def _path(path: str) -> str:
    if not path.startswith("/"):
        raise Refusal(400, "data: the whole path of a file on the server: /…")
    return path
