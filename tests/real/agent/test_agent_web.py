"""Web search and pages in responses: a real engine, a real search server, the `openai` package. Costs about 15 s."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.stages.agent import Served
from tests.stages.tool_model import QUERY, SAID

pytestmark = pytest.mark.real
WEB: Any = {"type": "web_search"}


def ask(served: Served, text: Any, **more: Any) -> Any:
    given: dict[str, Any] = {"model": "m", "input": text, "tools": [WEB], "max_output_tokens": 200, **more}
    return served.openai_client.responses.create(**given)


def test_a_search_is_an_item_and_its_citation_an_annotation(served: Served) -> None:
    got = ask(served, "please search", include=["web_search_call.action.sources", "web_search_call.results"])
    assert (got.status, got.output_text) == ("completed", SAID)
    call = next(i for i in got.output if i.type == "web_search_call")
    assert (call.status, call.action.type, call.action.query) == ("completed", "search", QUERY)
    assert [s.url for s in call.action.sources] == [f"{served.pages.base}/page", "https://other.example/"]
    (cited,) = next(i for i in got.output if i.type == "message").content[0].annotations
    assert (cited.type, cited.url, cited.title) == ("url_citation", f"{served.pages.base}/page", "Sognefjord")
    assert SAID[cited.start_index : cited.end_index] == "[1]"
    assert not any(i.type == "function_call" for i in got.output)


def test_a_stream_has_the_events_of_a_search_and_of_annotations(served: Served) -> None:
    events = list(ask(served, "please search", stream=True))
    kinds = [e.type for e in events]
    assert [k for k in kinds if "web_search" in k] == [
        "response.web_search_call.in_progress",
        "response.web_search_call.searching",
        "response.web_search_call.completed",
    ]
    (noted,) = [e for e in events if e.type == "response.output_text.annotation.added"]
    assert (noted.annotation.url, noted.annotation_index) == (f"{served.pages.base}/page", 0)
    assert kinds.index("response.output_text.annotation.added") < kinds.index("response.output_text.done")
    part = next(e for e in events if e.type == "response.content_part.done" and e.part.type == "output_text").part
    assert part.annotations[0].url == f"{served.pages.base}/page"
    last = events[-1].response.output[-1].content[0]
    assert [a.url for a in last.annotations] == [f"{served.pages.base}/page"]
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert not any("function_call" in k for k in kinds)


def test_a_page_is_opened(served: Served) -> None:
    got = ask(served, "please browse")
    call = next(i for i in got.output if i.type == "web_search_call")
    assert (call.action.type, call.action.url, call.status) == ("open_page", f"{served.pages.base}/page", "completed")
    assert next(i for i in got.output if i.type == "message").content[0].annotations[0].title == "Sognefjord"


def test_the_items_of_an_answer_can_be_sent_back(served: Served) -> None:
    """With results that would end the tool's turn in the model's template if their tokens were not broken."""
    first = ask(served, "please search", include=["web_search_call.results"])
    again: Any = [{"role": "user", "content": "please search"}, *(i.model_dump() for i in first.output)]
    got = ask(served, [*again, {"role": "user", "content": "please search"}])
    assert (got.status, got.output_text) == ("completed", SAID)


def test_domains_that_are_not_allowed_are_not_shown(served: Served) -> None:
    tool = {**WEB, "filters": {"allowed_domains": ["other.example"]}}
    got = ask(served, "please search", tools=[tool])
    assert next(i for i in got.output if i.type == "message").content[0].annotations[0].url == "https://other.example/"


def test_web_that_is_not_enabled_is_refused_with_the_command(served: Served) -> None:
    served.write("tools.json", '{"enabled": ["python"]}')
    try:
        with pytest.raises(openai.BadRequestError, match="nemotron-ops tools enable web") as refused:
            ask(served, "please search")
        assert refused.value.code == "tools_not_enabled"
    finally:
        served.write("tools.json", '{"enabled": ["python", "web"]}')


def test_a_call_that_must_be_approved_is_asked_for_and_run_when_the_client_says_so(served: Served) -> None:
    served.write("agent.toml", '[approve]\nweb_search = "once"\n')
    try:
        first = ask(served, "please search")
        (wish,) = [i for i in first.output if i.type == "mcp_approval_request"]
        assert (wish.name, wish.server_label) == ("web_search", "nemotron-ops")
        assert not any(i.type == "web_search_call" for i in first.output)
        said: Any = [{"role": "user", "content": "please search"}, *(i.model_dump() for i in first.output)]
        no = {"type": "mcp_approval_response", "approval_request_id": wish.id, "approve": False}
        refused = ask(served, [*said, no])
        assert refused.status == "completed"
        assert not any(i.type == "web_search_call" for i in refused.output)
        yes = {**no, "approve": True}
        events = list(ask(served, [*said, yes], stream=True))
        kinds = [e.type for e in events]
        assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
        assert [i.type for i in events[-1].response.output if i.type != "reasoning"] == ["web_search_call", "message"]
        assert [e.sequence_number for e in events] == list(range(len(events)))
        assert any(i.type == "web_search_call" for i in ask(served, "please search").output)  # kept for this key
    finally:
        (served.home / "config" / "agent.toml").unlink()
