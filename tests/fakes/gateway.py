"""A stand-in for the gateway: follows snapshots, answers 200 to every connection, drains on SIGTERM. asyncio.

The body of each answer is its pid, so that tests see which process answered. It reports the contents of the file named
by `FAKE_INFLIGHT` as its requests in flight.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
from pathlib import Path

ACCEPTED_S = 0.2  # from the kernel's accept to a task that answers
answering: set[asyncio.Task[None]] = set()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    task = asyncio.current_task()
    assert task is not None
    answering.add(task)
    task.add_done_callback(answering.discard)
    await reader.readline()
    body = str(os.getpid()).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()


async def follow(control: str) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(control)
            writer.write(b'{"verb": "follow"}\n')
            reporting = asyncio.create_task(report(writer))
            try:
                while line := await reader.readline():
                    if seen := os.environ.get("FAKE_SEEN"):
                        Path(seen).write_bytes(line)
            finally:
                reporting.cancel()
        except OSError:
            pass
        await asyncio.sleep(0.1)


async def report(writer: asyncio.StreamWriter) -> None:
    path, last = os.environ.get("FAKE_INFLIGHT"), None
    while True:
        counts = json.loads(Path(path).read_text()) if path and Path(path).exists() else {}
        if counts != last:
            writer.write(json.dumps({"inflight": counts}).encode() + b"\n")
            last = counts
        await asyncio.sleep(0.05)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--control", required=True)
    parser.add_argument("--agent-socket")
    args = parser.parse_args()
    server = await asyncio.start_server(answer, sock=socket.socket(fileno=args.listen_fd))
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    following = asyncio.create_task(follow(args.control))
    await done.wait()
    server.close()
    following.cancel()
    await asyncio.sleep(ACCEPTED_S)
    await asyncio.gather(*answering, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
