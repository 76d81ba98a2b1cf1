"""A round trip with a tool by each Python client: a call, its result, the final answer, and a second question.

Run by the clients' own virtual environment, which has no nemotron_ops: `python round_trips.py CLIENT URL`. Prints one
JSON object a line: {"api", "calls": [[name, arguments]], "final", "second"}, or {"api", "error"}.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

QUESTION = "What is the weather in Oslo?"
SECOND = "What is 2 + 2?"
KEY = "sk-none"
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
CHAT_TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": CITY}}
TOOL = {"type": "function", "name": "get_weather", "description": "Weather", "parameters": CITY, "strict": False}
CLAUDES_TOOL = {"name": "get_weather", "description": "Weather", "input_schema": CITY}
CALLS: list[list[Any]] = []


def get_weather(city: str) -> str:
    """Weather of a city."""
    CALLS.append(["get_weather", {"city": city}])
    return "sunny"


def run(name: str, arguments: str | dict[str, Any]) -> str:
    """Run the tool that a client was asked to run."""
    given = json.loads(arguments) if isinstance(arguments, str) else arguments
    assert name == "get_weather", name
    return get_weather(**given)


# openai


def openai_chat(url: str, *, stream: bool = False) -> tuple[str, str]:
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    messages: list[Any] = [{"role": "user", "content": QUESTION}]

    def ask() -> Any:
        if not stream:
            return (
                client.chat.completions.create(model="gpt-4o", messages=messages, tools=[CHAT_TOOL]).choices[0].message
            )
        with client.chat.completions.stream(model="gpt-4o", messages=messages, tools=[CHAT_TOOL]) as events:
            return events.get_final_completion().choices[0].message

    first = ask()
    messages.append(first.model_dump(exclude_none=True, exclude={"parsed"}))
    for call in first.tool_calls:
        result = run(call.function.name, call.function.arguments)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        messages[1]["tool_calls"][0]["function"].pop("parsed_arguments", None)
    final = ask()
    messages += [{"role": "assistant", "content": final.content}, {"role": "user", "content": SECOND}]
    return final.content, ask().content


def openai_responses(url: str, *, stream: bool = False, stored: bool = False) -> tuple[str, str]:
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    history: list[Any] = []
    previous: Any = openai.omit

    def ask(*items: Any) -> Any:
        nonlocal previous
        history.extend(items)
        given: Any = {
            "model": "gpt-5",
            "tools": [TOOL],
            "include": ["reasoning.encrypted_content"],
            "input": list(items) if stored else history,
            "previous_response_id": previous,
        }
        if stream:
            with client.responses.stream(**given) as events:
                response: Any = events.get_final_response()
        else:
            response = client.responses.create(**given)
        assert response.status == "completed", response
        history.extend(item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in response.output)
        if stored:
            previous = response.id
        return response

    first = ask({"role": "user", "content": QUESTION})
    calls = [item for item in first.output if item.type == "function_call"]
    results = [
        {"type": "function_call_output", "call_id": c.call_id, "output": run(c.name, c.arguments)} for c in calls
    ]
    final = ask(*results)
    return final.output_text, ask({"role": "user", "content": SECOND}).output_text


# anthropic


def anthropic_messages(url: str, *, stream: bool = False) -> tuple[str, str]:
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0)
    messages: list[Any] = [{"role": "user", "content": QUESTION}]

    def ask() -> Any:
        given: Any = {"model": "claude-opus-4-8", "max_tokens": 200, "messages": messages, "tools": [CLAUDES_TOOL]}
        if stream:
            with client.messages.stream(**given) as events:
                answer: Any = events.get_final_message()
        else:
            answer = client.messages.create(**given)
        messages.append({"role": "assistant", "content": answer.content})
        return answer

    first = ask()
    uses = [block for block in first.content if block.type == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": u.id, "content": run(u.name, u.input)} for u in uses]
    messages.append({"role": "user", "content": results})
    final = ask()
    messages.append({"role": "user", "content": SECOND})
    return final.content[-1].text, ask().content[-1].text


# openai-agents


def agents(url: str, *, api: str, stream: bool = False) -> tuple[str, str]:
    import agents
    import openai

    agents.set_tracing_disabled(True)
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    kind = agents.OpenAIResponsesModel if api == "responses" else agents.OpenAIChatCompletionsModel
    agent = agents.Agent(
        name="a", model=kind(model="gpt-5", openai_client=client), tools=[agents.function_tool(get_weather)]
    )  # fmt: skip

    async def both() -> tuple[str, str]:
        async def ask(given: Any) -> Any:
            if not stream:
                return await agents.Runner.run(agent, given)
            result = agents.Runner.run_streamed(agent, given)
            async for _ in result.stream_events():
                pass
            return result

        first = await ask(QUESTION)
        second = await ask([*first.to_input_list(), {"role": "user", "content": SECOND}])
        return first.final_output, second.final_output

    return asyncio.run(both())


# pydantic-ai


def pydantic_ai(url: str, *, api: str) -> tuple[str, str]:
    from pydantic_ai import Agent

    model: Any
    if api == "messages":
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        model = AnthropicModel("claude-haiku-4-5", provider=AnthropicProvider(base_url=url, api_key=KEY))
    else:
        from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
        from pydantic_ai.providers.openai import OpenAIProvider

        kind = OpenAIResponsesModel if api == "responses" else OpenAIChatModel
        model = kind("gpt-4o", provider=OpenAIProvider(base_url=f"{url}/v1", api_key=KEY))
    agent = Agent(model, tools=[get_weather])
    first = agent.run_sync(QUESTION)
    second = agent.run_sync(SECOND, message_history=first.all_messages())
    return first.output, second.output


# LangChain


def langchain(url: str, *, api: str) -> tuple[str, str]:
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool

    model: Any
    if api == "messages":
        from langchain_anthropic import ChatAnthropic

        model = ChatAnthropic(model_name="claude-haiku-4-5", base_url=url, api_key=KEY, max_tokens=200)
    else:
        from langchain_openai import ChatOpenAI

        model = ChatOpenAI(model="gpt-4o", base_url=f"{url}/v1", api_key=KEY, use_responses_api=api == "responses")
    bound = model.bind_tools([tool(get_weather)])
    messages: list[Any] = [HumanMessage(QUESTION)]
    first = bound.invoke(messages)
    messages.append(first)
    messages += [ToolMessage(run(c["name"], c["args"]), tool_call_id=c["id"]) for c in first.tool_calls]
    final = bound.invoke(messages)
    second = bound.invoke([*messages, final, HumanMessage(SECOND)])
    return final.text, second.text


# instructor


def instructor(url: str, *, api: str) -> tuple[str, str]:
    import instructor
    from pydantic import BaseModel

    class get_weather(BaseModel):
        """Weather of a city."""

        city: str

    question: list[Any] = [{"role": "user", "content": QUESTION}]
    if api == "messages":
        import anthropic

        raw: Any = anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0)
        client: Any = instructor.from_anthropic(raw)
        found, answer = client.create_with_completion(
            model="claude-haiku-4-5", max_tokens=200, messages=question, response_model=get_weather
        )  # fmt: skip
        CALLS.append(["get_weather", found.model_dump()])
        (use,) = [b for b in answer.content if b.type == "tool_use"]
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}
        turns = [*question, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
        final = raw.messages.create(model="claude-haiku-4-5", max_tokens=200, messages=turns, tools=[CLAUDES_TOOL])
        return final.content[-1].text, ""
    import openai

    raw = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    mode = instructor.Mode.RESPONSES_TOOLS if api == "responses" else instructor.Mode.TOOLS
    client = instructor.from_openai(raw, mode=mode)
    found, answer = client.create_with_completion(model="gpt-4o", messages=question, response_model=get_weather)
    CALLS.append(["get_weather", found.model_dump()])
    if api == "responses":
        (call,) = [item for item in answer.output if item.type == "function_call"]
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        items = [*question, *(item.model_dump(exclude_none=True) for item in answer.output), output]
        return raw.responses.create(model="gpt-4o", input=items, tools=[TOOL]).output_text, ""
    said = answer.choices[0].message
    result = {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "sunny"}
    turns = [*question, said.model_dump(exclude_none=True), result]
    return raw.chat.completions.create(model="gpt-4o", messages=turns, tools=[CHAT_TOOL]).choices[0].message.content, ""


# LiteLLM


def litellm(url: str, *, api: str) -> tuple[str, str]:
    import litellm

    if api == "responses":
        given: Any = {"model": "openai/gpt-4o", "api_base": f"{url}/v1", "api_key": KEY, "tools": [TOOL]}
        items: list[Any] = [{"role": "user", "content": QUESTION}]
        first: Any = litellm.responses(input=items, **given)
        items += [item.model_dump(exclude_none=True) if hasattr(item, "model_dump") else item for item in first.output]
        items += [
            {"type": "function_call_output", "call_id": item.call_id, "output": run(item.name, item.arguments)}
            for item in first.output if getattr(item, "type", "") == "function_call"
        ]  # fmt: skip
        final: Any = litellm.responses(input=items, **given)
        text = "".join(p.text for i in final.output if i.type == "message" for p in i.content)
        return text, ""
    model, base = ("anthropic/claude-haiku-4-5", url) if api == "messages" else ("openai/gpt-4o", f"{url}/v1")
    asked: Any = {"model": model, "api_base": base, "api_key": KEY, "tools": [CHAT_TOOL]}
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    said: Any = litellm.completion(messages=messages, **asked).choices[0].message
    messages.append(said.model_dump(exclude_none=True))
    for call in said.tool_calls:
        content = run(call.function.name, call.function.arguments)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    last: Any = litellm.completion(messages=messages, **asked).choices[0].message
    messages += [{"role": "assistant", "content": last.content}, {"role": "user", "content": SECOND}]
    return last.content, litellm.completion(messages=messages, **asked).choices[0].message.content


Trip = Callable[[str], tuple[str, str]]
CLIENTS: dict[str, dict[str, Trip]] = {
    "openai": {
        "chat": openai_chat,
        "chat, streamed": lambda url: openai_chat(url, stream=True),
        "responses": openai_responses,
        "responses, streamed": lambda url: openai_responses(url, stream=True),
        "responses, stored": lambda url: openai_responses(url, stored=True),
        "responses, stored and streamed": lambda url: openai_responses(url, stored=True, stream=True),
    },
    "anthropic": {
        "messages": anthropic_messages,
        "messages, streamed": lambda url: anthropic_messages(url, stream=True),
    },
    "openai-agents": {
        "chat": lambda url: agents(url, api="chat"),
        "responses": lambda url: agents(url, api="responses"),
        "responses, streamed": lambda url: agents(url, api="responses", stream=True),
    },
    "pydantic-ai": {api: (lambda url, api=api: pydantic_ai(url, api=api)) for api in ("chat", "responses", "messages")},
    "langchain": {api: (lambda url, api=api: langchain(url, api=api)) for api in ("chat", "responses", "messages")},
    "instructor": {api: (lambda url, api=api: instructor(url, api=api)) for api in ("chat", "responses", "messages")},
    "litellm": {api: (lambda url, api=api: litellm(url, api=api)) for api in ("chat", "responses", "messages")},
}  # fmt: skip


def trips(client: str, url: str) -> Iterator[dict[str, Any]]:
    """What each API of a client came to."""
    for api, trip in CLIENTS[client].items():
        CALLS.clear()
        try:
            final, second = trip(url)
            yield {"api": api, "calls": list(CALLS), "final": final, "second": second}
        except Exception:  # noqa: BLE001  the test shows it
            yield {"api": api, "error": traceback.format_exc()[-3000:]}


if __name__ == "__main__":
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network for prices
    for found in trips(sys.argv[1], sys.argv[2]):
        print(json.dumps(found), flush=True)
