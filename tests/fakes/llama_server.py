"""A stand-in for llama-server with faults on demand: it hangs, wedges, ignores signals. asyncio.

It takes llama-server's `--host SOCKET` and answers /health, /metrics, /slots, /v1/chat/completions and slot files. The
knobs are files in the folder `--knobs DIR`, so that a test can turn them while it runs:

    loading        /health answers 503                         dead       no answer at all, the socket stays open
    wedged         only /health is answered                    stuck      one slot is busy, no counter grows
    prefill        one slot is busy, its prompt advances       no-canary  chat is not answered
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class Engine:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.knobs = args, Path(args.knobs)
        self.processed = self.made = self.terms = self.chatting = 0
        self.done = asyncio.Event()
        self.key = Path(args.api_key_file).read_text().strip()

    def has(self, knob: str) -> bool:
        return (self.knobs / knob).exists()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                (int(v.split(":")[1]) for v in head.splitlines() if v.lower().startswith("content-length")), 0
            )
            body = await reader.readexactly(length)
            _, path, _ = head.splitlines()[0].split(" ")
            status, value = await self.answer(path, head, body)
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            writer.write(
                b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data)
            )
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(self, path: str, head: str, body: bytes) -> tuple[int, object]:
        while self.has("dead"):
            await asyncio.sleep(0.05)
        if self.has("loading"):
            return 503, {"error": {"message": "Loading model"}}
        if path == "/health":
            return 200, {"status": "ok"}
        if f"Bearer {self.key}" not in head:
            return 401, {"error": {"message": "Invalid API Key"}}
        while self.has("wedged"):
            await asyncio.sleep(0.05)
        if path == "/metrics":
            busy = int(self.has("stuck") or self.has("prefill")) + self.chatting
            counts = {"requests_processing": busy, "requests_deferred": 0, "n_decode_total": self.made}
            return 200, "".join(f"llamacpp:{name} {n}\n" for name, n in counts.items()).encode()
        if path == "/slots":
            return 200, [self.slot()]
        return await self.chat(json.loads(body))

    def slot(self) -> dict[str, object]:
        if self.has("prefill"):
            self.processed += 512
        busy = self.has("stuck") or self.has("prefill") or self.chatting > 0
        return {
            "id": 0, "id_task": 1, "is_processing": busy, "n_prompt_tokens_processed": self.processed,
            "next_token": [{"n_decoded": self.made}],
        }  # fmt: skip

    async def chat(self, request: dict[str, object]) -> tuple[int, object]:
        while self.has("no-canary") or self.has("stuck"):
            await asyncio.sleep(0.05)
        self.chatting += 1
        try:
            for _ in range(int(self.args.chat_s / 0.05)):
                self.made += 1
                await asyncio.sleep(0.05)
        finally:
            self.chatting -= 1
        self.made += 1
        message = {"role": "assistant", "content": self.args.words}
        tokens = 0 if self.args.mute else 3
        return 200, {"choices": [{"message": message}], "usage": {"completion_tokens": tokens}}

    def on_term(self) -> None:
        self.terms += 1
        (self.knobs / f"term-{os.getpid()}").write_text(str(self.terms))
        if self.args.ignore_term or (self.args.ignore_first_term and self.terms == 1):
            return
        if self.terms > 1:
            sys.exit(1)
        self.done.set()


def preparations(args: argparse.Namespace) -> None:
    """Output and faults before the socket is opened."""
    if args.grandchild:
        child = subprocess.Popen(["sleep", "600"])
        (Path(args.knobs) / "grandchild").write_text(str(child.pid))
    if args.echo_ctx:
        print(f"ctx {args.ctx_size}", file=sys.stderr, flush=True)
    for line in args.say:
        print(line, file=sys.stderr, flush=True)
    if args.die is not None:
        if args.die < 0:
            os.kill(os.getpid(), -args.die)
        sys.exit(args.die)
    if args.flood:
        block = b"".join(b"line %d %s\n" % (n, b"x" * 80) for n in range(1000))
        for _ in range(args.flood):
            os.write(2, block)


async def main(args: argparse.Namespace) -> None:
    engine = Engine(args)
    loop = asyncio.get_running_loop()
    server = await asyncio.start_unix_server(engine.serve, path=args.host)
    began = time.monotonic()
    while time.monotonic() - began < args.load_s:
        (engine.knobs / "loading").touch()
        if args.chatty_load:
            print("load_tensors: ...", file=sys.stderr, flush=True)
        await asyncio.sleep(0.05)
    if args.load_s:
        (engine.knobs / "loading").unlink(missing_ok=True)
    loop.add_signal_handler(signal.SIGTERM, engine.on_term)
    if args.die_after_s:
        loop.call_later(args.die_after_s, os._exit, 3)
    await engine.done.wait()
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--api-key-file", required=True)
    parser.add_argument("--knobs", required=True)
    parser.add_argument("--load-s", type=float, default=0.0)
    parser.add_argument("--chatty-load", action="store_true")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--ignore-first-term", action="store_true")
    parser.add_argument("--grandchild", action="store_true")
    parser.add_argument("--say", action="append", default=[])
    parser.add_argument("--die", type=int)
    parser.add_argument("--die-after-s", type=float, default=0.0)
    parser.add_argument("--flood", type=int, default=0)
    parser.add_argument("--chat-s", type=float, default=0.0)
    parser.add_argument("--mute", action="store_true")
    parser.add_argument("--words", default="four")
    parser.add_argument("--slot-save-path", default="")
    parser.add_argument("--ctx-size", default="0")
    parser.add_argument("--kv-unified", action="store_true")
    parser.add_argument("--echo-ctx", action="store_true")
    parsed = parser.parse_args()
    preparations(parsed)
    asyncio.run(main(parsed))
