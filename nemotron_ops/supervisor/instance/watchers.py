"""Watches one instance in one state: loading, health, draining. asyncio, HTTP to the engine, /proc.

Each coroutine belongs to one owner and one state and is cancelled when that state ends. None of them signals or
changes anything: they send events and observations to the owner's inbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from nemotron_ops.engine.health import Activity, Health, activity
from nemotron_ops.errors import EngineError
from nemotron_ops.policy import HOST
from nemotron_ops.processes import logfiles, process
from nemotron_ops.supervisor.instance import slot_files
from nemotron_ops.supervisor.instance.liveness import Pulse, Verdict, answered, judge
from nemotron_ops.supervisor.instance.loading import Look, lost_gpu, mark, moved, share
from nemotron_ops.supervisor.instance.state import Event
from nemotron_ops.supervisor.instance.watched import Seen, Watched

POLL_FIRST_S = 0.01  # a tiny engine is ready after 0.04 s
POLL_MOST_S = 0.25
DRAIN_POLL_S = 0.1
DRAIN_FIRST_POLL_S = 0.01
DRAIN_GRACE_S = 0.3  # longest wait for the gateway's word that it has learned of the drain
SOCKET_LOOK_S = 1.0  # between two looks at the socket's file


async def loading(instance: Watched) -> None:
    """Reports PROGRESS while any counter grows, and READY once the engine answers through its task queue.

    An engine without its GPU is WEDGED: it would load on the CPU.
    """
    files_bytes = await asyncio.to_thread(_bytes_of, instance.spec.files)
    before, poll_s = Look(), POLL_FIRST_S
    while True:
        up = await instance.client.health() is Health.OK and await observe(instance) is not None
        if reason := await asyncio.to_thread(_lost_gpu, instance):
            instance.tell(Event.WEDGED, reason)
            return
        if up:
            await slot_files.restore(instance)
            _report(instance)
            instance.tell(Event.READY)
            return
        now = _look(instance)
        if moved(before, now):
            instance.tell(Event.PROGRESS)
        before = mark(before, now)
        _report(instance, progress=share(now, files_bytes))
        await asyncio.sleep(poll_s)
        poll_s = min(POLL_MOST_S, poll_s * 1.25)


async def health(instance: Watched) -> None:
    """Probes through the task queue; reports WEDGED after `wedge_s` without progress."""
    clock, rules = instance.clock, instance.spec.health
    pulse = Pulse(at=clock())
    while True:
        if not await _socket_stays(instance, rules.probe_period_s):
            instance.tell(Event.WEDGED, "stuck: its socket has vanished")
            return
        seen = await observe(instance)
        _report(instance, busy=None if seen is None else seen.busy)
        pulse, verdict = judge(pulse, seen, now=clock(), health=rules)
        if verdict is not Verdict.ALIVE:
            instance.tell(Event.SILENT)
        if verdict is Verdict.SUSPECT:
            instance.journal.add("suspect", pulse.why, instance=instance.id, level="warning")
            if await canary(instance, within_s=max(1.0, rules.wedge_s - (clock() - pulse.at))):
                pulse = answered(pulse, now=clock())
            elif clock() - pulse.at >= rules.wedge_s:  # the unanswered canary took the rest of the time
                verdict = Verdict.STUCK
        if verdict is Verdict.STUCK:
            instance.tell(Event.WEDGED, f"stuck: {pulse.why}")
            return


async def _socket_stays(instance: Watched, for_s: float) -> bool:
    """Waits `for_s`; False as soon as the engine's socket is gone: then no new connection can ever reach it."""
    until = instance.clock() + for_s
    while (left_s := until - instance.clock()) > 0:
        if _vanished(instance):
            return False
        await asyncio.sleep(min(SOCKET_LOOK_S, left_s))
    return True


async def draining(instance: Watched) -> None:
    """Reports DRAINED when neither the gateway nor the engine has a request left.

    The gateway may have sent a request just before it learned of the drain, so its count is believed once it has
    acknowledged the drain, or after a grace period: it may be of a version that does not, or away.
    """
    began, poll_s = instance.clock(), DRAIN_FIRST_POLL_S
    while True:
        waiting = instance.inflight()
        told = instance.out_of_traffic() or instance.clock() - began >= DRAIN_GRACE_S
        if told and not waiting:
            seen = await observe(instance)
            if seen is None or (seen.busy == 0 and seen.deferred == 0):
                if seen is not None and instance.restarting:
                    await slot_files.save(instance)
                instance.tell(Event.DRAINED)
                return
        await asyncio.sleep(poll_s)
        poll_s = min(DRAIN_POLL_S, poll_s * 1.2)


async def observe(instance: Watched) -> Activity | None:
    """The engine's activity, read through its task queue; None without an answer in time."""
    try:
        metrics = await instance.client.metrics()
        slots = await instance.client.slots() if metrics.get("requests_processing") else []
    except (EngineError, OSError):
        return None
    return activity(metrics, slots)


async def canary(instance: Watched, *, within_s: float) -> bool:
    """Whether the engine still makes one token."""
    try:
        await instance.client.chat([{"role": "user", "content": "hi"}], max_tokens=1, timeout_s=within_s)
    except (EngineError, OSError):
        return False
    return True


def _vanished(instance: Watched) -> bool:
    return instance.record is not None and not Path(instance.record.socket).exists()


def _look(instance: Watched) -> Look:
    if instance.record is None:
        return Look()
    used = process.usage(instance.record.pid)
    try:
        log_bytes = instance.log.stat().st_size
    except OSError:
        log_bytes = 0
    return Look(read_bytes=used.read_bytes, rss_bytes=used.rss_bytes, cpu_s=used.cpu_s, log_bytes=log_bytes)


def _lost_gpu(instance: Watched) -> str:
    if instance.record is None or not set(instance.spec.memory_bytes) - {HOST}:
        return ""
    first, _ = logfiles.read_from(instance.log, instance.record.log_offset)
    return lost_gpu(instance.spec.memory_bytes, first.decode(errors="replace"))


def _report(instance: Watched, *, busy: int | None = None, progress: float | None = None) -> None:
    """Send an observation to the owner, with the memory that the process holds."""
    if instance.record is not None:
        rss_bytes = process.usage(instance.record.pid).rss_bytes
        instance.report(Seen(launch=instance.record.launch, busy=busy, progress=progress, rss_bytes=rss_bytes))


def _bytes_of(files: Sequence[str]) -> int:
    total = 0
    for name in files:
        try:
            total += Path(name).stat().st_size
        except OSError:
            continue
    return total
