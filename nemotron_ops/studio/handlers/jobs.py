"""Jobs of the command line: fetch, add, change, remove, verify, import, upgrade, template. Starlette.

A page can do what a person in a shell can do, and nothing more: each job is a line of our own commands, whose words are
checked here, so that none is taken for an option.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from nemotron_ops.files import write_atomic
from nemotron_ops.studio.handlers.asked import Refusal, answer, json_of, shared, text, word

NUMBERS = ("ctx_size", "parallel")  # options of a model, with the most that is sensible of each
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")  # of a recipe
TEMPLATE_BYTES = 1 << 20
MOST = {"ctx_size": 1 << 24, "parallel": 256}


async def listed(request: Request) -> Response:
    """All jobs, the newest first."""
    return answer([j.value for j in reversed(shared(request).work.jobs.values())])


async def again(request: Request) -> Response:
    """The same job once more."""
    job = await shared(request).work.again(request.path_params["job"])
    if job is None:
        raise Refusal(404, "there is no such job")
    return answer(job.value, 201)


async def stop(request: Request) -> Response:
    """End a job."""
    return answer({"stopped": shared(request).work.stop(request.path_params["job"])})


async def forget(request: Request) -> Response:
    """Take a job that has ended off the list."""
    return answer({"forgotten": shared(request).work.forget(request.path_params["job"])})


async def fetch(request: Request) -> Response:
    """Begin a download, or go on with one that was stopped."""
    value = await json_of(request)
    model = word(value, "model")
    return await _begin(request, f"fetch {model}", "fetch", model, *_given(value, "quant"))


async def serve(request: Request) -> Response:
    """Serve a model too, serve it with other options, or serve it no longer: `op` is add, change or remove."""
    value = await json_of(request)
    op, model = text(value, "op"), word(value, "model")
    if op == "remove":
        return await _begin(request, f"remove {model}", "remove", model)
    if op not in ("add", "change"):
        raise Refusal(400, "op: one of add, change, remove")
    options = [*_given(value, "quant"), *_given(value, "profile"), *_numbers(value)]
    if op == "add":
        options.append("--yes")
    elif not options:
        raise Refusal(400, "nothing is to be changed")
    return await _begin(request, f"{op} {model}", op, model, *options)


async def verify(request: Request) -> Response:
    """Hash every byte of a model."""
    model = word(await json_of(request), "model")
    return await _begin(request, f"verify {model}", "models", "verify", model)


async def bring(request: Request) -> Response:
    """Take a file of this machine into the store."""
    path = word(await json_of(request), "path", most=4096)
    if not path.startswith("/"):
        raise Refusal(400, "path: the whole path of a GGUF file on the server: /…")
    return await _begin(request, f"import {path}", "models", "import", path)


async def upgrade(request: Request) -> Response:
    """A newer engine beside the running one, kept if it is as good; `back` makes the one before it current again."""
    if (await json_of(request)).get("back") is True:
        return await _begin(request, "rollback", "rollback")
    return await _begin(request, "upgrade", "upgrade")


async def template(request: Request) -> Response:
    """Serve a recipe with another chat template, or (with `own`) with the model's again."""
    here, value = shared(request), await json_of(request)
    name = word(value, "model")
    if not NAME.fullmatch(name):
        raise Refusal(400, f"{name} has no recipe; `nemotron-ops recipes new NAME --repo {name}` makes one")
    if value.get("own") is True:
        return await _begin(request, f"template {name}", "recipes", "template", name, "--own")
    words = text(value, "text", most=TEMPLATE_BYTES)
    path = here.store.folder / "templates" / f"{name}.jinja"
    await asyncio.to_thread(write_atomic, path, words, mode=0o600)
    return await _begin(request, f"template {name}", "recipes", "template", name, str(path))


async def _begin(request: Request, title: str, *argv: str) -> Response:
    return answer((await shared(request).work.begin(title, *argv)).value, 201)


def _given(value: dict[str, Any], name: str) -> tuple[str, ...]:
    return (f"--{name}", word(value, name)) if value.get(name) else ()


def _numbers(value: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for name in NUMBERS:
        found = value.get(name)
        if found is None or found == "":
            continue
        if not isinstance(found, int) or isinstance(found, bool) or not 0 < found <= MOST[name]:
            raise Refusal(400, f"{name}: expected a number from 1 to {MOST[name]}")
        words += [f"--{name.replace('_', '-')}", str(found)]
    return words
