"""Prepares an upload (`multipart/form-data`) for llama-server: its file and its known text fields. Pure.

llama-server turns an upload into a chat and copies all of its fields there (tools/server/server-chat.cpp:688, v0.5.0),
so the form is written anew: the file, and each known field once, between boundaries of our own. A client's boundary
is never sent on: where its content type has quotes, llama-server could read another one than we do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nemotron_ops.gateway.api import header_bytes
from nemotron_ops.gateway.api.adapters import check_honoured
from nemotron_ops.gateway.api.catalog import Match
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.request.fields import FORM, RENAMED
from nemotron_ops.gateway.request.prepare import Prepared

FILE = "file"
FIELD_BYTES = 65536
PARTS = 100
HEAD_BYTES = 4096


def boundary(content_type: bytes) -> bytes:
    """The boundary of a form body. Raises Refusal if the content type has none."""
    kind, _, rest = content_type.partition(b";")
    if kind.strip().lower() == b"multipart/form-data":
        for part in rest.split(b";"):
            name, _, value = part.strip().partition(b"=")
            if name.lower() == b"boundary" and value:
                return value.strip(b'"')
    raise Refusal(status=415, code="content_type", message="expected a multipart/form-data body with a boundary")


def prepare_form(content_type: bytes, body: bytes, resolve: Callable[[str], Match]) -> Prepared:
    """The request that goes upstream for an uploaded form. Raises Refusal if it may not."""
    texts, file = read_form(b"--" + boundary(content_type), body)
    named = resolve(texts.get("model", ""))
    model = named.model
    if model.adapter:
        check_honoured(Api.OTHER)
    texts = _known(named.filled_in) | texts | _known(model.fixed)
    for given, limit in model.capped.items():
        name = RENAMED.get(given, given)
        if name in FORM and (name == "max_tokens" or name in texts):
            texts[name] = lowered(name, texts.get(name), limit)
    if texts.get("stream", "false") not in ("true", "false"):
        raise Refusal(status=400, code="invalid_field", message="stream: expected true or false")
    own = own_boundary(body, texts)
    return Prepared(
        named=named, body=write_form(b"--" + own, texts, file), stream=texts.get("stream") == "true", fields={},
        content_type=b"multipart/form-data; boundary=" + own,
    )  # fmt: skip


def own_boundary(body: bytes, texts: Mapping[str, str]) -> bytes:
    """A boundary that is not in the form. Python's hash has a secret key, so no client can predict it."""
    found = b"nemotron-ops-%016x" % (hash(body[-HEAD_BYTES:]) & (1 << 64) - 1)
    if body.find(found) >= 0 or any(found.decode() in text for text in texts.values()):
        raise _broken("its content holds the boundary that would separate its parts")
    return found


def _known(values: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a recipe that a form may have."""
    named = ((RENAMED.get(name, name), value) for name, value in values.items())
    return {name: str(value) for name, value in named if name in FORM}


def lowered(name: str, text: str | None, limit: float) -> str:
    """A number in a form, lowered to `limit`. Raises Refusal if it is not a number."""
    try:
        value = limit if text is None else float(text)
    except ValueError:
        raise Refusal(status=400, code="invalid_field", message=f"{name}: expected a number") from None
    if text is not None and 0 <= value <= limit:
        return text
    return str(int(limit) if limit == int(limit) else limit)


def read_form(fence: bytes, body: bytes) -> tuple[dict[str, str], tuple[bytes, memoryview]]:
    """The known text fields of a form, and its file: type and content. Raises Refusal if `body` is malformed."""
    if not body.startswith(fence):
        raise _broken("the body does not begin with its boundary")
    texts: dict[str, str] = {}
    file: tuple[bytes, memoryview] | None = None
    start, between = len(fence), b"\r\n" + fence
    for _ in range(PARTS):
        if body[start : start + 2] == b"--":
            if file is None:
                raise _broken("the form has no file")
            return texts, file
        end, head_end = body.find(between, start), body.find(b"\r\n\r\n", start, start + HEAD_BYTES)
        if end < 0 or not start < head_end < end:
            raise _broken("a part does not end")
        name, filename, kind = read_head(body[start:head_end])
        if name == FILE and filename:
            file = kind, memoryview(body)[head_end + 4 : end]
        elif name in FORM and not filename:
            if end - head_end - 4 > FIELD_BYTES:
                raise Refusal(status=400, code="invalid_field", message=f"{name}: at most {FIELD_BYTES} bytes")
            texts[name] = body[head_end + 4 : end].decode(errors="replace")
        start = end + len(between)
    raise _broken(f"more than {PARTS} parts")


def read_head(head: bytes) -> tuple[str, bool, bytes]:
    """The name of a part, whether it is a file, and its content type."""
    name, filename, kind = "", False, b"application/octet-stream"
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().lower() == b"content-disposition":
            for item in value.split(b";")[1:]:
                what, _, text = item.strip().partition(b"=")
                if what.lower() == b"name":
                    name = text.strip(b'"').decode(errors="replace")
                filename = filename or what.lower() in (b"filename", b"filename*")
        elif key.strip().lower() == b"content-type" and header_bytes.CONTENT_TYPE.issuperset(value):
            kind = value.strip()
    return name, filename, kind


def write_form(fence: bytes, texts: dict[str, str], file: tuple[bytes, memoryview]) -> bytes:
    """A form with heads written from scratch. No value may contain `fence`."""
    parts: list[bytes | memoryview] = []
    for name, text in texts.items():
        parts.append(b'%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n' % (fence, name.encode()))
        parts += [text.encode(), b"\r\n"]
    head = b'%b\r\nContent-Disposition: form-data; name="file"; filename="file"\r\nContent-Type: %b\r\n\r\n'
    parts += [head % (fence, file[0]), file[1], b"\r\n", fence, b"--\r\n"]
    return b"".join(parts)


def _broken(why: str) -> Refusal:
    return Refusal(status=400, code="invalid_form", message=f"cannot read the form: {why}")
