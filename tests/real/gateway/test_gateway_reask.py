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
from tests.stages.tool_calls import APIS, Said, body_of, said

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


def ask(stage: Stage, api: str, word: str, *, stream: bool = False, **more: Any) -> Said:
    body = body_of(api, f"Tell me {word}", {"get_weather": SCHEMA}, **{"model": "again", "max_tokens": 300, **more})
    return said(stage.url, api, body, stream=stream)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("word", KEPT)
def test_a_call_that_could_not_be_mended_is_asked_for_again(stage: Stage, api: str, word: str) -> None:
    found = ask(stage, api, word)
    assert (found.text, [name for name, _ in found.calls]) == (KEPT[word], ["get_weather"])
    assert "city" in found.read[0][1]
    assert found.steps == ["reask"]
    assert found.reason == {"chat": "tool_calls", "messages": "tool_use", "responses": "completed"}[api]


@pytest.mark.parametrize("api", APIS)
def test_a_call_that_stays_wrong_is_given_as_it_was_and_named(stage: Stage, api: str) -> None:
    found = ask(stage, api, "kelvin")
    assert found.read == [("get_weather", {"city": "Kiel", "unit": "kelvin"})]
    assert (found.text.strip(), found.steps) == ("", [])
    assert found.invalid[0]["name"] == "get_weather"


def test_both_answers_are_counted_and_the_thoughts_stay(stage: Stage) -> None:
    body = body_of("chat", "Tell me missing", {"get_weather": SCHEMA}, max_tokens=300)
    answers = []
    for model in ("once", "again"):
        url = f"{stage.url}/v1/chat/completions"
        answers.append(httpx.post(url, json={**body, "model": model}, timeout=60, trust_env=False).json())
    once, again = answers
    assert again["usage"]["completion_tokens"] > once["usage"]["completion_tokens"]
    assert again["usage"]["prompt_tokens"] == once["usage"]["prompt_tokens"]
    thoughts = [a["choices"][0]["message"]["reasoning_content"] for a in answers]
    assert thoughts[0] == thoughts[1] != ""


@pytest.mark.parametrize("more", [{"model": "once"}, {"stream": True}, {"max_tokens": 6}])
def test_nobody_is_asked_again_who_did_not_want_it_or_has_begun_to_read(stage: Stage, more: dict[str, Any]) -> None:
    found = ask(stage, "chat", "closers", **more)
    assert (found.calls, found.steps) == ([], [])


def test_the_metrics_tell_how_often(stage: Stage) -> None:
    ask(stage, "chat", "closers")
    metrics = httpx.get(f"{stage.url}/metrics", timeout=20, trust_env=False).text
    assert 'outcome="reasked"' in metrics
    assert 'step="reask"' in metrics
