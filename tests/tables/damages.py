"""What can become of a small JSON file of ours: each damage replaces the file at a path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def _content(text: str | bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    return write


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _wrong_pid(path: Path) -> None:
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "pid": 1, "started": "never"} if "pid" in value else value))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": _content(""),
    "object": _content("{}"),
    "null": _content("null"),
    "list": _content("[]"),
    "number": _content("5"),
    "string": _content('"x"'),
    "zeros": _content(b"\0" * 4096),
    "not-utf-8": _content(b"\xff\xfe\x00"),
    "deep": _content("[" * 100_000),
    "half": _half,
    "folder": _folder,
    "wrong-pid": _wrong_pid,
}
