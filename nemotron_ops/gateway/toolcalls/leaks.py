"""Reads calls from markup that a model wrote as text: XML of several kinds, and JSON in tags. Pure.

    <tool_call>                         the template's own; wrapper and closers may be missing, doubled or indented
    <function=NAME>
    <parameter=NAME>
    VALUE
    </parameter>
    </function>
    </tool_call>

    <invoke name="NAME"><parameter name="NAME">VALUE</parameter></invoke>
    <tool_call>{"name": NAME, "arguments": {...}}</tool_call>       also `<TOOLCALL>[...]</TOOLCALL>`, `[TOOL_CALLS]`
    <function=NAME>{...}</function>

A block is read to its last letter, or not at all. What could be read in two ways is not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from typing import Any

from nemotron_ops.gateway.toolcalls.coerce import plain
from nemotron_ops.gateway.toolcalls.offered import Tool
from nemotron_ops.gateway.toolcalls.read_json import mend, value_of
from nemotron_ops.gateway.toolcalls.schema import properties_of

WRAPPER = r"tool_?calls?|function_?calls?"
OPENER = re.compile(rf"<\|?(?:{WRAPPER})\|?>|\[TOOL_CALLS\]", re.IGNORECASE)
FUNCTION = re.compile(r"<(?:function ?=|function name ?=|invoke name ?=)([^<>]{1,200})>")
PARAMETER = re.compile(r"<parameter(?: ?=| name ?=)([^<>]{1,200})>")
CLOSER = re.compile(rf"</\|?(?:parameter|function|invoke|{WRAPPER})\|?>|\[/TOOL_CALLS\]|<\|im_end\|>", re.IGNORECASE)
OPENERS = re.compile(f"{FUNCTION.pattern}|{PARAMETER.pattern}")
LAST_CLOSER = re.compile(rf"(?:</\|?(parameter|function|invoke|{WRAPPER})\|?>|<\|im_end\|>)$", re.IGNORECASE)
CLOSER_LETTERS = 24
CALL_HEAD = re.compile(r"([\w.:-]{1,200})\s{0,4}(?:\[ARGS\])?\s{0,4}(?=\{)")
ARGUMENTS = ("arguments", "args", "parameters", "input")
MOST_CALLS = 64


def _refuse(word: str) -> Any:
    raise ValueError(word)  # NaN and infinities are no JSON


_decode = JSONDecoder(parse_constant=_refuse).raw_decode


@dataclass(slots=True)
class Leak:
    """A call as it stood in the text: arguments as an object, or as JSON text; `mended` if its JSON was broken."""

    name: str
    arguments: Any
    mended: bool = False


Find = Callable[[str], Tool | None]  # the tool that a name in the text means


def name_in(raw: str) -> str:
    """A name without quotes and space around it."""
    return raw.strip().strip("\"'").strip()


def read_block(block: str, find: Find) -> list[Leak] | None:
    """The calls in a block of markup; None if it is anything else besides."""
    calls: list[Leak] = []
    place, wrapped = 0, False
    while len(calls) < MOST_CALLS:
        place = _space(block, place)
        if place == len(block):
            return calls or None
        if found := OPENER.match(block, place):
            place, wrapped = found.end(), True
        elif found := CLOSER.match(block, place):
            place = found.end()
        elif found := FUNCTION.match(block, place):
            read = _function(block, found, find)
            if read is None:
                return None
            place = read[1]
            calls.append(read[0])
        elif wrapped:
            json_calls, place = _json_calls(block, place)
            if not json_calls:
                return None
            calls += json_calls
        else:
            return None
    return None


def calls_in_json(text: str, *, bare: bool) -> list[Leak]:
    """The calls in JSON: one, a list, or several behind each other (also with `;`); empty if it holds anything else.

    `bare`: no tag says that these are calls, so that each needs arguments.
    """
    values, mended = _values(text)
    if len(values) > MOST_CALLS:
        return []
    calls = [_call(value, mended=mended, bare=bare) for value in values]
    return [call for call in calls if call is not None] if all(calls) else []


def parameters(text: str, tool: Tool) -> dict[str, Any] | None:
    """The arguments in text that is nothing but `<parameter=…>` markup."""
    begin = _space(text, 0)
    if PARAMETER.match(text, begin) is None:
        return None
    read = _parameters(text, begin, tool, lambda name: None, "")
    return read[0] if read is not None and not CLOSER.sub("", text[read[1] :]).strip() else None


def _function(block: str, header: re.Match[str], find: Find) -> tuple[Leak, int] | None:
    """A call in XML, and where it ends."""
    name = name_in(header[1])
    tool = find(name)
    if tool is None:
        return None
    place = _space(block, header.end())
    if block[place : place + 1] == "{":
        end = _next_call(block, place)
        text, _ = _without_closers(block[place:end])
        return Leak(name, text.strip()), end
    read = _parameters(block, place, tool, find, _indent(block, header.start()))
    return (Leak(name, read[0]), read[1]) if read is not None else None


def _parameters(
    block: str, place: int, tool: Tool, find: Find, outer: str
) -> tuple[dict[str, Any], int] | None:  # fmt: skip
    """The arguments from `place` on, and where they end; `outer` is the indent of the function's tag."""
    found: dict[str, Any] = {}
    while header := PARAMETER.match(block, _past_closers(block, place, "parameter")):
        name = name_in(header[1])
        if not name:
            return None
        end = _end_of_value(block, header.end(), tool, find, {*found, name})
        if end is None:
            return None
        raw, closed = _without_closers(block[header.end() : end])
        indent = _indent(block, header.start())
        found[name] = _value(raw, indent, outer, closed=closed)
        place = end
        if closed not in ("", "parameter"):
            return found, place
    return found, place


