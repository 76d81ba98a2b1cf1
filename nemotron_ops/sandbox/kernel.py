"""Runs inside a sandbox: applies limits and walls to itself, then runs code. Its source is given to `python -c`.

Imports only the standard library, and nothing of this package: the sandbox does not see it. The first argument is a
JSON object (`launch.Inside`). Requests come on one pipe, reports go out on another, both as a length in four bytes and
a JSON object. What code prints goes to file descriptors 1 and 2. The process is not trusted once it has run code:
whatever it reports is read as text of a stranger.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import sys
import types
from _ast import Expr, Expression
from typing import Any

HIGH_FD = 256  # above RLIMIT_NOFILE: code finds the descriptors from 3 on free, as in a bare interpreter
ONLY_AST = 0x400
PDEATHSIG, DUMPABLE, NO_NEW_PRIVS, SECCOMP, SUBREAPER = 1, 4, 38, 22, 36
REAP_MS = 500
SHOWN = 64 * 1024
FIGURES = 20
LONG_SCRIPT = 100_000  # bytes; one argument may have 128 KiB

Report = dict[str, Any]


def main() -> None:
    inside = json.loads(sys.argv[1])
    sys.argv = [""]
    requests, reports = _move_up(inside["requests"]), _move_up(inside["reports"])
    os.umask(0o022)
    if inside["guard"] is not None:
        _guard(inside["guard"], inside["remove"])
    _limit(inside)
    if inside["uid"] is not None:
        _become(inside["uid"])
    if inside["landlock"]:
        _landlock(inside["landlock"])
    if inside["filter"]:
        _seccomp(bytes.fromhex(inside["filter"]))
    os.chdir(inside["work"])
    with contextlib.suppress(OSError):
        os.mkdir(".tmp", 0o1777)
    Kernel(inside, requests, reports).run()


def _move_up(fd: int) -> int:
    """The same pipe as a high descriptor that no child inherits."""
    high = HIGH_FD
    while True:
        try:
            os.fstat(high)
        except OSError:
            break
        high += 1
    os.dup2(fd, high, inheritable=False)
    os.close(fd)
    return high


def _limit(inside: dict[str, Any]) -> None:
    """Hard limits: each holds one process at once, where a watch from outside comes late."""
    for name, value in inside["rlimits"].items():
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is not None:
            hard = resource.getrlimit(number)[1]
            bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (bound, bound))
    with contextlib.suppress(OSError):
        os.nice(inside["nice"])


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _libc().prctl(DUMPABLE, 1, 0, 0, 0)  # else the change of user makes /proc/self unreadable to itself


def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    import ctypes

    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def _landlock(rules: dict[str, Any]) -> None:
    import ctypes

    libc = _libc()
    packed = struct.pack("<QQQ", rules["handled_fs"], rules["handled_net"], rules["scoped"])[: rules["size"]]
    ruleset = _check(libc.syscall(444, packed, ctypes.c_size_t(len(packed)), 0), "landlock_create_ruleset")
    for path, rights in rules["paths"]:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not os.path.isdir(path):
            rights &= rules["file_rights"]
        rule = struct.pack("<Qi", rights, fd)
        _check(libc.syscall(445, ruleset, 1, rule, 0), f"landlock_add_rule {path}")
        os.close(fd)
    _check(libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _check(libc.syscall(446, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _seccomp(program: bytes) -> None:
    import ctypes

    libc = _libc()
    _check(libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _check(libc.prctl(SECCOMP, 2, head, 0, 0), "seccomp")


def _guard(lifeline: int, remove: str) -> None:
    """Fork: the parent outlives the code and ends it if the caller is gone; only the child returns.

    Without a namespace of processes nothing else ends what the code has started: the guard kills the child's process
    group when the pipe from the caller closes or the child ends. The filter refuses new sessions and groups.
    """
    parent = os.getpid()
    with contextlib.suppress(OSError, AttributeError):
        _libc().prctl(SUBREAPER, 1, 0, 0, 0)  # orphans stay the guard's, and are seen by the watch outside
    child = os.fork()
    if child == 0:
        os.close(lifeline)
        os.setpgid(0, 0)
        _libc().prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        return
    with contextlib.suppress(OSError):
        os.setpgid(child, child)
    sys.exit(_stand_guard(lifeline, child, remove))


def _stand_guard(lifeline: int, child: int, remove: str) -> int:
    import select

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    for fd in range(256):
        if fd != lifeline:
            with contextlib.suppress(OSError):
                os.close(fd)
    poll = select.poll()
    poll.register(lifeline, select.POLLIN | select.POLLHUP)
    with contextlib.suppress(AttributeError, OSError):
        poll.register(os.pidfd_open(child), select.POLLIN)
    left_alone, status = False, None
    while not left_alone and status is None:
        left_alone = any(fd == lifeline for fd, _ in poll.poll(REAP_MS))
        status = _reap(child)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    _reap(0)
    if left_alone and remove:
        import shutil

        with contextlib.suppress(RecursionError):  # a deep tree is removed by the owner, or by a later sandbox
            shutil.rmtree(remove, ignore_errors=True)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def _reap(child: int) -> int | None:
    """Take the status of every child that has ended; that of `child`, if it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found = ended[1] if ended[0] == child else found
    return found


