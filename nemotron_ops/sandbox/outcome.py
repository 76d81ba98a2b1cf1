"""What one call of a sandbox gives. Pure."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Item:
    """A file that the code left: bytes with an id, a name inside the work folder, and a type by content."""

    id: str
    name: str
    mime: str
    content: bytes

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "mime": self.mime,
            "bytes": len(self.content),
            "base64": base64.b64encode(self.content).decode(),
        }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one call printed and left. `ended`: the session is over, and its variables are lost."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0
    result: str | None = None  # repr of the last expression
    images: tuple[Item, ...] = ()
    files: tuple[Item, ...] = ()
    backend: str = ""
    limits_hit: tuple[str, ...] = ()
    ended: bool = False
    took_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "stdout": self.stdout,
            "stderr": self.stderr,
            "exit_code": self.exit_code,
            "result": self.result,
            "images": [i.as_json() for i in self.images],
            "files": [f.as_json() for f in self.files],
            "backend": self.backend,
            "limits_hit": list(self.limits_hit),
            "ended": self.ended,
            "took_s": round(self.took_s, 4),
        }


def outcome_of(value: dict[str, Any]) -> Outcome:
    """An Outcome from its JSON. Raises KeyError, TypeError or ValueError if it is none."""
    items: dict[str, Any] = {
        key: tuple(
            Item(id=i["id"], name=i["name"], mime=i["mime"], content=base64.b64decode(i["base64"])) for i in value[key]
        )
        for key in ("images", "files")
    }
    plain = {k: value[k] for k in ("stdout", "stderr", "exit_code", "result", "backend", "ended", "took_s")}
    return Outcome(**plain, **items, limits_hit=tuple(value["limits_hit"]))
