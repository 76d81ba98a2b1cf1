"""Shapes of OpenAI's responses API: bodies of turns, items of tools. Pure.

For the model a hosted tool is a function of the same name: the gateway reads the items of earlier calls so, too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from nemotron_ops.sandbox.outcome import Outcome

CODE = "code_interpreter"
OUTPUTS = "code_interpreter_call.outputs"
RESULT_LETTERS = 16_000  # of one result, shown to the model
FUNCTION = {
    "type": "function",
    "name": CODE,
    "description": (
        "Run Python in a sandbox without network. Variables and files stay between calls of this answer. "
        "Returns what the code prints, and the value of its last expression."
    ),
    "parameters": {
        "type": "object",
        "properties": {"code": {"type": "string", "description": "the program"}},
        "required": ["code"],
        "additionalProperties": False,
    },
}


class InvalidError(ValueError):
    """A request that cannot be run; `code` is that of the error in the answer."""

    def __init__(self, message: str, code: str = "invalid_field") -> None:
        super().__init__(message)
        self.code = code


def checked(body: bytes) -> dict[str, Any]:
    """The request. Raises InvalidError for fields that hosted tools cannot honour."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise InvalidError(f"the body is no JSON: {exc}", "invalid_json") from exc
    if not isinstance(value, dict) or not isinstance(value.get("tools"), list):
        raise InvalidError("tools: expected a list")
    if not isinstance(value.get("input", []), str | list):
        raise InvalidError("input: expected a text or a list of items")
    include = value.get("include")
    if include is not None and not (isinstance(include, list) and all(isinstance(i, str) for i in include)):
        raise InvalidError("include: expected a list of texts")
    for place, tool in enumerate(value["tools"]):
        if isinstance(tool, dict) and tool.get("type") == CODE:
            _check_container(tool.get("container", {"type": "auto"}), f"tools[{place}].container")
    if value.get("store"):
        raise InvalidError("store: answers with hosted tools are not stored; send store: false")
    if value.get("background"):
        raise InvalidError("background: answers with hosted tools run in the foreground only")
    most = value.get("max_tool_calls")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise InvalidError("max_tool_calls: expected a number from 1")
    names = [t.get("name") for t in value["tools"] if isinstance(t, dict) and t.get("type") != CODE]
    if CODE in names:
        raise InvalidError(f"tools: a function cannot be named {CODE!r} beside the hosted tool")
    return value


def _check_container(given: Any, place: str) -> None:
    if not isinstance(given, dict) or given.get("type") != "auto":
        raise InvalidError(f'{place}: expected {{"type": "auto"}}: a sandbox ends with its answer')
    if unknown := set(given) - {"type"}:
        raise InvalidError(f"{place}.{min(unknown)}: is not honoured here")


def turn_body(asked: Mapping[str, Any], items: list[dict[str, Any]]) -> dict[str, Any]:
    """The body of the next turn: the request with functions for hosted tools, and what was said and run since."""
    given = asked.get("input", [])
    first = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    body = {k: v for k, v in asked.items() if k not in ("max_tool_calls", "include", "background")}
    body |= {"input": [*first, *items], "stream": True, "store": False}
    body["tools"] = [FUNCTION if isinstance(t, dict) and t.get("type") == CODE else t for t in asked["tools"]]
    include = [i for i in asked.get("include") or () if i != OUTPUTS]
    if include:
        body["include"] = include
    choice = asked.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == CODE:
        body["tool_choice"] = choice = {"type": "function", "name": CODE}
    if items and (choice == "required" or isinstance(choice, dict)):
        body["tool_choice"] = "auto"  # a call was forced once; forced again, the loop would not end
    return body


def code_in(arguments: str) -> str | None:
    """The program of a call; None if its arguments hold none."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    code = value.get("code") if isinstance(value, dict) else None
    return code if isinstance(code, str) else None


def result_text(outcome: Outcome) -> str:
    """What the model is told of a call."""
    parts = [outcome.stdout, outcome.stderr]
    if outcome.result is not None:
        parts.append(outcome.result)
    if outcome.exit_code:
        parts.append(f"[exit code {outcome.exit_code}]")
    if outcome.limits_hit:
        parts.append(f"[limits hit: {', '.join(outcome.limits_hit)}]")
    if outcome.ended:
        parts.append("[the sandbox has ended; its variables are lost]")
    names = [item.name for item in (*outcome.images, *outcome.files)]
    if names:
        parts.append(f"[files: {', '.join(names)}]")
    text = "\n".join(p.rstrip("\n") for p in parts if p)
    if len(text) > RESULT_LETTERS:
        half = RESULT_LETTERS // 2
        text = f"{text[:half]}\n[… {len(text) - 2 * half} letters left out …]\n{text[-half:]}"
    return text or "[no output]"


def call_item(call_id: str, container: str, code: str, outcome: Outcome | None, *, outputs: bool) -> dict[str, Any]:
    """A `code_interpreter_call`; without an outcome it is in progress. `outputs`: the client asked for them."""
    status = "in_progress" if outcome is None else "failed" if outcome.backend == "" else "completed"
    shown = outputs_of(outcome) if outputs and outcome is not None else None
    return {
        "id": call_id, "type": "code_interpreter_call", "status": status, "code": code, "container_id": container,
        "outputs": shown,
    }  # fmt: skip


def outputs_of(outcome: Outcome) -> list[dict[str, Any]]:
    """Logs and images of a call."""
    logs = "\n".join(p.rstrip("\n") for p in (outcome.stdout, outcome.stderr, outcome.result or "") if p)
    found = [{"type": "logs", "logs": logs}] if logs else []
    for image in outcome.images:
        found.append({"type": "image", "url": f"data:{image.mime};base64,{base64.b64encode(image.content).decode()}"})
    return found


def error_body(message: str, code: str) -> bytes:
    """An error in OpenAI's shape."""
    kind = "invalid_request_error" if code != "internal" else "server_error"
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()
