"""Asks an endpoint on this machine one question: `python -m nemotron_ops.deploy.on_target.canary PORT [HOST]`. HTTP.

Runs on the target, from the release that is being tried. Prints one JSON line; exit code 0 if an answer came, or if
the endpoint requires a key (then it is up; the canary has no key).
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

PROMPT = "What is 2 + 2?"
MAX_TOKENS = 32
SETTLE_S = 20.0
POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The outcome: "answered", "closed" (a key is required) or "failed", with details."""

    outcome: str
    model: str = ""
    text: str = ""
    tokens: int = 0
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.outcome != "failed"


def ask(port: int, *, host: str = "127.0.0.1", model: str = "", timeout_s: float = 300.0) -> Answer:
    """Ask the first model of the endpoint (or `model`) one question; failures of the endpoint do not raise."""
    try:
        if not model:
            status, models = _models(host, port, timeout_s)
            if status in (401, 403):
                return Answer(outcome="closed")
            if not models:
                return Answer(outcome="failed", reason=f"GET /v1/models: {status}, no models")
            model = models[0]
        request = {"model": model, "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": PROMPT}]}
        status, body = _call(host, port, "POST", "/v1/chat/completions", request, timeout_s)
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as exc:
        return Answer(outcome="failed", model=model, reason=f"{type(exc).__name__}: {exc}")
    if status in (401, 403):
        return Answer(outcome="closed", model=model)
    return judge(status, body, model=model)


def judge(status: int, body: Any, *, model: str) -> Answer:
    """Whether `body` is an answer: text or reasoning, and at least one token."""
    try:
        message = body["choices"][0]["message"]
        text = f"{message.get('reasoning_content') or ''} {message.get('content') or ''}".strip()
        tokens = int(body["usage"]["completion_tokens"])
    except (LookupError, TypeError, ValueError, AttributeError):
        return Answer(outcome="failed", model=model, reason=f"{status} {body!r}"[:300])
    if status != 200 or not text or tokens < 1:
        return Answer(outcome="failed", model=model, reason=f"{status}, {tokens} tokens, text {text!r}")
    return Answer(outcome="answered", model=model, text=text, tokens=tokens)


def _models(host: str, port: int, timeout_s: float) -> tuple[int, list[str]]:
    """The names of the endpoint's models; retries, because a gateway that has just started may not know them yet."""
    deadline = time.monotonic() + min(timeout_s, SETTLE_S)
    while True:
        status, body = _call(host, port, "GET", "/v1/models", None, timeout_s)
        names = [str(m["id"]) for m in body["data"]] if status == 200 else []
        if names or status in (401, 403) or time.monotonic() > deadline:
            return status, names
        time.sleep(POLL_S)


def _call(host: str, port: int, method: str, path: str, value: Any, timeout_s: float) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        body = None if value is None else json.dumps(value)
        connection.request(method, path, body=body, headers={"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text
    finally:
        connection.close()


def main(argv: list[str]) -> int:
    answer = ask(int(argv[0]), host=argv[1] if len(argv) > 1 else "127.0.0.1")
    sys.stdout.write(json.dumps(asdict(answer)) + "\n")
    return 0 if answer.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
