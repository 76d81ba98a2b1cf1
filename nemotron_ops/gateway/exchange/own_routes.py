"""What the gateway answers itself: health, models, metrics, its own description. Pure."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

import msgspec

from nemotron_ops.gateway.api import listing, routes
from nemotron_ops.gateway.api.catalog import Catalog
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Route
from nemotron_ops.gateway.client.heads import Request
from nemotron_ops.gateway.keys.ring import Key, may_use
from nemotron_ops.gateway.openapi.describe import describe
from nemotron_ops.supervisor.snapshot import ModelView

JSON = b"application/json; charset=utf-8"
TEXT = b"text/plain; version=0.0.4; charset=utf-8"


def answer(
    route: Route, request: Request, key: Key, directory: Catalog, *, metrics: Callable[[], bytes]
) -> tuple[int, bytes, bytes]:  # fmt: skip
    """Status, content type and body. Raises Refusal."""
    snapshot = directory.snapshot
    match route.path:
        case "/health" | "/v1/health":
            status, body = listing.health(snapshot, lambda model: bool(key.id) and _may_see(key, model))
            return status, JSON, body
        case "/v1/models" | "/models":
            return 200, JSON, listing.models_body(snapshot, lambda model: _may_see(key, model))
        case routes.MODEL_ROUTE.path:
            named = directory.resolve(unquote(request.path.removeprefix(routes.MODEL_PATH)), key.models)
            if not _may_see(key, named.model):
                raise Refusal(status=403, code="model_not_allowed", message="this API key may not use this model")
            return 200, JSON, msgspec.json.encode(listing.model_card(named.model, snapshot))
        case "/metrics":
            return 200, TEXT, metrics()
        case _:
            return 200, JSON, msgspec.json.encode(describe())


def _may_see(key: Key, model: ModelView) -> bool:
    return may_use(key, (model.name, *model.names))