def _end_of_value(block: str, place: int, tool: Tool, find: Find, seen: set[str]) -> int | None:
    """Where the region of a value with its closers ends: at the next argument or call; None if that is unclear."""
    declared = {plain(name) for name in properties_of(tool.schema)}
    inner = False  # the value shows a call
    for found in OPENERS.finditer(block, place):
        if found[1] is not None:
            if find(name_in(found[1])) is None:
                continue
            if _last_closer(block[place : found.start()]) not in ("", "parameter"):
                return None if inner else _before_wrapper(block, place, found.start())
            inner = True
            continue
        name = name_in(found[2])
        known = plain(name) in declared if declared else True
        closed = _without_closers(block[max(place, found.start() - 200) : found.start()])[1]
        if inner and known and name not in seen:
            return None
        if (known and name not in seen and _begins_line(block, found.start())) or (closed and known):
            return found.start()
    return len(block)


def _before_wrapper(block: str, place: int, end: int) -> int:
    """`end`, or the place before the wrapper's opener in front of it."""
    bare = block[place:end].rstrip()
    for found in OPENER.finditer(bare, max(0, len(bare) - CLOSER_LETTERS)):
        if found.end() == len(bare):
            return place + found.start()
    return end


def _without_closers(region: str) -> tuple[str, str]:
    """A value without the closers behind it, and the kind of the first of these; "" if there is none.

    Closers in front of the value's own `</parameter>` belong to the value.
    """
    value, kind = region, ""
    while True:
        bare = value.rstrip()
        for found in OPENER.finditer(bare, max(0, len(bare) - CLOSER_LETTERS)):
            if found.end() == len(bare) and not kind:
                bare = bare[: found.start()].rstrip()
                break
        found_closer = LAST_CLOSER.search(bare, max(0, len(bare) - CLOSER_LETTERS))
        if found_closer is None:
            return value, kind
        new = (found_closer[1] or "end").lower()
        if kind == "parameter" and new != "parameter":
            return value, kind
        value, kind = bare[: found_closer.start()], new


def _last_closer(region: str) -> str:
    """The kind of the closer at the end of `region`, before the opener of a wrapper; "" if there is none."""
    bare = region.rstrip()
    for found in OPENER.finditer(bare, max(0, len(bare) - CLOSER_LETTERS)):
        if found.end() == len(bare):
            bare = bare[: found.start()].rstrip()
            break
    closer = LAST_CLOSER.search(bare, max(0, len(bare) - CLOSER_LETTERS))
    return (closer[1] or "end").lower() if closer is not None else ""


