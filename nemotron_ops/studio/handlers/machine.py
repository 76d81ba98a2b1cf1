"""Instances, models, jobs, logs. Starlette."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from nemotron_ops.errors import ControlError
from nemotron_ops.studio.handlers.asked import Refusal, answer, json_of, shared, text

VERBS = frozenset({"start", "stop", "restart", "drain"})


async def status(request: Request) -> Response:
    """What runs: the supervisor's answer, and the models that clients may name."""
    here = shared(request)
    running, (code, models) = await asyncio.gather(here.supervisor.status(), here.gateway.get("/models"))
    listed = models.get("data", []) if code == 200 and isinstance(models, dict) else []
    return answer({"supervisor": running, "models": listed, "jobs": [j.value for j in here.work.jobs.values()]})


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


async def stored(request: Request) -> Response:
    """Models on disk, and recipes."""
    work = shared(request).work
    (models, error), (recipes, _) = await asyncio.gather(
        work.json("models", "list", "--json"), work.json("recipes", "list", "--json")
    )
    return answer({"models": models or [], "recipes": recipes or [], "error": error})


async def plan(request: Request) -> Response:
    """What fits this machine."""
    model = request.query_params.get("model", "")
    if not model or model.startswith("-") or len(model) > 300:
        raise Refusal(400, "model: expected a recipe or a repository")
    value, error = await shared(request).work.json("plan", model, "--json", timeout_s=120.0)
    if value is None:
        raise Refusal(502, error)
    return answer(value)


async def search(request: Request) -> Response:
    """Repositories of the hub."""
    words = request.query_params.get("words", "").split()
    if not words or any(w.startswith("-") for w in words) or len(words) > 20:
        raise Refusal(400, "words: expected words to search for")
    value, error = await shared(request).work.json("models", "search", *words, "--json", timeout_s=60.0)
    if value is None:
        raise Refusal(502, error)
    return answer(value)


async def fetch(request: Request) -> Response:
    """Begin a download, or go on with one that was stopped."""
    here, value = shared(request), await json_of(request)
    model = text(value, "model", most=300)
    if not model or model.startswith("-"):
        raise Refusal(400, "model: expected a recipe or a repository")
    quant = value.get("quant")
    words = ("--quant", quant) if isinstance(quant, str) and quant and not quant.startswith("-") else ()
    job = await here.work.begin(f"fetch {model}", "fetch", model, *words)
    return answer(job.value, 201)


async def stop_job(request: Request) -> Response:
    """End a job."""
    return answer({"stopped": shared(request).work.stop(request.path_params["job"])})


async def doctor(request: Request) -> Response:
    """What this machine has, for the first steps."""
    value, error = await shared(request).work.json("doctor", "--json", timeout_s=60.0)
    result: dict[str, Any] = {"facts": value, "error": error}
    return answer(result)
