"""Brings arguments into the types that a tool's schema demands, where nothing is lost by it. Pure.

Only a value that its schema refuses is touched, and only by a value that the schema allows: `"20"` becomes 20, `"True"`
true, a JSON text the list that it holds, a number a text, `filePath` the missing `file_path`. `full` goes further: a
word in other case becomes the allowed one, a single value a list, an unknown argument goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from nemotron_ops.gateway.toolcalls.read_json import mend, text_of, value_of
from nemotron_ops.gateway.toolcalls.schema import MOST_DEPTH, Checker, properties_of, types_of

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")
NULLS = frozenset({"null", "None"})
UNLIKE = re.compile(r"[\s_\-.]+")


def coerced(arguments: dict[str, Any], schema: Mapping[str, Any], *, full: bool = False) -> tuple[dict[str, Any], str]:
    """Arguments as the schema wants them, and what is still wrong with them; the same object if nothing changed."""
    checker = Checker(schema)
    fault = checker.fault(arguments, schema)
    if not fault and arguments.keys() <= properties_of(schema).keys():
        return arguments, ""
    found = Coercion(checker, full=full).changed(arguments, schema, 0)
    if found == arguments and not _types_differ(found, arguments):
        return arguments, fault
    assert isinstance(found, dict)
    return found, Checker(schema).fault(found, schema)


def plain(name: str) -> str:
    """A name without what models change in it: case, `_`, `-`, `.` and white space."""
    return UNLIKE.sub("", name).casefold()


class Coercion:
    """Changes values that a schema refuses."""

    def __init__(self, checker: Checker, *, full: bool) -> None:
        self.checker = checker
        self.full = full

    def changed(self, value: Any, schema: Any, depth: int) -> Any:
        """`value`, or the first like it that `schema` allows; inner values are changed even if others stay wrong."""
        schema = self.checker.resolved(schema)
        if depth > MOST_DEPTH or not isinstance(schema, Mapping):
            return value
        if isinstance(value, dict):
            value = self._object(value, schema, depth)
        elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
            value = [self.changed(inner, schema["items"], depth + 1) for inner in value]
        if not self.checker.fault(value, schema):
            return value
        for candidate in self._candidates(value, schema, depth):
            if not self.checker.fault(candidate, schema):
                return candidate
        return value

    def _object(self, value: dict[str, Any], schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        declared = properties_of(schema)
        if not declared:
            return value
        if not value.keys() <= declared.keys():
            value = self._renamed(value, schema, declared)
        return {
            name: self.changed(inner, declared[name], depth + 1) if name in declared else inner
            for name, inner in value.items()
        }

    def _renamed(self, value: dict[str, Any], schema: Mapping[str, Any], declared: Mapping[str, Any]) -> dict[str, Any]:
        """`value` with names as they are declared, where only one that is missing can be meant."""
        missing: dict[str, list[str]] = {}
        for name in declared:
            if name not in value:
                missing.setdefault(plain(name), []).append(name)
        found: dict[str, Any] = {}
        for name, inner in value.items():
            meant = missing.pop(plain(name), []) if name not in declared else []
            if len(meant) == 1:
                found[meant[0]] = inner
            elif name in declared or not self.full or schema.get("additionalProperties") is not False:
                found[name] = inner
        return found

    def _candidates(self, value: Any, schema: Mapping[str, Any], depth: int) -> Iterator[Any]:
        """What `value` may mean, the likeliest first."""
        for part in self._parts(schema, depth):
            allowed = part.get("enum")
            if isinstance(value, str):
                yield from _of_text(value, types_of(part))
                yield from self._of_word(value, allowed if isinstance(allowed, list) else [])
                if opened := self._opened(value, types_of(part)):
                    yield self.changed(opened, part, depth + 1)
            elif isinstance(value, bool | int | float) and (
                "string" in types_of(part) or (isinstance(allowed, list) and not types_of(part))
            ):
                yield text_of(value)
            elif isinstance(value, dict | list) and part is not schema:
                yield self.changed(value, part, depth + 1)
            if self.full and "array" in types_of(part) and not isinstance(value, list):
                yield self.changed([value], part, depth + 1)

    def _parts(self, schema: Mapping[str, Any], depth: int) -> Iterator[Mapping[str, Any]]:
        """The schema, and its alternatives."""
        yield schema
        if depth > MOST_DEPTH:
            return
        for word in ("anyOf", "oneOf", "allOf"):
            parts = schema.get(word)
            for part in parts if isinstance(parts, list) else ():
                resolved = self.checker.resolved(part)
                if isinstance(resolved, Mapping):
                    yield from self._parts(resolved, depth + 1)

    def _of_word(self, value: str, allowed: list[Any]) -> Iterator[Any]:
        """The allowed value that was quoted, or written with space around it, or (`full`) in other case."""
        bare = value.strip()
        inner = value_of(bare)
        yield bare
        if isinstance(inner, str | int | float):
            yield inner
        if len(bare) > 2 and bare[0] == bare[-1] == "'":
            yield bare[1:-1]
        if self.full:
            meant = [a for a in allowed if isinstance(a, str) and a.casefold() == bare.casefold()]
            if len(meant) == 1:
                yield meant[0]

    def _opened(self, value: str, types: tuple[str, ...]) -> Any:
        """The list or object in a JSON text, if such a type is wanted."""
        bare = value.strip()
        if not ("array" in types and bare[:1] == "[") and not ("object" in types and bare[:1] == "{"):
            return None
        found = value_of(bare)
        return mend(bare) if found is None else found


def _of_text(value: str, types: tuple[str, ...]) -> Iterator[Any]:
    """What a text means as another type."""
    bare = value.strip()
    if bare in NULLS and "null" in types:
        yield None
    if bare.lower() in ("true", "false") and "boolean" in types:
        yield bare.lower() == "true"
    if NUMBER.fullmatch(bare) and ("integer" in types or "number" in types):
        number = value_of(bare)
        if isinstance(number, float) and number.is_integer() and "number" not in types and abs(number) < 2**53:
            number = int(number)
        yield number


def _types_differ(one: Any, other: Any) -> bool:
    """Whether equal values differ as JSON, such as 1 and true."""
    return text_of(one) != text_of(other)
