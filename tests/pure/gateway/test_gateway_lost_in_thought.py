"""Ends without content are detected however a stream is split, and only where there is no content."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.continuation.lost_in_thought import LostInThought, marked
from nemotron_ops.gateway.streams import sse
from tests.fakes.scripted_engine import call_events, events
from tests.fakes.stream_reader import put_together

APIS = [Api.CHAT, Api.MESSAGES]
THOUGHTS = ("Hm. ", '"content":"no"')


def watched(api: Api, parts: Iterator[bytes]) -> tuple[bytes, LostInThought]:
    detector = LostInThought(api, lambda: None)
    return b"".join([detector(part) for part in parts]), detector


@pytest.mark.parametrize("step", [1, 2, 100], ids=["event by event", "two by two", "at once"])
@pytest.mark.parametrize("api", APIS)
def test_an_end_without_content_is_held_back(api: Api, step: int) -> None:
    stream = events(api.value, (), THOUGHTS)
    passed, detector = watched(api, (b"".join(stream[n : n + step]) for n in range(0, len(stream), step)))
    assert detector.lost
    assert passed + detector.held_end == b"".join(stream)
    assert not sse.is_complete(api, passed)
    assert b'"finish_reason":"stop"' not in passed
    assert b"end_turn" not in passed


@pytest.mark.parametrize("api", APIS)
def test_content_and_calls_pass_and_end_the_search(api: Api) -> None:
    for stream in (events(api.value, thoughts=THOUGHTS), events(api.value), call_events(api.value)):
        words: list[str] = []
        detector = LostInThought(api, lambda words=words: words.append("heard"))  # type: ignore[misc]
        passed = b"".join([detector(event) for event in stream])
        assert passed == b"".join(stream)
        assert (detector.lost, detector.has_content, bool(words)) == (False, True, True)


@pytest.mark.parametrize("api", APIS)
def test_without_reasoning_an_empty_answer_is_just_empty(api: Api) -> None:
    passed, detector = watched(api, iter(events(api.value, ())))
    assert not detector.lost
    assert sse.is_complete(api, passed)


def test_a_chat_that_ran_out_of_tokens_is_not_lost() -> None:
    stream = [event.replace(b'"stop"', b'"length"') for event in events("chat", (), THOUGHTS)]
    assert watched(Api.CHAT, iter(stream))[0] == b"".join(stream)


@pytest.mark.parametrize("api", APIS)
def test_the_marked_end_differs_in_one_word(api: Api) -> None:
    _, detector = watched(api, iter(events(api.value, (), THOUGHTS)))
    end = marked(api, detector.held_end)
    assert end.count(b'"lost_in_thought":true') == 1
    assert put_together(end.replace(b',"lost_in_thought":true', b"")) == put_together(detector.held_end)
