"""Events of several turns as those of one response: one id, one count of events and items. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

KEEP_ALIVE = b": keep-alive\n\n"
FIRST = frozenset({"response.created", "response.queued", "response.in_progress"})
LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})
USAGE = ("input_tokens", "output_tokens", "total_tokens")
DETAILS = (("input_tokens_details", "cached_tokens"), ("output_tokens_details", "reasoning_tokens"))


class Events:
    """The response that the client sees. `hosted` names the functions whose calls it does not see as such."""

    def __init__(self, asked: Mapping[str, Any], hosted: Collection[str]) -> None:
        self.output: list[dict[str, Any]] = []
        self._asked, self._hosted = asked, hosted
        self._base: dict[str, Any] = {}  # the first turn's response: its id and time
        self._usage: dict[str, Any] = {}
        self._number = 0
        self._places: dict[int, int] = {}  # of the turn's items: place in the turn -> place in the response

    def next_turn(self) -> None:
        """Another turn begins."""
        self._places = {}

    def passed(self, event: Mapping[str, Any]) -> bytes:
        """What the client gets for an event of a turn; nothing for those of hosted calls and further begins."""
        kind = str(event.get("type"))
        if kind in FIRST:
            first = not self._base or kind not in ("response.created",)
            if self._base and self._number > 1:
                return b""
            self._base = self._base or dict(event["response"])
            return self.made(kind, response=self._response(self._base, "in_progress")) if first else b""
        if kind in LAST:
            self._count(event["response"].get("usage"))
            return b""
        if "output_index" not in event:
            return self.made(kind, **{k: v for k, v in event.items() if k not in ("type", "sequence_number")})
        return self._of_item(kind, event)

    def _of_item(self, kind: str, event: Mapping[str, Any]) -> bytes:
        place = int(event["output_index"])
        if kind == "response.output_item.added":
            if self.is_hosted(event["item"]):
                return b""
            self._places[place] = len(self.output)
            self.output.append(dict(event["item"]))
        if place not in self._places:
            return b""
        if kind == "response.output_item.done":
            self.output[self._places[place]] = dict(event["item"])
        rest = {k: v for k, v in event.items() if k not in ("type", "sequence_number", "output_index")}
        return self.made(kind, output_index=self._places[place], **rest)

    def is_hosted(self, item: Mapping[str, Any]) -> bool:
        """Whether an item is the call of a hosted tool."""
        return item.get("type") == "function_call" and item.get("name") in self._hosted

    def code_began(self, item: dict[str, Any]) -> bytes:
        """Events of a `code_interpreter_call` that begins; its code is known as a whole."""
        place = len(self.output)
        self.output.append(item)
        code, where = item["code"], {"output_index": place, "item_id": item["id"]}
        return b"".join(
            (
                self.made("response.output_item.added", output_index=place, item={**item, "code": ""}),
                self.made("response.code_interpreter_call.in_progress", **where),
                self.made("response.code_interpreter_call_code.delta", **where, delta=code),
                self.made("response.code_interpreter_call_code.done", **where, code=code),
                self.made("response.code_interpreter_call.interpreting", **where),
            )
        )

    def code_ended(self, item: dict[str, Any]) -> bytes:
        """Events of a `code_interpreter_call` that has run: the last one that began."""
        place = max(i for i, kept in enumerate(self.output) if kept.get("id") == item["id"])
        self.output[place] = item
        done = self.made("response.code_interpreter_call.completed", output_index=place, item_id=item["id"])
        return done + self.made("response.output_item.done", output_index=place, item=item)

    def ended(self, reason: str) -> bytes:
        """The last event; `reason` says why the response is incomplete."""
        kind = "response.incomplete" if reason else "response.completed"
        return self.made(kind, response=self.response(reason))

    def failed(self, error: Mapping[str, Any]) -> bytes:
        """The last event of a response that failed."""
        response = {**self._response(self._base, "failed"), "error": error}
        return self.made("response.failed", response=response)

    def response(self, reason: str) -> dict[str, Any]:
        """The whole response at its end."""
        made = self._response(self._base, "incomplete" if reason else "completed")
        return {**made, "incomplete_details": {"reason": reason} if reason else None, "usage": self._usage or None}

    def made(self, kind: str, **rest: Any) -> bytes:
        """One event as bytes."""
        body = {"type": kind, "sequence_number": self._number, **rest}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps(body, ensure_ascii=False).encode())

    def _response(self, base: Mapping[str, Any], status: str) -> dict[str, Any]:
        echoed = {k: self._asked[k] for k in ("tools", "tool_choice", "max_tool_calls") if k in self._asked}
        return {**base, **echoed, "status": status, "store": False, "output": list(self.output)}

    def _count(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        for name in USAGE:
            self._usage[name] = self._usage.get(name, 0) + int(usage.get(name) or 0)
        for name, inner in DETAILS:
            more = (usage.get(name) or {}).get(inner) or 0
            self._usage[name] = {inner: self._usage.get(name, {}).get(inner, 0) + more}
