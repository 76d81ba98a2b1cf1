"""Whether an answer is right. Each check is strict about what was asked and lenient about all else. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from nemotron_ops.measure.quality.item import Answer, Item

NUMBER = re.compile(r"-?\d+(?:[,\u202f]\d{3})*(?:\.\d+)?")
MINUS = str.maketrans("−–", "--")


def is_right(item: Item, answer: Answer) -> bool:
    """Whether the answer is whole and passes the item's check."""
    return not answer.error and CHECKS[item.check](answer, item.expected)


def _number(answer: Answer, expected: Mapping[str, Any]) -> bool:
    """The last number of the answer is the expected one."""
    found = NUMBER.findall(answer.content.translate(MINUS))
    return bool(found) and bool(float(re.sub(r"[,\u202f]", "", found[-1])) == expected["value"])


def _call(answer: Answer, expected: Mapping[str, Any]) -> bool:
    """Exactly one call, of this tool, with these arguments and no others."""
    if len(answer.calls) != 1 or answer.calls[0].name != expected["name"]:
        return False
    try:
        given = json.loads(answer.calls[0].arguments)
    except ValueError:
        return False
    return isinstance(given, dict) and _same(given, expected["arguments"])


def _no_call(answer: Answer, expected: Mapping[str, Any]) -> bool:
    """Words instead of a call."""
    return not answer.calls and bool(answer.content.strip())


def _words(answer: Answer, expected: Mapping[str, Any]) -> bool:
    """These words in this order, with nothing else but punctuation."""
    return re.findall(r"\w+", answer.content) == list(expected["words"])


def _last_word(answer: Answer, expected: Mapping[str, Any]) -> bool:
    found = re.findall(r"\w+", answer.content)
    return len(found) >= expected["least"] and bool(found[-1] == expected["word"])


def _json(answer: Answer, expected: Mapping[str, Any]) -> bool:
    """One JSON object with this content, bare or in one code fence."""
    text = re.sub(r"\A\s*```(?:json)?\s*|\s*```\s*\Z", "", answer.content)
    try:
        return bool(json.loads(text) == expected["value"])
    except (ValueError, RecursionError):
        return False


def _lines(answer: Answer, expected: Mapping[str, Any]) -> bool:
    """So many lines, each with this start."""
    lines = [line.strip() for line in answer.content.strip().splitlines() if line.strip()]
    start = expected["start"]
    return len(lines) == expected["count"] and all(x.startswith(start) and len(x) > len(start) for x in lines)


def _without_letter(answer: Answer, expected: Mapping[str, Any]) -> bool:
    words = re.findall(r"\w+", answer.content.lower())
    return len(words) >= expected["least"] and expected["letter"] not in "".join(words)


def _holds(answer: Answer, expected: Mapping[str, Any]) -> bool:
    """The expected text stands in the answer and none of the others does."""
    content = answer.content.lower()
    return expected["text"].lower() in content and not any(o.lower() in content for o in expected["others"])


def _same(given: object, expected: object) -> bool:
    """Equal values; text without regard to case and outer spaces, numbers as numbers."""
    if isinstance(given, str) and isinstance(expected, str):
        return given.strip().lower() == expected.strip().lower()
    if isinstance(given, dict) and isinstance(expected, Mapping):
        return given.keys() == expected.keys() and all(_same(given[k], expected[k]) for k in given)
    return type(given) is type(expected) and given == expected


CHECKS: dict[str, Callable[[Answer, Mapping[str, Any]], bool]] = {
    "number": _number,
    "call": _call,
    "no_call": _no_call,
    "words": _words,
    "last_word": _last_word,
    "json": _json,
    "lines": _lines,
    "without_letter": _without_letter,
    "holds": _holds,
}
