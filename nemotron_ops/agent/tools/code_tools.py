"""Tools that run code: `code_interpreter` of OpenAI, `code_execution` of Anthropic. Pure: the session is the context's.

Their results are texts of a program that may have read what a page said: template tokens in them are broken.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from nemotron_ops.agent.tools.context import Context
from nemotron_ops.agent.tools.tool import Call, InvalidError, Ran, Tool, ToolKind, object_schema
from nemotron_ops.sandbox.outcome import Outcome
from nemotron_ops.web.frame import broken_tokens

ABOUT = (
    "Run {what} in a sandbox without network. Variables and files stay between calls of this answer. "
    "Returns what it prints{more}."
)
PYTHON = ABOUT.format(what="Python", more=", and the value of its last expression")
BASH = ABOUT.format(what="a bash command", more="")


async def interpreter(given: Mapping[str, Any], place: str, context: Context) -> list[Tool]:
    """OpenAI's `code_interpreter`. Raises InvalidError for a container that cannot be honoured."""
    container = given.get("container", {"type": "auto"})
    if not isinstance(container, dict) or container.get("type") != "auto":
        raise InvalidError(f'{place}.container: expected {{"type": "auto"}}: a sandbox ends with its answer')
    if unknown := set(container) - {"type"}:
        raise InvalidError(f"{place}.container.{min(unknown)}: is not honoured here")
    return [_python("code_interpreter", context)]


async def execution(given: Mapping[str, Any], place: str, context: Context) -> list[Tool]:
    """Anthropic's `code_execution_20250522`: Python."""
    _only(given, place)
    return [_python("code_execution", context)]


async def bash_execution(given: Mapping[str, Any], place: str, context: Context) -> list[Tool]:
    """Anthropic's `code_execution_20250825` and later: bash, in which Python runs too."""
    _only(given, place)
    run = partial(_run, context, ToolKind.BASH, "command")
    parameters = object_schema(command="the command")
    return [
        Tool(name="bash_code_execution", kind=ToolKind.BASH, description=BASH, parameters=parameters, run=run)
    ]  # fmt: skip


def _only(given: Mapping[str, Any], place: str) -> None:
    if unknown := set(given) - {"type", "name", "cache_control", "allowed_callers", "strict"}:
        raise InvalidError(f"{place}.{min(unknown)}: is not honoured here")


def _python(name: str, context: Context) -> Tool:
    run = partial(_run, context, ToolKind.PYTHON, "code")
    return Tool(
        name=name, kind=ToolKind.PYTHON, description=PYTHON, parameters=object_schema(code="the program"), run=run
    )  # fmt: skip


async def _run(context: Context, kind: ToolKind, argument: str, call: Call) -> Ran:
    code = call.text(argument)
    if code is None:
        why = f"the call has no text `{argument}`; call it again with one"
        return Ran(text=why, error="invalid_tool_input")
    outcome = await context.code.run(code, kind.value)
    text = result_text(outcome, context.letters)
    return Ran(text=text, detail=outcome, error="" if outcome.backend else "unavailable")


def result_text(outcome: Outcome, most: int) -> str:
    """What the model is told of a call, at most `most` letters of it."""
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
    if len(text) > most:
        half = most // 2
        text = f"{text[:half]}\n[… {len(text) - 2 * half} letters left out …]\n{text[-half:]}"
    return broken_tokens(text) or "[no output]"
