"""Measures JSON schemas, tools and template arguments before llama-server converts them. Pure.

llama-server turns a schema into a grammar by recursion, also through `$ref`, in time that grows with the cube of an
object's optional properties (common/json-schema-to-grammar.cpp, v0.5.0).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nemotron_ops.gateway.request import limits
from nemotron_ops.gateway.request.limits import Limit, exceeded

CHOICES = ("anyOf", "oneOf", "type")
REPEATS = ("minItems", "maxItems", "minLength", "maxLength")
MOST_REPEATS = 2000  # more are refused or taken for "any number" by llama-server


def check_depth(value: Any, limit: Limit, field: str) -> None:
    """Raises Refusal if lists and objects in `value` are nested deeper than `limit`."""
    level = [value]
    for _ in range(limit.most + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise exceeded(limit, field)


def _inside(value: Any) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict | list)]


def check_tools(tools: Any) -> None:
    """Raises Refusal if there are too many tools, or one whose schema exceeds a limit."""
    if not isinstance(tools, list):
        return
    if len(tools) > limits.TOOLS.most:
        raise exceeded(limits.TOOLS)
    for tool in tools:
        inner = tool.get("function", tool) if isinstance(tool, dict) else None
        for name in ("parameters", "input_schema"):
            if isinstance(inner, dict) and name in inner:
                check_schema(inner[name], "tools")
    check_depth(tools, limits.SCHEMA_DEPTH._replace(most=limits.SCHEMA_DEPTH.most + 3), "tools")


def check_schema(schema: Any, field: str) -> None:
    """Raises Refusal if a schema exceeds a limit."""
    check_depth(schema, limits.SCHEMA_DEPTH, field)
    repeats = 0
    measure = _Measure(schema, field)
    for node in _objects(schema):
        for name in REPEATS:
            if isinstance(count := node.get(name), int) and count > 0:
                repeats += min(count, MOST_REPEATS)
        if isinstance(pattern := node.get("pattern"), str) and len(pattern) > limits.PATTERN_BYTES.most:
            raise exceeded(limits.PATTERN_BYTES, field)
        measure.follow(node)
        measure.ways(node, 0)
        measure.optional(node, 0)
    if repeats > limits.SCHEMA_REPEATS.most:
        raise exceeded(limits.SCHEMA_REPEATS, field)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in `value`, also the ones that are no schemas, such as `properties`."""
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            yield found
        left += _inside(found)


class _Measure:
    """Counts alternatives and optional properties of the objects in a schema, through references."""

    def __init__(self, root: Any, field: str) -> None:
        self._root = root
        self._field = field
        self._ways: dict[int, int] = {}
        self._optional: dict[int, int] = {}

    def follow(self, node: dict[str, Any]) -> None:
        """Raises Refusal if references lead to references without end: llama-server's stack overflows (v0.5.0)."""
        target: Any = node
        for _ in range(limits.SCHEMA_DEPTH.most):
            if not isinstance(target, dict) or (target := self._target(target)) is None:
                return
        raise exceeded(limits.SCHEMA_DEPTH, self._field)

    def ways(self, node: Any, depth: int) -> int:
        """The number of values with which text for `node` can begin. Raises Refusal."""
        if not isinstance(node, dict):
            return 1
        if id(node) not in self._ways:
            self._ways[id(node)] = 1  # for a reference to itself
            found = len(node["enum"]) if isinstance(node.get("enum"), list) else 1
            for name in CHOICES:
                if isinstance(parts := node.get(name), list):
                    found = max(found, sum(self.ways(part, self._deeper(depth)) for part in parts))
            if (target := self._target(node)) is not None:
                found = max(found, self.ways(target, self._deeper(depth)))
            if found > limits.SCHEMA_WIDTH.most:
                raise exceeded(limits.SCHEMA_WIDTH, self._field)
            self._ways[id(node)] = found
        return self._ways[id(node)]

    def optional(self, node: Any, depth: int) -> int:
        """The number of optional properties of an object, with those of its parts. Raises Refusal."""
        if not isinstance(node, dict):
            return 0
        if id(node) not in self._optional:
            self._optional[id(node)] = 0
            found = 0
            if isinstance(properties := node.get("properties"), dict):
                required = node.get("required")
                named = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
                found = len(properties.keys() - named)
            if isinstance(parts := node.get("allOf"), list):
                found += sum(self._of_part(part, self._deeper(depth)) for part in parts)
            if found > limits.SCHEMA_OPTIONAL.most:
                raise exceeded(limits.SCHEMA_OPTIONAL, self._field)
            self._optional[id(node)] = found
        return self._optional[id(node)]

    def _of_part(self, part: Any, depth: int) -> int:
        """As `optional`, for a part of `allOf`: a reference, or alternatives whose properties are all optional."""
        found = self.optional(part, depth)
        if isinstance(part, dict):
            for inner in part["anyOf"] if isinstance(part.get("anyOf"), list) else ():
                if isinstance(inner, dict) and isinstance(properties := inner.get("properties"), dict):
                    found += len(properties)
            if (target := self._target(part)) is not None:
                found += self._of_part(target, self._deeper(depth))
        return found

    def _target(self, node: dict[str, Any]) -> Any:
        """What `$ref` in `node` refers to; None if that is not in the same schema."""
        reference = node.get("$ref")
        if not isinstance(reference, str) or "#" not in reference:
            return None
        found = self._root
        for part in reference.partition("#")[2].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and len(name) < 6 and int(name) < len(found):
                found = found[int(name)]
            else:
                found = found.get(name) if isinstance(found, dict) else None
        return found

    def _deeper(self, depth: int) -> int:
        if depth >= limits.SCHEMA_DEPTH.most:
            raise exceeded(limits.SCHEMA_DEPTH, self._field)
        return depth + 1
