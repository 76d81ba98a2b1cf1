"""From bytes to samples to numbers; loads; kept runs."""

from __future__ import annotations

import json
import math
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.errors import UsageError
from nemotron_ops.measure import runs
from nemotron_ops.measure.load import Load, Tokenizer, arrivals_s, body, prompt
from nemotron_ops.measure.runs import Result
from nemotron_ops.measure.stream import Sample, sample_of
from nemotron_ops.measure.summary import Limit, number, read_limit, summarise
from nemotron_ops.paths import Layout


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(**fields: Any) -> bytes:
    return event(choices=[{"delta": fields}])


END = event(
    choices=[], usage={"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
)
DONE = b"data: [DONE]\n\n"


def test_the_first_text_is_the_first_token_be_it_reasoning_or_a_call() -> None:
    for first in ({"content": "a"}, {"reasoning_content": "a"}, {"tool_calls": [{"index": 0}]}):
        chunks = [(1.0, delta(role="assistant", content=None)), (1.5, delta(**first)), (1.7, delta(content="b"))]
        found = sample_of([*chunks, (1.8, delta(content="c") + END + DONE)], at_s=0.0, start=1.0)
        assert found.error == ""
        assert found.ttft_s == pytest.approx(0.5)
        assert found.gaps_s == pytest.approx((0.2, 0.1))
        assert found.token_time_s == pytest.approx(0.15)
        assert (found.tokens, found.prompt_tokens, found.cached_tokens) == (3, 9, 4)


def test_an_event_that_comes_in_two_pieces_counts_from_its_last_byte() -> None:
    whole = delta(content="a")
    found = sample_of([(1.0, whole[:10]), (2.0, whole[10:] + DONE)], at_s=0.0, start=0.0)
    assert found.ttft_s == 2.0


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (delta(content="a"), "the stream ended early"),
        (DONE, "the answer has no token"),
        (delta(content="a") + event(error={"message": "died"}), "died"),
        (b"data: {no\n\n", "an event is no JSON"),
        (b"", "the stream ended early"),
    ],
)
def test_an_incomplete_stream_is_an_error(data: bytes, error: str) -> None:
    assert sample_of([(1.0, data)], at_s=0.0, start=0.0).error == error


def sample(ttft: float, gap: float, tokens: int = 5, **fields: Any) -> Sample:
    return Sample(at_s=0, ttft_s=ttft, gaps_s=(gap,) * (tokens - 1), ended_s=ttft + 1, tokens=tokens, **fields)


def test_goodput_counts_complete_answers_within_the_limit() -> None:
    samples = [sample(0.1, 0.02), sample(0.6, 0.02), sample(0.1, 0.06), Sample(at_s=0, error="cut")]
    found = summarise(samples, 2.0, read_limit("ttft=500ms, tpot=50ms"))
    assert found["goodput_per_s"] == 0.5
    assert found["goodput_share"] == 0.25
    assert (found["requests"], found["errors"], found["error"]) == (4, 1, "cut")
    assert found["tokens_per_s"] == 7.5
    assert number(found, "ttft_s") == 0.1
    assert "goodput_per_s" not in summarise(samples, 2.0, Limit())


def test_a_load_without_an_answer_has_no_numbers_and_no_nan() -> None:
    found = summarise([Sample(at_s=0, error="cut")], 1.0)
    assert found["ttft_s"]["p50"] is None
    assert math.isnan(number(found, "ttft_s"))
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("text", ["ttft", "ttft=5", "speed=5ms", "ttft=-5ms"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read the limit"):
        read_limit(text)


def test_arrivals_of_an_open_loop_are_a_poisson_process() -> None:
    at = arrivals_s(Load(requests=20_000, rate_per_s=4))
    gaps = [b - a for a, b in pairwise(at)]
    assert statistics.mean(gaps) == pytest.approx(0.25, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(0.25, rel=0.03)


def test_prompts_have_the_length_that_was_asked_for_and_share_only_their_prefix() -> None:
    load, words = Load(prompt_tokens=100, prefix_tokens=40), Tokenizer(of_template=0, per_word=2)
    one, other = (prompt(load, n, words).split() for n in (0, 1))
    assert len(one) == len(other) == 50
    assert one[:20] == other[:20]
    assert one[20:] != other[20:]
    assert prompt(load, 0, words) == prompt(load, 0, words)
    assert prompt(load, 0, words, "later") != prompt(load, 0, words)


def test_warm_prompts_repeat_and_cold_ones_do_not() -> None:
    words = Tokenizer(of_template=0, per_word=1)
    warm, cold = Load(warm=True, concurrency=2), Load()
    assert len({prompt(warm, n, words, "x") for n in range(8)}) == 2
    assert len({prompt(cold, n, words) for n in range(8)}) == 8


def test_thinking_is_asked_for_only_if_it_was_chosen() -> None:
    assert "chat_template_kwargs" not in body(Load(), "m", "x")
    assert body(Load(thinking=False), "m", "x")["chat_template_kwargs"] == {"enable_thinking": False}


def result(run: str, load: str = "closed 1") -> Result:
    return Result(
        run=run, at_s=1.0, label="tiny", load={}, load_name=load, limit={}, summary={"n": 1}, repeats=({"n": 1},),
        made_by={"machine": {}},
    )  # fmt: skip


def test_kept_results_are_read_again_run_by_run(layout: Layout) -> None:
    for one in (result("a", "x"), result("b"), result("a", "y")):
        runs.append(layout, one)
    assert [(r.id, list(r.repeats)) for r in runs.read(layout)] == [("a", ["x", "y"]), ("b", ["closed 1"])]
    assert runs.find(layout, "last").id == "b"
    assert runs.find(layout, "last~1").id == "a"
    with pytest.raises(UsageError, match="there is none"):
        runs.find(layout, "c")


def test_a_line_that_a_kill_cut_loses_no_other_line(layout: Layout) -> None:
    runs.append(layout, result("a"))
    path: Path = runs.file_of(layout)
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut])
        runs.append(layout, result("b"))
        assert [r.id for r in runs.read(layout)] in (["a", "b"], ["a", "a", "b"])


def test_runs_of_one_second_have_names_of_their_own() -> None:
    one = runs.new_id("m at http://x", 0.0, [])
    other = runs.new_id("m at http://x", 0.0, [one])
    assert one != other
    assert runs.new_id("m at http://x", 0.0, [one, other]) not in (one, other)
