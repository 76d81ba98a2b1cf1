"""Calls that healing cannot mend are asked for once more, by a real llama-server whose model writes them. 8 s."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from nemotron_ops.models.synthetic.scripts import END, END_THINK, SCRIPTS, Script
from nemotron_ops.models.synthetic.shape import MOE
from nemotron_ops.models.synthetic.write import write_tiny
from nemotron_ops.supervisor.snapshot import ModelView
from tests.stages.gateway import Engine, Stage, gateway

pytestmark = pytest.mark.real
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city"],
}
LEAK = "<function=get_weather>\n<parameter=unit>\ncelsius\n</parameter>\n</function>\n"
KELVIN = LEAK.replace("unit>\ncelsius", "city>\nKiel\n</parameter>\n<parameter=unit>\nkelvin")
BROKEN = {
    "closers": Script(
        keywords=("closers",),
        think=("Closing", " time", ";\n", END_THINK),
        answer=("Soon", " clouds", "!\n", "</parameter>\n</function>\n</tool_call>", END),
    ),
    "missing": Script(
        keywords=("missing",),
        think=("Missing", " words", ";;\n", END_THINK),
        answer=("Look", " here", ":\n", LEAK, END),
    ),
    "kelvin": Script(
        keywords=("kelvin",),
        think=("Cold", " enough", ",\n", END_THINK),
        answer=("<tool_call>", f"\n{KELVIN}", "</tool_call>", END),
    ),
}
KEPT = {"closers": "Soon clouds!", "missing": "Look here:"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("reask")
    model = write_tiny(MOE, folder / "broken.gguf", scripts={**SCRIPTS, **BROKEN})[0]
    engine = Engine(name="tiny-0", model=model, folder=folder, binary=llama_bin / "llama-server")
    with gateway(folder) as found:
        found.engines.append(engine)
        view = engine.start().view()
        models = tuple(ModelView(name=n, names=(n,), reask_tool_calls=int(n == "again")) for n in ("again", "once"))
        instances = tuple(replace(view, name=f"{m.name}-0", model=m.name) for m in models)
        found.control.show(models=models, instances=instances, default_model="again")
        found.settle()
        yield found


def ask(stage: Stage, api: str, word: str, **more: Any) -> httpx.Response:
    tool = {"name": "get_weather", "parameters": SCHEMA}
    messages = [{"role": "user", "content": f"Tell me {word}"}]
    body: dict[str, Any] = {"model": "again", "messages": messages, "max_tokens": 300, "temperature": 0, **more}
    if api == "messages":
        body["tools"] = [{"name": "get_weather", "input_schema": SCHEMA}]
        return httpx.post(f"{stage.url}/v1/messages", json=body, timeout=60, trust_env=False)
    body["tools"] = [{"type": "function", "function": tool}]
    return httpx.post(f"{stage.url}/v1/chat/completions", json=body, timeout=60, trust_env=False)


def read(api: str, answer: httpx.Response) -> tuple[str, list[Any], str]:
    """Text, calls' arguments, and the reason."""
    value = answer.json()
    if api == "messages":
        text = "".join(b["text"] for b in value["content"] if b["type"] == "text")
        return text, [b["input"] for b in value["content"] if b["type"] == "tool_use"], value["stop_reason"]
    choice = value["choices"][0]
    calls = [c["function"]["arguments"] for c in choice["message"].get("tool_calls") or []]
    return choice["message"]["content"], calls, choice["finish_reason"]


@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("word", KEPT)
def test_a_call_that_could_not_be_mended_is_asked_for_again(stage: Stage, api: str, word: str) -> None:
    answer = ask(stage, api, word)
    assert answer.status_code == 200, answer.text
    text, calls, reason = read(api, answer)
    assert (text, len(calls)) == (KEPT[word], 1), answer.text
    assert "city" in calls[0]
    assert reason == ("tool_use" if api == "messages" else "tool_calls")
    assert answer.headers["x-tool-calls-healed"] == "reask"
    usage = answer.json()["usage"]
    assert usage.get("completion_tokens", usage.get("output_tokens")) > 10
    if api == "chat":
        assert answer.json()["choices"][0]["message"]["reasoning_content"]


@pytest.mark.parametrize("api", ["chat", "messages"])
def test_a_call_that_stays_wrong_is_given_as_it_was_and_named(stage: Stage, api: str) -> None:
    answer = ask(stage, api, "kelvin")
    text, calls, _ = read(api, answer)
    assert (text.strip(), len(calls)) == ("", 1)
    assert "kelvin" in str(calls[0])
    assert answer.json()["invalid_tool_calls"][0]["name"] == "get_weather"
    assert "x-tool-calls-healed" not in answer.headers


@pytest.mark.parametrize("more", [{"model": "once"}, {"stream": True}, {"max_tokens": 6}])
def test_nobody_is_asked_again_who_did_not_want_it_or_has_begun_to_read(stage: Stage, more: dict[str, Any]) -> None:
    answer = ask(stage, "chat", "closers", **more)
    assert 'tool_calls":[' not in answer.text
    assert "reask" not in str(answer.headers)


def test_the_metrics_tell_how_often(stage: Stage) -> None:
    ask(stage, "chat", "closers")
    metrics = httpx.get(f"{stage.url}/metrics", timeout=20, trust_env=False).text
    assert 'outcome="reasked"' in metrics
    assert 'step="reask"' in metrics
