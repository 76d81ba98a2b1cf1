"""Every option of the page's process: one frozen dataclass, read from flags. Pure."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

PORT = 8888


@dataclass(frozen=True, kw_only=True)
class Options:
    """All options, with their defaults. Each is a flag, with `-` for `_`."""

    listen_fd: int = -1  # descriptor of the listening socket
    control: str = ""  # control socket of the supervisor
    folder: str = ""  # chats, files, login
    endpoint: str = "http://127.0.0.1:8001/v1"  # the gateway
    key_file: str = ""  # key for the gateway; renewed where the gateway no longer takes it
    keys_file: str = ""  # the keys that the gateway takes
    ca: str = ""  # certificate of the gateway
    tls_cert: str = ""
    tls_key: str = ""
    allowed_host: tuple[str, ...] = ()
    command: str = ""  # the program for searches and downloads: `python -P -m nemotron_ops`


def read(argv: Sequence[str]) -> Options:
    """Options from a command line."""
    parser = argparse.ArgumentParser(prog="python -m nemotron_ops.studio", allow_abbrev=False)
    for item in fields(Options):
        flag = "--" + item.name.replace("_", "-")
        if isinstance(item.default, tuple):
            parser.add_argument(flag, action="append", default=None)
        else:
            parser.add_argument(flag, type=type(item.default), default=None)
    given: dict[str, Any] = {k: v for k, v in vars(parser.parse_args(argv)).items() if v is not None}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return Options(**values)