def _value(raw: str, indent: str, outer: str, *, closed: str) -> str:
    """A value without the line ends and the indent that belong to its tags."""
    if not raw.startswith(("\n", "\r\n")):
        return raw.strip()
    raw = raw.removeprefix("\r").removeprefix("\n")
    head, line_end, last = raw.rpartition("\n")
    if line_end and not last.strip():
        raw = head.removesuffix("\r")
    elif not line_end and not raw.strip():
        raw = ""
    if not indent:
        return raw
    lines = raw.split("\n")
    deeper = indent + indent[len(outer) :]
    for prefix in (deeper, indent):
        if all(line.startswith(prefix) or not line.strip() for line in lines):
            return "\n".join(line[len(prefix) :] for line in lines)
    return raw


def _next_call(block: str, place: int) -> int:
    """Where the call that begins at `place` ends: at the next one's tag, or with the block."""
    found = FUNCTION.search(block, place)
    return found.start() if found is not None else len(block)


def _json_calls(block: str, place: int) -> tuple[list[Leak], int]:
    """Calls in JSON from `place` on, up to the next wrapper."""
    head = CALL_HEAD.match(block, place)
    begin = head.end() if head is not None else place
    if block[begin : begin + 1] not in ("{", "["):
        return [], place
    end = len(block)
    for found in OPENER.finditer(block, begin):
        if _without_closers(block[begin : found.start()])[1]:
            end = found.start()
            break
    text, _ = _without_closers(block[begin:end])
    if head is not None:
        return [Leak(head[1], text.strip())], end
    return calls_in_json(text, bare=False), end


def _values(text: str) -> tuple[list[Any], bool]:
    """The JSON values in `text`, and whether they had to be mended."""
    values: list[Any] = []
    place, text = 0, text.strip().rstrip(";").rstrip()
    try:
        while place < len(text):
            value, place = _decode(text, place)
            values += value if isinstance(value, list) else [value]
            place = _space(text, place)
            if text[place : place + 1] in (";", ","):
                place = _space(text, place + 1)
        return values, False
    except (JSONDecodeError, RecursionError, ValueError):
        found = mend(text)
        if found is None or (isinstance(found, list) and not text.startswith("[")):
            return [], True
        return (found if isinstance(found, list) else [found]), True


def _call(value: Any, *, mended: bool, bare: bool) -> Leak | None:
    """A call from its object."""
    if not isinstance(value, Mapping):
        return None
    inner = value.get("function")
    if isinstance(inner, Mapping):
        value = inner
    name = value.get("name", inner if isinstance(inner, str) else None)
    if not isinstance(name, str) or not name:
        return None
    given = [word for word in ARGUMENTS if word in value]
    if len(given) > 1 or (not given and bare):
        return None
    arguments = value[given[0]] if given else {}
    if isinstance(arguments, str) and isinstance(value_of(arguments), dict):
        arguments = value_of(arguments)
    if arguments is None:
        arguments = {}
    return Leak(name, arguments, mended) if isinstance(arguments, dict | str) else None


def _space(text: str, place: int) -> int:
    """Past white space."""
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _past_closers(text: str, place: int, kind: str) -> int:
    """Past white space and closers of `kind`."""
    mark = f"</{kind}>"
    while True:
        place = _space(text, place)
        if not text.startswith(mark, place):
            return place
        place += len(mark)


def _begins_line(text: str, place: int) -> bool:
    before = text.rfind("\n", max(0, place - 200), place)
    return not text[before + 1 : place].strip() if before >= 0 else False


def _indent(text: str, place: int) -> str:
    """The white space between the line's begin and `place`; empty if there is anything else."""
    begin = text.rfind("\n", max(0, place - 200), place) + 1
    before = text[begin:place]
    return before if before.isspace() else ""
