"""JSON schemas of responses and errors; of llama-server's responses, the fields that clients rely on. Pure."""

from __future__ import annotations

from typing import Any

from nemotron_ops.gateway.api.errors import ANTHROPIC_TYPES, OPENAI_TYPES, REASONS
from nemotron_ops.gateway.api.routes import Api, Kind, Route, Scope

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
EVENT: Schema = {"type": "object", "properties": {"event": TEXT, "data": TEXT}}  # one event of a stream

# Statuses of malformed or oversized requests, sent before the path is known: always in OpenAI's shape.
PROTOCOL = (400, 408, 413, 414, 415, 431, 501, 505)
OPENAI_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {
                "message": TEXT,
                "type": {
                    "type": "string",
                    "description": f"for example {', '.join(sorted(set(OPENAI_TYPES.values())))}",
                },
                "code": {
                    "type": ["string", "integer", "null"],
                    "description": "a word; llama-server's own is the status",
                },
                "queue_position": {"type": "integer", "minimum": 1},
                "estimated_wait_s": {"type": "number", "minimum": 0},
            },
        }
    },
}
ANTHROPIC_ERROR: Schema = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"enum": sorted({*ANTHROPIC_TYPES.values(), "invalid_request_error", "api_error"})},
                "message": TEXT,
                "queue_position": {"type": "integer", "minimum": 1},
                "estimated_wait_s": {"type": "number", "minimum": 0},
            },
        },
    },
}


OLLAMA_ERROR: Schema = {"type": "object", "required": ["error"], "properties": {"error": TEXT}}
OWN_ERRORS = {Api.MESSAGES: "AnthropicError", Api.OLLAMA: "OllamaError"}


