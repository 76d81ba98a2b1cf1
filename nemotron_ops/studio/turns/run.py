"""Runs turns: asks the gateway, renders, stores, tells the feed. asyncio.

A turn is a task of this server and outlives the tabs that look at it. Its text is stored at least once a second, so a
kill loses no more; what a killed server has left unfinished is marked as cut at the next start, and can be continued.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.studio.neighbours.deltas import Delta
from nemotron_ops.studio.neighbours.gateway import Answer, Gateway, GatewayLost, GatewayRefused
from nemotron_ops.studio.render.growing import Growing, Patch
from nemotron_ops.studio.threads.store import Store, new_id
from nemotron_ops.studio.threads.tree import Message, Tree
from nemotron_ops.studio.turns.feed import Feed
from nemotron_ops.studio.turns.request import Settings, as_json, body
from nemotron_ops.studio.turns.state import RUNNING, Happened, TurnState, after

STORE_S = 1.0


@dataclass
class Turn:
    """One running answer."""

    message: Message
    text: Growing = field(default_factory=Growing)
    thinking: Growing = field(default_factory=Growing)
    state: TurnState = TurnState.QUEUED
    begun_s: float = field(default_factory=time.monotonic)
    first_s: float = 0.0  # until the first token
    thought_s: float = 0.0
    tokens: int = 0
    stats: dict[str, Any] = field(default_factory=dict)
    stopping: bool = False
    task: asyncio.Task[None] | None = None
    showing: asyncio.Lock = field(default_factory=asyncio.Lock)  # held from rendering to telling
    shown: asyncio.Future[None] | None = None  # the last telling; it ends although the ticking is cancelled
    answer: Answer | None = None

    @property
    def now(self) -> Message:
        """The message as it stands."""
        made_by = {**self.message.made_by, **self.stats}
        return replace(
            self.message, content=self.text.text, thinking=self.thinking.text, state=str(self.state), made_by=made_by
        )

    @property
    def quick(self) -> bool:
        """Whether the next flush takes too little time to be worth a thread."""
        return self.text.quick and self.thinking.quick

    def flush(self, *, ended: bool) -> tuple[list[Patch], list[Patch]]:
        """The blocks of the text and of the thinking that changed."""
        return self.text.flush(ended=ended), self.thinking.flush(ended=ended or bool(self.text.text))


class Turns:
    """All running turns."""

    def __init__(self, store: Store, gateway: Gateway, feed: Feed) -> None:
        self._store, self._gateway, self._feed = store, gateway, feed
        self.running: dict[str, Turn] = {}  # by message

    def recover(self) -> int:
        """Mark what a killed server has left unfinished; returns how many there were."""
        left = self._store.unfinished(frozenset(map(str, RUNNING)))
        for message in left:
            self._store.update(replace(message, state=str(after(TurnState(message.state), Happened.LOST))))
        return len(left)

    async def begin(self, chat: str, parent: str, settings: Settings) -> Turn:
        """Ask for an answer to the branch that ends in `parent`."""
        message = Message(
            id=new_id(), chat=chat, parent=parent, role="assistant", content="", state=str(TurnState.QUEUED),
            created_s=time.time(), made_by={"settings": as_json(settings)},
        )  # fmt: skip
        await asyncio.to_thread(self._store.add, message)
        return self._start(Turn(message), settings, continued=False)

    async def go_on(self, message: Message, settings: Settings) -> Turn:
        """Continue an answer where it ended, in the same message."""
        turn = Turn(message)
        turn.text.add(message.content)
        turn.thinking.add(message.thinking)
        return self._start(turn, settings, continued=True)

    def stop(self, message: str) -> bool:
        """Stop a running answer; returns whether it runs. Its request is closed at once, which frees its slot."""
        turn = self.running.get(message)
        if turn is None or turn.task is None:
            return False
        turn.stopping = True
        turn.task.cancel()
        return True

    async def end_thinking(self, message: str) -> bool:
        """Tell the engine to end its thinking now; returns whether that was possible."""
        turn = self.running.get(message)
        if turn is None or turn.answer is None:
            return False
        return await self._gateway.end_thinking(turn.answer)

    async def close(self) -> None:
        """Stop all turns at the end of the server: what came is stored, and they are cut."""
        tasks = [turn.task for turn in self.running.values() if turn.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # one turn

    def _start(self, turn: Turn, settings: Settings, *, continued: bool) -> Turn:
        self.running[turn.message.id] = turn
        self._gateway.beat.running = len(self.running)
        turn.task = asyncio.create_task(self._run(turn, settings, continued=continued))
        return turn

    async def _run(self, turn: Turn, settings: Settings, *, continued: bool) -> None:
        chat, ticking = turn.message.chat, asyncio.create_task(self._tick(turn))
        self._feed.say(chat, {"turn": turn.message.id, "parent": turn.message.parent, "state": turn.state})
        happened, error = Happened.ENDED, ""
        try:
            messages = await asyncio.to_thread(self._store.messages, chat)
            branch = Tree(messages).branch(turn.message.id if continued else turn.message.parent)
            branch = await asyncio.to_thread(self._with_images, branch)
            model = await self._gateway.asked_model(settings.model, settings.thinking)
            happened = await self._ask(turn, body(branch, replace(settings, model=model), continued=continued))
        except asyncio.CancelledError:
            happened = Happened.STOP if turn.stopping else Happened.LOST
        except GatewayLost as exc:
            happened, error = Happened.LOST, str(exc)
        except (GatewayRefused, NemotronOpsError) as exc:
            happened, error = Happened.ERROR, str(exc)
        except Exception as exc:
            happened, error = Happened.ERROR, f"the page's server failed: {type(exc).__name__}"
            raise
        finally:
            ticking.cancel()
            turn.state = after(turn.state, happened)
            await asyncio.shield(self._end(turn, error))

    async def _ask(self, turn: Turn, request: dict[str, Any]) -> Happened:
        happened = Happened.LOST
        async with self._gateway.ask(request) as answer:
            turn.answer = answer
            turn.stats |= {name: value for name, value in answer.made_by.items() if value}
            async for delta in answer.deltas():
                if delta.error:
                    raise GatewayRefused(delta.error)
                self._take(turn, delta)
                if delta.reason:
                    happened = Happened.RAN_OUT if delta.reason == "length" else Happened.ENDED
        return happened

    def _take(self, turn: Turn, delta: Delta) -> None:
        if delta.tokens:
            turn.tokens += delta.tokens
            turn.first_s = turn.first_s or time.monotonic() - turn.begun_s
        if delta.thinking:
            turn.thinking.add(delta.thinking)
            turn.state = after(turn.state, Happened.THOUGHT)
        if delta.text:
            if turn.thinking.text and not turn.thought_s:
                turn.thought_s = time.monotonic() - turn.begun_s
            turn.text.add(delta.text)
            turn.state = after(turn.state, Happened.SAID)
        if delta.usage:
            turn.stats["usage"] = delta.usage
        if delta.timings:
            turn.stats["timings"] = delta.timings
        if delta.lost_in_thought:
            turn.stats["lost_in_thought"] = True
        if delta.calls:
            turn.stats.setdefault("calls", []).extend(delta.calls)

    async def _tick(self, turn: Turn) -> None:
        """Render and tell what is new, and store it once a second."""
        stored, beat = time.monotonic(), self._gateway.beat
        while True:
            await asyncio.sleep(beat.until_tick_s())
            if turn.quick and not turn.showing.locked():
                self._tell(turn, *turn.flush(ended=False), ended=False)
            else:
                turn.shown = asyncio.ensure_future(self._show(turn))
                await asyncio.shield(turn.shown)  # what is rendered counts as told: it must not be dropped half-way
            wait_s = max(turn.text.pause_s, turn.thinking.pause_s) - beat.tick_s
            if time.monotonic() - stored >= STORE_S:
                stored = time.monotonic()
                with suppress(NemotronOpsError):  # a full disk: the answer goes on, and is stored when there is room
                    await asyncio.to_thread(self._store.update, turn.now)
            if wait_s > 0:
                await asyncio.sleep(min(wait_s, STORE_S))

    async def _show(self, turn: Turn, *, ended: bool = False) -> None:
        async with turn.showing:
            if turn.quick:
                found = turn.flush(ended=ended)
            else:  # the loop never waits for a long one
                found = await asyncio.to_thread(turn.flush, ended=ended)
            self._tell(turn, *found, ended=ended)

    def _tell(self, turn: Turn, text: list[Patch], thinking: list[Patch], *, ended: bool) -> None:
        if not (text or thinking or ended):
            return
        line: dict[str, Any] = {"turn": turn.message.id, "state": turn.state, "n": turn.tokens}
        if text:
            line["p"] = text
        if thinking:
            line["t"] = thinking
        if turn.thought_s:
            line["thought_s"] = round(turn.thought_s, 1)
        self._feed.say(turn.message.chat, line)

    async def _end(self, turn: Turn, error: str) -> None:
        took_s = time.monotonic() - turn.begun_s
        times = {"took_s": round(took_s, 2), "first_s": round(turn.first_s, 3), "tokens": turn.tokens}
        turn.stats |= times | ({"thought_s": round(turn.thought_s, 1)} if turn.thought_s else {})
        message = replace(turn.now, error=error)
        try:
            await self._show(turn, ended=True)
            await asyncio.to_thread(self._store.update, message)
        except NemotronOpsError as exc:
            error = error or str(exc)
        finally:
            self.running.pop(message.id, None)
            self._gateway.beat.running = len(self.running)
            ended = {"turn": message.id, "state": message.state, "error": error, "made_by": dict(message.made_by)}
            self._feed.say(message.chat, {**ended, "end": True})

    def _with_images(self, branch: list[Message]) -> list[Message]:
        """Fill in the bytes of pictures, as data URLs."""
        from base64 import b64encode

        found = []
        for message in branch:
            pictures = [a for a in message.attachments if a.mime.startswith("image/")]
            urls = tuple(
                f"data:{a.mime};base64,{b64encode(self._store.file(a.sha256).read_bytes()).decode()}" for a in pictures
            )
            found.append(replace(message, images=urls) if urls else message)
        return found
