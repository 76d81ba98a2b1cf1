"""`nemotron-ops mcp`: our tools as an MCP server over stdio or HTTP, by the official SDK. stdio, sockets.

Over stdio the sandbox's variables stay until the client leaves. Over HTTP each call has a sandbox of its own: a request
of MCP's newer versions belongs to no session, and two clients must not share variables.
"""

from __future__ import annotations

import base64
import hmac
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from starlette.types import ASGIApp, Receive, Scope, Send

from nemotron_ops import __version__
from nemotron_ops.agent.here import Here
from nemotron_ops.agent.mcp import offered
from nemotron_ops.agent.mcp.offered import Given, Offer
from nemotron_ops.agent.tools.code import Code
from nemotron_ops.errors import NemotronOpsError

NAME = "nemotron-ops"
ABOUT = "Python in a sandbox without network, and a web search and page reader whose texts are those of third parties."
PATH = "/mcp"
Lend = Callable[[], AbstractAsyncContextManager[Code]]  # gives a call its sandbox


def over_stdio(here: Here) -> None:
    """Serve until the client closes our standard input, or until SIGTERM."""
    anyio.run(_stdio, here)


def over_http(here: Here, listening: socket.socket, token: str) -> None:
    """Serve on a listening socket until SIGTERM or SIGINT; requests show `token` as a bearer token."""
    import uvicorn

    logging.getLogger("mcp").setLevel(logging.ERROR)
    app = guarded(server(here, _own_code(here)).streamable_http_app(stateless_http=True, json_response=True), token)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3)
    uvicorn.Server(config).run(sockets=[listening])


async def _stdio(here: Here) -> None:
    logging.getLogger("mcp").setLevel(logging.ERROR)
    code = Code(here.open_session)
    lock = anyio.Lock()

    @asynccontextmanager
    async def shared() -> AsyncIterator[Code]:
        async with lock:  # a session runs one call at a time
            try:
                yield code
            except BaseException:  # the client has cancelled: what runs is killed, and the session with it
                with anyio.CancelScope(shield=True):
                    await code.close()
                raise

    made = server(here, shared)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_signal, tasks.cancel_scope)
            async with stdio_server() as (read, write):
                await made.run(read, write, made.create_initialization_options())
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await code.close()


async def _until_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()
            return


def _own_code(here: Here) -> Lend:
    @asynccontextmanager
    async def own() -> AsyncIterator[Code]:
        code = Code(here.open_session)
        try:
            yield code
        finally:
            await code.close()

    return own


def server(here: Here, lend: Lend) -> Server[Any]:
    """The server: `lend` gives a call its sandbox."""

    async def listed(
        context: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        del context, params
        with suppress(NemotronOpsError):  # a file of the operator's is wrong: a call says which
            usable = await anyio.to_thread.run_sync(offered.usable, here)
            return types.ListToolsResult(tools=[_tool(one) for one in usable])
        return types.ListToolsResult(tools=[_tool(one) for one in offered.ALL])

    async def call(context: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
        del context
        async with lend() as code:
            return _result(await offered.called(here, code, params.name, params.arguments or {}))

    return Server(NAME, version=__version__, instructions=ABOUT, on_list_tools=listed, on_call_tool=call)


def _tool(offer: Offer) -> types.Tool:
    hints = types.ToolAnnotations(
        read_only_hint=True, destructive_hint=False, idempotent_hint=False, open_world_hint=offer.reads_the_web
    )
    return types.Tool(
        name=offer.name, description=offer.description, input_schema=dict(offer.parameters), annotations=hints
    )


def _result(given: Given) -> types.CallToolResult:
    content: list[types.ContentBlock] = [types.TextContent(type="text", text=given.text)]
    for item in given.images:
        data = base64.b64encode(item.content).decode()
        content.append(types.ImageContent(type="image", data=data, mime_type=item.mime))
    return types.CallToolResult(content=content, is_error=given.failed)


def guarded(app: ASGIApp, token: str) -> ASGIApp:
    """`app` for requests that show `token`; others are answered 401."""
    wanted = f"Bearer {token}".encode()

    async def check(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            shown = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(shown, wanted):
                head = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
                await send({"type": "http.response.start", "status": 401, "headers": head})
                await send({"type": "http.response.body", "body": b"the token is missing or wrong\n"})
                return
        await app(scope, receive, send)

    return check
