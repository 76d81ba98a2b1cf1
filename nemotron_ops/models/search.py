"""Finds repositories with models on the hub, by words. HTTP, threads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from nemotron_ops.errors import ModelError, UsageError
from nemotron_ops.installation import Installation
from nemotron_ops.models.hub import hub_api, list_files, offline, refused_token_dropped, token_of
from nemotron_ops.models.ref import file_sets, shown
from nemotron_ops.progress import Step, remark

READERS = 6
REPO = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A repository with GGUF files. `quants` are (label, bytes), smallest first; `why` tells why there are none."""

    repo: str
    downloads: int  # of the last 30 days, as the hub counts
    likes: int
    gated: bool  # its licence must be accepted on its page, and a token is needed
    changed: str = ""  # day of the last change: 2026-11-30
    quants: tuple[tuple[str, int], ...] = ()
    why: str = ""


def search(words: str, installation: Installation, *, limit: int = 10, with_quants: bool = True) -> tuple[Found, ...]:
    """Repositories with GGUF files whose names have `words`, most downloaded first; at most `limit`.

    Each repository is asked for its files, unless `with_quants` is false. Raises UsageError, Stalled, ModelError.
    """
    env = installation.env
    if not words.strip():
        raise UsageError("cannot search: no word is given", hint="try: nemotron-ops models search nemotron nano")
    if offline(env):
        raise ModelError("cannot search: HF_HUB_OFFLINE forbids the network", hint="`models list` shows what is here")
    found, note = refused_token_dropped(lambda token: _listed(words, env, token, limit), token_of(env))
    if note:
        remark(installation.report, note, warning=True)
    if not with_quants:
        return found
    done: list[Found] = []
    with ThreadPoolExecutor(READERS) as pool:
        for one in pool.map(lambda f: _with_quants(f, env), found):
            done.append(one)
            installation.report(Step(what="read repositories", done=len(done), total=len(found)))
    return tuple(done)


def _listed(words: str, env: Mapping[str, str], token: str, limit: int) -> tuple[Found, ...]:
    with hub_api(env, token, what="models") as api:
        listed = api.list_models(
            search=words, filter="gguf", sort="downloads", limit=limit,
            expand=["downloads", "likes", "gated", "lastModified"],
        )  # fmt: skip
        return tuple(_found(info) for info in islice(listed, limit) if REPO.fullmatch(str(info.id)))


def _found(info: Any) -> Found:
    changed = info.last_modified
    return Found(
        repo=str(info.id),
        downloads=info.downloads if isinstance(info.downloads, int) else 0,
        likes=info.likes if isinstance(info.likes, int) else 0,
        gated=bool(info.gated),
        changed=changed.strftime("%Y-%m-%d") if changed else "",
    )


def _with_quants(found: Found, env: Mapping[str, str]) -> Found:
    try:
        files = list_files(found.repo, revision="main", env=env).files
    except ModelError as exc:
        return replace(found, why=exc.message)
    sets = {quant: sum(f.size_bytes for f in chosen) for quant, chosen in file_sets(files).items()}
    quants = tuple(sorted(((shown(quant), size) for quant, size in sets.items()), key=lambda q: q[1]))
    return replace(found, quants=quants, why="" if quants else "it has no GGUF file that is a model")
