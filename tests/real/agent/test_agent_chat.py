"""The profile `agent` and `web_search_options` in chats, with the real `openai` package. Costs about 10 s."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.stages.agent import Served
from tests.stages.tool_model import SAID

pytestmark = pytest.mark.real


def ask(served: Served, text: str, *, plain: bool = False, **more: Any) -> Any:
    given: Any = {"model": "m:agent", "messages": [{"role": "user", "content": text}], "max_tokens": 200, **more}
    client = served.plain_client if plain else served.openai_client
    return client.chat.completions.create(**given)


@pytest.mark.parametrize("word", ["search", "browse", "compute"])
def test_the_profile_agent_uses_tools_and_answers_as_a_plain_chat(served: Served, word: str) -> None:
    got = ask(served, f"please {word}")
    (choice,) = got.choices
    assert (choice.message.content, choice.finish_reason, choice.message.tool_calls) == (SAID, "stop", None)
    assert got.model == "m:agent"
    assert got.usage.completion_tokens > 10
    cited = [note.url_citation for note in choice.message.annotations or ()]
    if word == "compute":
        assert cited == []
    else:
        assert [(c.url, SAID[c.start_index : c.end_index]) for c in cited] == [(f"{served.pages.base}/page", "[1]")]


def test_a_stream_is_one_chat_with_one_end(served: Served) -> None:
    chunks = list(ask(served, "please search", stream=True, stream_options={"include_usage": True}))
    assert len({c.id for c in chunks}) == 1
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    ends = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    assert (text, ends) == (SAID, ["stop"])
    notes: list[Any] = [n for c in chunks if c.choices for n in getattr(c.choices[0].delta, "annotations", None) or ()]
    assert [n["url_citation"]["url"] for n in notes] == [f"{served.pages.base}/page"]
    assert chunks[-1].usage is not None
    assert not any(c.choices[0].delta.tool_calls for c in chunks if c.choices)


def test_web_search_options_search_without_the_profile(served: Served) -> None:
    got = ask(served, "please search", model="m", web_search_options={})
    assert got.choices[0].message.annotations[0].url_citation.title == "Sognefjord"


def test_the_clients_own_function_is_the_clients_to_run(served: Served) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    own = {"type": "function", "function": {"name": "get_weather", "parameters": parameters}}
    got = ask(served, "How is the weather in Oslo?", tools=[own])
    assert got.choices[0].finish_reason == "tool_calls"
    assert [c.function.name for c in got.choices[0].message.tool_calls] == ["get_weather"]


def test_a_budget_that_ends_is_the_finish_reason_length(served: Served) -> None:
    served.write("agent.toml", "[budgets]\nturns = 1\n")
    try:
        assert ask(served, "please search").choices[0].finish_reason == "length"
    finally:
        (served.home / "config" / "agent.toml").unlink()


def test_a_key_without_the_scope_is_refused(served: Served) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="lacks the scope 'tools'"):
        ask(served, "please search", plain=True)


def test_a_model_that_does_not_exist_is_still_not_found(served: Served) -> None:
    with pytest.raises(openai.NotFoundError):
        ask(served, "please search", model="other:agent")


def test_the_profile_without_tools_says_what_enables_them(served: Served) -> None:
    served.write("tools.json", '{"enabled": []}')
    try:
        with pytest.raises(openai.BadRequestError, match="nemotron-ops tools enable python,web"):
            ask(served, "please search")
    finally:
        served.write("tools.json", '{"enabled": ["python", "web"]}')
