"""One session in a process of its own, for `tools run --session`. Unix socket, processes.

The socket is in a folder that only its user may enter. A message is a length in four bytes and a JSON object. The
process ends after ten idle minutes, with the session, or on request; if it is killed, its sandbox ends with it, and the
socket that it leaves is removed by the next call.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from nemotron_ops import files, proc
from nemotron_ops.errors import HostError, NemotronOpsError, UsageError
from nemotron_ops.paths import Layout, system_layout, user_layout
from nemotron_ops.sandbox import launch
from nemotron_ops.sandbox.limits import CODE_BYTES
from nemotron_ops.sandbox.open import Room
from nemotron_ops.sandbox.outcome import Outcome, outcome_of
from nemotron_ops.sandbox.session import Sandbox

START_S = 30.0
REPLY_BYTES = 512 << 20
SESSIONS = 4  # at once, per installation
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}")


def path_of(layout: Layout, name: str) -> Path:
    """The socket of a session. Raises UsageError if the name is none."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"cannot use the session {name!r}: expected up to 32 letters, digits, '.', '_' and '-', a letter first"
        )
    return _folder(layout) / f"{name}.sock"


def _folder(layout: Layout) -> Path:
    folder = launch.own_folder(layout.runtime / "sessions")
    folder.chmod(0o700)
    return folder


def ask(layout: Layout, name: str, request: dict[str, Any]) -> Outcome:
    """Send one call to a session, which is started if there is none. Raises as `Room.open` and `Session.run` do."""
    path = path_of(layout, name)
    with files.locked(path.with_suffix(".lock")):
        opened = _connected(path) or _begun(path, name)
    with opened as link:
        _send(link, request)
        answer = _receive(link)
    if answer is None:
        raise HostError(f"cannot run code: the session {name!r} ended")
    if "error" in answer:
        raise HostError(answer["error"], hint=answer.get("hint"))
    return outcome_of(answer)


def _connected(path: Path) -> socket.socket | None:
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(str(path))
    except OSError:
        link.close()
        return None
    return link


def _begun(path: Path, name: str) -> socket.socket:
    """Start the session's process and wait until it listens."""
    others = [p for p in path.parent.glob("*.sock") if p != path and _alive(p)]
    if len(others) >= SESSIONS:
        names = ", ".join(sorted(p.stem for p in others))
        raise HostError(
            f"cannot open the session {name!r}: {SESSIONS} are open: {names}",
            hint="an idle session ends after 10 minutes",
        )
    with suppress(OSError):
        path.unlink()
    log = path.with_suffix(".log").open("wb")
    with log:
        argv = proc.python_argv("nemotron_ops.sandbox.server", name)
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if (link := _connected(path)) is not None:
            return link
        if child.poll() is not None:
            said = path.with_suffix(".log").read_text(errors="replace").strip().splitlines()
            raise HostError(said[0].removeprefix("error: ") if said else f"cannot open the session {name!r}: it ended")
        time.sleep(0.01)
    child.kill()
    raise HostError(f"cannot open the session {name!r}: it did not start within {START_S:g} s")


def _alive(path: Path) -> bool:
    link = _connected(path)
    if link is None:
        with suppress(OSError):
            path.unlink()
        return False
    link.close()
    return True


def serve(session: Sandbox, path: Path) -> None:
    """Answer calls one after another until the session is over or idle for too long."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        os.chmod(f"{path}.new", 0o600)
        listener.listen(8)
        os.rename(f"{path}.new", path)  # who sees the socket can connect
        listener.settimeout(session.limits.idle_s)
        try:
            while not session.over:
                link, _ = listener.accept()
                with link, suppress(OSError):
                    link.settimeout(session.limits.call_s)
                    _answer(session, link)
        except TimeoutError:
            pass
        finally:
            with suppress(OSError):
                path.unlink()
            session.end()


def _answer(session: Sandbox, link: socket.socket) -> None:
    request = _receive(link)
    if request is None:
        return
    try:
        for name, content in request.get("files", {}).items():
            session.put(name, base64.b64decode(content))
        outcome = session.run(request["lang"], request["code"])
    except NemotronOpsError as exc:
        _send(link, {"error": exc.message, "hint": exc.hint})
        return
    _send(link, outcome.as_json())


def _send(link: socket.socket, value: dict[str, Any]) -> None:
    body = json.dumps(value).encode()
    link.sendall(struct.pack(">I", len(body)) + body)


def _receive(link: socket.socket) -> dict[str, Any] | None:
    head = _exactly(link, 4)
    if head is None:
        return None
    (size,) = struct.unpack(">I", head)
    if size > max(REPLY_BYTES, 2 * CODE_BYTES):
        return None
    body = _exactly(link, size)
    value = None if body is None else json.loads(body)
    return value if isinstance(value, dict) else None


def _exactly(link: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        more = link.recv(min(size - len(data), 1 << 20))
        if not more:
            return None
        data += more
    return bytes(data)


def main() -> None:
    name = sys.argv[1]
    env = dict(os.environ)
    layout = system_layout() if env.get("NEMOTRON_OPS_SYSTEM") else user_layout(env, uid=os.getuid())
    try:
        session = Room(layout=layout, env=env).open()
    except NemotronOpsError as exc:
        sys.exit(f"error: {exc.message}")
    serve(session, path_of(layout, name))


if __name__ == "__main__":
    main()
