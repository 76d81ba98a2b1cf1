"""An engine that streams tokens at known moments and logs when it wrote each: `python -m tests.fakes.timed_engine`.

Its log has one line of JSON per request: the moment it was read and the moments of all tokens, on the monotonic clock
that all processes of the machine share. Sockets, asyncio.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any, cast

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class Script:
    """When tokens come: the first `first_s` after its slot starts, each next one `gap_s` later."""

    first_s: float = 0.05
    gap_s: float = 0.01
    slots: int = 64


@contextmanager
def timed_engine(folder: Path, script: Script) -> Iterator[Path]:
    """The engine in a process of its own, on the socket `folder/s`; its log is `folder/log`. Yields the folder.

    It also listens on a TCP port of loopback, which it prints after `ready`.
    """
    words = [str(folder), str(script.first_s), str(script.gap_s), str(script.slots)]
    argv = [sys.executable, "-m", "tests.fakes.timed_engine", *words]
    with Popen(argv, stdin=DEVNULL, stdout=PIPE, cwd=Path(__file__).parents[2]) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline().startswith(b"ready ")
            yield folder
        finally:
            child.kill()


def log_of(folder: Path) -> list[dict[str, Any]]:
    """What the engine wrote so far, by request in the order in which they ended."""
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


class _Connection(asyncio.Protocol):
    """One request. Notes its moment before it parses anything: requests at once then delay each other's less."""

    def __init__(self, engine: _Engine) -> None:
        self.engine, self.data = engine, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        now, self.data = time.perf_counter(), self.data + data
        head, ended, body = self.data.partition(b"\r\n\r\n")
        if ended and len(body) == int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            answering = self.engine.answer(body, now, cast(asyncio.WriteTransport, self.transport))
            self.engine.tasks.append(asyncio.get_running_loop().create_task(answering))


class _Engine:
    def __init__(self, folder: Path, script: Script) -> None:
        self.script, self.slots = script, asyncio.Semaphore(script.slots)
        self.log = (folder / "log").open("a")
        self.tasks: list[asyncio.Task[None]] = []

    async def answer(self, data: bytes, read: float, transport: asyncio.WriteTransport) -> None:
        body = json.loads(data)
        transport.write(HEAD)
        async with self.slots:
            times = await self._tokens(transport, read, int(body["max_tokens"]))
        usage = {"prompt_tokens": len(body["messages"][0]["content"].split()), "completion_tokens": len(times)}
        timings = {"predicted_per_second": 1 / self.script.gap_s}
        transport.write(chunk({"choices": [], "usage": usage, "timings": timings}))
        transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        print(json.dumps({"read": read, "tokens": times}), file=self.log, flush=True)
        transport.close()

    async def _tokens(self, transport: asyncio.WriteTransport, read: float, count: int) -> list[float]:
        now = time.perf_counter()
        due, times = (read if self.script.slots > 1 else now) + self.script.first_s, []
        for n in range(count):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            transport.write(chunk({"choices": [{"delta": {"content": f" t{n}"}}]}))
            times.append(time.perf_counter())
            due += self.script.gap_s
        return times


def chunk(event: Mapping[str, object]) -> bytes:
    data = b"data: " + json.dumps(event).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _main(folder: Path, script: Script) -> None:
    engine = _Engine(folder, script)
    server = await asyncio.get_running_loop().create_unix_server(lambda: _Connection(engine), str(folder / "s"))
    tcp = await asyncio.get_running_loop().create_server(lambda: _Connection(engine), "127.0.0.1", 0)
    print("ready", tcp.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    first, gap, slots = sys.argv[2:5]
    asyncio.run(_main(Path(sys.argv[1]), Script(first_s=float(first), gap_s=float(gap), slots=int(slots))))
