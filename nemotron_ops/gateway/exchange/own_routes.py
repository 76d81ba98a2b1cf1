"""Answers the routes that need no llama-server: health, models, metrics, OpenAPI. Writes to the connection."""

from __future__ import annotations

from urllib.parse import unquote

import msgspec

from nemotron_ops.gateway.api import listing, routes
from nemotron_ops.gateway.api.content_types import JSON, PROMETHEUS
from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.exchange.model_access import check_model, may_use_model
from nemotron_ops.gateway.exchange.ollama_intake import own_page
from nemotron_ops.gateway.exchange.respond import cors
from nemotron_ops.gateway.exchange.responses_intake import stored_response
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.shared import Shared


def reply_own(record: Record, shared: Shared) -> None:
    """Answer a LOCAL route. Raises Refusal."""
    record.status, kind, body = response(record, shared)
    record.client.reply(record.status, body, content_type=kind, extra=cors(record))


def response(record: Record, shared: Shared) -> tuple[int, bytes, bytes]:
    """Status, content type and body. Raises Refusal."""
    key, directory = record.key, shared.pool.directory
    snapshot = directory.snapshot
    match record.route.path:
        case "/health" | "/v1/health":
            status, body = listing.health(snapshot, lambda model: bool(key.id) and may_use_model(key, model))
            return status, JSON, body
        case "/v1/models" | "/models":
            return 200, JSON, listing.models_body(snapshot, lambda model: may_use_model(key, model))
        case routes.MODEL_ROUTE.path:
            named = directory.resolve(unquote(record.request.path.removeprefix(routes.MODEL_PATH)), key.models)
            check_model(key, named.model)
            return 200, JSON, msgspec.json.encode(listing.model_card(named.model, snapshot))
        case routes.GET_RESPONSE.path | routes.GET_INPUT.path | routes.DELETE_RESPONSE.path:
            return 200, JSON, msgspec.json.encode(stored_response(record, shared.responses))
        case _ if record.route.api is Api.OLLAMA:
            return 200, JSON, msgspec.json.encode(own_page(record, directory))
        case "/metrics":
            return 200, PROMETHEUS, shared.pages["/metrics"]()
        case path:
            return 200, JSON, shared.pages[path]()
