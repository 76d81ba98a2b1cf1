"""Turns a request of Ollama's API into one of the engine's chat or embeddings API. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemotron_ops.gateway.ollama.messages import chat_messages, content
from nemotron_ops.gateway.ollama.options import chat_options, invalid, unsupported

Body = dict[str, Any]
# `keep_alive` changes no answer: what stays loaded is decided where it is served.
CHAT = frozenset({"model", "messages", "tools", "format", "options", "stream", "think", "keep_alive"})
GENERATE = frozenset({"model", "prompt", "system", "images", "format", "options", "stream", "think", "keep_alive"})
EMBED = frozenset({"model", "input", "truncate", "dimensions", "options", "keep_alive"})
OLD_EMBED = frozenset({"model", "prompt", "options", "keep_alive"})
LEVELS = frozenset({"low", "medium", "high"})
NONE: tuple[Any, ...] = (None, "", [], False)  # fields that say nothing


def model_name(value: Any) -> str:
    """The model's name without Ollama's `:latest`. Raises Refusal."""
    if not isinstance(value, str | None):
        raise invalid("model: expected text")
    return (value or "").removesuffix(":latest")


def chat_body(body: Mapping[str, Any], ctx_tokens: int) -> Body:
    """`/api/chat` as a chat. Raises Refusal."""
    _check(body, CHAT)
    found = _common(body, ctx_tokens)
    found["messages"] = chat_messages(body.get("messages"))
    if body.get("tools"):
        found["tools"] = body["tools"]
    return found


def generate_body(body: Mapping[str, Any], ctx_tokens: int) -> Body:
    """`/api/generate` as a chat. Raises Refusal, also for a prompt that is to be used without the chat template."""
    if body.get("raw") or body.get("suffix"):
        raise unsupported("raw, suffix: use /v1/completions or /infill")
    _check(body, GENERATE)
    prompt = content(body.get("prompt"), body.get("images"), "prompt")
    if not prompt:
        raise invalid("prompt: expected text; models are loaded and unloaded with `nemotron-ops start` and `stop`")
    messages = [{"role": "user", "content": prompt}]
    if system := body.get("system"):
        messages.insert(0, {"role": "system", "content": system})
    return {**_common(body, ctx_tokens), "messages": messages}


def embed_body(body: Mapping[str, Any], ctx_tokens: int) -> Body:
    """`/api/embed`, or the older `/api/embeddings`, as a request for embeddings. Raises Refusal.

    No text is cut, whatever `truncate` says: the engine refuses one that is too long, with its number of tokens.
    """
    _check(body, OLD_EMBED if "prompt" in body else EMBED)
    if not isinstance(body.get("truncate"), bool | None):
        raise invalid("truncate: expected true or false")
    chat_options(body.get("options"), ctx_tokens)
    found: Body = {"model": model_name(body.get("model")), "input": body.get("prompt", body.get("input"))}
    if body.get("dimensions") is not None:
        found["dimensions"] = body["dimensions"]
    return found


def _check(body: Mapping[str, Any], known: frozenset[str]) -> None:
    unknown = sorted(name for name in body.keys() - known if body[name] not in NONE)
    if unknown:
        raise unsupported(f"{unknown[0][:60]}: there is no such field here")


def _common(body: Mapping[str, Any], ctx_tokens: int) -> Body:
    stream = body.get("stream")
    if not isinstance(stream, bool | None):
        raise invalid("stream: expected true or false")
    found: Body = {"model": model_name(body.get("model")), **chat_options(body.get("options"), ctx_tokens)}
    found["stream"] = stream is not False
    if found["stream"]:
        found["stream_options"] = {"include_usage": True}
    think = body.get("think")
    if isinstance(think, str) and think in LEVELS:
        found["reasoning_effort"] = think
    elif isinstance(think, bool):
        found["chat_template_kwargs"] = {"enable_thinking": think}
    elif think is not None:
        raise invalid("think: expected true, false, low, medium or high")
    return found | _format(body.get("format"))


def _format(wanted: Any) -> Body:
    if wanted in (None, ""):
        return {}
    if wanted == "json":
        return {"response_format": {"type": "json_object"}}
    if isinstance(wanted, dict):
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}}
    raise invalid('format: expected "json" or a JSON schema')
