"""The scanner of leaked calls: the same result however text is cut, and bounded work on hostile text. About 2 s."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.gateway.toolcalls.heal import Answer, Ladder, Level
from nemotron_ops.gateway.toolcalls.offered import offered
from nemotron_ops.gateway.toolcalls.scan import MOST_MARKERS, Scanner

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OFFERED = offered({"tools": [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]})
JSON_CALL = '{"name":"get_weather","arguments":{"city":"x"}}'
LEAK = "<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>"
PARTS = (
    *("<tool_call>", "<function=get_weather>", "<function=x>", "\n", "<parameter=city>", "Oslo", "</parameter>"),
    *("</function>", "</tool_call>", " ", "```", "`", "Hello.", "a < b ", JSON_CALL, "[TOOL_CALLS]", "<func", "</x>"),
    *("<tool_response>\n", ";", "> ", '<invoke name="get_weather">', "y" * 300, LEAK),
)
HOSTILE = (
    *("<tool_call> x ", "<function=", "`<function=get_weather>` ", "<function=get_weather>\n", "<", "<a\n", "<t", "[T"),
    *('"\\', "\n", "<tool_call>", LEAK, "<function=get_weather>\n</function>\n", JSON_CALL + ";"),
)


def read(scanner: Scanner, pieces: list[str]) -> tuple[str, list[tuple[str, Any]]]:
    out = "".join(map(scanner.feed, pieces))
    rest, leaks = scanner.end()
    return out + rest, [(leak.name, leak.arguments) for leak in leaks]


@given(
    st.lists(st.sampled_from(PARTS), max_size=12), st.lists(st.integers(0, 2000), max_size=6), st.sampled_from(Level)
)
@settings(max_examples=300, deadline=None)
def test_the_result_does_not_depend_on_how_text_is_cut(parts: list[str], cuts: list[int], level: Level) -> None:
    text, ladder = "".join(parts), Ladder(OFFERED, level)
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    whole = read(ladder.scanner(), [text])
    assert read(ladder.scanner(), list(text)) == whole
    assert read(ladder.scanner(), [text[a:b] for a, b in pairwise(places)]) == whole
    if not whole[1]:
        assert whole[0] == text


def calls_made(text: str, level: Level) -> int:
    """The functions that are called for `text`."""
    made = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal made
        del frame, argument
        made += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        Ladder(OFFERED, level).heal(Answer(content=text))
    finally:
        sys.setprofile(before)
    return made


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.parametrize("level", [Level.SAFE, Level.FULL])
def test_hostile_text_takes_work_in_proportion_to_its_length(unit: str, level: Level) -> None:
    text = unit * (16384 // len(unit))
    once, twice = calls_made(text, level), calls_made(text + text, level)
    assert twice <= 2.2 * once + 2000
    assert twice <= 150_000


def test_a_text_full_of_markers_is_about_calls() -> None:
    mentions = "The tag `<function=get_weather>` begins a call.\n"
    few, many = mentions * (MOST_MARKERS - 1) + "\n" + LEAK, mentions * MOST_MARKERS + "\n" + LEAK
    assert read(Ladder(OFFERED).scanner(), [few])[1] == [("get_weather", {"city": "Oslo"})]
    assert read(Ladder(OFFERED).scanner(), [many]) == (many, [])
