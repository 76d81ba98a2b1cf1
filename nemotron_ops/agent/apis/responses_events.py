"""Events of several turns as those of one response: one id, one count of events and items. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from nemotron_ops.agent.apis.citing import Marks
from nemotron_ops.web.citations import Citation, Source, responses_annotation

FIRST = frozenset({"response.created", "response.queued", "response.in_progress"})
LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})
USAGE = ("input_tokens", "output_tokens", "total_tokens")
DETAILS = (("input_tokens_details", "cached_tokens"), ("output_tokens_details", "reasoning_tokens"))
ECHOED = ("tools", "tool_choice", "max_tool_calls")


class Events:
    """The response that the client sees. `hosted` names the functions whose calls it does not see as such."""

    def __init__(self, asked: Mapping[str, Any], hosted: Collection[str], sources: Mapping[int, Source]) -> None:
        self.output: list[dict[str, Any]] = []
        self._asked, self._hosted, self._sources = asked, hosted, sources
        self._base: dict[str, Any] = {}  # the first turn's response: its id and time
        self._usage: dict[str, Any] = {}
        self._number = 0
        self._places: dict[int, int] = {}  # of the turn's items: place in the turn -> place in the response
        self._marks: dict[tuple[str, int], Marks] = {}  # by item and part: of the texts that grow
        self._held: list[tuple[str, dict[str, Any]]] = []  # events of calls that ran before the first turn

    def next_turn(self) -> None:
        """Another turn begins."""
        self._places = {}
        self._marks = {}

    def passed(self, event: Mapping[str, Any]) -> bytes:
        """What the client gets for an event of a turn; nothing for those of hosted calls and further begins."""
        kind = str(event.get("type"))
        if kind in FIRST:
            if self._base and self._number > 1:
                return b""
            self._base = self._base or dict(event["response"])
            begun = {**self._response(self._base, "in_progress"), "output": []}
            held, self._held = (self._held, []) if kind == "response.in_progress" else ([], self._held)
            return self.made(kind, response=begun) + b"".join(self.made(k, **rest) for k, rest in held)
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
        at = self._places[place]
        rest = {k: v for k, v in event.items() if k not in ("type", "sequence_number", "output_index")}
        before = b""
        if kind == "response.output_text.delta":
            new = self._marks_of(rest).add(str(rest["delta"]))
            return self.made(kind, output_index=at, **rest) + self._annotations(at, rest, new)
        if kind == "response.output_text.done":
            before = self._annotations(at, rest, self._marks_of(rest).end())
        elif kind == "response.content_part.done":
            rest["part"] = self._cited(str(rest.get("item_id")), int(rest.get("content_index") or 0), rest["part"])
        elif kind == "response.output_item.done":
            rest["item"] = self.output[at] = self._cited_item(rest["item"])
        return before + self.made(kind, output_index=at, **rest)

    # citations

    def _marks_of(self, event: Mapping[str, Any]) -> Marks:
        key = (str(event.get("item_id")), int(event.get("content_index") or 0))
        return self._marks.setdefault(key, Marks(self._sources))

    def _annotations(self, place: int, event: Mapping[str, Any], new: list[Citation]) -> bytes:
        known = len(self._marks_of(event).found) - len(new)
        where = {"output_index": place, "item_id": event.get("item_id"), "content_index": event.get("content_index", 0)}
        return b"".join(
            self.made(
                "response.output_text.annotation.added", **where, annotation_index=number,
                annotation=responses_annotation(it),
            )
            for number, it in enumerate(new, known)
        )  # fmt: skip

    def _cited(self, item_id: str, index: int, part: Mapping[str, Any]) -> dict[str, Any]:
        marks = self._marks.get((item_id, index))
        if marks is None or not marks.found or part.get("type") != "output_text":
            return dict(part)
        return {**part, "annotations": [responses_annotation(it) for it in marks.found]}

    def _cited_item(self, item: Mapping[str, Any]) -> dict[str, Any]:
        if item.get("type") != "message" or not self._marks:
            return dict(item)
        parts = [self._cited(str(item.get("id")), n, part) for n, part in enumerate(item.get("content") or ())]
        return {**item, "content": parts}

    # hosted calls

    def is_hosted(self, item: Mapping[str, Any]) -> bool:
        """Whether an item is the call of a hosted tool."""
        return item.get("type") == "function_call" and item.get("name") in self._hosted

    def began(self, item: dict[str, Any], added: dict[str, Any], between: Any) -> bytes:
        """Events of an item that begins."""
        place = len(self.output)
        self.output.append(item)
        return self.made("response.output_item.added", output_index=place, item=added) + self._between(place, between)

    def ended(self, item: dict[str, Any], between: Any) -> bytes:
        """Events of an item that has ended: the last one with its id that began."""
        place = max(i for i, kept in enumerate(self.output) if kept.get("id") == item["id"])
        self.output[place] = item
        last = self._between(place, between)
        return last + self.made("response.output_item.done", output_index=place, item=item)

    def _between(self, place: int, between: Any) -> bytes:
        item_id = self.output[place]["id"]
        return b"".join(self.made(kind, output_index=place, item_id=item_id, **rest) for kind, rest in between)

    # the end

    def finished(self, reason: str) -> bytes:
        """The last event; `reason` says why the response is incomplete."""
        kind = "response.incomplete" if reason else "response.completed"
        return self.made(kind, response=self.response(reason))

    def failed(self, error: Mapping[str, Any]) -> bytes:
        """The last event of a response that failed."""
        response = {**self._response(self._base, "failed"), "error": error}
        return self.made("response.failed", response=response)

    def response(self, reason: str) -> dict[str, Any]:
        """The whole response at its end."""
        for item in self.output if reason else ():
            if item.get("status") == "in_progress":
                item["status"] = "incomplete"  # the budget ended while it grew or ran
        made = self._response(self._base, "incomplete" if reason else "completed")
        return {**made, "incomplete_details": {"reason": reason} if reason else None, "usage": self._usage or None}

    def made(self, kind: str, **rest: Any) -> bytes:
        """One event as bytes; one before the response has its id waits for it."""
        if not self._base:
            self._held.append((kind, rest))
            return b""
        body = {"type": kind, "sequence_number": self._number, **rest}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps(body, ensure_ascii=False).encode())

    def _response(self, base: Mapping[str, Any], status: str) -> dict[str, Any]:
        echoed = {k: self._asked[k] for k in ECHOED if k in self._asked}
        return {**base, **echoed, "status": status, "store": False, "output": list(self.output)}

    def _count(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        for name in USAGE:
            self._usage[name] = self._usage.get(name, 0) + int(usage.get(name) or 0)
        for name, inner in DETAILS:
            more = (usage.get(name) or {}).get(inner) or 0
            self._usage[name] = {inner: self._usage.get(name, {}).get(inner, 0) + more}
