"""Probes a companion: any reply on its socket proves that its event loop runs. asyncio, sockets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from nemotron_ops import addresses
from nemotron_ops.processes.sockets import Address


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A companion is killed after `failures` unanswered `GET /health` in a row."""

    period_s: float = 5.0
    timeout_s: float = 10.0
    failures: int = 3


async def answers(at: Address, timeout_s: float) -> bool:
    """Whether the process reacts: any reply, even a reset (as a TLS server may send), proves that its loop runs."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(addresses.near(at.host), at.port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            await reader.read(1)
            return True
    except ConnectionResetError:
        return True
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()
