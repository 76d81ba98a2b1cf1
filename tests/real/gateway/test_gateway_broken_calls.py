"""24 ways to write a call wrongly, said by a real model: what clients of each API get. Costs about 20 s."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops.models.synthetic.scripts import END, END_THINK, SCRIPTS, Script
from nemotron_ops.models.synthetic.shape import MOE
from nemotron_ops.models.synthetic.write import write_tiny
from nemotron_ops.supervisor.snapshot import ModelView
from tests.stages.gateway import Engine, Stage, gateway
from tests.stages.tool_calls import APIS, Said, body_of, said
from tests.tables.broken_calls import BROKEN, TOOLS, scripts, weather, xml

pytestmark = pytest.mark.real
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
EACH = pytest.mark.parametrize("api", APIS)
CALLED = {"chat": "tool_calls", "messages": "tool_use", "responses": "completed"}
SPOKEN = {"chat": "stop", "messages": "end_turn", "responses": "completed"}
CUT = {"chat": "length", "messages": "max_tokens", "responses": "max_output_tokens"}

LONG = ("\n<function=get_weather>\n<parameter=city>\n", "Aurland\n", "</parameter>\n</function>\n")
MORE = {
    "yankee": Script(
        keywords=("yankee",), think=("Idea-y\n", END_THINK), answer=("<tool_call>", *LONG, "</tool_call>", END)
    ),
    "zulu": Script(keywords=("zulu",), think=("Idea-z.\n", xml("Zell"), END_THINK), answer=(END,)),
}  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("broken")
    own = {**SCRIPTS, **scripts(), **MORE}
    model = write_tiny(replace(MOE, n_embd=512), folder / "broken.gguf", scripts=own)[0]
    engine = Engine(name="tiny-0", model=model, folder=folder, binary=llama_bin / "llama-server")
    with gateway(folder) as found:
        found.engines.append(engine)
        models = (ModelView(name="tiny", names=("tiny",)),)
        found.control.show(models=models, instances=(engine.start().view(),), default_model="tiny")
        found.settle()
        yield found


def ask(stage: Stage, api: str, word: str, *, stream: bool, thinking: bool = True, level: str = "") -> Said:
    off = {} if thinking else {"chat_template_kwargs": {"enable_thinking": False}}
    body = body_of(api, f"Please {word}", TOOLS, **off)
    return said(stage.url, api, body, stream=stream, headers={"X-Heal-Tool-Calls": level} if level else {})


@BOTH
@EACH
@pytest.mark.parametrize("word", BROKEN)
def test_clients_get_the_call_that_was_meant_or_the_text_as_it_was(
    stage: Stage, word: str, api: str, stream: bool
) -> None:
    expected, found = BROKEN[word], ask(stage, api, word, stream=stream)
    if expected.calls is None:
        assert len(found.calls) == 1, found
        assert found.calls[0][0] in TOOLS
        assert not found.invalid
    else:
        assert found.read == list(expected.calls), found
        assert found.text.strip() == expected.text.strip()
        assert found.steps == list(expected.steps)
    assert bool(found.invalid) == expected.invalid
    assert found.reason == (CALLED if found.calls else SPOKEN)[api]


@pytest.mark.parametrize(
    ("api", "stream"),
    [("chat", False), ("chat", True), ("messages", False), ("responses", False), ("responses", True)],
)
def test_a_call_at_the_end_of_the_thinking_is_one_where_nothing_else_is_said(
    stage: Stage, api: str, stream: bool
) -> None:
    """Not in streams of messages: a block of thinking has ended there before it is known that nothing follows."""
    found = ask(stage, api, "zulu", stream=stream)
    assert (found.read, found.text, found.steps) == ([weather("Zell")], "", ["extract"])
    assert found.reason == CALLED[api]


@BOTH
@EACH
def test_a_call_that_the_limit_cut_is_named_and_never_complete(stage: Stage, api: str, stream: bool) -> None:
    body = body_of(api, "Please yankee", TOOLS, max_tokens=5)
    found = said(stage.url, api, body, stream=stream)
    assert found.reason == CUT[api]
    assert found.truncated == "get_weather"
    if not stream:
        assert found.calls == []
    whole = ask(stage, api, "yankee", stream=stream)
    assert whole.read == [weather("Aurland")]


@BOTH
@EACH
def test_only_one_call_comes_where_more_are_not_wanted(stage: Stage, api: str, stream: bool) -> None:
    one = {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
    body = body_of(api, "Please papa", TOOLS, **(one if api == "messages" else {"parallel_tool_calls": False}))
    assert said(stage.url, api, body, stream=stream).read == [weather("Porsgrunn")]


@BOTH
@EACH
@pytest.mark.parametrize("strict", [True, False])
def test_a_strict_tool_is_checked_also_without_healing(stage: Stage, api: str, stream: bool, strict: bool) -> None:
    body = body_of(api, "Please lima", TOOLS, strict=strict)
    if api == "messages" and strict:
        body["tools"] = [{**tool, "strict": True} for tool in body["tools"]]
    found = said(stage.url, api, body, stream=stream, headers={"X-Heal-Tool-Calls": "off"})
    assert found.read == [weather("Lom", unit="kelvin")]
    assert bool(found.invalid) == strict


@BOTH
@EACH
def test_without_healing_text_stays_text_and_in_full_json_is_a_call(stage: Stage, api: str, stream: bool) -> None:
    off = ask(stage, api, "bravo", stream=stream, level="off")
    assert (off.text.strip(), off.calls) == (BROKEN["bravo"].answer[0], [])
    full = ask(stage, api, "echo", stream=stream, level="full")
    assert full.read == [weather("Florø")]


@BOTH
def test_direct_answers_are_healed_too(stage: Stage, stream: bool) -> None:
    found = ask(stage, "chat", "delta", stream=stream, thinking=False)
    assert found.read == [weather("Elverum", days=3)]
