"""Every option of the agent's process: one frozen dataclass, read from flags. Pure."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

IDLE_S = 300.0  # a start costs about half a second


@dataclass(frozen=True, kw_only=True)
class Options:
    """All options, with their defaults. Each is a flag, with `-` for `_`."""

    listen_fd: int = -1  # descriptor of the listening unix socket
    socket: str = ""  # its path, by which the next supervisor knows the process
    endpoint: str = "http://127.0.0.1:8001/v1"  # the gateway
    ca: str = ""  # certificate of the gateway
    keep_alive_s: float = 10.0  # between comments while a tool runs
    idle_s: float = IDLE_S  # time without a request after which the process ends


def read(argv: Sequence[str]) -> Options:
    """Options from a command line."""
    parser = argparse.ArgumentParser(prog="python -m nemotron_ops.agent", allow_abbrev=False)
    for item in fields(Options):
        parser.add_argument("--" + item.name.replace("_", "-"), type=type(item.default), default=item.default)
    given: dict[str, Any] = vars(parser.parse_args(argv))
    return Options(**given)
