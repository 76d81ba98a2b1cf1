"""Checks a value against a JSON schema, as far as tools use it. Pure.

Checked are types, enums, constants, required, additional and patterned properties, items, lengths, bounds, multiples,
alternatives, `not`, local references, and patterns whose cost is bounded. What is not known here counts as fulfilled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

_parser: Any
_constants: Any
try:
    _parser, _constants = import_module("re._parser"), import_module("re._constants")
except ImportError:  # not a part of Python's promises
    _constants = _parser = None

MOST_STEPS = 20_000  # schemas and values together; beyond it nothing more is checked
MOST_DEPTH = 64
NEGATABLE = frozenset({"type", "enum", "const", "required"})  # known in full, so their contrary is too
PATTERN_COST = 1_000_000  # steps of the pattern's worst case; a dearer one is not checked


class Checker:
    """Checks values against schemas of one root."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self._left = MOST_STEPS

    def fault(self, value: Any, schema: Any, depth: int = 0) -> str:
        """What is wrong with `value`, in a few words; empty if nothing is."""
        self._left -= 1
        if self._left < 0 or depth > MOST_DEPTH:
            return ""
        schema = self.resolved(schema)
        if not isinstance(schema, Mapping):
            return "nothing is allowed here" if schema is False else ""
        return (
            _plain_fault(value, schema)
            or self._alternatives(value, schema, depth)
            or (self._inside_object(value, schema, depth) if isinstance(value, dict) else "")
            or (self._inside_list(value, schema, depth) if isinstance(value, list) else "")
        )

    def resolved(self, schema: Any) -> Any:
        """`schema`, or what its local reference points to."""
        for _ in range(MOST_DEPTH):
            if not isinstance(schema, Mapping) or not isinstance(ref := schema.get("$ref"), str):
                return schema
            schema = _target(self.root, ref)
        return None

    def _alternatives(self, value: Any, schema: Mapping[str, Any], depth: int) -> str:
        for part in _listed(schema.get("allOf")):
            if found := self.fault(value, part, depth + 1):
                return found
        for word in ("anyOf", "oneOf"):
            parts = _listed(schema.get(word))
            if parts and all(self.fault(value, part, depth + 1) for part in parts):
                return "none of the alternatives"
        barred = schema.get("not")
        if isinstance(barred, Mapping) and barred.keys() <= NEGATABLE and not _flat_fault(value, barred):
            return "what is not allowed"
        return ""

    def _inside_object(self, value: dict[str, Any], schema: Mapping[str, Any], depth: int) -> str:
        for name in _listed(schema.get("required")):
            if isinstance(name, str) and name not in value:
                return f"{name}: missing"
        declared = properties_of(schema)
        other = schema.get("additionalProperties", True)
        patterned = schema.get("patternProperties")
        patterned = patterned if isinstance(patterned, Mapping) else {}
        for name, inner in value.items():
            parts = [declared[name]] if name in declared else []
            found = {pattern: matched(pattern, name) for pattern in patterned}
            if None in found.values():
                continue  # too dear to find out
            parts += [patterned[pattern] for pattern, hit in found.items() if hit]
            if not parts and other is False:
                return f"{name}: not known"
            for part in parts or [other]:
                if fault := self.fault(inner, part, depth + 1):
                    return f"{name}: {fault}"
        return ""

    def _inside_list(self, value: list[Any], schema: Mapping[str, Any], depth: int) -> str:
        first, items = _listed(schema.get("prefixItems")), schema.get("items", True)
        if not first and not isinstance(items, Mapping):
            return ""
        for number, inner in enumerate(value):
            if found := self.fault(inner, first[number] if number < len(first) else items, depth + 1):
                return f"[{number}]: {found}"
        return ""


