"""Sends requests to the running supervisor: one line of JSON, answered by one or more lines. Unix socket.

    {"verb": "status"}                      ->  {"pid": …, "instances": […], …}
    {"verb": "stop", "names": ["30b-0"]}    ->  {"ok": true, …}
    {"verb": "events", "follow": true}      ->  one event per line, until the connection is closed

A refusal is `{"error": {"message": …, "hint": …}}` and becomes a ControlError here.
"""

from __future__ import annotations

import json
import math
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from nemotron_ops.errors import ControlError
from nemotron_ops.paths import Layout

TIMEOUT_S = 10.0


def request(layout: Layout, verb: str, *, timeout_s: float | None = TIMEOUT_S, **args: Any) -> dict[str, Any]:
    """The supervisor's answer to one request. Raises ControlError without an answer, or for a refusal.

    An answer that takes longer than `TIMEOUT_S` is awaited while the supervisor answers pings: a reload takes as long
    as its models load, and a supervisor that is stopped or hangs never answers.
    """
    with _asked(layout, verb, args, timeout_s) as lines:
        _await_answer(lines, lambda: _ping(layout, verb), timeout_s)
        return _answer(lines.readline(), verb)


def _await_answer(lines: BinaryIO, ping: Callable[[], None], timeout_s: float | None) -> None:
    """Waits for an answer, and calls `ping` every `TIMEOUT_S`. Raises TimeoutError after `timeout_s`."""
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left_s = deadline - time.monotonic()
        if select.select([lines], [], [], max(0.0, min(TIMEOUT_S, left_s)))[0]:
            return
        if left_s <= TIMEOUT_S:
            raise TimeoutError
        ping()


def _ping(layout: Layout, verb: str) -> None:
    try:
        with _asked(layout, "ping", {}, TIMEOUT_S) as lines:
            _answer(lines.readline(), "ping")
    except ControlError as exc:
        cause = exc.message.partition(": ")[2] or "the supervisor does not answer"
        raise ControlError(f"cannot {verb}: {cause}", hint="see `nemotron-ops status`") from exc


def follow(layout: Layout, verb: str, **args: Any) -> Iterator[dict[str, Any]]:
    """The supervisor's answers, one by one, until either side closes the connection."""
    with _asked(layout, verb, {**args, "follow": True}, None) as lines:
        for line in lines:
            yield _answer(line, verb)


def running(layout: Layout) -> bool:
    """Whether a supervisor answers."""
    try:
        request(layout, "ping", timeout_s=2.0)
    except ControlError:
        return False
    return True


@contextmanager
def _asked(layout: Layout, verb: str, args: dict[str, Any], timeout_s: float | None) -> Iterator[BinaryIO]:
    path = layout.control_socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect(str(path))
            with suppress(BrokenPipeError):  # the refusal came before the request and can still be read
                sock.sendall(json.dumps({"verb": verb, **args}).encode() + b"\n")
        except OSError as exc:
            raise ControlError(
                f"cannot reach a supervisor: {_cause(exc)} ({path})", hint="start one with `nemotron-ops serve RECIPE`"
            ) from exc
        with sock.makefile("rb") as lines:
            try:
                yield lines
            except TimeoutError as exc:
                raise ControlError(f"cannot {verb}: the supervisor has not answered within {timeout_s:g} s") from exc
            except ConnectionError as exc:
                raise ControlError(f"cannot {verb}: the supervisor closed the connection") from exc


def _cause(exc: OSError) -> str:
    match exc:
        case FileNotFoundError() | ConnectionRefusedError():
            return "none is running"
        case PermissionError():
            return "it belongs to another user"
        case _:
            return exc.strerror or str(exc)


def _answer(line: bytes, verb: str) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise ControlError(f"cannot {verb}: the supervisor ended before it answered")
    value = json.loads(line)
    if isinstance(value, dict) and (error := value.get("error")):
        raise ControlError(str(error.get("message", "refused")), hint=error.get("hint"))
    return dict(value)
