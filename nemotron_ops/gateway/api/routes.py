"""The gateway's paths: the scope that each requires, its kind, and the API of its errors. Pure.

A route has the scope that a key needs (`scope`), how a request is processed (`kind`), and the API in whose shape errors
are written (`api`). Other paths of llama-server are not reachable.

    kind        body      takes a slot   answer
    GENERATE    JSON      yes            a stream of events, or one JSON object
    POOL        JSON      yes            one JSON object (embeddings, rerank)
    LIGHT       JSON      no             one JSON object (tokenize, count_tokens ...)
    UPLOAD      form      yes            events, or one JSON object (audio)
    STEER       JSON      no             one JSON object: controls a stream that is running
    INSPECT     any       no             a page of the instance, for the admin scope
    STORE       any       no             files and batches, which the gateway keeps on disk
    LOCAL       none      no             the gateway itself answers
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Api(StrEnum):
    """The protocol that a path belongs to."""

    CHAT = "chat"
    COMPLETION = "completion"
    RESPONSES = "responses"
    MESSAGES = "messages"
    OLLAMA = "ollama"
    NATIVE = "native"
    OTHER = "other"


class Kind(StrEnum):
    """How a request is processed; the module's docstring has the table."""

    GENERATE = "generate"
    POOL = "pool"
    LIGHT = "light"
    UPLOAD = "upload"
    STEER = "steer"
    INSPECT = "inspect"
    STORE = "store"
    LOCAL = "local"


INFERS = frozenset({Kind.GENERATE, Kind.POOL, Kind.LIGHT, Kind.UPLOAD})  # kinds that a model answers


class Scope(StrEnum):
    """What a key is allowed to do. PUBLIC needs no key."""

    PUBLIC = "public"
    INFERENCE = "inference"
    METRICS = "metrics"
    TOOLS = "tools"
    ADMIN = "admin"


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """One path of the gateway. `upstream` is the path at llama-server; `native` ones can be switched off."""

    method: str
    path: str
    kind: Kind
    scope: Scope
    api: Api
    upstream: str
    about: str
    native: bool = False
    infers: bool = field(init=False)  # a model answers it
    generates: bool = field(init=False)  # the model generates text
    light: bool = field(init=False)  # the model needs no slot
    form: bool = field(init=False)
    plain: bool = field(init=False)  # the body is prepared as it came; others are read first
    local: bool = field(init=False)
    wire: Api = field(init=False)  # the API that is spoken with llama-server

    def __post_init__(self) -> None:
        for name, kinds in (
            ("infers", INFERS), ("generates", {Kind.GENERATE}), ("light", {Kind.LIGHT}), ("form", {Kind.UPLOAD}),
            ("local", {Kind.LOCAL}),
        ):  # fmt: skip
            object.__setattr__(self, name, self.kind in kinds)
        object.__setattr__(self, "wire", _wire(self.api, self.kind))
        object.__setattr__(self, "plain", not self.form and self.wire is self.api and self.api is not Api.MESSAGES)


def _wire(api: Api, kind: Kind) -> Api:
    """The API that is spoken with llama-server for a route of `api`."""
    if api is Api.OLLAMA:
        return Api.CHAT if kind is Kind.GENERATE else Api.OTHER
    return Api.CHAT if api is Api.RESPONSES else api


def _post(
    path: str, about: str, *, kind: Kind = Kind.GENERATE, api: Api = Api.OTHER, native: bool = False,
    upstream: str = "", scope: Scope = Scope.INFERENCE,
) -> Route:  # fmt: skip
    return Route(
        method="POST", path=path, kind=kind, scope=scope, api=api, upstream=upstream or path, about=about,
        native=native,
    )  # fmt: skip


def _get(path: str, about: str, *, scope: Scope, kind: Kind = Kind.LOCAL) -> Route:
    return Route(method="GET", path=path, kind=kind, scope=scope, api=Api.OTHER, upstream=path, about=about)


def _ollama(
    path: str,
    about: str,
    *,
    method: str = "POST",
    kind: Kind = Kind.LOCAL,
    upstream: str = "",
    scope: Scope = Scope.INFERENCE,
) -> Route:
    return Route(method=method, path=path, kind=kind, scope=scope, api=Api.OLLAMA, upstream=upstream, about=about)


CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"

