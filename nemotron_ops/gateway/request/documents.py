"""Documents in requests: text documents become text of the message, others are refused. Pure.

llama-server has no documents: its messages API leaves out each content block that it does not know, without an error
(server_chat_convert_anthropic_to_oai, tools/server/server-chat.cpp, v0.5.0).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.request.json_fields import put, read_fields
from nemotron_ops.gateway.streams.sse import NOT_JSON

# Types that llama-server reads, and those without meaning for another model (encrypted thoughts, cache hints).
KNOWN = ("text", "thinking", "redacted_thinking", "tool_use", "tool_result", "ephemeral")
OTHERS = re.compile(rb'"type"\s*:\s*"(?!(?:%b)")' % "|".join(KNOWN).encode())
TEXT_TYPES = re.compile(r"text/|application/(?:json|xml|yaml|x-yaml|toml|javascript|x-sh|.*\+(?:json|xml)\b)")
DATA_URL = re.compile(r"data:([^;,]*)(?:;[^;,]*)*?(;base64)?,(.*)", re.DOTALL)
IN_SYSTEM = frozenset({"text"})
IN_RESULT = frozenset({"text", "image"})
IN_MESSAGE = frozenset({*KNOWN, "image"}) - {"ephemeral"}
TEXT_ONLY = "only text documents are read here; send the document's text"


def with_text_documents(body: bytes) -> bytes:
    """A body of the messages API, its documents as text; the same if it has none. Raises Refusal.

    Raises also for blocks that llama-server would leave out.
    """
    if body.find(b'"type"') < 0:
        return body
    fields, changed = read_fields(body), False
    for name in ("system", "messages"):
        raw = bytes(fields.get(name, b""))
        if raw[:1] != b"[" or not OTHERS.search(raw):
            continue
        try:
            value = msgspec.json.decode(raw)
        except NOT_JSON:
            continue  # refused where it is read
        mended = _blocks(value, IN_SYSTEM, name) if name == "system" else _messages(value)
        if mended != value:
            put(fields, name, mended)
            changed = True
    return msgspec.json.encode(fields) if changed else body


def _messages(messages: list[Any]) -> list[Any]:
    return [
        {**turn, "content": _blocks(turn["content"], IN_MESSAGE, f"messages[{place}].content")}
        if isinstance(turn, dict) and isinstance(turn.get("content"), list)
        else turn
        for place, turn in enumerate(messages)
    ]


def _blocks(blocks: list[Any], known: frozenset[str], place: str) -> list[Any]:
    return [_block(block, known, f"{place}[{n}]") for n, block in enumerate(blocks)]


def _block(block: Any, known: frozenset[str], place: str) -> Any:
    """One block of a message, of a tool's result or of the system prompt. Raises Refusal for one of no known type."""
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str):
        raise refused(place, "blocks without a type are not read here")
    if kind == "document":
        return {"type": "text", "text": _document(block, place)}
    if kind == "search_result":
        found = _texts(block.get("content"), place)
        return {"type": "text", "text": titled((block.get("title"), block.get("source")), found)}
    if kind not in known:
        raise refused(place, f"blocks of type {kind[:60]!r} are not read here")
    if kind == "image" and _of(block, "source").get("type") not in ("base64", "url"):
        raise refused(place, "images are read as base64 only; files are not kept here")
    if kind == "tool_result" and isinstance(content := block.get("content"), list):
        return {**block, "content": _blocks(content, IN_RESULT, f"{place}.content")}
    return block


def _document(block: Mapping[str, Any], place: str) -> str:
    """A document's title, context and text."""
    if _of(block, "citations").get("enabled") is True:
        raise refused(place, "citations are not written here; leave `citations` out")
    source = _of(block, "source")
    match source.get("type"):
        case "text":
            text = source.get("data")
        case "content":
            text = _texts(source.get("content"), place)
        case "base64":
            text = decoded(str(source.get("media_type")), str(source.get("data")))
        case "url":
            message = f"{place}: only inline data is accepted, not an address"
            raise Refusal(status=400, code="remote_media", message=message)
        case _:
            text = None
    if not isinstance(text, str):
        raise refused(place, TEXT_ONLY)
    return titled((block.get("title"), block.get("context")), text)


def titled(lines: Iterable[Any], text: str) -> str:
    """A document as text: `lines`, such as its title, and what it says."""
    head = "\n".join(line for line in lines if isinstance(line, str) and line)
    return f"{head}\n\n{text}" if head else text


def file_text(file_data: str) -> str | None:
    """The text of a file that is a `data:` URL; None if it holds no text."""
    match = DATA_URL.fullmatch(file_data)
    if match is None:
        return None
    kind, coded, data = match.groups()
    return decoded(kind or "text/plain", data) if coded else None


def decoded(media_type: str, data: str) -> str | None:
    """The text in base64 data; None if it is none."""
    if not TEXT_TYPES.match(media_type.lower()):
        return None
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError):  # a UnicodeDecodeError is one
        return None


def _texts(content: Any, place: str) -> str:
    """The texts of a list of blocks. Raises Refusal if it holds other blocks."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = [p.get("text") if isinstance(p, dict) and p.get("type") == "text" else None for p in parts]
    if any(not isinstance(text, str) for text in texts):
        raise refused(place, TEXT_ONLY)
    return "\n".join(str(text) for text in texts)


def _of(block: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = block.get(name)
    return value if isinstance(value, dict) else {}


def refused(place: str, why: str) -> Refusal:
    """The Refusal of content that would not reach the model."""
    return Refusal(status=400, code="invalid_input", message=f"{place}: {why}")
