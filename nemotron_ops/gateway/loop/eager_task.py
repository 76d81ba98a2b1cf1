"""Coroutines that go on in the moment in which what they wait for is there. asyncio.

A task of asyncio's begins in the event loop's next round, and goes on after each wait in another. That costs a lone
request a tenth of its processor time and of its wait. Where many requests run it is better so: what is done once for
all of them in turn costs each less than all of it for one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, Protocol, TypeVar

from nemotron_ops.gateway.loop.outbox import Outbox

T = TypeVar("T")


class Waitable(Protocol):
    """What a coroutine can wait for here: a `Signal`, or a future of asyncio's."""

    def add_done_callback(self, callback: Callable[[Any], object], /) -> object: ...
    def cancel(self) -> bool: ...


class Signal(Generic[T]):
    """A future that is told to the one who waits for it at once. It only works in an `EagerTask`."""

    __slots__ = ("_cancelled", "_then", "_value")

    def __init__(self) -> None:
        self._value: T | None = None  # not told yet
        self._cancelled = False
        self._then: Callable[[Signal[T]], object] | None = None

    def tell(self, value: T) -> None:
        """What is waited for; of several the first counts."""
        if self._value is None and not self._cancelled:
            self._value = value
            if self._then is not None:
                self._then(self)

    def __await__(self) -> Generator[Waitable, None, T]:
        if self._value is None:
            yield self
        if self._value is None:
            raise asyncio.CancelledError
        return self._value

    def add_done_callback(self, callback: Callable[[Signal[T]], object], /) -> None:
        self._then = callback

    def cancel(self) -> bool:
        """Wait no longer; returns whether that makes a difference."""
        if self._value is not None or self._cancelled:
            return False
        self._cancelled = True
        if self._then is not None:
            self._then(self)
        return True


class EagerTask:
    """A coroutine being run: at once while hardly any requests run, else as a task of asyncio's would be.

    `over` is called when it has ended, with the exception that it ended with if that was not CancelledError. There is
    no `asyncio.current_task()` in it, so `asyncio.timeout()` and what builds on it do not work.
    """

    __slots__ = ("_cancelled", "_coroutine", "_outbox", "_over", "_waits")

    def __init__(
        self, coroutine: Coroutine[Waitable, None, None], outbox: Outbox, over: Callable[[Exception | None], object]
    ) -> None:  # fmt: skip
        self._coroutine = coroutine
        self._outbox = outbox
        self._over = over
        self._waits: Waitable | None = None
        self._cancelled = False  # and not told yet

    def go(self, _: object = None) -> None:
        """Begin, or go on because what it waits for is there."""
        if self._outbox.crowded:
            self._outbox.loop.call_soon(self._step)
        else:
            self._step()

    def cancel(self) -> None:
        """Raise CancelledError where it waits, or, where it has no reason to wait any more, where it waits next."""
        if self._waits is None or not self._waits.cancel():
            self._cancelled = True

    def _step(self) -> None:
        self._waits = None
        try:
            waits = self._coroutine.send(None)
        except (StopIteration, asyncio.CancelledError):
            self._over(None)
            return
        except Exception as exc:  # noqa: BLE001  whoever made its answer come has nothing to do with it
            self._over(exc)
            return
        self._waits = waits
        waits.add_done_callback(self.go)
        if self._cancelled:
            self._cancelled = False
            waits.cancel()
