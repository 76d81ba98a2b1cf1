"""One connection to an MCP server, by the official SDK: tools, calls, an end that leaves nothing. asyncio, processes.

The SDK's client lives in a task of its own, because it must end in the task that began it, and a request's tools end
wherever the request does. Sampling, roots and elicitation are off: a server asks nothing of us.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TextIO, cast

import httpx2
import mcp_types as types
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from nemotron_ops.agent.mcp.pins import Listed
from nemotron_ops.agent.mcp.settings import McpServer, Wall
from nemotron_ops.errors import HostError, NemotronOpsError
from nemotron_ops.sandbox import program

MOST_PAGES = 10
MOST_TOOLS = 200
TAIL_BYTES = 4096
Bubblewrap = Callable[[], str]  # the path of a bubblewrap that has held its attacks; raises HostError

logging.getLogger("mcp").setLevel(logging.CRITICAL)  # faults come back as exceptions


class Connection:
    """A server that is running or reached. `close` ends it, also while it starts."""

    def __init__(self, name: str, server: McpServer, bubblewrap: Bubblewrap) -> None:
        self.name, self._server, self._bubblewrap = name, server, bubblewrap
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._log = cast(TextIO, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))  # noqa: SIM115

    async def open(self) -> tuple[Listed, ...]:
        """Start or reach the server; its tools. Raises HostError."""
        self._task = asyncio.create_task(self._hold())
        try:
            async with asyncio.timeout(self._server.start_s):
                client = await asyncio.shield(self._ready)
                return await _listed(client)
        except TimeoutError as exc:
            raise HostError(
                f"cannot use the MCP server {self.name}: no answer within {self._server.start_s:g} s"
            ) from exc
        except NemotronOpsError:
            raise
        except Exception as exc:
            raise self._failure(exc) from exc

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> types.CallToolResult:
        """Call a tool. Raises HostError if the server fails, is gone, or takes too long."""
        client = await asyncio.shield(self._ready)
        assert self._task is not None
        call = asyncio.ensure_future(client.call_tool(tool, dict(arguments)))
        try:
            await asyncio.wait((call, self._task), timeout=self._server.timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if call.done():
                return call.result()
            if self._task.done():
                raise HostError(f"the MCP server {self.name} has ended{self._last_words()}")
            raise HostError(f"the MCP server {self.name} gave no answer within {self._server.timeout_s:g} s")
        except NemotronOpsError:
            raise
        except MCPError as exc:
            raise HostError(f"the MCP server {self.name} refused the call: {exc}") from exc
        except Exception as exc:
            raise self._failure(exc) from exc
        finally:
            call.cancel()
            await asyncio.wait((call,))

    async def close(self) -> None:
        """End the connection, and the server that was started for it. A cancellation does not shorten it."""
        self._stop.set()
        task = self._task
        if task is not None:
            if not self._ready.done():
                task.cancel()
            cancelled = False
            while not task.done():
                try:
                    await asyncio.wait((task,))
                except asyncio.CancelledError:
                    cancelled = True
            if not task.cancelled():
                task.exception()  # read, so that it is not reported as lost
            if cancelled:
                raise asyncio.CancelledError
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()
        self._log.close()

    async def _hold(self) -> None:
        try:
            async with self._transport() as transport, Client(transport, cache=None) as client:
                self._ready.set_result(client)
                await self._stop.wait()
        except BaseException as exc:
            if not self._ready.done():
                self._ready.set_exception(exc if isinstance(exc, Exception) else HostError("cancelled"))
            raise

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        server = self._server
        if server.command:
            words = await asyncio.to_thread(self._words)
            env = dict(server.env) if server.sandbox is Wall.OFF else program.handed(server.env)
            yield stdio_client(StdioServerParameters(command=words[0], args=list(words[1:]), env=env), errlog=self._log)
            return
        timeout = httpx2.Timeout(server.timeout_s)
        async with httpx2.AsyncClient(headers=dict(server.headers), timeout=timeout, trust_env=False) as http:
            yield streamable_http_client(server.url, http_client=http)

    def _words(self) -> tuple[str, ...]:
        """The command line of a stdio server, behind its wall."""
        server = self._server
        if server.sandbox is Wall.OFF:
            return server.command
        return program.words(
            program.Program(
                bwrap=self._bubblewrap(), command=server.command, read=server.read, write=server.write,
                network=server.sandbox is Wall.NET,
            )
        )  # fmt: skip

    def _failure(self, exc: BaseException) -> HostError:
        while isinstance(exc, BaseExceptionGroup):
            exc = exc.exceptions[0]
        if isinstance(exc, HostError):
            return exc
        why = str(exc) or type(exc).__name__
        return HostError(f"cannot use the MCP server {self.name}: {why}{self._last_words()}")

    def _last_words(self) -> str:
        """The last line of the server's stderr, if it wrote one."""
        with suppress(OSError, ValueError):
            end = self._log.seek(0, 2)
            self._log.seek(max(0, end - TAIL_BYTES))
            if lines := self._log.read().strip().splitlines():
                return f": {lines[-1][:300]}"
        return ""


async def _listed(client: Client) -> tuple[Listed, ...]:
    found: list[Listed] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            found.append(Listed(name=tool.name, definition=tool.model_dump(mode="json", by_alias=True)))
        cursor = page.next_cursor
        if not cursor or len(found) >= MOST_TOOLS:
            break
    return tuple(found[:MOST_TOOLS])
