"""Streams that end after their thoughts, without a word: asked for the answer again, or marked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from nemotron_ops.supervisor.snapshot import ModelView
from tests.fakes.stream_reader import put_together
from tests.stages.gateway import Stage, open_request, real_gateway

pytestmark = pytest.mark.real

SUM = [{"role": "user", "content": "What is 2 + 2?"}]
STOP = [" four"]  # occurs in the thoughts only: there the model falls silent
STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": SUM, "stop": STOP}),
    "responses": ("/v1/responses", {"input": "What is 2 + 2?", "stop": STOP}),
    "messages": ("/v1/messages", {"messages": SUM, "max_tokens": 100, "stop_sequences": STOP}),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    with real_gateway(tmp_path_factory.mktemp("real"), llama_bin) as found:
        yield found


def follow(stage: Stage, policy: str) -> None:
    stage.control.show(models=(ModelView(name="tiny", names=("tiny",), lost_in_thought=policy),))
    stage.settle()


def test_openais_chat_gets_the_words_that_were_missing(stage: Stage) -> None:
    follow(stage, "retry")
    with (
        openai.OpenAI(base_url=f"{stage.url}/v1", api_key="x", max_retries=0) as client,
        client.chat.completions.stream(model="tiny", messages=SUM, stop=STOP) as stream,  # type: ignore[arg-type]
    ):
        thoughts = [c.chunk.choices[0].delta.model_extra or {} for c in stream if c.type == "chunk"]
        (choice,) = stream.get_final_completion().choices
    assert "".join(t.get("reasoning_content", "") for t in thoughts) == "Two plus two makes"
    assert (choice.message.content, choice.finish_reason) == ("2 + 2 = 4.", "stop")


def test_openais_response_gets_the_words_that_were_missing(stage: Stage) -> None:
    follow(stage, "retry")
    with openai.OpenAI(base_url=f"{stage.url}/v1", api_key="x", max_retries=0) as client:
        events = list(
            client.responses.create(
                model="tiny", input="What is 2 + 2?", stream=True, extra_body={"stop": STOP}
            )
        )  # fmt: skip
    whole = events[-1].response  # type: ignore[union-attr]
    assert "".join(e.delta for e in events if e.type == "response.reasoning_text.delta") == "Two plus two makes"
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    assert whole.output_text == "2 + 2 = 4."
    assert [item.type for item in whole.output] == ["reasoning", "message"]


def test_anthropics_message_gets_the_words_that_were_missing(stage: Stage) -> None:
    follow(stage, "retry")
    with (
        anthropic.Anthropic(base_url=stage.url, api_key="x", max_retries=0) as claude,
        claude.messages.stream(model="tiny", max_tokens=100, messages=SUM, stop_sequences=STOP) as stream,  # type: ignore[arg-type]
    ):
        thoughts, text = stream.get_final_message().content
    assert (thoughts.type, text.type) == ("thinking", "text")
    assert (thoughts.thinking, text.text) == ("Two plus two makes", "2 + 2 = 4.")  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", STREAMS)
def test_a_whole_answer_gets_the_words_that_were_missing(stage: Stage, kind: str) -> None:
    follow(stage, "retry")
    path, body = STREAMS[kind]
    with open_request(stage, path, {"model": "tiny", **body}) as answer:
        raw = answer.rest().decode()
    assert not answer.broken
    assert "X-Lost-In-Thought" not in answer.head
    assert '"Two plus two makes"' in raw
    assert '"2 + 2 = 4."' in raw


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("kind", STREAMS)
def test_without_another_try_the_end_says_that_nothing_was_said(stage: Stage, kind: str, stream: bool) -> None:
    follow(stage, "report")
    path, body = STREAMS[kind]
    with open_request(stage, path, {"model": "tiny", "stream": stream, **body}) as answer:
        raw = answer.rest()
    assert not answer.broken
    if not stream:
        assert "X-Lost-In-Thought: true" in answer.head
        return
    assert sum('"lost_in_thought": true' in str(event).replace("'", '"').replace("True", "true")
               for event in put_together(raw)) == 1  # fmt: skip


@pytest.mark.parametrize("kind", STREAMS)
def test_an_answer_whose_tokens_ran_out_is_not_lost(stage: Stage, kind: str) -> None:
    follow(stage, "retry")
    path, body = STREAMS[kind]
    limit = {"max_output_tokens": 3} if kind == "responses" else {"max_tokens": 3}
    body = {k: v for k, v in body.items() if "stop" not in k} | limit
    with open_request(stage, path, {"model": "tiny", "stream": True, **body}) as answer:
        raw = answer.rest()
    assert not answer.broken
    assert b"lost_in_thought" not in raw
    assert b"2 + 2" not in raw
