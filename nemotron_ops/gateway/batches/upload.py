"""Reads an uploaded file out of its form (`multipart/form-data`). Pure."""

from __future__ import annotations

import re

import msgspec

from nemotron_ops.gateway.api.errors import Refusal

PARTS = 20
HEAD_BYTES = 4096
FIELD_BYTES = 1024
BOUNDARY = re.compile(rb'multipart/form-data\s*;.*?boundary="?([^";]{1,200})"?', re.IGNORECASE | re.DOTALL)
NAME = re.compile(rb'[;\s]name="([^"]*)"')
FILENAME = re.compile(rb'[;\s]filename="([^"]*)"')
NAME_LETTERS = 200


class Upload(msgspec.Struct):
    """A file that a client sends, and what it is for."""

    filename: str
    purpose: str
    content: memoryview


def read_upload(content_type: bytes, body: bytes) -> Upload:
    """The file and the purpose in a form. Raises Refusal if the form is malformed, or lacks one of them."""
    match = BOUNDARY.match(content_type)
    if match is None:
        raise Refusal(status=415, code="content_type", message="expected a multipart/form-data body with a boundary")
    fence = b"--" + match[1]
    if not body.startswith(fence):
        raise _broken("the body does not begin with its boundary")
    fields: dict[bytes, bytes] = {}
    file: tuple[str, memoryview] | None = None
    start = len(fence)
    for _ in range(PARTS):
        if body[start : start + 2] == b"--":
            break
        end, head_end = body.find(b"\r\n" + fence, start), body.find(b"\r\n\r\n", start, start + HEAD_BYTES)
        if end < 0 or not start < head_end < end:
            raise _broken("a part does not end")
        head, content = body[start:head_end], memoryview(body)[head_end + 4 : end]
        name, filename = NAME.search(head), FILENAME.search(head)
        if name and name[1] == b"file" and filename:
            file = _shown(filename[1]), content
        elif name and not filename:
            fields[name[1]] = bytes(content[:FIELD_BYTES])
        start = end + 2 + len(fence)
    else:
        raise _broken(f"more than {PARTS} parts")
    if file is None:
        raise Refusal(status=400, code="invalid_field", message="file: missing")
    return Upload(filename=file[0], purpose=fields.get(b"purpose", b"").decode(errors="replace"), content=file[1])


def _shown(name: bytes) -> str:
    """A file's name for lists; no path is made of it."""
    text = name.decode(errors="replace")[-NAME_LETTERS:]
    return "".join(letter if letter.isprintable() else "?" for letter in text) or "file"


def _broken(why: str) -> Refusal:
    return Refusal(status=400, code="invalid_form", message=f"cannot read the form: {why}")
