"""The gateway's routes as an OpenAPI description, made from the table of routes. Pure."""

from __future__ import annotations

from functools import cache
from typing import Any

from nemotron_ops import __version__
from nemotron_ops.gateway import fields
from nemotron_ops.gateway.routes import MODEL_ROUTE, ROUTES, Api, Kind, Route, Scope

REQUIRED: dict[Api, tuple[str, ...]] = {
    Api.CHAT: ("messages",),
    Api.COMPLETION: ("prompt",),
    Api.RESPONSES: ("input",),
    Api.MESSAGES: ("messages",),
}
ERROR = {"$ref": "#/components/schemas/Error"}
BAD = {"description": "An error, in the shape of the route's API.", "content": {"application/json": {"schema": ERROR}}}


@cache
def describe() -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, Any] = {}
    for route in (*ROUTES, MODEL_ROUTE):
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    error = {"type": "object", "required": ["error"], "properties": {"error": {"type": "object"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "nemotron-ops gateway", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {"Error": error},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    kind = "text/plain" if route.path in ("/metrics", "/engine/metrics") else "application/json"
    content: dict[str, Any] = {kind: {"schema": {}}}
    if route.kind is Kind.GENERATE:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    operation: dict[str, Any] = {
        "summary": route.about,
        "operationId": f"{route.method.lower()}{route.path.replace('/', '_').replace('{', '').replace('}', '')}",
        "responses": {"200": {"description": "The answer.", "content": content}, "4XX": BAD, "5XX": BAD},
    }
    if route.scope is not Scope.PUBLIC:
        operation["security"] = [{"bearer": []}, {"header": []}]
        operation["x-scope"] = route.scope.value
    if "{model}" in route.path:
        operation["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    if route.kind is Kind.INSPECT:
        text = {"type": "string"}
        operation["parameters"] = [{"name": n, "in": "query", "schema": text} for n in ("model", "instance")]
    if route.kind is Kind.UPLOAD:
        operation["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": {"type": "object"}}},
        }
    elif route.method == "POST":
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _body(route)}}}
    return operation


def _body(route: Route) -> dict[str, Any]:
    properties: dict[str, Any] = {name: {} for name in sorted(fields.allowed(route.api))}
    properties["model"] = {"type": "string"}
    if "stream" in properties:
        properties["stream"] = {"type": "boolean"}
    return {"type": "object", "properties": properties, "required": list(REQUIRED.get(route.api, ()))}
