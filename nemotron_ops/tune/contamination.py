"""Finds rows whose question is in held-out data: whole, or 13 words in a row. Pure."""

from __future__ import annotations

from collections.abc import Iterable

GRAM = 13  # words; the length that published evaluations use


class HeldOut:
    """The questions of held-out data, as hashes. `add` takes folded texts."""

    def __init__(self) -> None:
        self._whole: set[int] = set()
        self._grams: set[int] = set()

    def add(self, question: str) -> None:
        """Hold one question out."""
        if question:
            self._whole.add(hash(question))
            self._grams.update(_grams(question))

    def holds(self, question: str) -> str:
        """How `question` is held out: `whole`, `13 words`, or an empty text."""
        if hash(question) in self._whole:
            return "whole"
        if self._grams and not self._grams.isdisjoint(_grams(question)):
            return f"{GRAM} words"
        return ""

    def __bool__(self) -> bool:
        return bool(self._whole)


def _grams(text: str) -> Iterable[int]:
    words = text.split()
    return (hash(tuple(words[i : i + GRAM])) for i in range(len(words) - GRAM + 1))
