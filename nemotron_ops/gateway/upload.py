"""Form bodies (`multipart/form-data`): only as much as routing needs. Pure."""

from __future__ import annotations

from nemotron_ops.gateway.replies import Refusal

FIELD_BYTES = 1024


def boundary(content_type: bytes) -> bytes:
    """The boundary of a form body. Raises Refusal if there is none."""
    kind, _, rest = content_type.partition(b";")
    if kind.strip().lower() == b"multipart/form-data":
        for part in rest.split(b";"):
            name, _, value = part.strip().partition(b"=")
            if name.lower() == b"boundary" and value:
                return value.strip(b'"')
    raise Refusal(status=415, code="content_type", message="expected a multipart/form-data body with a boundary")


def form_field(content_type: bytes, body: bytes, name: str) -> str:
    """The text of one short field, or nothing. Raises Refusal if `body` is no form."""
    fence = b"--" + boundary(content_type)
    if not body.startswith(fence):
        raise Refusal(
            status=400, code="invalid_form", message="cannot read the form: it does not begin with its boundary"
        )
    wanted = b'name="%b"' % name.encode()
    start = 0
    while (start := body.find(fence, start)) >= 0:
        head_end = body.find(b"\r\n\r\n", start, start + 4096)
        if head_end < 0:
            break
        head = body[start:head_end].lower()
        if wanted in head and b"filename" not in head:
            end = body.find(b"\r\n" + fence, head_end)
            value = body[head_end + 4 : end]
            if end < 0 or len(value) > FIELD_BYTES:
                break
            return value.decode(errors="replace")
        start = head_end
    return ""
