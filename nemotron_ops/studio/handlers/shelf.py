"""Models and engines of this machine and of the hub: search, plans, what is stored, builds, keys, tools. Starlette."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from nemotron_ops.studio.handlers.asked import Refusal, answer, json_of, shared, word

PLAN_S = 120.0  # headers are read over the network
DOCTOR_S = 120.0  # each sandbox holds attacks
TOOLS = ("python", "web", "mcp")
NUMBERS = ("ctx_size", "parallel")


async def stored(request: Request) -> Response:
    """Models on disk, and recipes."""
    work = shared(request).work
    (models, error), (recipes, _) = await asyncio.gather(
        work.json("models", "list", "--json"), work.json("recipes", "list", "--json")
    )
    return answer({"models": models or [], "recipes": recipes or [], "error": error})


async def plan(request: Request) -> Response:
    """What of a model fits this machine: all quants, or one with the options that are given."""
    asked: dict[str, Any] = dict(request.query_params)
    words = [word(asked, "model")]
    for name in ("quant", "profile"):
        words += [f"--{name}", word(asked, name)] if asked.get(name) else []
    for name in NUMBERS:
        if asked.get(name):
            number = word(asked, name, most=8)
            if not number.isdecimal():
                raise Refusal(400, f"{name}: expected a number")
            words += [f"--{name.replace('_', '-')}", number]
    return await _json(request, "plan", *words, timeout_s=PLAN_S)


async def search(request: Request) -> Response:
    """Repositories of the hub."""
    words = request.query_params.get("words", "").split()
    if not words or any(w.startswith("-") for w in words) or len(words) > 20:
        raise Refusal(400, "words: expected words to search for")
    return await _json(request, "models", "search", *words)


async def remove(request: Request) -> Response:
    """Remove a model from the disk; without `sure` only what that would free."""
    value = await json_of(request)
    dry = () if value.get("sure") is True else ("--dry-run",)
    return await _json(request, "models", "rm", word(value, "model"), *dry)


async def builds(request: Request) -> Response:
    """Builds of llama.cpp."""
    return await _json(request, "builds", "list")


async def keys(request: Request) -> Response:
    """The keys of the endpoint: list them, make one (its text comes once), revoke one."""
    if request.method == "GET":
        return await _json(request, "keys", "list")
    value = await json_of(request)
    name = word(value, "name", most=100)
    if value.get("revoke") is True:
        return await _json(request, "keys", "revoke", name)
    expires = ("--expires", word(value, "expires", most=10)) if value.get("expires") else ()
    return await _json(request, "keys", "create", name, *expires)


async def tools(request: Request) -> Response:
    """What may run here for models: sandboxes with what they held, the tools that are enabled. A POST changes one."""
    if request.method == "POST":
        value = await json_of(request)
        name = word(value, "tool")
        if name not in TOOLS:
            raise Refusal(400, f"tool: one of {', '.join(TOOLS)}")
        verb = "enable" if value.get("on") is True else "disable"
        changed, error = await shared(request).work.json("tools", verb, name, "--json", timeout_s=DOCTOR_S)
        if changed is None:
            raise Refusal(409, error)
    return await _json(request, "tools", "doctor", timeout_s=DOCTOR_S)


async def template(request: Request) -> Response:
    """The chat template that a model is served with, and whether its recipe has one of its own."""
    return await _json(request, "recipes", "template", word(dict(request.query_params), "model"))


async def _json(request: Request, *argv: str, timeout_s: float = 60.0) -> Response:
    """What a command prints. Raises Refusal with its error's words."""
    value, error = await shared(request).work.json(*argv, "--json", timeout_s=timeout_s)
    if value is None:
        raise Refusal(502, error)
    return answer(value)