ROUTES: tuple[Route, ...] = (
    _get("/health", "200 when at least one model can answer, else 503.", scope=Scope.PUBLIC),
    _get("/v1/health", "The same as /health.", scope=Scope.PUBLIC),
    _get("/v1/models", "The models that can be asked for.", scope=Scope.INFERENCE),
    _get("/models", "The same as /v1/models.", scope=Scope.INFERENCE),
    _get("/metrics", "Prometheus metrics of the gateway.", scope=Scope.METRICS),
    _get("/openapi.json", "This list, as OpenAPI.", scope=Scope.PUBLIC),
    _post("/v1/chat/completions", "OpenAI chat.", api=Api.CHAT),
    _post("/chat/completions", "OpenAI chat.", api=Api.CHAT, upstream="/v1/chat/completions"),
    _post("/v1/chat/completions/control", "End the thinking of a chat that is running.", kind=Kind.STEER, api=Api.CHAT),
    _post("/v1/completions", "OpenAI text completion.", api=Api.COMPLETION),
    _post("/v1/responses", "OpenAI responses.", api=Api.RESPONSES, upstream=CHAT),
    _post("/responses", "OpenAI responses.", api=Api.RESPONSES, upstream=CHAT),
    _post("/v1/messages", "Anthropic messages.", api=Api.MESSAGES),
    _post("/v1/messages/count_tokens", "Tokens of an Anthropic request.", kind=Kind.LIGHT, api=Api.MESSAGES),
    _post("/v1/chat/completions/input_tokens", "Tokens of a chat request.", kind=Kind.LIGHT, api=Api.CHAT),
    _post(
        "/v1/responses/input_tokens",
        "Tokens of a responses request.",
        kind=Kind.LIGHT,
        api=Api.RESPONSES,
        upstream="/v1/chat/completions/input_tokens",
    ),
    _post(
        "/chat/completions/input_tokens",
        "Tokens of a chat request.",
        kind=Kind.LIGHT,
        api=Api.CHAT,
        upstream="/v1/chat/completions/input_tokens",
    ),
    _post(
        "/responses/input_tokens",
        "Tokens of a responses request.",
        kind=Kind.LIGHT,
        api=Api.RESPONSES,
        upstream="/v1/chat/completions/input_tokens",
    ),
    _post("/v1/embeddings", "OpenAI embeddings.", kind=Kind.POOL),
    _post("/embeddings", "llama-server's embeddings.", kind=Kind.POOL, native=True),
    _post("/embedding", "llama-server's embeddings.", kind=Kind.POOL, native=True),
    _post("/v1/rerank", "Jina rerank.", kind=Kind.POOL),
    _post("/v1/reranking", "Jina rerank.", kind=Kind.POOL, upstream="/v1/rerank"),
    _post("/rerank", "Jina rerank.", kind=Kind.POOL, upstream="/v1/rerank"),
    _post("/reranking", "Jina rerank.", kind=Kind.POOL, upstream="/v1/rerank"),
    _post("/v1/audio/transcriptions", "OpenAI transcription.", kind=Kind.UPLOAD),
    _post("/audio/transcriptions", "OpenAI transcription.", kind=Kind.UPLOAD, upstream="/v1/audio/transcriptions"),
    _post("/completion", "llama-server's own completion.", api=Api.NATIVE, native=True),
    _post("/completions", "llama-server's own completion.", api=Api.NATIVE, native=True),
    _post("/infill", "Fill in the middle.", api=Api.NATIVE, native=True),
    _post("/tokenize", "Text to tokens.", kind=Kind.LIGHT, native=True),
    _post("/detokenize", "Tokens to text.", kind=Kind.LIGHT, native=True),
    _post("/apply-template", "A chat as the prompt that the model sees.", kind=Kind.LIGHT, native=True),
    _ollama("/api/chat", "Ollama's chat.", kind=Kind.GENERATE, upstream=CHAT),
    _ollama("/api/generate", "Ollama's completion, as a chat of one turn.", kind=Kind.GENERATE, upstream=CHAT),
    _ollama("/api/embed", "Ollama's embeddings.", kind=Kind.POOL, upstream=EMBEDDINGS),
    _ollama("/api/embeddings", "Ollama's older embeddings.", kind=Kind.POOL, upstream=EMBEDDINGS),
    _ollama("/api/tags", "The models, as Ollama lists them.", method="GET"),
    _ollama("/api/ps", "The models that are loaded, as Ollama lists them.", method="GET"),
    _ollama("/api/version", "The version of Ollama's API that is spoken.", method="GET"),
    _ollama("/api/show", "One model, as Ollama shows it."),
    _ollama("/api/pull", "Refused: `nemotron-ops add MODEL` does it."),
    _ollama("/api/push", "Refused: nothing here publishes models."),
    _ollama("/api/create", "Refused: `nemotron-ops recipes new NAME` does it."),
    _ollama("/api/copy", "Refused: `nemotron-ops recipes new NAME --from RECIPE` does it."),
    _ollama("/api/delete", "Refused: `nemotron-ops remove MODEL` does it.", method="DELETE"),
    *(
        _get(path, about, scope=Scope.INFERENCE, kind=Kind.STORE)
        for path, about in (("/v1/files", "The files that this key has."), ("/v1/batches", "The batches of this key."))
    ),
    _post("/v1/files", "Upload a file for a batch.", kind=Kind.STORE),
    _post("/v1/batches", "Run the requests in a file when nothing else waits.", kind=Kind.STORE),
    _get("/props", "llama-server's properties (?model=).", scope=Scope.ADMIN, kind=Kind.INSPECT),
    _get("/slots", "llama-server's slots (?model= or ?instance=).", scope=Scope.ADMIN, kind=Kind.INSPECT),
    _get("/lora-adapters", "llama-server's adapters.", scope=Scope.ADMIN, kind=Kind.INSPECT),
    _get("/engine/metrics", "llama-server's own metrics (?instance=).", scope=Scope.ADMIN, kind=Kind.INSPECT),
)