def _object(**properties: Schema) -> Schema:
    """An object with at least these properties."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Schema | None = None) -> Schema:
    return {"type": "array", "items": items or {}}


HEALTH = _object(status={"const": "ok"}, models={"type": "object", "additionalProperties": TEXT})
MODEL = _object(
    id=TEXT, object={"const": "model"}, created=WHOLE, owned_by=TEXT, aliases=_list(TEXT), profiles=_list(TEXT),
    adapters=_list(TEXT), state=TEXT, meta=_object(n_ctx=WHOLE),
)  # fmt: skip
RERANKED = _object(results=_list(_object(index=WHOLE, relevance_score={"type": "number"})))
COUNTED = _object(input_tokens=WHOLE)
EMBEDDING_LIST = _list(_object(index=WHOLE, embedding=_list()))
ANSWERS: dict[str, Schema] = {
    "/health": HEALTH,
    "/v1/health": HEALTH,
    "/v1/models": _object(object={"const": "list"}, data=_list(MODEL)),
    "/models": _object(object={"const": "list"}, data=_list(MODEL)),
    "/v1/models/{model}": MODEL,
    "/openapi.json": _object(openapi=TEXT, info=_object(title=TEXT, version=TEXT), paths={"type": "object"}),
    "/v1/embeddings": _object(object={"const": "list"}, data=EMBEDDING_LIST),
    "/embeddings": EMBEDDING_LIST,
    "/embedding": EMBEDDING_LIST,
    "/v1/rerank": RERANKED,
    "/v1/reranking": RERANKED,
    "/rerank": RERANKED,
    "/reranking": RERANKED,
    "/v1/audio/transcriptions": _object(text=TEXT),
    "/audio/transcriptions": _object(text=TEXT),
    "/v1/messages/count_tokens": COUNTED,
    "/v1/chat/completions/input_tokens": COUNTED,
    "/v1/responses/input_tokens": COUNTED,
    "/chat/completions/input_tokens": COUNTED,
    "/responses/input_tokens": COUNTED,
    "/v1/responses/{id}": {"type": "object", "required": ["id", "object"]},
    "/v1/responses/{id}/input_items": _object(object={"const": "list"}, data=_list()),
    "/tokenize": _object(tokens=_list()),
    "/detokenize": _object(content=TEXT),
    "/apply-template": _object(prompt=TEXT),
    "/v1/chat/completions/control": _object(success={"type": "boolean"}),
    "/props": {"type": "object"},
    "/slots": _list(_object(id=WHOLE)),
    "/lora-adapters": _list(),
}
FILE = _object(id=TEXT, object={"const": "file"}, bytes=WHOLE, created_at=WHOLE, filename=TEXT, purpose=TEXT)
BATCH = _object(
    id=TEXT, object={"const": "batch"}, endpoint=TEXT, input_file_id=TEXT, status=TEXT, created_at=WHOLE,
    request_counts=_object(total=WHOLE, completed=WHOLE, failed=WHOLE),
)  # fmt: skip
ANSWERS |= {
    "/v1/files": {"anyOf": [FILE, _object(object={"const": "list"}, data=_list(FILE))]},
    "/v1/files/{id}": {"anyOf": [FILE, _object(id=TEXT, deleted={"const": True})]},
    "/v1/files/{id}/content": {},
    "/v1/batches": {"anyOf": [BATCH, _object(object={"const": "list"}, data=_list(BATCH))]},
    "/v1/batches/{id}": BATCH,
    "/v1/batches/{id}/cancel": BATCH,
}
CARDS = _object(models=_list(_object(name=TEXT, model=TEXT, size=WHOLE, digest=TEXT, details={"type": "object"})))
ANSWERS |= {
    "/api/tags": CARDS,
    "/api/ps": CARDS,
    "/api/version": _object(version=TEXT),
    "/api/show": _object(details={"type": "object"}, model_info={"type": "object"}, capabilities=_list(TEXT)),
    "/api/embed": _object(model=TEXT, embeddings=_list(_list())),
    "/api/embeddings": _object(embedding=_list()),
    **{path: {} for path in ("/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete")},
}
GENERATED: dict[Api, Schema] = {
    Api.OLLAMA: _object(model=TEXT, created_at=TEXT, done={"const": True}, done_reason=TEXT, eval_count=WHOLE),
    Api.CHAT: _object(
        id=TEXT, object={"const": "chat.completion"}, created=WHOLE, model=TEXT,
        choices=_list(_object(index=WHOLE, finish_reason=TEXT, message=_object(role={"const": "assistant"}))),
    ),
    Api.COMPLETION: _object(
        id=TEXT, object={"const": "text_completion"}, created=WHOLE, model=TEXT,
        choices=_list(_object(index=WHOLE, finish_reason=TEXT, text=TEXT)),
    ),
    Api.RESPONSES: _object(
        id=TEXT, object={"const": "response"}, model=TEXT, status=TEXT, output=_list(), tools=_list(), tool_choice={},
        parallel_tool_calls={"type": "boolean"},
        usage=_object(input_tokens=WHOLE, output_tokens=WHOLE, output_tokens_details=_object(reasoning_tokens=WHOLE)),
    ),
    Api.MESSAGES: _object(
        id=TEXT, type={"const": "message"}, role={"const": "assistant"}, model=TEXT, content=_list(_object(type=TEXT)),
        usage=_object(input_tokens=WHOLE, output_tokens=WHOLE),
    ),
    Api.NATIVE: {"anyOf": [_object(content=TEXT, stop={"const": True}), _list(_object(content=TEXT))]},
}  # fmt: skip

X_REQUEST_ID: Schema = {
    "description": "The client's own X-Request-Id if its characters are safe, else a new one.",
    "schema": TEXT,
}
RETRY_AFTER: Schema = {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
OF_AN_ANSWER: dict[str, Schema] = {
    "X-Request-Id": {**X_REQUEST_ID, "required": True},
    "X-Instance": {"description": "The instance that answered.", "schema": TEXT},
    "X-Queue-Ms": {
        "description": "Time that the request waited for a slot.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "X-Lost-In-Thought": {"description": "The answer has reasoning and no content.", "schema": {"const": "true"}},
}


def schemas() -> dict[str, Schema]:
    """The named schemas that responses refer to."""
    return {"Error": OPENAI_ERROR, "AnthropicError": ANTHROPIC_ERROR, "OllamaError": OLLAMA_ERROR}


def errors() -> dict[str, dict[str, Any]]:
    """The named responses that routes refer to: every error, in each shape."""
    shapes = (("Error", Api.OTHER), *((name, api) for api, name in OWN_ERRORS.items()))
    return {f"{name}{status}": _error(api, status) for name, api in shapes for status in REASONS if status >= 400}


def of(route: Route) -> dict[str, Any]:
    """All responses of `route`, by status."""
    found: dict[str, Any] = {"200": _success(route)}
    name = OWN_ERRORS.get(route.api, "Error")
    for status in statuses(route):
        found[str(status)] = {"$ref": f"#/components/responses/{name}{status}"}
    return found


def statuses(route: Route) -> tuple[int, ...]:
    """The error statuses of `route`."""
    found = {*PROTOCOL, 403, 500}
    if route.scope is not Scope.PUBLIC:
        found |= {401, 503}
    if "{" in route.path:
        found |= {404}
    if route.api is Api.OLLAMA and route.kind is Kind.LOCAL:
        found |= {404}
    if route.path.endswith("health"):
        found |= {503}
    if route.kind is not Kind.LOCAL:
        found |= {404, 429, 502, 504}
    return tuple(sorted(found))


def _success(route: Route) -> dict[str, Any]:
    if route.path in ("/metrics", "/engine/metrics"):
        return {"description": "Numbers for Prometheus.", "content": {"text/plain": {"schema": TEXT}}}
    schema = GENERATED[route.api] if route.kind is Kind.GENERATE else ANSWERS[route.path]
    answer: dict[str, Any] = {"description": "The answer.", "content": {"application/json": {"schema": schema}}}
    if route.kind in (Kind.GENERATE, Kind.UPLOAD):
        lines = route.api is Api.OLLAMA
        answer["content"]["application/x-ndjson" if lines else "text/event-stream"] = {"schema": EVENT}
    if route.kind is not Kind.LOCAL:
        answer["headers"] = OF_AN_ANSWER
    return answer


def _error(api: Api, status: int) -> dict[str, Any]:
    own = OWN_ERRORS.get(api, "Error")
    schema: Schema = {"$ref": f"#/components/schemas/{own}"}
    if own != "Error" and status in PROTOCOL:
        schema = {"anyOf": [schema, {"$ref": "#/components/schemas/Error"}]}
    answer: dict[str, Any] = {
        "description": f"{REASONS[status]}.",
        "content": {"application/json": {"schema": schema}},
        "headers": {"X-Request-Id": X_REQUEST_ID},
    }
    if status in (429, 502, 503):
        answer["headers"] = {**answer["headers"], "Retry-After": RETRY_AFTER}
    return answer
