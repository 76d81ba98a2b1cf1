"""Refuses requests whose media are not inline. Pure.

llama-server fetches the URLs in a message's parts (SSRF) and reads local files. It looks at a part's `data` first,
which it fetches too if it begins with "http", and then at its `url` (tools/server/server-common.cpp,
oaicompat_content_load_media, v0.5.0). So either must be a `data:` URL or base64.

A body may be large, and all clients wait while it is read. So its bytes are searched for the words that media need
before anything is decoded, irrelevant values stay undecoded, and parts are counted before they are decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.streams.sse import NOT_JSON

MAX_PARTS = 100_000  # objects in a field that may hold media
MAX_VALUES = 300_000  # commas, also those in texts
MAX_DEPTH = 8  # content within content; a tool result in a message is 2

PLACES = frozenset({"messages", "input", "prompt", "content", "system"})
KINDS = frozenset({"image_url", "input_image", "image", "video_url", "input_video", "input_audio", "document"})
DOCUMENT = b'"document"'
QUOTED = frozenset(b'"%b"' % kind.encode() for kind in KINDS)
WORDS = re.compile(b'"(?:%b)"' % "|".join(sorted(KINDS)).encode())
ESCAPED = re.compile(rb"\\u00[4-7]")  # an escaped letter, which hides a word from the search
INLINE = re.compile(r"data:|(?!http)[A-Za-z0-9+/=_-]*\Z", re.IGNORECASE)
SHORT_BYTES = 16384  # shorter bodies are searched as a whole, before their fields
BEGIN_CHARS = 64  # of a link, enough to tell what it is

NOTHING = msgspec.Raw(b"null")


class Part(msgspec.Struct):
    """A message, or a part of one: may be or hold media."""

    type: msgspec.Raw = NOTHING
    content: msgspec.Raw = NOTHING
    output: msgspec.Raw = NOTHING
    image_url: msgspec.Raw = NOTHING
    video_url: msgspec.Raw = NOTHING
    input_video: msgspec.Raw = NOTHING
    input_audio: msgspec.Raw = NOTHING
    source: msgspec.Raw = NOTHING
    url: msgspec.Raw = NOTHING
    file_url: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING


class Link(msgspec.Struct):
    """The object in a part that holds its media or their address."""

    type: msgspec.Raw = NOTHING
    url: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING
    file_url: msgspec.Raw = NOTHING


_parts = msgspec.json.Decoder(list[Part | str | int | float | bool | list[str | int | float] | None]).decode
_part = msgspec.json.Decoder(Part).decode
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_link = msgspec.json.Decoder(Link).decode
LINKS = ("image_url", "video_url", "input_video", "input_audio", "source", "url", "file_url", "data")


def check_media(fields: Mapping[str, msgspec.Raw], body: bytes) -> int:
    """The bytes of media in `body`, whose top level is `fields`. Raises Refusal if it has media that are not inline."""
    size = 0
    if len(body) <= SHORT_BYTES and not may_have_media(body):
        return size
    for name in PLACES & fields.keys():
        text = bytes(fields[name])
        if text[:1] in (b"[", b"{") and may_have_media(text):
            try:
                size += walk(text, 0)
            except NOT_JSON as exc:
                message = f"cannot read {name}: {exc}"
                raise Refusal(status=400, code="invalid_json", message=message) from exc
    return size


def may_have_media(text: bytes) -> bool:
    """Whether `text` has a word that media need: a part's `type`. In texts, quotes are escaped."""
    if text.find(b'"type"') >= 0 and WORDS.search(text):
        return True
    return text.find(b"\\u00") >= 0 and ESCAPED.search(text) is not None


def walk(text: bytes, depth: int) -> int:
    """The bytes of inline media in `text`.

    Raises Refusal at the first media part that is not inline, DecodeError if `text` is not content.
    """
    if depth > MAX_DEPTH or text.count(b"{") > MAX_PARTS or text.count(b",") > MAX_VALUES:
        message = "cannot read the request: its content has too many parts, or is nested too deeply"
        raise Refusal(status=400, code="invalid_json", message=message)
    size = 0
    for part in parts_in(text, depth):
        if not isinstance(part, Part):
            continue
        if (kind := bytes(part.type)) in QUOTED or (b"\\" in kind and str(msgspec.json.decode(kind)) in KINDS):
            for name in LINKS:
                if (link := getattr(part, name)) is not NOTHING:
                    size += check_link(name, bytes(link), may_be_text=name == "source" and kind == DOCUMENT)
        for inner in (part.content, part.output):
            if inner is not NOTHING and (found := bytes(inner))[:1] in (b"[", b"{"):
                size += walk(found, depth + 1)
    return size


def parts_in(text: bytes, depth: int) -> Iterable[object]:
    """The items of a list, or the one part that `text` is."""
    if text[:1] != b"[":
        return (_part(text),)
    try:
        return _parts(text)
    except msgspec.ValidationError:  # it holds lists, as no valid content does: check those too
        inner = [found for raw in _raws(text) if (found := bytes(raw))[:1] in (b"[", b"{")]
        for found in inner:
            walk(found, depth + 1)
        return ()


def check_link(name: str, link: bytes, *, may_be_text: bool = False) -> int:
    """The bytes of inline data in `link`, the JSON of a part's field. Raises Refusal if it is an address.

    `may_be_text`: the link may be a document's own text. Elsewhere llama-server reads no `type` inside a link.
    """
    if link[:1] == b"{":
        value = _link(link)
        if may_be_text and bytes(value.type) == b'"text"':
            return 0
        return sum(check_link(name, bytes(raw)) for raw in (value.url, value.data, value.file_url))
    if link[:1] == b'"':
        begin = link[1 : BEGIN_CHARS + 1]
        text = msgspec.json.decode(link, type=str)[:BEGIN_CHARS] if b"\\" in begin else begin.decode().rstrip('"')
        if not INLINE.match(text):
            raise Refusal(
                status=400, code="remote_media",
                message=f"{name}: only inline data (data:...;base64,...) is accepted, not an address",
            )  # fmt: skip
        return len(link)
    return 0
