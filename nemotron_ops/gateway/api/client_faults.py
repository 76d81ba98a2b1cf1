"""llama-server's 500s that the request itself causes: the same bytes always cause them, so a retry is no use. Pure.

The beginnings of its texts (tools/server/server-common.cpp, server-chat.cpp, common/chat.cpp, v0.5.0, and those of
nlohmann::json). A text that is not here stays a fault of the engine.
"""

from __future__ import annotations

import re

BEGINNINGS = (
    *("image input is not supported", "audio input is not supported", "video input is not supported"),
    *("Multimodal data provided, but model does not support", "Failed to load image", "Failed to load image or audio"),
    *("Failed to parse tools", "Failed to parse messages", "Failed to parse tool call arguments", "Failed to download"),
    *(
        "JSON schema error",
        "JSON schema conversion failed",
        "Invalid base64",
        "Unsupported param",
        "Unsupported content",
    ),
    *("Cannot use both json_schema and grammar", "Cannot specify grammar with tools", "Cannot specify both content"),
    *("Unknown reasoning format", "Only no echo is supported", "[json.exception.", "At least one of min_value or"),
    *(
        "input (",
        "unsupported content[]",
        "'messages' is required",
        "Missing '",
        "Unsupported tool",
        "Expected '",
        "Invalid '",
    ),
)
FAULT = re.compile(rb'"message":\s*"(?:' + b"|".join(re.escape(text.encode()) for text in BEGINNINGS) + b")")
STATUS = 400


def status_of(status: int, body: bytes) -> int:
    """The status that a client should see for an error of llama-server: a fault of the request is not a 500."""
    return STATUS if status == 500 and FAULT.search(body[:2000]) else status
