"""One sandbox: calls with bounds, files in and out, and an end that leaves nothing. Processes, pipes.

A session is used by one thread at a time. Between calls it is stopped (SIGSTOP) and holds no process but the kernel's,
so that nothing works on unseen; its variables stay.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import select
import signal
import struct
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol

from nemotron_ops.errors import HostError, UsageError
from nemotron_ops.sandbox import collect, launch, reap, watch
from nemotron_ops.sandbox.choose import Backend
from nemotron_ops.sandbox.limits import CODE_BYTES, FLOOD_BYTES, Limit, Limits, in_words
from nemotron_ops.sandbox.outcome import Outcome
from nemotron_ops.sandbox.output import Bounded, plain
from nemotron_ops.sandbox.remove import remove_tree

READY_S = 20.0
REPORT_BYTES = 1 << 20  # longest report of a kernel process
DEATH_S = 2.0  # for the exit status of a sandbox whose pipe has closed
TIMED_OUT, KILLED = 124, 137  # exit codes, as `timeout` and a shell give them
CHUNK = 1 << 16


class Sandbox(Protocol):
    """What every backend offers: `session.Session` and `monty.MontySession`."""

    limits: Limits
    tag: str

    @property
    def backend(self) -> str: ...
    @property
    def over(self) -> bool: ...
    def run(self, lang: str, code: str, *, call_s: float | None = None) -> Outcome: ...
    def put(self, name: str, content: bytes) -> None: ...
    def kill(self) -> None: ...
    def end(self) -> None: ...


@dataclass
class _Call:
    """The state of one call: what was printed, and what ended it."""

    id: str
    ends_at: float
    pending: memoryview
    stdout: Bounded
    stderr: Bounded
    report: dict[str, Any] | None = None
    hit: str | None = None
    received: bytearray = field(default_factory=bytearray)
    closed: bool = False


class Session:
    """A kernel process behind a wall. Raises HostError if it does not start."""

    def __init__(self, order: launch.Order) -> None:
        self.limits = order.limits
        self._backend = order.candidate.backend
        self._calls = 0
        self._marks: dict[str, collect.Mark] = {}
        self._work_fd: int | None = None
        self._init: int | None = None
        self._init_fd: int | None = None
        self._stopped = False
        self._kernel: int | None = None
        self.over = False
        self._started = launch.start(order)
        self.tag = self._started.tag
        try:
            self._wait_ready()
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.end()

    @property
    def backend(self) -> str:
        return str(self._backend)

    @property
    def _in_namespace(self) -> bool:
        return self._backend in (Backend.BUBBLEWRAP, Backend.BUBBLEWRAP_WHEEL)

    def run(self, lang: str, code: str, *, call_s: float | None = None) -> Outcome:
        """Run Python or bash. Raises UsageError if the session is over or the code too long.

        Whatever the code does, an Outcome comes back: a limit that was hit, or the kernel's death, ends the session.
        """
        if len(code.encode(errors="surrogatepass")) > CODE_BYTES:
            raise UsageError(f"cannot run code: it is longer than {CODE_BYTES >> 20} MiB")
        allowed_s = call_s or (self.limits.call_s if self._calls else self.limits.first_call_s)
        self._calls += 1
        started = time.monotonic()
        call = self._exchange({"lang": lang, "code": code}, allowed_s)
        return self._outcome(call, allowed_s, started)

    def put(self, name: str, content: bytes) -> None:
        """Write a file into the work folder. Raises UsageError if its name leads out, HostError if it fails."""
        if not _inner_name(name):
            raise UsageError(f"cannot put {name!r} into a sandbox: expected a relative path")
        call = self._exchange({"put": name, "content": base64.b64encode(content).decode()}, self.limits.call_s)
        if call.report is None or call.report.get("exit") != 0:
            raise HostError(f"cannot put {name!r} into a sandbox: {call.stderr.text().strip() or 'it ended'}")
        self._marks = collect.marks(self._work())

    def kill(self) -> None:
        """Kill everything that the session has started, from another thread: a running call then returns."""
        self._stop_all()

    def end(self) -> None:
        """Kill everything that the session has started, and remove its work folder. Idempotent."""
        self.over = True
        started = self._started
        self._stop_all()
        fds = (started.requests, started.reports, started.stdout, started.stderr, started.lifeline)
        for fd in (*fds, self._work_fd, self._init_fd):
            if fd is not None and fd >= 0:
                with suppress(OSError):
                    os.close(fd)
        self._started = replace(started, requests=-1, reports=-1, stdout=-1, stderr=-1, lifeline=None)
        self._work_fd = self._init_fd = None
        if started.work:
            remove_tree(started.work)

    def _wait_ready(self) -> None:
        call = self._new_call({"ready": True}, READY_S)
        call.pending = memoryview(b"")
        self._turn(call, lambda report: bool(report.get("ready")))
        if call.report is None:
            said = call.stderr.text().strip().splitlines()
            raise HostError(f"cannot start a sandbox: {said[-1] if said else 'it ended without a word'}")
        self._find_processes()
        self._freeze()

    def _find_processes(self) -> None:
        """Learn the pids of the namespace's first process and of the kernel, before any code has run."""
        outer = reap.children(self._started.process.pid)
        inner = reap.children(outer[0]) if outer and self._in_namespace else outer
        if not inner:
            raise HostError("cannot start a sandbox: its processes are not visible in /proc")
        self._init, self._kernel = (outer[0], inner[0]) if self._in_namespace else (None, inner[0])
        if self._init is not None:
            with suppress(OSError, AttributeError):  # Linux before 5.3
                self._init_fd = os.pidfd_open(self._init)
        where = f"/proc/{self._kernel}/root/work" if self._in_namespace else str(self._started.work)
        self._work_fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _work(self) -> int:
        assert self._work_fd is not None
        return self._work_fd

    def _new_call(self, request: dict[str, Any], allowed_s: float) -> _Call:
        if self.over:
            raise UsageError("cannot run code: this session is over", hint="open another session")
        name = secrets.token_hex(8)
        body = json.dumps({"id": name, **request}).encode()
        most = self.limits.output_bytes
        return _Call(
            id=name, ends_at=time.monotonic() + allowed_s, stdout=Bounded(most), stderr=Bounded(most),
            pending=memoryview(struct.pack(">I", len(body)) + body),
        )  # fmt: skip

    def _exchange(self, request: dict[str, Any], allowed_s: float) -> _Call:
        call = self._new_call(request, allowed_s)
        self._thaw()
        self._turn(call, lambda report: report.get("id") == call.id)
        if call.report is not None:
            self._end_leftovers()
            self._freeze()
        return call

    def _turn(self, call: _Call, wanted: Any) -> None:
        """Send, receive and watch until there is a report, a limit is hit, or the sandbox has ended."""
        started = self._started
        poll = select.poll()
        for fd in (started.reports, started.stdout, started.stderr, started.requests):
            os.set_blocking(fd, False)
        for fd in (started.reports, started.stdout, started.stderr):
            poll.register(fd, select.POLLIN)
        if call.pending:
            poll.register(started.requests, select.POLLOUT)
        watched_at = time.monotonic()
        while call.report is None and call.hit is None and not call.closed:
            for fd, _ in poll.poll(watch.PERIOD_S * 1000):
                self._event(call, fd, poll, wanted)
            now = time.monotonic()
            if now - watched_at >= watch.PERIOD_S:
                call.hit, watched_at = self._exceeded(call, now), now
        self._drain(call)

    def _event(self, call: _Call, fd: int, poll: Any, wanted: Any) -> None:
        started = self._started
        if fd == started.requests:
            self._send(call)
            if not call.pending:
                poll.unregister(fd)
        elif fd == started.reports:
            self._receive(call, wanted)
        elif not self._take(call, fd):
            poll.unregister(fd)

    def _send(self, call: _Call) -> None:
        try:
            call.pending = call.pending[os.write(self._started.requests, call.pending) :]
        except BlockingIOError:
            return
        except OSError:
            call.pending, call.closed = memoryview(b""), True

    def _receive(self, call: _Call, wanted: Any) -> None:
        """Take in reports; those of other calls are ignored, as code can write them."""
        try:
            data = os.read(self._started.reports, CHUNK)
        except BlockingIOError:
            return
        if not data:
            call.closed = True
        call.received += data
        while len(call.received) >= 4:
            (size,) = struct.unpack(">I", call.received[:4])
            if size > REPORT_BYTES:
                call.closed = True
                return
            if len(call.received) < 4 + size:
                return
            report = _report(bytes(call.received[4 : 4 + size]))
            del call.received[: 4 + size]
            if wanted(report):
                call.report = report

    def _take(self, call: _Call, fd: int) -> bool:
        """Read what was printed; False once the pipe is closed."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return True
        (call.stdout if fd == self._started.stdout else call.stderr).add(data)
        if call.stdout.total + call.stderr.total > FLOOD_BYTES:
            call.hit = Limit.OUTPUT
        return bool(data)

    def _drain(self, call: _Call) -> None:
        """Take what has been printed before the report, which may arrive first."""
        for fd in (self._started.stdout, self._started.stderr):
            for _ in range(FLOOD_BYTES // CHUNK):
                before = call.stdout.total + call.stderr.total
                if not self._take(call, fd) or call.stdout.total + call.stderr.total == before:
                    break

    def _exceeded(self, call: _Call, now: float) -> str | None:
        if call.hit:
            return call.hit
        if now >= call.ends_at:
            return Limit.TIME
        if self._work_fd is None:
            return None
        pids = reap.tree(self._started.process.pid)
        return watch.exceeded(pids, self._work_fd, self.limits, on_host=not self._in_namespace)

    def _end_leftovers(self) -> None:
        """Kill processes that the call has left behind; all others of the session are our own."""
        own = {self._init, self._kernel}
        for _ in range(20):
            left = [pid for pid in reap.tree(self._started.process.pid) if pid not in own and reap.alive(pid)]
            if not left:
                return
            reap.kill(left)
            reap.until_gone(left)

    def _freeze(self) -> None:
        self._signal_kernel(signal.SIGSTOP)

    def _thaw(self) -> None:
        self._signal_kernel(signal.SIGCONT)

    def _signal_kernel(self, sig: signal.Signals) -> None:
        if self._kernel is None or self._started.process.poll() is not None:
            return
        if self._in_namespace:
            reap.kill([self._kernel], sig)
        else:
            reap.kill_group(self._kernel, sig)

    def _outcome(self, call: _Call, allowed_s: float, started: float) -> Outcome:
        report = call.report or {}
        hits = [call.hit] if call.hit else []
        stderr = call.stderr.text()
        exit_code = _small_int(report.get("exit"))
        if call.report is None:
            exit_code, why = self._death(call, allowed_s)
            stderr = f"{stderr}{'' if not stderr or stderr.endswith(chr(10)) else chr(10)}{why}\n"
        if report.get("memory") is True:
            hits.append(Limit.MEMORY)
        files, images = self._collected(report, hits)
        if call.report is None:
            self.end()
        result = report.get("result")
        return Outcome(
            stdout=call.stdout.text(), stderr=stderr, exit_code=exit_code, backend=self.backend, files=files,
            images=images, result=plain(result)[: self.limits.output_bytes] if isinstance(result, str) else None,
            limits_hit=tuple(dict.fromkeys(hits)), ended=self.over, took_s=time.monotonic() - started,
        )  # fmt: skip

    def _collected(self, report: dict[str, Any], hits: list[str]) -> tuple[Any, Any]:
        work, names = self._work(), report.get("figures")
        if self._in_namespace and watch.nearly_full(work):
            hits.append(Limit.DISK)
        if call_is_over := not report:
            self._stop_all()
        now = collect.marks(work)
        files = collect.files(work, self._marks, now, self.limits)
        images = collect.images(work, names if isinstance(names, list) else [], self.limits)
        self._marks = {} if call_is_over else now
        if files.left_out or images.left_out:
            hits.append(Limit.ARTIFACTS)
        return files.items, images.items

    def _stop_all(self) -> None:
        """Kill all processes; the work folder can still be read. Once: their numbers may be others' later."""
        if self._stopped:
            return
        self._stopped = True
        if self._in_namespace:
            reap.end_namespace(self._started.process, self._init_fd)
        else:
            reap.end_group(self._started.process, self._kernel)

    def _death(self, call: _Call, allowed_s: float) -> tuple[int, str]:
        """Exit code and words for a call that ended without a report."""
        if call.hit:
            code = TIMED_OUT if call.hit == Limit.TIME else KILLED
            return code, f"stopped: the limit of {in_words(call.hit, self.limits, allowed_s)} was reached"
        try:
            code = self._started.process.wait(DEATH_S)
        except subprocess.TimeoutExpired:
            return KILLED, "stopped: the code broke the session's channel"
        if code < 0 or code > 128:
            number = -code if code < 0 else code - 128
            with suppress(ValueError):
                return 128 + number, f"ended by {signal.Signals(number).name}"
        return code, f"ended: the interpreter left with exit code {code}"


def _report(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _small_int(value: object) -> int:
    return value & 0xFF if isinstance(value, int) else 1


def _inner_name(name: str) -> bool:
    parts = name.split("/")
    return bool(name) and not name.startswith("/") and "\0" not in name and not {"", ".", ".."} & set(parts)
