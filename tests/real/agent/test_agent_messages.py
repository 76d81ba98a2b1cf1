"""Hosted tools of the messages API with the real `anthropic` package, whole and streamed. Costs about 15 s."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.stages.agent import Served
from tests.stages.tool_model import QUERY, SAID

pytestmark = pytest.mark.real
SEARCH: Any = {"type": "web_search_20250305", "name": "web_search"}
FETCH: Any = {"type": "web_fetch_20250910", "name": "web_fetch"}
PYTHON: Any = {"type": "code_execution_20250522", "name": "code_execution"}
BASH: Any = {"type": "code_execution_20250825", "name": "code_execution"}


def ask(served: Served, text: Any, tool: Any, *, stream: bool = False, **more: Any) -> Any:
    """The message; streamed ones as the package puts them together."""
    said = [{"role": "user", "content": text}] if isinstance(text, str) else text
    given: Any = {"model": "m", "max_tokens": 200, "messages": said, "tools": [tool], **more}
    if not stream:
        return served.anthropic_client.messages.create(**given)
    with served.anthropic_client.messages.stream(**given) as events:
        for _ in events:
            pass
        return events.get_final_message()


def kinds(message: Any) -> list[str]:
    return [block.type for block in message.content if block.type != "thinking"]


def block(message: Any, kind: str) -> Any:
    return next(b for b in message.content if b.type == kind)


@pytest.mark.parametrize("stream", [False, True])
def test_a_search_has_its_use_its_result_and_a_citation(served: Served, stream: bool) -> None:
    got = ask(served, "please search", SEARCH, stream=stream)
    assert (kinds(got), got.stop_reason) == (["server_tool_use", "web_search_tool_result", "text"], "end_turn")
    use, result, text = (block(got, k) for k in ("server_tool_use", "web_search_tool_result", "text"))
    assert (use.name, use.input, result.tool_use_id) == ("web_search", {"query": QUERY}, use.id)
    assert use.id.startswith("srvtoolu_")
    assert [hit.url for hit in result.content] == [f"{served.pages.base}/page", "https://other.example/"]
    (cited,) = text.citations
    assert (cited.type, cited.url, cited.title) == (
        "web_search_result_location", f"{served.pages.base}/page", "Sognefjord",
    )  # fmt: skip
    assert text.text == SAID
    assert cited.cited_text.startswith("205 km inland")
    assert got.usage.server_tool_use.web_search_requests == 1
    assert got.usage.output_tokens > 8


@pytest.mark.parametrize("stream", [False, True])
def test_a_page_is_fetched(served: Served, stream: bool) -> None:
    got = ask(served, "please fetch", FETCH, stream=stream)
    found = block(got, "web_fetch_tool_result").content
    assert (found.type, found.url) == ("web_fetch_result", f"{served.pages.base}/page")
    assert "205 kilometres inland" in found.content.source.data
    assert got.usage.server_tool_use.web_fetch_requests == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("tool", "word", "use", "kind"),
    [
        (PYTHON, "execute", "code_execution", "code_execution_tool_result"),
        (BASH, "shell", "bash_code_execution", "bash_code_execution_tool_result"),
    ],
)
def test_code_is_run(served: Served, tool: Any, word: str, use: str, kind: str, stream: bool) -> None:
    got = ask(served, f"please {word}", tool, stream=stream)
    assert kinds(got) == ["server_tool_use", kind, "text"]
    assert block(got, "server_tool_use").name == use
    found = block(got, kind).content
    assert (found.stdout.strip(), found.stderr, found.return_code) == ("42", "", 0)


def test_a_stream_has_the_events_of_each_block_in_order(served: Served) -> None:
    given: Any = {"model": "m", "max_tokens": 200, "messages": [{"role": "user", "content": "please search"}]}
    with served.anthropic_client.messages.create(**given, tools=[SEARCH], stream=True) as events:
        seen = list(events)
    assert [e.type for e in seen if not e.type.startswith("content_block")] == [
        "message_start", "message_delta", "message_stop",
    ]  # fmt: skip
    begun = [e.index for e in seen if e.type == "content_block_start"]
    assert begun == list(range(len(begun)))
    assert [e.index for e in seen if e.type == "content_block_stop"] == begun
    deltas = [e.delta.type for e in seen if e.type == "content_block_delta"]
    assert [d for d in deltas if d in ("input_json_delta", "citations_delta")] == [
        "input_json_delta", "citations_delta",
    ]  # fmt: skip


def test_an_answer_can_be_sent_back(served: Served) -> None:
    first = ask(served, "please search", SEARCH)
    said = [
        {"role": "user", "content": "please search"},
        {"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in first.content]},
        {"role": "user", "content": "How is the weather in Oslo?"},
    ]
    assert ask(served, said, SEARCH).stop_reason in ("end_turn", "tool_use")


def test_a_budget_that_ends_is_pause_turn_and_the_next_request_goes_on(served: Served) -> None:
    served.write("agent.toml", "[budgets]\nturns = 1\n")
    try:
        first = ask(served, "please search", SEARCH)
        assert (kinds(first), first.stop_reason) == (["server_tool_use", "web_search_tool_result"], "pause_turn")
    finally:
        (served.home / "config" / "agent.toml").unlink()
    said = [
        {"role": "user", "content": "please search"},
        {"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in first.content]},
    ]
    got = ask(served, said, SEARCH)
    assert (kinds(got), got.stop_reason) == (["text"], "end_turn")
    assert block(got, "text").citations[0].url == f"{served.pages.base}/page"


@pytest.mark.parametrize("stream", [False, True])
def test_a_use_without_a_result_is_run_first(served: Served, stream: bool) -> None:
    use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "code_execution", "input": {"code": "print(5)"}}
    said = [{"role": "user", "content": "please execute"}, {"role": "assistant", "content": [use]}]
    got = ask(served, said, PYTHON, stream=stream)
    assert kinds(got) == ["code_execution_tool_result", "text"]
    found = block(got, "code_execution_tool_result")
    assert (found.tool_use_id, found.content.stdout.strip()) == ("srvtoolu_1", "5")


def test_the_clients_bound_of_uses_is_an_error_of_the_tool(served: Served) -> None:
    use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "a"}}
    two = [use, {**use, "id": "srvtoolu_2", "input": {"query": "b"}}]
    said = [{"role": "user", "content": "please search"}, {"role": "assistant", "content": two}]
    got = ask(served, said, {**SEARCH, "max_uses": 1})
    codes = [getattr(b.content, "error_code", "") for b in got.content if b.type == "web_search_tool_result"]
    assert codes == ["", "max_uses_exceeded"]


def test_what_cannot_be_honoured_is_refused(served: Served) -> None:
    with pytest.raises(anthropic.BadRequestError, match="user_location"):
        ask(served, "please search", {**SEARCH, "user_location": {"type": "approximate", "city": "Oslo"}})
    with pytest.raises(anthropic.BadRequestError, match="container"):
        ask(served, "please execute", PYTHON, container="cntr_1")


def test_a_tool_that_is_not_enabled_is_refused_with_the_command(served: Served) -> None:
    served.write("tools.json", '{"enabled": ["web"]}')
    try:
        with pytest.raises(anthropic.BadRequestError, match="nemotron-ops tools enable python"):
            ask(served, "please execute", PYTHON)
    finally:
        served.write("tools.json", '{"enabled": ["python", "web"]}')
