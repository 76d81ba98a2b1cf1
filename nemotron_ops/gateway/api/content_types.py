"""Content types of the gateway's responses, and of requests to llama-server. Pure."""

from __future__ import annotations

REQUEST_JSON = b"application/json"
JSON = b"application/json; charset=utf-8"
JSON_LINES = b"application/x-ndjson"
EVENT_STREAM = b"text/event-stream"
PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"
