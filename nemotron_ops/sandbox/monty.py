"""The limited interpreter: Monty, which knows neither files nor sockets nor processes. Subprocess (its worker)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from nemotron_ops.errors import HostError, UsageError
from nemotron_ops.sandbox.choose import Backend
from nemotron_ops.sandbox.limits import CODE_BYTES, FLOOD_BYTES, Limit, Limits, in_words
from nemotron_ops.sandbox.outcome import Outcome
from nemotron_ops.sandbox.output import Bounded, plain
from nemotron_ops.sandbox.session import KILLED, TIMED_OUT

if TYPE_CHECKING:
    from pydantic_monty import MontySession as Worker

GRACE_S = 2.0  # for the worker to stop by itself before the pool kills it


class MontySession:
    """One worker with its variables. Raises HostError if it does not start."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.tag = ""  # Monty starts no processes of the code's
        self.over = False
        self._calls = 0
        self._stack = ExitStack()
        try:
            self._worker = self._start()
        except (ImportError, OSError, RuntimeError, ValueError) as exc:
            self._stack.close()
            raise HostError(f"cannot start a sandbox: Monty: {exc}") from exc

    def _start(self) -> Worker:
        import pydantic_monty

        pool = self._stack.enter_context(pydantic_monty.Monty(request_timeout=self.limits.first_call_s + GRACE_S))
        bounds: pydantic_monty.ResourceLimits = {
            "max_memory": self.limits.memory_bytes,
            "max_feed_duration_secs": self.limits.call_s,
        }
        return self._stack.enter_context(pool.checkout(limits=bounds))

    @property
    def backend(self) -> str:
        return str(Backend.MONTY)

    def run(self, lang: str, code: str, *, call_s: float | None = None) -> Outcome:
        """Run Python; bash is answered with exit code 127. `call_s` is fixed when the session starts."""
        import pydantic_monty

        if self.over:
            raise UsageError("cannot run code: this session is over", hint="open another session")
        if len(code.encode(errors="surrogatepass")) > CODE_BYTES:
            raise UsageError(f"cannot run code: it is longer than {CODE_BYTES >> 20} MiB")
        if lang != "python":
            return Outcome(
                stderr="cannot run bash: this sandbox has limited Python only\n", exit_code=127, backend=self.backend
            )
        printed = pydantic_monty.CollectStreams(max_bytes=FLOOD_BYTES)
        started = time.monotonic()
        code_, error, hit, result = 0, "", None, None
        try:
            value = self._worker.feed_run(code, print_callback=printed)
            result = None if value is None else plain(repr(value))[: self.limits.output_bytes]
        except pydantic_monty.MontyCrashedError as exc:
            self.end()
            hit = Limit.TIME if exc.timed_out else None
            code_, error = (TIMED_OUT if hit else KILLED), f"{exc}\n"
        except pydantic_monty.MontyError as exc:
            code_, error, hit = self._failure(exc)
        return self._outcome(printed.output, (code_, error, hit, result), started)

    def put(self, name: str, content: bytes) -> None:
        raise UsageError(f"cannot put {name!r} into a sandbox: limited Python has no files")

    def kill(self) -> None:
        """A running call ends by its own limit: there is no way to stop a worker from another thread."""

    def end(self) -> None:
        self.over = True
        self._stack.close()

    def _failure(self, exc: Any) -> tuple[int, str, str | None]:
        """Exit code, text and limit of an error inside; a limit ends the session, whose heap is then undefined."""
        inner = exc.exception()
        hit = {TimeoutError: Limit.TIME, MemoryError: Limit.MEMORY}.get(type(inner))
        if isinstance(inner, SystemExit):
            return (inner.code if isinstance(inner.code, int) else 1), "", None
        if hit:
            self.end()
            words = in_words(hit, self.limits, self.limits.call_s)
            code = TIMED_OUT if hit == Limit.TIME else KILLED
            return code, f"{exc}\nstopped: the limit of {words} was reached\n", hit
        return 1, f"{exc.display() if hasattr(exc, 'display') else exc}\n", None

    def _outcome(
        self, printed: Sequence[tuple[str, str]], ending: tuple[int, str, str | None, str | None], started: float
    ) -> Outcome:
        code, error, hit, result = ending
        out, err = Bounded(self.limits.output_bytes), Bounded(self.limits.output_bytes)
        for stream, text in printed:
            (out if stream == "stdout" else err).add(text.encode(errors="replace"))
        err.add(error.encode(errors="replace"))
        return Outcome(
            stdout=out.text(), stderr=err.text(), exit_code=code, result=result, backend=self.backend, ended=self.over,
            limits_hit=(hit,) if hit else (), took_s=time.monotonic() - started,
        )  # fmt: skip
