"""Reads the JSON of arguments: strictly first, then mended. Pure.

Mended text counts only if it becomes one finite object. The library that mends is imported when first needed.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import msgspec

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
MOST_LETTERS = 16384  # longer text is read strictly, and not mended
MOST_OPEN = 200  # brackets; deeper nesting is not mended
NOTHING = frozenset({"", "null", "None", "{}"})
FENCE = "```"


@dataclass(slots=True)
class Read:
    """An object that was read; `mended` if the text was not JSON of an object, `repeated` if a name came twice."""

    value: dict[str, Any]
    mended: bool = False
    repeated: bool = False


def read_strict(text: str) -> Read | None:
    """The object in `text`, if it is JSON of one."""
    try:
        value = msgspec.json.decode(text)
        if not isinstance(value, dict):
            return None
        return Read(value, repeated=_repeats(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return None


def read_object(text: str) -> Read | None:
    """The object in `text`, mended if need be; None if there is none, or more than one."""
    if found := read_strict(text):
        return found
    bare = text.strip()
    if bare in NOTHING:
        return Read({}, mended=True)
    inner = value_of(bare)
    if isinstance(inner, str):  # JSON within JSON
        found = read_strict(inner)
        return Read(found.value, mended=True) if found else None
    mended = mend(bare)
    return Read(mended, mended=True) if isinstance(mended, dict) else None


def value_of(text: str) -> Any:
    """The value of JSON text; None also if it is not JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def mend(text: str) -> Any:
    """The finite object or list that was meant by `text`, if it begins like one; else None."""
    bare = text.strip()
    if bare.startswith(FENCE):
        bare = bare.strip("`").removeprefix("json").strip()
    if bare.startswith('"') and '":' in bare:
        bare = "{" + bare  # the first bracket was lost
    if not bare.startswith(("{", "[")) or len(bare) > MOST_LETTERS:
        return None
    if bare.count("{") + bare.count("[") > MOST_OPEN:
        return None
    from json_repair import json_repair

    try:
        found = json_repair.loads(bare, skip_json_loads=True)
    except (RecursionError, ValueError, IndexError, TypeError):
        return None
    want = dict if bare[0] == "{" else list
    return found if isinstance(found, want) and found and _is_finite(found) else None


def text_of(value: Any) -> str:
    """`value` as JSON text, in UTF-8 without spaces."""
    return msgspec.json.encode(value).decode()


def _repeats(text: str) -> bool:
    """Whether an object in `text` has a name twice."""
    repeated = False

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        made = dict(found)
        repeated = repeated or len(made) < len(found)
        return made

    json.loads(text, object_pairs_hook=pairs)
    return repeated


def _is_finite(value: Any) -> bool:
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, float) and not math.isfinite(found):
            return False
        if isinstance(found, str) and not _is_text(found):
            return False
        if isinstance(found, dict):
            left += [*found.keys(), *found.values()]
        elif isinstance(found, list):
            left += found
    return True


def _is_text(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text) if not text.isascii() else True