class Kernel:
    """The loop that reads requests, runs them, and reports."""

    def __init__(self, inside: dict[str, Any], requests: int, reports: int) -> None:
        self.inside = inside
        self.requests, self.reports = requests, reports
        self.pid = os.getpid()
        self.cells = 0
        self.env = dict(os.environ)
        self.main = types.ModuleType("__main__")
        vars(self.main).update(exit=sys.exit, quit=sys.exit)
        sys.modules["__main__"] = self.main
        sys.path[:] = [p for p in sys.path if p] + ([inside["site"]] if inside["site"] else []) + [inside["work"]]

    def run(self) -> None:
        sys.stdout.reconfigure(line_buffering=True, errors="replace")  # type: ignore[union-attr]
        signal.signal(signal.SIGTERM, lambda number, frame: None)  # `timeout` signals its whole group
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))  # Pool.terminate
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.report({"ready": True})
        while (request := self.read()) is not None:
            if "put" in request:
                report = self.put(request)
            elif request["lang"] == "bash":
                report = self.bash(request["code"])
            else:
                report = self.python(request["code"])
            self.flush()
            if os.getpid() != self.pid:  # a child of `os.fork()` that came back from the code
                os._exit(0)
            self.report({"id": request["id"], **report})

    def read(self) -> dict[str, Any] | None:
        head = self.exactly(4)
        if head is None:
            return None
        body = self.exactly(struct.unpack(">I", head)[0])
        return None if body is None else json.loads(body)

    def exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            more = os.read(self.requests, size - len(data))
            if not more:
                return None
            data += more
        return data

    def report(self, value: Report) -> None:
        body = json.dumps(value).encode()
        data = struct.pack(">I", len(body)) + body
        while data:
            data = data[os.write(self.reports, data) :]

    def flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()

    def put(self, request: dict[str, Any]) -> Report:
        """A file from the caller into the work folder."""
        import base64

        path = os.path.join(self.inside["work"], request["put"])
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
            with open(fd, "wb") as f:
                f.write(base64.b64decode(request["content"]))
        except OSError as exc:
            sys.stderr.write(f"{exc}\n")
            return {"exit": 1}
        return {"exit": 0}

    def python(self, code: str) -> Report:
        self.cells += 1
        name = f"<cell {self.cells}>"
        report: Report = {"exit": 0}
        try:
            report["result"] = self.evaluate(code, name)
        except SystemExit as exc:
            report["exit"] = _exit_code(exc.code)
        except BaseException as exc:  # noqa: BLE001
            report["exit"] = 1
            report["memory"] = isinstance(exc, MemoryError)
            self.explain(exc, code, name)
        with contextlib.suppress(BaseException):
            report["figures"] = self.figures()
        return report

    def evaluate(self, code: str, name: str) -> str | None:
        """Run a cell in the session's namespace; the text of its last expression, unless that is None."""
        space = vars(self.main)
        tree: Any = compile(code, name, "exec", ONLY_AST, dont_inherit=True)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], Expr) else None
        exec(compile(tree, name, "exec", dont_inherit=True), space)
        if last is None:
            return None
        value = eval(compile(Expression(last.value), name, "eval", dont_inherit=True), space)
        return None if value is None else repr(value)[:SHOWN]

    def explain(self, exc: BaseException, code: str, name: str) -> None:
        """Print the traceback without the kernel's own frames."""
        import linecache
        import traceback

        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        tb = exc.__traceback__
        while tb is not None and tb.tb_frame.f_code.co_filename == __file_name__:
            tb = tb.tb_next
        traceback.print_exception(type(exc), exc, tb)

    def figures(self) -> list[str]:
        """Save open figures as PNG below `.figures`, and close them."""
        plot = sys.modules.get("matplotlib.pyplot")
        if plot is None:
            return []
        os.makedirs(".figures", exist_ok=True)
        names = []
        for number in list(plot.get_fignums())[:FIGURES]:
            names.append(f"{self.cells}-{number}.png")
            plot.figure(number).savefig(os.path.join(self.inside["work"], ".figures", names[-1]), format="png")
        plot.close("all")
        return names

    def bash(self, code: str) -> Report:
        """Run a script in a fresh bash that reads no start-up file; only files outlive it."""
        import subprocess

        words = ["/bin/bash", "--norc", "--noprofile", "-c", code]
        if len(code.encode()) > LONG_SCRIPT:
            path = os.path.join(self.inside["work"], ".tmp", "script")
            with open(path, "w") as f:
                f.write(code)
            words = ["/bin/bash", "--norc", "--noprofile", path]
        try:
            done = subprocess.run(words, env=self.env, cwd=self.inside["work"], stdin=subprocess.DEVNULL, check=False)
        except OSError as exc:
            sys.stderr.write(f"cannot start bash: {exc}\n")
            return {"exit": 127}
        return {"exit": done.returncode if done.returncode >= 0 else 128 - done.returncode}


def _exit_code(code: object) -> int:
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


__file_name__ = main.__code__.co_filename

if __name__ == "__main__":
    main()
