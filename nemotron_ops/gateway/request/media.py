"""Media in a request: only what it carries itself. Pure.

llama-server fetches what a part of a message points at (SSRF) and reads local files. Where it looks (tools/server/
server-common.cpp, oaicompat_content_load_media, v0.5.0): in the part's `url`, and before that in its `data`, which
is fetched too if it begins with "http". So either must be a `data:` URL or base64.

A body may be large, and all clients wait while it is read: bytes are searched for the words that media need before
anything is decoded, values that say nothing stay undecoded, and what there would be of them is counted first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.streams.sse import NOT_JSON

MAX_PARTS = 100_000  # objects in a field that may have media; commas in texts count along with other values
MAX_VALUES = 300_000
MAX_DEPTH = 8  # content in content: a tool's result in a message is 2

PLACES = frozenset({"messages", "input", "prompt", "content", "system"})
KINDS = frozenset({"image_url", "input_image", "image", "video_url", "input_video", "input_audio", "document"})
QUOTED = frozenset(b'"%b"' % kind.encode() for kind in KINDS)
WORDS = re.compile(b'"(?:%b)"' % "|".join(sorted(KINDS)).encode())
ESCAPED = re.compile(rb"\\u00[4-7]")  # a letter, written so that a search for words does not find it
INLINE = re.compile(r"data:|(?!http)[A-Za-z0-9+/=_-]*\Z", re.IGNORECASE)
SHORT_BYTES = 16384  # a body up to this is searched as a whole, before its fields
BEGIN_CHARS = 64  # of a link, which tell what it is

NOTHING = msgspec.Raw(b"null")


class Part(msgspec.Struct):
    """A message, or a part of one: what may be or hold media."""

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
    """Where a part's media are."""

    type: msgspec.Raw = NOTHING
    url: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING
    file_url: msgspec.Raw = NOTHING


_parts = msgspec.json.Decoder(list[Part | str | int | float | bool | list[str | int | float] | None]).decode
_part = msgspec.json.Decoder(Part).decode
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_link = msgspec.json.Decoder(Link).decode
LINKS = ("image_url", "video_url", "input_video", "input_audio", "source", "url", "file_url", "data")


def check_media(fields: Mapping[str, msgspec.Raw], body: bytes) -> None:
    """Raises Refusal if a message in `body`, whose top level is `fields`, points at media elsewhere."""
    if len(body) <= SHORT_BYTES and not may_have_media(body):
        return
    for name in PLACES & fields.keys():
        text = bytes(fields[name])
        if text[:1] in (b"[", b"{") and may_have_media(text):
            try:
                walk(text, 0)
            except NOT_JSON as exc:
                message = f"cannot read {name}: {exc}"
                raise Refusal(status=400, code="invalid_json", message=message) from exc


def may_have_media(text: bytes) -> bool:
    """Whether `text` has a word that media need. Parts say their `type`; in a text, quotes are escaped."""
    if text.find(b'"type"') >= 0 and WORDS.search(text):
        return True
    return text.find(b"\\u00") >= 0 and ESCAPED.search(text) is not None


def walk(text: bytes, depth: int) -> None:
    """Raises Refusal at the first media part that is not inline, DecodeError where `text` is no content."""
    if depth > MAX_DEPTH or text.count(b"{") > MAX_PARTS or text.count(b",") > MAX_VALUES:
        message = "cannot read the request: its content has too many parts, or is nested too deeply"
        raise Refusal(status=400, code="invalid_json", message=message)
    for part in parts_in(text, depth):
        if not isinstance(part, Part):
            continue
        if (kind := bytes(part.type)) in QUOTED or (b"\\" in kind and str(msgspec.json.decode(kind)) in KINDS):
            for name in LINKS:
                if (link := getattr(part, name)) is not NOTHING:
                    check_link(name, bytes(link))
        for inner in (part.content, part.output):
            if inner is not NOTHING and (found := bytes(inner))[:1] in (b"[", b"{"):
                walk(found, depth + 1)


def parts_in(text: bytes, depth: int) -> Iterable[object]:
    """What a list holds, or the one part that `text` is."""
    if text[:1] != b"[":
        return (_part(text),)
    try:
        return _parts(text)
    except msgspec.ValidationError:  # lists in it, as no content has them: looked into all the same
        inner = [found for raw in _raws(text) if (found := bytes(raw))[:1] in (b"[", b"{")]
        for found in inner:
            walk(found, depth + 1)
        return ()


def check_link(name: str, link: bytes) -> None:
    """Raises Refusal if `link`, the JSON of a part's field, is an address."""
    if link[:1] == b"{":
        value = _link(link)
        if bytes(value.type) != b'"text"':  # a document's own
            for raw in (value.url, value.data, value.file_url):
                check_link(name, bytes(raw))
    elif link[:1] == b'"':
        begin = link[1 : BEGIN_CHARS + 1]
        text = msgspec.json.decode(link, type=str)[:BEGIN_CHARS] if b"\\" in begin else begin.decode().rstrip('"')
        if not INLINE.match(text):
            raise Refusal(
                status=400, code="remote_media",
                message=f"{name}: only inline data (data:...;base64,...) is accepted, no address of it",
            )  # fmt: skip
