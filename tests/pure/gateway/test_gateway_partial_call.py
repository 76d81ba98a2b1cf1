"""A partial tool call becomes the text that its model was writing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.gateway.continuation.partial_call import BEGIN, END, end_of_last_text, partial_call, text_of_call
from nemotron_ops.gateway.continuation.transcript import Call


@pytest.mark.parametrize(
    ("arguments", "text_before_end"),
    [
        ('{"city":"Os', '{"city":"Os'),
        ('{"city":"Oslo"', '{"city":"Oslo'),
        ('{"city":"Oslo","days":1', '{"city":"Oslo'),
        ('{"city":"Oslo","why":"', '{"city":"Oslo'),
        ('{"code":"print(\\"x\\")\\n', '{"code":"print(\\"x\\")\\n'),
        ('{"code":"a\\', '{"code":"a'),
        ('{"code":"a\\u12', '{"code":"a'),
        ('{"a":{"b":"nested', None),
        ('{"a":["listed"', None),
        ('{"a":["listed"],"b":"x', '{"a":["listed"],"b":"x'),
        ('{"days":1', None),
        ('{"cit', None),
        ('{"city":"', None),
        ("{", None),
        ("", None),
    ],
)
def test_a_call_is_cut_in_its_last_string(arguments: str, text_before_end: str | None) -> None:
    end = end_of_last_text(arguments)
    assert (None if end is None else arguments[:end]) == text_before_end


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=8), lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v)
)


@settings(deadline=None, max_examples=50)
@given(whole=st.dictionaries(st.text(max_size=5), VALUES, max_size=4), cut=st.integers(0, 200))
def test_a_cut_call_can_be_closed_and_the_tail_is_the_rest(whole: dict[str, object], cut: int) -> None:
    arguments = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))[:cut]
    half = partial_call([Call(name="f", arguments=arguments)])
    if half is None:
        return
    asked = json.loads(half.body)["messages"][1]["tool_calls"][0]["function"]["arguments"]
    text = asked.removesuffix(f'{END}"}}')
    assert text + half.tail == arguments
    assert [v for v in json.loads(asked).values() if isinstance(v, str)][-1].endswith(END)


def test_earlier_calls_must_be_complete() -> None:
    last = Call(name="g", arguments='{"city":"Os')
    assert partial_call([Call(name="f", arguments="{}"), last]) is not None
    assert partial_call([Call(name="f", arguments="{"), last]) is None
    assert partial_call([Call(name="g", arguments=f'{{"city":"{END}')]) is None


def test_the_text_is_between_the_marks() -> None:
    prompt = f"<|im_start|>assistant\n{BEGIN}\n<tool_call>\n<parameter=city>\nOs{END}\n</parameter>"
    assert text_of_call(json.dumps({"prompt": prompt}).encode()) == "\n<tool_call>\n<parameter=city>\nOs"
    for answer in (b"", b"{}", b"[]", b'{"prompt":1}', b'{"prompt":"x"}', json.dumps({"prompt": BEGIN}).encode()):
        assert text_of_call(answer) is None
