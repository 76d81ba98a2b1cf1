"""Hands a request that asks for hosted tools to the agent, and passes its answer on. Sockets.

Only a request that was refused for its hosted tools gets here: others make no step more.
"""

from __future__ import annotations

import asyncio
import struct

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api, Kind, Scope
from nemotron_ops.gateway.client import heads
from nemotron_ops.gateway.exchange import respond
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.request.json_fields import read_fields, value_of

HOSTED = frozenset({"code_interpreter"})
OWN = frozenset({"function", "custom", "namespace"})  # the client runs these itself


class Head(msgspec.Struct):
    """The first line of the agent's answer."""

    status: int
    stream: bool


def is_for_agent(record: Record, refusal: Refusal, options: Options) -> bool:
    """Whether the agent runs what this request was refused for. Raises Refusal if the key lacks the scope for it."""
    if refusal.code != "tools_not_enabled" or not options.agent_socket:
        return False
    if record.route.api is not Api.RESPONSES or record.route.kind is not Kind.GENERATE:
        return False
    tools = value_of(read_fields(record.request.body), "tools")
    kinds = {str(t.get("type")) for t in tools if isinstance(t, dict)} if isinstance(tools, list) else set()
    if not kinds & HOSTED or not kinds <= HOSTED | OWN:
        return False
    if not {Scope.TOOLS, Scope.ADMIN}.intersection(record.key.scopes):
        raise Refusal(status=403, code="scope", message="this API key lacks the scope 'tools'")
    return True


async def hand_over(record: Record, path: str) -> None:
    """Answer the request with what the agent says. Raises Refusal if the agent cannot be reached or is lost.

    A client that leaves cancels this: the connection closes, by which the agent knows.
    """
    await asyncio.ensure_future(_passed_on(record, path))  # a task: streams of asyncio do not run in an EagerTask


async def _passed_on(record: Record, path: str) -> None:
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError as exc:
        raise _lost(f"cannot be reached: {exc.strerror or exc}") from exc
    try:
        request = record.request
        head = {"path": request.path, "key": heads.client_key(request.headers), "bytes": len(request.body)}
        writer.write(msgspec.json.encode(head) + b"\n" + request.body)
        await _answered(record, reader)
    except (OSError, asyncio.IncompleteReadError, msgspec.MsgspecError) as exc:
        raise _lost("ended before its answer did") from exc
    finally:
        writer.close()


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
