"""Content types of the gateway's responses. Pure."""

from __future__ import annotations

JSON = b"application/json; charset=utf-8"
EVENT_STREAM = b"text/event-stream"
PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"
