"""Marks of a text that is still growing: each is found once, when nothing that follows can change it. Pure.

A mark counts when its line is whole, because code may still close around it until then; and at the end of the text.
"""

from __future__ import annotations

from collections.abc import Mapping

from nemotron_ops.web.citations import Citation, Source, cited


class Marks:
    """The marks of one text. `sources` may grow between turns."""

    def __init__(self, sources: Mapping[int, Source]) -> None:
        self.text = ""
        self.found: list[Citation] = []
        self._sources = sources

    def add(self, more: str) -> list[Citation]:
        """Further text; returns the marks that are settled now."""
        self.text += more
        return self._settled(self.text.rfind("\n") + 1) if "\n" in more and self._sources else []

    def end(self) -> list[Citation]:
        """The text is whole; returns the marks that were not settled."""
        return self._settled(len(self.text)) if self._sources else []

    def _settled(self, end: int) -> list[Citation]:
        new = [it for it in cited(self.text, self._sources) if it.end <= end][len(self.found) :]
        self.found += new
        return new