_BY_PATH: dict[str, dict[str, Route]] = {}
for _route in ROUTES:
    _BY_PATH.setdefault(_route.path, {})[_route.method] = _route


def _of_response(method: str, path: str, about: str) -> Route:
    return Route(
        method=method, path=path, kind=Kind.LOCAL, scope=Scope.INFERENCE, api=Api.RESPONSES, upstream="", about=about
    )  # fmt: skip


MODEL_PATH = "/v1/models/"
MODEL_ROUTE = _get("/v1/models/{model}", "One model.", scope=Scope.INFERENCE)


RESPONSE_PATH = "/v1/responses/"
INPUT_ITEMS = "/input_items"
GET_RESPONSE = _of_response("GET", "/v1/responses/{id}", "A response that was stored.")
GET_INPUT = _of_response("GET", "/v1/responses/{id}/input_items", "The input of a response that was stored.")
DELETE_RESPONSE = _of_response("DELETE", "/v1/responses/{id}", "Delete a response that was stored.")


def _of_store(method: str, path: str, about: str) -> Route:
    return Route(
        method=method, path=path, kind=Kind.STORE, scope=Scope.INFERENCE, api=Api.OTHER, upstream="", about=about
    )  # fmt: skip


STORES = ("/v1/files/", "/v1/batches/")
OF_STORES = (
    _of_store("GET", "/v1/files/{id}", "One file."),
    _of_store("DELETE", "/v1/files/{id}", "Delete a file."),
    _of_store("GET", "/v1/files/{id}/content", "What is in a file."),
    _of_store("GET", "/v1/batches/{id}", "One batch: its state, and how many of its requests are answered."),
    _of_store("POST", "/v1/batches/{id}/cancel", "Send no further request of a batch."),
)
WITH_NAMES = (MODEL_ROUTE, GET_RESPONSE, GET_INPUT, DELETE_RESPONSE, *OF_STORES)


def find(method: str, path: str) -> Route | None:
    """The route of `method path`, or None. HEAD has the route of GET."""
    methods = _BY_PATH.get(path)
    if methods is not None:
        return methods.get("GET" if method == "HEAD" else method)
    if path.startswith(MODEL_PATH) and method in ("GET", "HEAD"):
        return MODEL_ROUTE
    if path.startswith(RESPONSE_PATH):
        return _find_response(method, path)
    return _of_stores(path).get("GET" if method == "HEAD" else method) if path.startswith(STORES) else None


def _of_stores(path: str) -> dict[str, Route]:
    """The routes of a path below `/v1/files/` or `/v1/batches/`, by method."""
    _, _, store, name, *rest = path.split("/")
    pattern = "/".join(("/v1", store, "{id}", *rest))
    return {route.method: route for route in OF_STORES if route.path == pattern and name}


def _find_response(method: str, path: str) -> Route | None:
    """The route of a path below `/v1/responses/`."""
    if path.endswith(INPUT_ITEMS):
        return GET_INPUT if method in ("GET", "HEAD") else None
    if method == "DELETE":
        return DELETE_RESPONSE
    return GET_RESPONSE if method in ("GET", "HEAD") else None


def methods(path: str) -> tuple[str, ...]:
    """The methods that `path` allows; empty if there is no such path."""
    if path.startswith(MODEL_PATH):
        return ("GET",)
    if path.startswith(RESPONSE_PATH) and path not in _BY_PATH:
        return ("GET",) if path.endswith(INPUT_ITEMS) else ("GET", "DELETE")
    if path.startswith(STORES):
        return tuple(_of_stores(path))
    return tuple(_BY_PATH.get(path, ()))
