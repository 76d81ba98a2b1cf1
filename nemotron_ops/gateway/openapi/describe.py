"""Builds the OpenAPI description from the table of routes. Pure.

A test sends requests generated from the description, and checks that status, headers and body of each response are
described.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from nemotron_ops import __version__
from nemotron_ops.gateway.api.routes import ROUTES, WITH_NAMES, Kind, Route, Scope
from nemotron_ops.gateway.openapi import answers, fields


@cache
def describe() -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, Any] = {}
    for route in (*ROUTES, *WITH_NAMES):
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "nemotron-ops gateway", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": answers.schemas() | fields.requests(),
            "responses": answers.errors(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.about,
        "operationId": f"{route.method.lower()}{route.path.replace('/', '_').replace('{', '').replace('}', '')}",
        "responses": answers.of(route),
    }
    if route.scope is not Scope.PUBLIC:
        operation["security"] = [{"bearer": []}, {"header": []}, {}]  # {}: no key is required until keys exist
        operation["x-scope"] = route.scope.value
    for name in ("model", "id"):
        if f"{{{name}}}" in route.path:
            operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]
    if route.kind is Kind.INSPECT:
        text = {"type": "string"}
        operation["parameters"] = [{"name": n, "in": "query", "schema": text} for n in ("model", "instance")]
    if route.method == "POST" and route.path == "/v1/files":
        operation["requestBody"] = _content("multipart/form-data", fields.FILE_FORM)
    elif route.method == "POST" and route.kind is Kind.STORE:
        if "{" not in route.path:
            operation["requestBody"] = _content("application/json", fields.BATCH)
    elif route.kind is Kind.UPLOAD:
        operation["requestBody"] = _content("multipart/form-data", fields.form(route))
    elif route.method == "POST":
        operation["requestBody"] = _content("application/json", fields.of_route(route))
    return operation


def _content(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {media_type: {"schema": schema}}}
