"""Files and batches as clients see them, and the states of a batch. Pure.

validating ─▶ in_progress ─▶ finalizing ─▶ completed
     │             ├── cancelling ─▶ cancelled
     └▶ failed     └── (its window is over) ─▶ expired
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
PURPOSE, OUTPUT = "batch", "batch_output"
WINDOW = "24h"
WINDOW_S = 86_400
MOST_REQUESTS = 50_000  # as OpenAI has it
ID = re.compile(r"(?:file-|batch_)[0-9a-f]{32}(?:-(?:output|errors))?")
UNFINISHED = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
METADATA_KEYS, METADATA_NAME, METADATA_LETTERS = 16, 64, 512  # as OpenAI has them


class StoredFile(msgspec.Struct, kw_only=True):
    """One file: the key that may see it, and what clients see. `made_at` is in seconds since the epoch."""

    id: str
    key: str
    filename: str
    purpose: str
    bytes: int
    made_at: int

    @property
    def value(self) -> dict[str, Any]:
        return {
            "id": self.id, "object": "file", "bytes": self.bytes, "created_at": self.made_at,
            "filename": self.filename, "purpose": self.purpose, "status": "processed",
        }  # fmt: skip


class Batch(msgspec.Struct, kw_only=True):
    """One batch. `at` has the time of each state that it was in."""

    id: str
    key: str
    endpoint: str
    input_file_id: str
    made_at: int
    metadata: dict[str, str] = {}
    status: str = "validating"
    at: dict[str, int] = {}
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file_id: str = ""
    error_file_id: str = ""
    errors: list[dict[str, Any]] = []

    @property
    def expires_at(self) -> int:
        return self.made_at + WINDOW_S

    @property
    def unfinished(self) -> bool:
        return self.status in UNFINISHED

    def become(self, status: str, now: float) -> None:
        """Enter a state, and note when."""
        self.status = status
        self.at[status] = int(now)

    @property
    def value(self) -> dict[str, Any]:
        """The batch as OpenAI's clients read it."""
        errors = {"object": "list", "data": self.errors} if self.errors else None
        return {
            "id": self.id, "object": "batch", "endpoint": self.endpoint, "errors": errors,
            "input_file_id": self.input_file_id, "completion_window": WINDOW, "status": self.status,
            "output_file_id": self.output_file_id or None, "error_file_id": self.error_file_id or None,
            "created_at": self.made_at, "expires_at": self.expires_at,
            **{f"{state}_at": self.at.get(state) for state in TIMES},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "metadata": self.metadata or None,
        }  # fmt: skip


def page(items: list[dict[str, Any]], *, after: str, limit: int) -> dict[str, Any]:
    """A page of a list, the newest first, from the item behind `after` on."""
    names = [str(item["id"]) for item in items]
    start = names.index(after) + 1 if after in names else 0
    data = items[start : start + limit]
    return {
        "object": "list", "data": data, "has_more": start + limit < len(items),
        "first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None,
    }  # fmt: skip
