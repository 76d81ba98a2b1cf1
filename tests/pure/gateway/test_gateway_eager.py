"""Coroutines that go on at once, and in turns where many run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from nemotron_ops.gateway.loop.eager_task import EagerTask, Signal
from nemotron_ops.gateway.loop.outbox import LONELY, Outbox


class Play:
    """A loop's outbox, and what coroutines have told."""

    def __init__(self, many: bool) -> None:
        self.outbox = Outbox(asyncio.get_running_loop())
        self.outbox.runs(LONELY + many)
        self.told: list[Any] = []
        self.over: list[Exception | None] = []

    def run(self, coroutine: Coroutine[Any, Any, None]) -> EagerTask:
        task = EagerTask(coroutine, self.outbox, self.over.append)
        task.go()
        return task

    async def listen(self, waitable: Any) -> None:
        self.told.append("begun")
        try:
            self.told.append(await waitable)
        except asyncio.CancelledError:
            self.told.append("cancelled")
            raise

    async def listen_twice(self, first: Any, second: Any) -> None:
        await self.listen(first)
        await self.listen(second)


def play(story: Any, *, many: bool = False) -> None:
    async def played() -> None:
        await story(Play(many))

    asyncio.run(played())


def test_few_go_on_at_once() -> None:
    async def story(play: Play) -> None:
        signal: Signal[int] = Signal()
        play.run(play.listen(signal))
        assert play.told == ["begun"]
        assert play.over == []
        signal.tell(7)
        assert play.told == ["begun", 7]
        assert play.over == [None]

    play(story)


def test_many_go_on_in_turns() -> None:
    async def story(play: Play) -> None:
        signals: list[Signal[int]] = [Signal(), Signal()]
        for signal in signals:
            play.run(play.listen(signal))
        assert play.told == []
        await asyncio.sleep(0)
        assert play.told == ["begun", "begun"]
        for signal in signals:
            signal.tell(7)
        assert play.told == ["begun", "begun"]
        await asyncio.sleep(0)
        assert play.told == ["begun", "begun", 7, 7]

    play(story, many=True)


@pytest.mark.parametrize("many", [False, True])
def test_what_is_told_before_somebody_waits_is_not_lost(many: bool) -> None:
    async def story(play: Play) -> None:
        signal: Signal[int] = Signal()
        signal.tell(7)
        signal.tell(8)
        play.run(play.listen(signal))
        await asyncio.sleep(0)
        assert play.told == ["begun", 7]

    play(story, many=many)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("future", [False, True], ids=["signal", "future"])
def test_who_is_cancelled_waits_no_longer(many: bool, future: bool) -> None:
    async def story(play: Play) -> None:
        signal: Signal[int] = Signal()
        waitable = asyncio.get_running_loop().create_future() if future else signal
        task = play.run(play.listen(waitable))
        await asyncio.sleep(0)
        task.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert play.told == ["begun", "cancelled"]
        task.cancel()
        if not future:
            signal.tell(7)
        await asyncio.sleep(0)
        assert play.told == ["begun", "cancelled"]
        assert play.over == [None]

    play(story, many=many)


def test_who_is_cancelled_before_its_turn_ends_where_it_first_waits() -> None:
    async def story(play: Play) -> None:
        task = play.run(play.listen(Signal()))
        task.cancel()
        assert play.told == []
        for _ in range(2):
            await asyncio.sleep(0)
        assert play.told == ["begun", "cancelled"]

    play(story, many=True)


def test_who_is_cancelled_when_its_answer_is_there_ends_where_it_waits_next() -> None:
    async def story(play: Play) -> None:
        first: Signal[int] = Signal()
        task = play.run(play.listen_twice(first, Signal()))
        await asyncio.sleep(0)
        first.tell(7)
        task.cancel()
        for _ in range(2):
            await asyncio.sleep(0)
        assert play.told == ["begun", 7, "begun", "cancelled"]

    play(story, many=True)


def test_a_future_of_asyncio_can_be_waited_for() -> None:
    async def story(play: Play) -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        play.run(play.listen(future))
        future.set_result(7)
        await asyncio.sleep(0)
        assert play.told == ["begun", 7]

    play(story)


def test_a_bug_is_told_to_its_owner_and_not_to_who_brought_the_answer() -> None:
    async def fail(signal: Signal[int]) -> None:
        raise ValueError(await signal)

    async def story(play: Play) -> None:
        signal: Signal[int] = Signal()
        play.run(fail(signal))
        signal.tell(7)
        assert [repr(bug) for bug in play.over] == ["ValueError(7)"]

    play(story)
