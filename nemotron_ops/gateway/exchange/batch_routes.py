"""Answers the routes of files and batches. Disk, in threads; draws ids."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec

from nemotron_ops.gateway.api.content_types import JSON
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.batches.batch import (
    ENDPOINTS,
    METADATA_KEYS,
    METADATA_LETTERS,
    METADATA_NAME,
    PURPOSE,
    WINDOW,
    Batch,
    StoredFile,
    page,
)
from nemotron_ops.gateway.batches.folder import Folder
from nemotron_ops.gateway.batches.upload import read_upload
from nemotron_ops.gateway.exchange.respond import headers
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.request.json_fields import read_fields, text_field
from nemotron_ops.gateway.shared import Shared
from nemotron_ops.gateway.streams.sse import NOT_JSON

T = TypeVar("T")
JSON_LINES = b"application/jsonl"
PAGE, MOST_PAGE = 20, 10_000


async def reply_store(record: Record, shared: Shared) -> None:
    """Answer a request about files or batches. Raises Refusal."""
    folder = shared.batches
    if folder.path is None:
        raise Refusal(status=501, code="batches_off", message="this gateway keeps no files and runs no batches")
    try:
        kind, body = await _answer(record, shared, folder)
    except OSError as exc:
        message = f"cannot use the folder of batches: {exc.strerror or exc}"
        raise Refusal(status=503, code="batches_disk", message=message, retry_after_s=60) from exc
    record.status = 200
    record.client.reply(200, body, content_type=kind, extra=headers(record))


async def _answer(record: Record, shared: Shared, folder: Folder) -> tuple[bytes, bytes]:
    """Content type and body."""
    key, route = record.key.id, record.route
    name = record.request.path.split("/")[3] if "{id}" in route.path else ""
    value: Any
    match route.method, route.path:
        case "POST", "/v1/files":
            value = (await _upload(record, folder)).value
        case "GET", "/v1/files":
            mine = [f.value for f in _newest(folder.files.values()) if f.key == key]
            purpose = _query(record, "purpose")
            value = _page(record, [f for f in mine if purpose in ("", f["purpose"])])
        case "GET", "/v1/files/{id}":
            value = folder.file(name, key).value
        case "DELETE", "/v1/files/{id}":
            file = folder.file(name, key)
            _check_unused(file, folder)
            folder.files.pop(name, None)
            await _in_thread(lambda: folder.drop_file(file))
            value = {"id": name, "object": "file", "deleted": True}
        case "GET", "/v1/files/{id}/content":
            file = folder.file(name, key)
            return JSON_LINES, await _in_thread(lambda: folder.read_content(file))
        case "POST", "/v1/batches":
            value = (await _make(record, folder)).value
            shared.batch_made()
        case "GET", "/v1/batches":
            value = _page(record, [b.value for b in _newest(folder.batches.values()) if b.key == key])
        case "POST", "/v1/batches/{id}/cancel":
            value = (await _cancel(folder.batch(name, key), folder)).value
            shared.batch_made()
        case _:
            value = folder.batch(name, key).value
    return JSON, msgspec.json.encode(value)


async def _upload(record: Record, folder: Folder) -> StoredFile:
    upload = read_upload(record.request.headers.get(b"content-type") or b"", record.request.body)
    if upload.purpose != PURPOSE:
        raise Refusal(status=400, code="invalid_field", message=f"purpose: only {PURPOSE!r} is known here")
    folder.check_room(len(upload.content))
    file = StoredFile(
        id=f"file-{uuid.uuid4().hex}", key=record.key.id, filename=upload.filename, purpose=PURPOSE,
        bytes=len(upload.content), made_at=int(time.time()),
    )  # fmt: skip
    await _in_thread(lambda: folder.put_file(file, upload.content))
    folder.files[file.id] = file
    return file


async def _make(record: Record, folder: Folder) -> Batch:
    fields = read_fields(record.request.body)
    if unknown := fields.keys() - {"input_file_id", "endpoint", "completion_window", "metadata"}:
        message = f"{min(unknown)[:80]}: this field is not honoured here"
        raise Refusal(status=400, code="invalid_field", message=message)
    endpoint, file = text_field(fields, "endpoint"), text_field(fields, "input_file_id")
    if endpoint not in ENDPOINTS:
        raise Refusal(status=400, code="invalid_field", message=f"endpoint: expected one of {', '.join(ENDPOINTS)}")
    if text_field(fields, "completion_window") != WINDOW:
        raise Refusal(status=400, code="invalid_field", message=f"completion_window: only {WINDOW!r} is known")
    if folder.file(file, record.key.id).purpose != PURPOSE:
        raise Refusal(status=400, code="invalid_field", message="input_file_id: the file was not uploaded for batches")
    batch = Batch(
        id=f"batch_{uuid.uuid4().hex}", key=record.key.id, endpoint=endpoint, input_file_id=file,
        made_at=int(time.time()), metadata=_metadata(bytes(fields.get("metadata", b"null"))),
    )  # fmt: skip
    await _in_thread(lambda: folder.put_batch(batch))
    folder.batches[batch.id] = batch
    return batch


def _metadata(text: bytes) -> dict[str, str]:
    try:
        found = msgspec.json.decode(text, type=dict[str, str] | None) or {}
    except NOT_JSON as exc:
        raise Refusal(status=400, code="invalid_field", message=f"metadata: {exc}") from exc
    if len(found) > METADATA_KEYS or any(len(k) > METADATA_NAME or len(v) > METADATA_LETTERS for k, v in found.items()):
        message = f"metadata: at most {METADATA_KEYS} texts of {METADATA_LETTERS} letters, names of {METADATA_NAME}"
        raise Refusal(status=400, code="invalid_field", message=message)
    return found


async def _cancel(batch: Batch, folder: Folder) -> Batch:
    if batch.status not in ("validating", "in_progress", "cancelling"):
        raise Refusal(status=400, code="invalid_field", message=f"the batch is {batch.status} already")
    batch.become("cancelling", time.time())
    await _in_thread(lambda: folder.put_batch(batch))
    return batch


def _check_unused(file: StoredFile, folder: Folder) -> None:
    user = next((b.id for b in folder.batches.values() if b.input_file_id == file.id and b.unfinished), "")
    if user:
        raise Refusal(status=400, code="invalid_field", message=f"the file is the input of {user}, which is not over")


def _newest(items: Any) -> list[Any]:
    return sorted(items, key=lambda item: (item.made_at, item.id), reverse=True)


def _page(record: Record, items: list[dict[str, Any]]) -> dict[str, Any]:
    limit = _query(record, "limit") or str(PAGE)
    if not limit.isascii() or not limit.isdigit() or len(limit) > 6 or not 1 <= int(limit) <= MOST_PAGE:
        raise Refusal(status=400, code="invalid_field", message=f"limit: expected 1 to {MOST_PAGE}")
    return page(items, after=_query(record, "after"), limit=int(limit))


def _query(record: Record, name: str) -> str:
    return parse_qs(record.request.query).get(name, [""])[0]


def _in_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    return asyncio.get_running_loop().run_in_executor(None, call)
