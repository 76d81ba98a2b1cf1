"""Asks a running endpoint and passes the answer on as it streams. httpx.

A model's output is not trusted with the terminal: control characters are removed before anything is shown, because
escape sequences can rewrite a screen or a clipboard.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemotron_ops.errors import EngineError

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
FIRST_BYTE_S = 900.0  # a queued request shows nothing until its slot starts


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A finished answer. `tokens_per_s` and `prompt_tokens_per_s` are llama-server's own timings, None if absent."""

    reasoning: str
    content: str
    finish_reason: str
    tokens: int
    tokens_per_s: float | None
    prompt_tokens_per_s: float | None


def ask(
    base_url: str,
    *,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    api_key: str = "",
    on_text: Callable[[str, bool], None] = lambda text, thinking: None,
    **fields: Any,
) -> Answer:
    """Stream one chat completion from `base_url` (ending in /v1); `on_text(text, thinking)` gets each piece.

    Raises EngineError if the endpoint is away, refuses, or the answer breaks off.
    """
    import httpx

    body = {"model": model, "messages": list(messages), "stream": True, "timings_per_token": True, **fields}
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    timeout = httpx.Timeout(10.0, read=FIRST_BYTE_S)
    try:
        with (
            httpx.Client(trust_env=False, timeout=timeout) as client,
            client.stream("POST", f"{base_url}/chat/completions", json=body, headers=headers) as response,
        ):
            if response.status_code != 200:
                response.read()
                raise EngineError(f"cannot ask {model}: {_message(response.text)} (HTTP {response.status_code})")
            return _collect(_events(response.iter_lines()), on_text)
    except httpx.HTTPError as exc:
        raise EngineError(
            f"cannot ask {model}: {str(exc) or type(exc).__name__}", hint="see `nemotron-ops status`"
        ) from exc


def printable(text: str) -> str:
    """`text` without control characters other than newline and tab."""
    return CONTROL.sub("", text)


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            return
        event = json.loads(line[6:])
        if "error" in event:
            raise EngineError(f"cannot finish the answer: {event['error'].get('message', event['error'])}")
        yield event
    raise EngineError("cannot finish the answer: the stream ended early")


def _collect(events: Iterable[Mapping[str, Any]], on_text: Callable[[str, bool], None]) -> Answer:
    parts: dict[bool, list[str]] = {True: [], False: []}
    finish = ""
    timings: Mapping[str, Any] = {}
    for event in events:
        timings = event.get("timings") or timings
        for choice in event.get("choices", ()):
            finish = choice.get("finish_reason") or finish
            for key, thinking in (("reasoning_content", True), ("content", False)):
                if text := choice.get("delta", {}).get(key):
                    parts[thinking].append(text)
                    on_text(printable(text), thinking)
    return Answer(
        reasoning="".join(parts[True]),
        content="".join(parts[False]),
        finish_reason=finish,
        tokens=int(timings.get("predicted_n", 0)),
        tokens_per_s=timings.get("predicted_per_second"),
        prompt_tokens_per_s=timings.get("prompt_per_second"),
    )


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200] or "no reason given"
