"""Finds the offered tool that a model's name means. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from nemotron_ops.gateway.toolcalls.coerce import plain
from nemotron_ops.gateway.toolcalls.offered import Tool

NEAR = 0.85  # of difflib's ratio, for `full`
LONGEST = 200
NAMESPACE = re.compile(r"[.:/]|__")


class Names:
    """The names that may be called."""

    def __init__(self, tools: Mapping[str, Tool], *, full: bool = False) -> None:
        self.tools = tools
        self.full = full
        self._plain: dict[str, str | None] = {}  # None where two tools are alike

    def find(self, name: str) -> Tool | None:
        """The tool called `name`, or the only one with these letters, with or without a namespace."""
        if (tool := self.tools.get(name)) is not None:
            return tool
        if not name or len(name) > LONGEST:
            return None
        if not self._plain:
            for known in self.tools:
                self._learn(plain(known), known)
        for candidate in self._readings(name):
            if (found := self._plain.get(candidate)) is not None:
                return self.tools[found]
        return self._near(name) if self.full else None

    def _learn(self, letters: str, known: str) -> None:
        self._plain[letters] = None if letters in self._plain else known

    def _readings(self, name: str) -> Iterable[str]:
        yield plain(name)
        parts = NAMESPACE.split(name)
        if len(parts) > 1 and parts[-1]:
            yield plain(parts[-1])

    def _near(self, name: str) -> Tool | None:
        found = get_close_matches(plain(name), [k for k, v in self._plain.items() if v], n=2, cutoff=NEAR)
        meant = self._plain[found[0]] if len(found) == 1 else None
        return self.tools[meant] if meant else None
