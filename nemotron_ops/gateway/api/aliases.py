"""A recipe's further names for its model, which may be patterns: `claude-*`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from nemotron_ops.supervisor.snapshot import ModelView

WILD = frozenset("*?")
LONGEST_NAME = 256  # letters of a name that a pattern is tried on


class Pattern(NamedTuple):
    """An alias with `*` (any letters) or `?` (one letter) in it."""

    letters: int  # that are not wild: how specific it is
    expression: re.Pattern[str]
    model: ModelView

    def fits(self, name: str) -> bool:
        """Whether the alias stands for `name`."""
        return len(name) <= LONGEST_NAME and self.expression.fullmatch(name) is not None


def exact(aliases: Iterable[str]) -> tuple[str, ...]:
    """The aliases that are names; patterns are left out."""
    return tuple(alias for alias in aliases if WILD.isdisjoint(alias))


def patterns_of(models: Iterable[ModelView]) -> tuple[Pattern, ...]:
    """The patterns of all models: the most specific first, then in the order of the models."""
    found = [_pattern(alias, model) for model in models for alias in model.aliases if not WILD.isdisjoint(alias)]
    return tuple(sorted(found, key=lambda pattern: -pattern.letters))


def _pattern(alias: str, model: ModelView) -> Pattern:
    merged = re.sub(r"\*+", "*", alias)  # many stars in a row would take time for each other
    parts = ("[^\n]*" if c == "*" else "[^\n]" if c == "?" else re.escape(c) for c in merged)
    return Pattern(sum(c not in WILD for c in merged), re.compile("".join(parts)), model)
