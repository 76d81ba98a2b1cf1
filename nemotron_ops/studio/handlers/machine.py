"""Instances, logs, what this machine has, and what follows from it for questions. Starlette."""

from __future__ import annotations

import asyncio
from typing import Any

import psutil
from starlette.requests import Request
from starlette.responses import Response

from nemotron_ops.errors import ControlError
from nemotron_ops.studio.handlers.asked import Refusal, answer, json_of, shared, text
from nemotron_ops.studio.neighbours import order as ordering
from nemotron_ops.studio.neighbours import parameters as effective
from nemotron_ops.studio.neighbours.counts import counts
from nemotron_ops.studio.turns.request import MOST_PANES

VERBS = frozenset({"start", "stop", "restart", "drain"})


async def status(request: Request) -> Response:
    """What runs: the supervisor's answer, and the models that clients may name."""
    here = shared(request)
    running, (code, models), metrics = await asyncio.gather(
        here.supervisor.status(), here.gateway.get("/models"), here.gateway.metrics()
    )
    counted = counts(metrics)
    for one in running["instances"]:
        one["tokens"] = counted.tokens.get(one["name"])
        one["rss_bytes"] = _rss(one.get("pid"))
    for one in running["models"]:
        one["waiting"] = counted.waiting.get(one["name"], 0)
    listed = models.get("data", []) if code == 200 and isinstance(models, dict) else []
    return answer({"supervisor": running, "models": listed})


def _rss(pid: int | None) -> int:
    """Host memory of a process in bytes, mapped files with it; 0 if it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss) if pid else 0
    except psutil.Error:
        return 0


async def verb(request: Request) -> Response:
    """Start, stop, restart or drain instances."""
    here, value = shared(request), await json_of(request)
    wanted = text(value, "verb")
    names = value.get("names")
    if wanted not in VERBS or not isinstance(names, list) or not names:
        raise Refusal(400, f"verb: one of {', '.join(sorted(VERBS))}, with names")
    try:
        return answer(await here.supervisor.ask(wanted, names=names))
    except ControlError as exc:
        raise Refusal(409, exc.message) from exc


async def logs(request: Request) -> Response:
    """The last lines of an instance's log, or the last events; none where no supervisor answers."""
    here, name = shared(request), request.query_params.get("name", "")
    try:
        if not name:
            return answer(await here.supervisor.ask("events", count=100))
        return answer(await here.supervisor.ask("logs", names=[name], lines=200))
    except ControlError as exc:
        return answer({"events": [], "logs": [], "error": exc.message})


async def doctor(request: Request) -> Response:
    """What this machine has, for the first steps."""
    value, error = await shared(request).work.json("doctor", "--json", timeout_s=60.0)
    result: dict[str, Any] = {"facts": value, "error": error}
    return answer(result)


async def order(request: Request) -> Response:
    """Whether the models of a comparison are asked at once, and in what order otherwise."""
    here, models = shared(request), (await json_of(request)).get("models")
    if not isinstance(models, list) or not all(isinstance(m, str) for m in models) or len(models) > MOST_PANES:
        raise Refusal(400, f"models: expected at most {MOST_PANES} names")
    return answer(ordering.order(models, await here.supervisor.status()))


async def parameters(request: Request) -> Response:
    """The parameters that hold for a model where nobody sets any, each with its source."""
    here, query = shared(request), request.query_params
    thinking = False if query.get("thinking") == "off" else None
    model = await here.gateway.asked_model(query.get("model", "")[:300], thinking)
    started = effective.wished(model, await here.supervisor.status())
    if not started.target or started.target.startswith("-") or started.profile.startswith("-"):
        return answer({"model": model, "parameters": {}})
    words = ("--profile", started.profile) if started.profile else ()
    found, _ = await here.work.json("recipes", "show", started.target, "--resolved", *words, "--json")
    settings = found.get("settings", {}) if isinstance(found, dict) else {}
    return answer({"model": model, "parameters": effective.parameters(settings, started)})
