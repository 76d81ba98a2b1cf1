"""Reads a request to the responses API, and serves the responses that are kept. Reads the store, draws ids."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from msgspec import structs

from nemotron_ops.gateway.api import routes
from nemotron_ops.gateway.api.catalog import Catalog
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api, Kind, Route
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.request.bounds import BOUNDED, bound, check_messages, check_size
from nemotron_ops.gateway.request.json_fields import Fields, read_fields, text_field
from nemotron_ops.gateway.request.limits import LAST_TOKENS_MAX
from nemotron_ops.gateway.request.media import check_media
from nemotron_ops.gateway.request.prepare import SMALL_BYTES, Prepared, prepare
from nemotron_ops.gateway.responses.conversion import Conversion
from nemotron_ops.gateway.responses.store import Kept, Store
from nemotron_ops.gateway.responses.translate import chat_body, chat_request
from nemotron_ops.gateway.responses.turn import Turn

# The same request as the engine's chat API knows it.
AS_CHAT: dict[str, Route] = {r.path: replace(r, api=Api.CHAT) for r in routes.ROUTES if r.api is Api.RESPONSES}


def prepare_response(record: Record, catalog: Catalog, store: Store) -> Prepared:
    """What is sent to llama-server's chat for a response; sets the record's conversion. Raises Refusal."""
    body, key = record.request.body, record.key.id
    fields = read_fields(body)
    check_response(fields, body, catalog, record.key.models)
    serial = os.urandom(16).hex()
    turn = Turn(id=f"resp_{serial}", serial=serial, created_at=int(time.time()))
    chat = chat_request(fields, turn, lambda name: store.conversation(name, key), lambda name: store.item(name, key))
    prepared = prepare(AS_CHAT[record.route.path], chat_body(chat), catalog, record.key.models)
    turn.asked = prepared.named.asked
    if record.route.kind is not Kind.GENERATE:
        return prepared
    turn.stored = turn.stored and store.most_bytes > 0
    turn.echo["store"] = turn.stored

    def keep(turn: Turn, response: dict[str, Any]) -> None:
        store.keep(turn.id, Kept(key=key, previous=turn.previous, input=turn.input, response=response))

    record.conversion = Conversion(turn, keep=keep, now=time.time)
    return structs.replace(prepared, fold=record.conversion.fold()) if prepared.fold is not None else prepared


def check_response(fields: Fields, body: bytes, catalog: Catalog, only: tuple[str, ...]) -> None:
    """Raises Refusal for a body that is too large to be read, or that holds what may not be in it."""
    media_bytes = check_media(fields, body)
    ctx_tokens = catalog.resolve(text_field(fields, "model"), only).ctx_tokens
    if not BOUNDED.isdisjoint(fields):
        bound(dict(fields), ctx_tokens or LAST_TOKENS_MAX)
    if len(body) > SMALL_BYTES:
        check_size(len(body) - media_bytes, ctx_tokens=ctx_tokens, prompts=1)
        check_messages(fields)


def stored_response(record: Record, store: Store) -> dict[str, Any]:
    """What `/v1/responses/{id}` answers. Raises Refusal if the key has no such response."""
    path = record.request.path.removeprefix(routes.RESPONSE_PATH)
    answer_id = unquote(path.removesuffix(routes.INPUT_ITEMS))
    kept = store.get(answer_id, record.key.id)
    if kept is None:
        message = f"no response {answer_id[:80]!r} is kept for this key"
        raise Refusal(status=404, code="response_not_found", message=message)
    if record.route is routes.DELETE_RESPONSE:
        store.delete(answer_id, record.key.id)
        return {"id": answer_id, "object": "response", "deleted": True}
    if record.route is routes.GET_INPUT:
        return {"object": "list", "data": kept.input, "has_more": False}
    return kept.response
