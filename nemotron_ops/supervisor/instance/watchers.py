"""What is watched in each state: loading, health, draining. asyncio, HTTP to the engine, /proc.

Each coroutine belongs to one keeper and one state, reports to the keeper's inbox, and is cancelled when the state
ends. None of them signals or changes anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nemotron_ops.engine.flags import Flags, parse_help
from nemotron_ops.engine.health import Activity, Health, activity
from nemotron_ops.errors import EngineError
from nemotron_ops.proc import run
from nemotron_ops.processes import logfiles, process
from nemotron_ops.supervisor.instance import slot_files
from nemotron_ops.supervisor.instance.liveness import Pulse, Verdict, answered, judge
from nemotron_ops.supervisor.instance.loading import HOST, Look, lost_gpu, mark, moved, share
from nemotron_ops.supervisor.instance.state import Event

if TYPE_CHECKING:
    from nemotron_ops.supervisor.instance.keeper import Keeper

POLL_FIRST_S = 0.02
POLL_MOST_S = 0.25
DRAIN_POLL_S = 0.1
NOTICEABLE_BYTES = 4 << 20
DRAIN_GRACE_S = 0.3  # the gateway may have sent a request just before it heard of the drain


async def loading(k: Keeper) -> None:
    """Reports PROGRESS while anything moves, READY once the engine answers through its queue.

    An engine that has lost its GPU is WEDGED: it would come up, on the CPU.
    """
    files_bytes = await asyncio.to_thread(_bytes_of, k.spec.files)
    before, poll_s = Look(), POLL_FIRST_S
    while True:
        up = await k.client.health() is Health.OK and await observe(k) is not None
        if reason := _lost_gpu(k):
            k.tell(Event.WEDGED, reason)
            return
        if up:
            await slot_files.restore(k)
            _note_memory(k)
            k.load_progress = None
            k.tell(Event.READY)
            return
        now = _look(k)
        if moved(before, now):
            k.tell(Event.PROGRESS)
            k.ground.moved()
        before = mark(before, now)
        _show(k, share(now, files_bytes))
        await asyncio.sleep(poll_s)
        poll_s = min(POLL_MOST_S, poll_s * 1.5)


async def health(k: Keeper) -> None:
    """Probes through the task queue; reports WEDGED when nothing has moved for too long."""
    clock, rules = k.ground.clock, k.spec.health
    pulse = Pulse(at=clock())
    while True:
        await asyncio.sleep(rules.probe_period_s)
        seen = await observe(k)
        if seen is not None:
            k.busy = seen.busy
        _note_memory(k)
        pulse, verdict = judge(pulse, seen, now=clock(), health=rules)
        if verdict is Verdict.SUSPECT:
            k.ground.journal.add("suspect", pulse.why, instance=k.id, level="warning")
            if await canary(k, within_s=max(1.0, rules.wedge_s - (clock() - pulse.at))):
                pulse = answered(pulse, now=clock())
            elif clock() - pulse.at >= rules.wedge_s:  # its silence has used up the rest of the time
                verdict = Verdict.STUCK
        if verdict is Verdict.STUCK:
            k.tell(Event.WEDGED, f"stuck: {pulse.why}")
            return


async def draining(k: Keeper) -> None:
    """Reports DRAINED when neither the gateway nor the engine has a request left."""
    began = k.ground.clock()
    while True:
        waiting = k.ground.inflight(k.id)
        if k.ground.clock() - began >= DRAIN_GRACE_S and not waiting:
            seen = await observe(k)
            if seen is None or (seen.busy == 0 and seen.deferred == 0):
                if seen is not None and k.life.asked:
                    await slot_files.save(k)
                k.tell(Event.DRAINED)
                return
        await asyncio.sleep(DRAIN_POLL_S)


async def observe(k: Keeper) -> Activity | None:
    """What the engine is doing, asked through its task queue; None without an answer in time."""
    try:
        metrics = await k.client.metrics()
        slots = await k.client.slots() if metrics.get("requests_processing") else []
    except (EngineError, OSError):
        return None
    return activity(metrics, slots)


async def canary(k: Keeper, *, within_s: float) -> bool:
    """Whether one token can still be had."""
    try:
        await k.client.chat([{"role": "user", "content": "hi"}], max_tokens=1, timeout_s=within_s)
    except (EngineError, OSError):
        return False
    return True


def flags_of(binary: str) -> Flags:
    """The flags that `binary` knows; none where it does not run."""
    return parse_help(run([binary, "--help"], timeout_s=20).stdout)


def _look(k: Keeper) -> Look:
    if k.record is None:
        return Look()
    used = process.usage(k.record.pid)
    try:
        log_bytes = k.log.stat().st_size
    except OSError:
        log_bytes = 0
    return Look(read_bytes=used.read_bytes, rss_bytes=used.rss_bytes, cpu_s=used.cpu_s, log_bytes=log_bytes)


def _lost_gpu(k: Keeper) -> str:
    if k.record is None or not set(k.spec.memory_bytes) - {HOST}:
        return ""
    first, _ = logfiles.read_from(k.log, k.record.log_offset)
    return lost_gpu(k.spec.memory_bytes, first.decode(errors="replace"))


def _note_memory(k: Keeper) -> None:
    """Show what the process holds, where it is noticeably another amount than what is shown."""
    if k.record is None:
        return
    now, shown = process.usage(k.record.pid).rss_bytes, k.used_bytes.get(HOST, 0)
    if now and abs(now - shown) >= max(NOTICEABLE_BYTES, shown // 32):
        k.used_bytes = {HOST: now}
        k.ground.changed()


def _show(k: Keeper, progress: float | None) -> None:
    shown = None if progress is None else round(progress, 2)
    if shown != k.load_progress:
        k.load_progress = shown
        k.ground.changed()


def _bytes_of(files: Sequence[str]) -> int:
    total = 0
    for name in files:
        try:
            total += Path(name).stat().st_size
        except OSError:
            continue
    return total
