"""The main job on real parts: `serve tiny`, the real llama-server, the real `openai` client, exact text."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable

import openai
import pytest

from nemotron_ops.models.synthetic import ANSWERS
from tests.stages.installation import Installation, Served

pytestmark = pytest.mark.real

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def client(tiny: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=tiny.url, api_key="sk-no-key-required", max_retries=0)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("question", sorted(ANSWERS))
def test_the_exact_answer_comes_whole_with_its_reasoning_apart(client: openai.OpenAI, question: str) -> None:
    reasoning, content = ANSWERS[question]
    answer = client.chat.completions.create(model="tiny", messages=user(question), temperature=0)  # type: ignore[arg-type]
    message = answer.choices[0].message
    assert message.content == content
    assert message.reasoning_content == reasoning  # type: ignore[attr-defined]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "tiny"


def metrics_of(served: Served) -> dict[str, str]:
    with urllib.request.urlopen(served.url.removesuffix("/v1") + "/metrics", timeout=30) as answer:
        return dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")


def tokens_of(served: Served) -> list[float]:
    """Tokens of all prompts and of all answers so far."""
    lines = metrics_of(served)
    name = 'nemotron_ops_tokens_total{{instance="tiny-0",kind="{}",model="tiny"}}'
    return [float(lines.get(name.format(kind), 0)) for kind in ("prompt", "completion")]


def test_the_tokens_of_a_stream_are_counted_as_llama_server_counts_them(tiny: Served, client: openai.OpenAI) -> None:
    question = user("What is 2 + 2?")
    usage = client.chat.completions.create(model="tiny", messages=question, temperature=0).usage  # type: ignore[arg-type]
    assert usage is not None
    for options in ({"include_usage": True}, {}):
        before = tokens_of(tiny)
        stream = client.chat.completions.create(
            model="tiny", messages=question, temperature=0, stream=True, stream_options=options
        )  # type: ignore[call-overload]
        assert len(list(stream)) > 3
        counted = [now - then for now, then in zip(tokens_of(tiny), before, strict=True)]
        assert counted == [usage.prompt_tokens, usage.completion_tokens]


def test_metrics_show_memory_as_planned_and_as_it_is_and_the_context_that_slots_share(tiny: Served) -> None:
    lines = metrics_of(tiny)
    own = 'instance="tiny-0",model="tiny"'
    planned = float(lines[f'nemotron_ops_instance_memory_planned_bytes{{device="host",{own}}}'])
    used = float(lines[f'nemotron_ops_instance_memory_used_bytes{{device="host",{own}}}'])
    assert planned > 1 << 20
    assert used > 1 << 20
    assert float(lines[f"nemotron_ops_instance_reserved_tokens{{{own}}}"]) == 0
    assert float(lines[f"nemotron_ops_instance_context_tokens{{{own}}}"]) == 4096


def test_the_exact_answer_comes_as_a_stream_of_tokens(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="tiny", messages=user("What is 2 + 2?"), stream=True, stream_options={"include_usage": True}
    )  # type: ignore[call-overload]
    chunks = list(stream)
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert "".join(pieces) == "2 + 2 = 4."
    assert len(pieces) > 3
    assert chunks[-1].usage.completion_tokens > 0
    assert {c.model for c in chunks} == {"tiny"}


def test_a_tool_is_called_and_its_result_is_used(client: openai.OpenAI) -> None:
    messages = user("How is the weather in Oslo?")
    asked = client.chat.completions.create(model="tiny:tools", messages=messages, tools=[WEATHER])  # type: ignore[call-overload]
    call = asked.choices[0].message.tool_calls[0]
    assert asked.choices[0].finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Oslo"})
    turn = [
        *messages,
        asked.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    told = client.chat.completions.create(model="tiny:tools", messages=turn, tools=[WEATHER])  # type: ignore[call-overload]
    assert told.choices[0].message.content == "It is sunny in Oslo."


def test_an_answer_follows_a_json_schema(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    answer = client.chat.completions.create(
        model="tiny",
        messages=user("Answer in JSON please"),
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    )  # type: ignore[call-overload]
    assert json.loads(answer.choices[0].message.content) == {"answer": 4}


def test_models_are_listed_under_their_public_names(client: openai.OpenAI) -> None:
    assert "nemotron-ops/tiny" in [m.id for m in client.models.list()]


def test_an_unknown_model_lists_the_known_ones(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="tinny", messages=user("Hello"))  # type: ignore[arg-type]
    assert "nemotron-ops/tiny" in str(caught.value)


def test_the_guides_client_works_as_it_is_written(installation: Installation) -> None:
    """The how-to guide's server line, and its client, verbatim; only the weights are another's."""
    alias = "unsloth/Nemotron-3-Nano-30B-A3B"
    installation.run("serve", "tiny", "--profile", "guide", "--prio", "0", "--alias", alias, "--detach")
    snippet = """
from openai import OpenAI
import json
openai_client = OpenAI(
    base_url = "http://127.0.0.1:8001/v1",
    api_key = "sk-no-key-required",
)
completion = openai_client.chat.completions.create(
    model = "unsloth/Nemotron-3-Nano-30B-A3B",
    messages = [{"role": "user", "content": "What is 2+2?"},],
)
print(completion.choices[0].message.content)
"""
    try:
        done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=60, check=True)
    finally:
        installation.run("stop")
    assert done.stdout == "2 + 2 = 4.\n"


def test_the_printed_curl_line_works(tiny: Served) -> None:
    assert shutil.which("curl")
    body = json.dumps({"model": "nemotron-ops/tiny", "messages": user("What is 2 + 2?")})
    argv = ["curl", "-sS", f"{tiny.url}/chat/completions", "-H", "Content-Type: application/json", "-d", body]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "2 + 2 = 4."


def test_chat_asks_the_running_endpoint(tiny: Served) -> None:
    answer = tiny.installation.json("chat", "tiny", "--once", "What is 2 + 2?")
    assert answer["content"] == "2 + 2 = 4."
    shown = tiny.installation.run("chat", "tiny", "--show-special", "--once", "What is 2 + 2?").stdout
    assert shown == "<think>\nTwo plus two makes four.\n</think>2 + 2 = 4.\n"


def test_chat_without_an_endpoint_is_llama_cli_with_the_guides_flags(installation: Installation) -> None:
    argv = installation.json("chat", "tiny", "--dry-run", "--show-special")["argv"]
    text = " ".join(argv)
    assert argv[0].endswith("llama-cli")
    for flag in ("--ctx-size 16384", "--seed 3407", "--prio 2", "--temp 0.6", "--top-p 0.95", "--special"):
        assert flag in text
    done = installation.run("chat", "tiny", "--once", "What is 2 + 2?")
    assert "2 + 2 = 4." in done.stdout


def test_a_second_supervisor_is_refused_with_the_firsts_pid(tiny: Served, free_port: Callable[[], int]) -> None:
    pid = tiny.installation.json("status")["pid"]
    done = tiny.installation.run("serve", "tiny", "--port", str(free_port()), code=10)
    assert f"pid {pid}" in done.stderr
