"""Runs the lines of batches when nothing else waits, and finishes batches. asyncio.

A line is sent only while no request waits for its model, and one slot stays free for others where there are several.
It then is a request like any other, with the rights and limits of the batch's key. A line that finds no room is sent
again later. Results are appended as they come, so a restart repeats only what was being answered.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Protocol

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.batches import lines
from nemotron_ops.gateway.batches.batch import Batch
from nemotron_ops.gateway.batches.folder import Folder, file_id
from nemotron_ops.gateway.batches.inner import Lost, ask
from nemotron_ops.gateway.batches.lines import Place
from nemotron_ops.gateway.client.connection import ClientConnection
from nemotron_ops.gateway.warnings_log import OnceLog, log_bug

POLL_S = 0.25
LOCK_POLL_S = 2.0
LATER = frozenset({429, 502, 503, 504})  # the line is sent again
MOST_LOSSES = 3  # of 502 and 504, which the line itself may have caused
LONGEST_PAUSE_S = 60.0
MOST_AT_ONCE = 64
LATE = "the completion window is over"


class Room(msgspec.Struct):
    """What a model has room for: requests that wait, free slots, all slots."""

    waiting: int
    free: int
    slots: int


class Host(Protocol):
    """The gateway, as the runner needs it."""

    def connect(self, key_id: str) -> ClientConnection:
        """A connection with the rights of a key. Raises Refusal if there is no such key any more."""
        ...

    def room(self, asked: str) -> Room:
        """The room of the model that a request names. Raises Refusal if there is no such model."""
        ...


class Job(msgspec.Struct):
    """A batch that runs: the lines to be sent, and those that are being answered."""

    batch: Batch
    todo: list[Place]
    running: dict[str, asyncio.Task[None]]
    tries: dict[str, int]
    paused_until: float = 0.0
    expired: bool = False


class _Model(msgspec.Struct):
    model: str = ""


_model = msgspec.json.Decoder(_Model).decode


def may_send(room: Room, running: int) -> bool:
    """Whether a batch may send a line now; `running` of its lines are being answered."""
    if room.waiting:
        return False
    if not room.slots:
        return not running  # nothing is loaded: the line wakes the model, or says why not
    return room.free > (1 if room.slots > 1 else 0)


class Runner:
    """Runs all batches of a folder, the oldest first."""

    def __init__(self, folder: Folder, host: Host, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.host, self.clock = folder, host, clock
        self.wake = asyncio.Event()
        self._jobs: dict[str, Job] = {}
        self._failure = OnceLog("keep results of batches")

    async def run(self) -> None:
        """Run batches until cancelled; returns at once where they are off."""
        if self.folder.path is None:
            return
        try:
            while not await asyncio.to_thread(self.folder.lock):  # noqa: ASYNC110  a process that drains has it
                await asyncio.sleep(LOCK_POLL_S)
            await asyncio.to_thread(self.folder.read_all)
            while True:
                await self._turn()
        finally:
            for job in self._jobs.values():
                for task in job.running.values():
                    task.cancel()
            self.folder.unlock()

    async def _turn(self) -> None:
        """Do what can be done now, then wait for a reason to look again."""
        self.wake.clear()
        unfinished = [b for b in self.folder.batches.values() if b.unfinished]
        for batch in sorted(unfinished, key=lambda b: (b.made_at, b.id)):
            try:
                await self._advance(batch)
                self._failure.recovered()
            except OSError as exc:
                self._failure.failed(exc)
            except Exception as exc:  # noqa: BLE001  must not end the runner
                log_bug(exc)
        wait_s = POLL_S if any(b.unfinished for b in self.folder.batches.values()) else None
        try:
            await asyncio.wait_for(self.wake.wait(), wait_s)
        except TimeoutError:
            return

    async def _advance(self, batch: Batch) -> None:
        job = self._jobs.get(batch.id)
        if job is None:
            job = await self._begin(batch)
            if job is None:
                return
        now = self.clock()
        if now >= batch.expires_at and batch.status == "in_progress":
            await self._expire(job)
        if batch.status == "in_progress":
            await self._send(job, now)
        if not job.running and (not job.todo or batch.status != "in_progress"):
            await self._finish(job)

    async def _begin(self, batch: Batch) -> Job | None:
        """Check the input, and find what is left of it; None if the batch has failed."""
        try:
            found, errors = await asyncio.to_thread(self.folder.read_places, batch)
        except FileNotFoundError:
            found, errors = [], [lines.of_whole("file_not_found", "the input is gone")]
        if errors and batch.status == "validating":
            batch.errors = list(errors)
            batch.become("failed", self.clock())
            await asyncio.to_thread(self.folder.put_batch, batch)
            return None
        good = await asyncio.to_thread(self.folder.read_done, batch, "output")
        bad = await asyncio.to_thread(self.folder.read_done, batch, "errors")
        batch.total, batch.completed, batch.failed = len(found), len(good), len(bad)
        todo = [p for p in reversed(found) if p.custom_id not in good and p.custom_id not in bad]
        job = self._jobs[batch.id] = Job(batch=batch, todo=todo, running={}, tries={})
        if batch.status == "validating":
            batch.become("in_progress", self.clock())
            await asyncio.to_thread(self.folder.put_batch, batch)
        return job

    async def _send(self, job: Job, now: float) -> None:
        """Send lines while there is room for them."""
        while job.todo and now >= job.paused_until and len(job.running) < MOST_AT_ONCE:
            place = job.todo[-1]
            try:
                line = await asyncio.to_thread(self.folder.read_request, job.batch, place)
                connection = self._connection_for(job, bytes(line.body))
            except (Refusal, FileNotFoundError, *lines.NOT_JSON) as exc:
                job.todo.pop()
                code = exc.code if isinstance(exc, Refusal) else "input_changed"
                await self._keep(job, place, None, code, str(exc))
                continue
            if connection is None:
                return
            job.todo.pop()
            answering = self._answer(job, place, connection, bytes(line.body))
            job.running[place.custom_id] = asyncio.get_running_loop().create_task(answering)

    def _connection_for(self, job: Job, body: bytes) -> ClientConnection | None:
        """A connection for a line, or None while there is no room. Raises Refusal if its key has no rights any more."""
        connection = self.host.connect(job.batch.key)
        try:
            room = self.host.room(_model(body).model)
        except (Refusal, msgspec.ValidationError):
            return connection  # the gateway answers with the reason
        return connection if may_send(room, len(job.running)) else None

    async def _answer(self, job: Job, place: Place, connection: ClientConnection, body: bytes) -> None:
        """Send one line, and keep its answer."""
        name, serial = place.custom_id, uuid.uuid4().hex
        try:
            answer = await ask(connection, job.batch.endpoint, body, f"batch_req_{serial}")
            tries = job.tries[name] = job.tries.get(name, 0) + 1
            lost = answer.status in (502, 504)
            if answer.status in LATER and not (lost and tries >= MOST_LOSSES):
                job.todo.append(place)
                job.paused_until = self.clock() + min(LONGEST_PAUSE_S, 0.5 * 2 ** min(tries, 8))
                return
            await self._keep(
                job, place, lines.answered(name, serial, answer.status, answer.body), "", "", answer.status
            )
        except asyncio.CancelledError:
            if not job.expired:
                raise
            await self._keep(job, place, None, "batch_expired", LATE)
        except Lost:
            job.todo.append(place)
            job.paused_until = self.clock() + POLL_S
        except OSError as exc:
            job.todo.append(place)
            job.paused_until = self.clock() + LONGEST_PAUSE_S
            self._failure.failed(exc)
        finally:
            job.running.pop(name, None)
            self.wake.set()

    async def _keep(self, job: Job, place: Place, line: bytes | None, code: str, message: str, status: int = 0) -> None:
        """Append one result, and count it."""
        good = 200 <= status < 300
        text = line or lines.unanswered(place.custom_id, uuid.uuid4().hex, code, message)
        await asyncio.to_thread(self.folder.put_result, job.batch, "output" if good else "errors", text)
        job.batch.completed += good
        job.batch.failed += not good

    async def _expire(self, job: Job) -> None:
        """End a batch whose window is over: what was not sent is an error."""
        while job.todo:
            await self._keep(job, job.todo.pop(), None, "batch_expired", LATE)
        job.expired = True
        job.batch.become("finalizing", self.clock())
        for task in job.running.values():
            task.cancel()

    async def _finish(self, job: Job) -> None:
        """Make files of the results, and end the batch."""
        batch, now = job.batch, self.clock()
        last = "cancelled" if batch.status == "cancelling" else "expired" if job.expired else "completed"
        if last == "completed":
            batch.become("finalizing", now)
        made = await asyncio.to_thread(self.folder.put_results_as_files, batch, now)
        for file in made:
            self.folder.files[file.id] = file
        names = {file.id for file in made}
        output, errors = file_id(batch, "output"), file_id(batch, "errors")
        batch.output_file_id = output if output in names else ""
        batch.error_file_id = errors if errors in names else ""
        batch.become(last, now)
        await asyncio.to_thread(self.folder.put_batch, batch)
        self._jobs.pop(batch.id, None)
