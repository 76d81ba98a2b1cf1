#!/usr/bin/env python3
"""A stand-in for `nemotron-ops serve` with knobs for faults that the real one will not produce on demand.

Same contract with the service manager: socket activation, READY=1, STATUS, watchdog, one engine in a session of its
own that outlives it and is adopted by pid and start time. Its engine is `sleep`; it answers every HTTP request with a
line that names its release, its own pid and the engine's.

Recipes are faults: `good`, `never-ready`, `dies-at-start`, `dies-after-ready`. SIGUSR1 makes it hang.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

RUNTIME = Path("/run" if os.environ.get("NEMOTRON_OPS_SYSTEM") else os.environ["XDG_RUNTIME_DIR"], "nemotron-ops")
RECORD = RUNTIME / "engine.json"


def notify(*lines: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto("\n".join(lines).encode(), "\0" + address[1:] if address.startswith("@") else address)


def start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat, or None where the process is gone or hidden."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def engine() -> tuple[int, str]:
    """The engine's pid, and whether it was adopted or started."""
    RUNTIME.mkdir(parents=True, exist_ok=True)
    if RECORD.exists():
        record = json.loads(RECORD.read_text())
        if start_time(record["pid"]) == record["start"]:
            os.readlink(f"/proc/{record['pid']}/exe")  # what a supervisor needs to be sure; raises where hidden
            return record["pid"], "adopted"
    child = subprocess.Popen(["sleep", "100000"], start_new_session=True, stdin=subprocess.DEVNULL)
    RECORD.write_text(json.dumps({"pid": child.pid, "start": start_time(child.pid)}))
    return child.pid, "started"


def main() -> None:
    words = sys.argv[1:]
    if words[:1] == ["fetch"] or words[:2] == ["service", "check-gpu"]:
        return
    recipe = words[1]
    if recipe == "dies-at-start":
        sys.exit("error: cannot load model: the stand-in was told to die")
    pid, how = engine()
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    signal.signal(signal.SIGHUP, lambda *_: None)
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(10000))
    listener = socket.socket(fileno=3)
    listener.settimeout(0.1)
    if recipe != "never-ready":
        notify("READY=1", f"STATUS={how} {pid}")
    print(f"<5>{how} engine {pid}, credentials {os.environ.get('CREDENTIALS_DIRECTORY')}", flush=True)
    born = time.monotonic()
    while not stop:
        notify("WATCHDOG=1")
        if recipe == "dies-after-ready" and time.monotonic() - born > 1.5:
            os.killpg(pid, signal.SIGKILL)
            sys.exit(2)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            connection.settimeout(2)
            connection.recv(65536)
            body = json.dumps({"pid": os.getpid(), "engine": pid, "how": how, "recipe": recipe, "program": sys.argv[0]})
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall((head + body).encode())
    notify("STOPPING=1")
    os.killpg(pid, signal.SIGKILL)
    RECORD.unlink()


main()
