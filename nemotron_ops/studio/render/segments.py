"""Cuts a Markdown text into blocks that can be rendered each by itself. Pure.

A block ends where Markdown ends it, whatever follows later, so a text that grows has the same blocks as one that is
whole. Blocks are coarser than Markdown's: a list with all its items is one.
"""

from __future__ import annotations

import re

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)$")
ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])(?:\s|$)")
HEADING = re.compile(r" {0,3}#{1,6}(?:\s|$)")
MATH = {"$$": "$$", "\\[": "\\]"}


def segments(text: str) -> list[str]:
    """The blocks of `text`, in order; joined they are the text again."""
    found: list[str] = []
    lines = text.splitlines(keepends=True)
    at = 0
    while at < len(lines):
        end = _end(lines, at)
        found.append("".join(lines[at:end]))
        at = end
    return found


def _end(lines: list[str], at: int) -> int:
    """The line behind the block that begins at line `at`; blank lines behind a block belong to it."""
    first = lines[at]
    if fence := FENCE.match(first.rstrip("\n")):
        return _behind_blank(lines, _fence_end(lines, at + 1, fence[1]))
    if (closer := MATH.get(first.strip()[:2])) and first.strip()[2:].find(closer) < 0:
        return _behind_blank(lines, _math_end(lines, at + 1, closer))
    if ITEM.match(first):
        return _list_end(lines, at + 1)
    if HEADING.match(first):
        return _behind_blank(lines, at + 1)
    return _paragraph_end(lines, at + 1)


def _fence_end(lines: list[str], at: int, opener: str) -> int:
    while at < len(lines):
        line = lines[at].strip()
        at += 1
        if line.startswith(opener) and not line.strip(opener[0]):
            break
    return at


def _math_end(lines: list[str], at: int, closer: str) -> int:
    while at < len(lines):
        line = lines[at].strip()
        at += 1
        if line.endswith(closer):
            break
    return at


def _list_end(lines: list[str], at: int) -> int:
    """A list goes on over its items, indented lines, and blank lines between those."""
    while at < len(lines):
        line = lines[at]
        if line.strip():
            if line[0] != " " and (HEADING.match(line) or FENCE.match(line.rstrip("\n"))):
                return at
            at += 1
            continue
        after = _behind_blank(lines, at)
        if after < len(lines) and not (ITEM.match(lines[after]) or lines[after][:2] in ("  ", "\t")):
            return after
        at = after
    return at


def _paragraph_end(lines: list[str], at: int) -> int:
    """A paragraph, quote or table ends at a blank line, and before a heading or a fence."""
    while at < len(lines):
        line = lines[at]
        if not line.strip():
            return _behind_blank(lines, at)
        if HEADING.match(line) or FENCE.match(line.rstrip("\n")):
            return at
        at += 1
    return at


def _behind_blank(lines: list[str], at: int) -> int:
    while at < len(lines) and not lines[at].strip():
        at += 1
    return at
