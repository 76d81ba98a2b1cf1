"""Reads a request to Ollama's API, and answers its pages. Reads the clock."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import structs

from nemotron_ops import __version__
from nemotron_ops.gateway.api import routes
from nemotron_ops.gateway.api.catalog import Catalog
from nemotron_ops.gateway.api.routes import Api, Kind, Route
from nemotron_ops.gateway.exchange.model_access import check_model, may_use_model
from nemotron_ops.gateway.ollama import pages
from nemotron_ops.gateway.ollama.answer import Turn
from nemotron_ops.gateway.ollama.conversion import OllamaConversion
from nemotron_ops.gateway.ollama.options import invalid
from nemotron_ops.gateway.ollama.translate import chat_body, embed_body, generate_body, model_name
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.request.json_fields import read_fields
from nemotron_ops.gateway.request.prepare import Prepared, prepare

BODIES = {"/api/chat": chat_body, "/api/generate": generate_body}
# The same request as the engine's APIs know it.
INNER: dict[str, Route] = {
    r.path: replace(r, api=Api.CHAT if r.kind is Kind.GENERATE else Api.OTHER)
    for r in routes.ROUTES
    if r.api is Api.OLLAMA
}


def prepare_ollama(record: Record, catalog: Catalog) -> Prepared:
    """What is sent to llama-server; sets the record's conversion. Raises Refusal."""
    body, path, models = _body_of(record), record.route.path, record.key.models
    ctx_tokens = catalog.resolve(model_name(body.get("model")), models).ctx_tokens
    inner = BODIES.get(path, embed_body)(body, ctx_tokens)
    prepared = prepare(INNER[path], msgspec.json.encode(inner), catalog, models)
    turn = Turn(generates=path == "/api/generate", started=time.time(), asked=prepared.named.asked)
    embeds = record.route.kind is not Kind.GENERATE
    record.conversion = OllamaConversion(turn, now=time.time, embeds=embeds, old=path == "/api/embeddings")
    return structs.replace(prepared, fold=record.conversion.fold()) if prepared.fold is not None else prepared


def own_page(record: Record, catalog: Catalog) -> dict[str, Any]:
    """The answer of a page that needs no llama-server. Raises Refusal."""
    snapshot, key = catalog.snapshot, record.key
    match record.route.path:
        case "/api/version":
            return {"version": pages.VERSION, "nemotron_ops": __version__}
        case "/api/tags":
            return pages.tags(snapshot, lambda model: may_use_model(key, model))
        case "/api/ps":
            return pages.ps(snapshot, lambda model: may_use_model(key, model))
        case "/api/show":
            body = _body_of(record)
            named = catalog.resolve(model_name(body.get("model") or body.get("name")), key.models)
            check_model(key, named.model)
            return pages.show(named.model, snapshot)
        case path:
            raise pages.refused(path)


def _body_of(record: Record) -> dict[str, Any]:
    read_fields(record.request.body)  # refuses what is no JSON object, in the gateway's words
    try:
        body = msgspec.json.decode(record.request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise invalid(f"the body is no JSON: {exc}") from exc
    return dict(body)
