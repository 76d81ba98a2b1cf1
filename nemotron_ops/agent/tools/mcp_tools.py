"""OpenAI's `mcp`: tools of a server that mcp.toml names by the request's `server_label`. Pure: the context connects.

Fields that would change what is called are honoured or refused. A result is a third party's text: it taints the answer,
and after it calls of tools that send or change something ask each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from nemotron_ops.agent.tools.context import Context, Remote
from nemotron_ops.agent.tools.remote_names import function_name
from nemotron_ops.agent.tools.tool import Call, InvalidError, Ran, Tool, ToolKind
from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.web.frame import broken_tokens, framed

KNOWN = frozenset({"type", "server_label", "server_description", "allowed_tools", "require_approval"})
APPROVALS = ("always", "never")


@dataclass(frozen=True, kw_only=True)
class RemoteResult:
    """What a call of another server's tool gave."""

    text: str
    failed: bool


async def servers(given: Mapping[str, Any], place: str, context: Context) -> list[Tool]:
    """The allowed tools of one server. Raises InvalidError if it cannot be used, or a field cannot be honoured."""
    if unknown := set(given) - KNOWN:
        why = "is not honoured here; servers are named in mcp.toml, by their server_label"
        raise InvalidError(f"{place}.{min(unknown)}: {why}")
    label = given.get("server_label")
    if not isinstance(label, str) or not label:
        raise InvalidError(f"{place}.server_label: expected the name of a server in mcp.toml")
    try:
        remote = await context.connect(label)
    except NemotronOpsError as exc:
        hint = f" (hint: {exc.hint})" if exc.hint else ""
        raise InvalidError(f"{place}: {exc.message}{hint}", "mcp_server_unavailable") from exc
    context.closers.append(remote.close)
    wanted = _wanted(given.get("allowed_tools"), f"{place}.allowed_tools", remote)
    ask = _ask(given.get("require_approval"), f"{place}.require_approval")
    about = str(given.get("server_description") or "")
    made = [_tool(context, remote, name, about, ask) for name in wanted]
    if len({tool.name for tool in made}) < len(made):
        raise InvalidError(f"{place}: two tools of {label} have the same name for the model; allow one of them")
    return made


def _tool(context: Context, remote: Remote, name: str, about: str, ask: Mapping[str, str]) -> Tool:
    listed = remote.tools[name]
    approval = "always" if "always" in (ask.get(name, ask[""]), remote.approve) else remote.approve
    schema = listed.get("inputSchema")
    return Tool(
        name=function_name(remote.label, name),
        kind=ToolKind.MCP,
        description=broken_tokens(" ".join(text for text in (about, str(listed.get("description") or "")) if text)),
        parameters=schema if isinstance(schema, dict) else {"type": "object"},
        run=partial(_run, context, remote, name),
        sends=name in remote.sends,
        approval=approval,
        server=remote.label,
        remote=name,
        listed=listed,
    )


async def _run(context: Context, remote: Remote, name: str, call: Call) -> Ran:
    if call.arguments.strip() and call.given == {} and call.arguments.strip() != "{}":
        why = "the arguments are no JSON object; call it again with one"
        return Ran(text=why, detail=RemoteResult(text=why, failed=True), error="invalid_tool_input")
    try:
        text, failed = await remote.call(name, call.given)
    except NemotronOpsError as exc:
        return Ran(text=exc.message, detail=RemoteResult(text=exc.message, failed=True), error="unavailable")
    context.web.tainted = True
    shown = framed(text or "[no text]", source=f"MCP server {remote.label}, tool {name}", most=context.letters)
    return Ran(text=shown, detail=RemoteResult(text=text, failed=failed), error="tool_failed" if failed else "")


def _wanted(given: Any, place: str, remote: Remote) -> list[str]:
    """Names of the allowed tools, in the order of the server."""
    if given is None:
        return list(remote.tools)
    names = given.get("tool_names") if isinstance(given, dict) else given
    if isinstance(given, dict) and set(given) - {"tool_names"}:
        raise InvalidError(f"{place}.{min(set(given) - {'tool_names'})}: is not honoured here")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidError(f"{place}: expected a list of names")
    for name in names:
        if name not in remote.tools:
            raise InvalidError(f"{place}: mcp.toml allows no tool {name[:100]!r} of {remote.label}")
    return [name for name in remote.tools if name in names]


def _ask(given: Any, place: str) -> dict[str, str]:
    """When each tool asks; the empty name stands for all others. OpenAI's default is always."""
    if given is None or given in APPROVALS:
        return {"": given or "always"}
    if not isinstance(given, dict) or not given or set(given) - set(APPROVALS):
        raise InvalidError(f"{place}: expected always, never, or which tools ask")
    found = {"": "always"}
    for when in ("never", "always"):  # a tool that stands in both asks
        names = (given.get(when) or {}).get("tool_names") if isinstance(given.get(when) or {}, dict) else None
        if when in given and (not isinstance(names, list) or not all(isinstance(name, str) for name in names)):
            raise InvalidError(f"{place}.{when}.tool_names: expected a list of names")
        found |= dict.fromkeys(names or (), when)
    return found
