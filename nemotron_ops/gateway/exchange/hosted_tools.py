"""Hands a request that asks for hosted tools to the agent, and passes its answer on. Sockets.

Only a request that was refused for its hosted tools gets here: others make no step more.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api, Kind, Scope
from nemotron_ops.gateway.client import heads
from nemotron_ops.gateway.exchange import respond
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.request.json_fields import Fields, read_fields, text_field, value_of
from nemotron_ops.gateway.shared import Shared

# Types of tools that the agent runs, by how they begin; the client runs those of `OWN` itself.
HOSTED: Mapping[Api, tuple[str, ...]] = {
    Api.RESPONSES: ("code_interpreter", "web_search", "mcp"),
    Api.MESSAGES: ("code_execution_", "web_search_", "web_fetch_"),
}
OWN: Mapping[Api, frozenset[str]] = {
    Api.RESPONSES: frozenset({"function", "custom", "namespace", "local_shell"}),
    Api.MESSAGES: frozenset({"custom"}),
}
# Of refusals that a request with hosted tools meets first.
CODES = frozenset({"tools_not_enabled", "invalid_input", "model_not_found"})
AGENT = ":agent"  # a profile that each model has while there is an agent, unless its recipe has one of that name
SEARCH = "web_search_options"
TURNS = "tools"  # the profile that its turns ask for, where the model has it


class Head(msgspec.Struct):
    """The first line of the agent's answer."""

    status: int
    stream: bool


def is_for_agent(record: Record, refusal: Refusal, shared: Shared) -> bool:
    """Whether the agent runs what this request was refused for. Raises Refusal if the key lacks the scope for it."""
    if refusal.code not in CODES or not shared.options.agent_socket or record.route.kind is not Kind.GENERATE:
        return False
    api = record.route.api
    if not (_asks_for_agent(record, refusal, shared) if api is Api.CHAT else _asks_for_hosted(api, record)):
        return False
    if not {Scope.TOOLS, Scope.ADMIN}.intersection(record.key.scopes):
        raise Refusal(status=403, code="scope", message="this API key lacks the scope 'tools'")
    return True


def _asks_for_hosted(api: Api, record: Record) -> bool:
    """Whether tools of the request run at the server, and all of those are run by the agent."""
    begins = HOSTED.get(api)
    if begins is None:
        return False
    tools = value_of(read_fields(record.request.body), "tools")
    kinds = [str(t.get("type", "custom")) for t in tools if isinstance(t, dict)] if isinstance(tools, list) else []
    ours = [kind for kind in kinds if kind.startswith(begins)]
    return bool(ours) and all(kind in OWN[api] for kind in kinds if kind not in ours)


def _asks_for_agent(record: Record, refusal: Refusal, shared: Shared) -> bool:
    """Whether a chat names the profile `agent` of a model, or asks for a web search."""
    fields = read_fields(record.request.body)
    if refusal.code == "model_not_found":
        name = text_field(fields, "model")
        return name.endswith(AGENT) and name.removesuffix(AGENT) in shared.pool.directory.names
    return refusal.code == "tools_not_enabled" and SEARCH in fields and _own_only(fields)


def _own_only(fields: Fields) -> bool:
    tools = value_of(fields, "tools")
    if tools is not None and not isinstance(tools, list):
        return False
    return all(isinstance(t, dict) and t.get("type") == "function" for t in tools or ())


async def hand_over(record: Record, shared: Shared) -> None:
    """Answer the request with what the agent says. Raises Refusal if the agent cannot be reached or is lost.

    A client that leaves cancels this: the connection closes, by which the agent knows.
    """
    await asyncio.ensure_future(_passed_on(record, shared))  # a task: streams of asyncio do not run in an EagerTask


async def _passed_on(record: Record, shared: Shared) -> None:
    try:
        reader, writer = await asyncio.open_unix_connection(shared.options.agent_socket)
    except OSError as exc:
        raise _lost(f"cannot be reached: {exc.strerror or exc}") from exc
    try:
        request = record.request
        model, ctx_tokens = _model(record, shared)
        head = {
            "path": request.path, "key": heads.client_key(request.headers), "key_id": record.key.id, "model": model,
            "ctx_tokens": ctx_tokens, "bytes": len(request.body),
        }  # fmt: skip
        writer.write(msgspec.json.encode(head) + b"\n" + request.body)
        await _answered(record, reader)
    except (OSError, asyncio.IncompleteReadError, msgspec.MsgspecError) as exc:
        raise _lost("ended before its answer did") from exc
    finally:
        writer.close()


def _model(record: Record, shared: Shared) -> tuple[str, int]:
    """The model that turns ask for, where it is another than the client's, and the tokens of one of its slots.

    Raises Refusal if there is no such model.
    """
    name, directory = text_field(read_fields(record.request.body), "model"), shared.pool.directory
    if not name.endswith(AGENT) or name in directory.names:
        return "", directory.resolve(name, record.key.models).ctx_tokens
    plain = name.removesuffix(AGENT)
    match = directory.resolve(plain, record.key.models)
    return f"{plain}:{TURNS}" if TURNS in match.model.profiles else plain, match.ctx_tokens


async def _answered(record: Record, reader: asyncio.StreamReader) -> None:
    head = msgspec.json.decode(await reader.readline(), type=Head)
    if not head.stream:
        parts = []
        while part := await _frame(reader):
            parts.append(part)
        record.status = head.status
        record.cause = "" if head.status < 400 else "agent_refused"
        record.client.reply(head.status, b"".join(parts), extra=respond.headers(record))
        return
    respond.begin_stream(record)
    while part := await _frame(reader):
        record.client.answer.send(part)
    record.client.end()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """The next part; empty at the regular end."""
    (size,) = struct.unpack(">I", await reader.readexactly(4))
    return await reader.readexactly(size)


def _lost(why: str) -> Refusal:
    return Refusal(status=502, code="agent_lost", message=f"the process that runs hosted tools {why}")