def properties_of(schema: Any) -> Mapping[str, Any]:
    """The declared properties of an object's schema."""
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def types_of(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The types that a schema allows by name; empty if it says nothing of them."""
    found = schema.get("type")
    if isinstance(found, str):
        return (found,)
    return tuple(word for word in _listed(found) if isinstance(word, str))


def is_of(value: Any, word: str) -> bool:
    """Whether `value` is of the JSON type `word`."""
    match word:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "integer":
            return not isinstance(value, bool) and (
                isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            )
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case _:
            return True


def among(value: Any, allowed: list[Any]) -> bool:
    """Whether `value` is one of `allowed`; true is not 1."""
    return any(a == value and isinstance(a, bool) == isinstance(value, bool) for a in allowed)


def _flat_fault(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether `value` breaks a schema of `NEGATABLE` words."""
    missing = [name for name in _listed(schema.get("required")) if isinstance(value, dict) and name not in value]
    return bool(missing or _plain_fault(value, schema))


def _plain_fault(value: Any, schema: Mapping[str, Any]) -> str:
    """What is wrong with the value itself, apart from what is inside it."""
    types = types_of(schema)
    if types and not any(is_of(value, word) for word in types):
        return f"expected {' or '.join(types)}"
    if isinstance(allowed := schema.get("enum"), list) and not among(value, allowed):
        return "none of the allowed values"
    if "const" in schema and not among(value, [schema["const"]]):
        return "not the value that is demanded"
    if isinstance(value, str):
        return _text_fault(value, schema)
    if isinstance(value, list | dict):
        least, most = ("minItems", "maxItems") if isinstance(value, list) else ("minProperties", "maxProperties")
        return _bounds(len(value), schema, least, most)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _bounds(value, schema, "minimum", "maximum") or _strict_bounds(value, schema) or _uneven(value, schema)
    return ""


def _text_fault(value: str, schema: Mapping[str, Any]) -> str:
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and matched(pattern, value) is False:
        return "not of the demanded pattern"
    return _bounds(len(value), schema, "minLength", "maxLength")


def _bounds(size: float, schema: Mapping[str, Any], least: str, most: str) -> str:
    low, high = schema.get(least), schema.get(most)
    if isinstance(low, int | float) and not isinstance(low, bool) and size < low:
        return f"less than {low}"
    if isinstance(high, int | float) and not isinstance(high, bool) and size > high:
        return f"more than {high}"
    return ""


def _strict_bounds(value: float, schema: Mapping[str, Any]) -> str:
    low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if isinstance(low, int | float) and not isinstance(low, bool) and value <= low:
        return f"not more than {low}"
    if isinstance(high, int | float) and not isinstance(high, bool) and value >= high:
        return f"not less than {high}"
    return ""


def _uneven(value: float, schema: Mapping[str, Any]) -> str:
    step = schema.get("multipleOf")
    if not isinstance(step, int) or isinstance(step, bool) or step <= 0 or value % step == 0:
        return ""  # multiples of fractions are left to the reader: floats do not tell
    return f"not a multiple of {step}"


def matched(pattern: str, text: str) -> bool | None:
    """Whether `text` has a part of the form `pattern`; None if that is too dear to find out."""
    repeats = _repeats(pattern)
    if repeats is None or (len(text) + 1) ** repeats > PATTERN_COST:
        return None
    return re.search(pattern, text) is not None


@lru_cache(maxsize=256)
def _repeats(pattern: str) -> int | None:
    """The exponent of a pattern's worst case in the length of the text; None if it is not a power, or no pattern."""
    if _parser is None or len(pattern) > 1000:
        return None
    try:
        parsed = _parser.parse(pattern)
        re.compile(pattern)
        return _count(parsed, inside=False) + 1
    except (re.error, OverflowError, RecursionError, _Nested):
        return None


class _Nested(Exception):
    """A repeat or an alternative stands within a repeat."""


def _count(parsed: Any, *, inside: bool) -> int:
    total = 0
    for op, argument in parsed:
        if op in (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT):
            if inside:
                raise _Nested
            _count(argument[2], inside=True)
            total += argument[1] > 1 or argument[0] != argument[1]
        elif op is _constants.BRANCH:
            if inside:
                raise _Nested
            total += max(_count(part, inside=inside) for part in argument[1])
        elif op is _constants.SUBPATTERN:
            total += _count(argument[3], inside=inside)
        elif op in (_constants.GROUPREF, _constants.GROUPREF_EXISTS):
            raise _Nested
        elif op in (_constants.ASSERT, _constants.ASSERT_NOT):
            total += _count(argument[1], inside=inside)
    return total


def _target(root: Any, ref: str) -> Any:
    """What a local reference points to; None if it points elsewhere, or to nothing."""
    if not ref.startswith("#"):
        return None
    found = root
    for word in ref[1:].split("/")[1:]:
        word = word.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or word not in found:
            return None
        found = found[word]
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
