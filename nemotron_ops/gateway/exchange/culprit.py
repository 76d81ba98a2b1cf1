"""Decides whether an engine died of a request, or got stuck on it. asyncio.

    the engine   the request                                  guilt
    died         had brought events, or the stop was asked    none
    died         alone, and the supervisor calls it a crash   certain: no other engine gets it, its body is refused
    died         with others, or of something unknown         suspected: the next engine gets it alone, a third none
    died again   the same, and the supervisor says: a crash   certain
    got stuck    was the last to begin before the silence     certain
    got stuck    was another one                              none

Which requests were lost together is noted when the first of them is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from nemotron_ops.gateway.queue.pool import Pool
from nemotron_ops.gateway.record import Record
from nemotron_ops.gateway.upstream.connection import Upstream

VERDICT_S = 0.3  # for the supervisor to say what an engine has died of
WEDGE_VERDICT_S = 30.0  # for an engine that is stuck to be ended
ASKED = frozenset({"asked", "stopped"})
OF_ITSELF = frozenset(
    {"assertion", "crash", "device-memory", "gpu-error", "host-memory", "illegal-instruction", "oom-killer"}
)
BEFORE_SILENCE_S = 5.0  # between the arrival of a request and the last event of the others


class Guilt(StrEnum):
    """A request's part in the loss of its engine."""

    NONE = "none"
    SUSPECTED = "suspected"
    CERTAIN = "certain"


class Loss(NamedTuple):
    """The requests that were at an engine when it was lost, as far as they have not been looked at yet."""

    group: set[Record]
    alone: bool  # there was one
    culprit: Record  # if the engine got stuck: the request that it was stuck on, as far as times tell


def loss_of(record: Record, running: Iterable[Record]) -> Loss:
    """The loss of the engine that `record` was at; `running` are all requests."""
    upstream = record.upstream
    assert upstream is not None
    loss = upstream.loss
    if not isinstance(loss, Loss) or record not in loss.group:
        group = {r for r in running if r.upstream is upstream and r.ticket is not None and r.ticket.instance}
        group.add(record)
        upstream.loss = loss = Loss(group, len(group) == 1, last_before_silence(group))
    loss.group.discard(record)
    return loss


def last_before_silence(group: Iterable[Record]) -> Record:
    """The request that began last before the engine fell silent, else the first one after that."""
    silent_at, waiting = 0.0, []
    found = list(group)
    for record in found:
        if brought_events(record) and record.relay is not None:
            silent_at = max(silent_at, record.relay.last_at)
        else:
            waiting.append(record)
    before = [r for r in waiting if r.granted_at <= silent_at]
    latest = max(before, key=lambda r: r.granted_at, default=None)
    if latest is not None and silent_at - latest.granted_at < BEFORE_SILENCE_S:
        return latest
    after = [r for r in waiting if r.granted_at > silent_at]
    return min(after, key=lambda r: r.granted_at, default=latest or max(found, key=lambda r: r.granted_at))


async def guilt_of(record: Record, pool: Pool, loss: Loss) -> Guilt:
    """The part of `record` in the loss of its engine, once the supervisor has said what it was."""
    upstream = record.upstream
    assert upstream is not None
    if upstream.wedged:
        if loss.culprit is not record or (brought_events(record) and not loss.alone):
            return Guilt.NONE
        return Guilt.NONE if await cause(pool, upstream, WEDGE_VERDICT_S) in ASKED else Guilt.CERTAIN
    if brought_events(record) or _was_cut(record, pool):
        return Guilt.NONE
    found = await cause(pool, upstream, VERDICT_S)
    if found in ASKED:
        return Guilt.NONE
    certain = found in OF_ITSELF and (loss.alone or record.suspected)
    return Guilt.CERTAIN if certain else Guilt.SUSPECTED


async def cause(pool: Pool, upstream: Upstream, within_s: float) -> str:
    """What the engine of `upstream` was lost of, in the supervisor's word for it; empty if it does not say in time."""
    end = pool.loop.time() + within_s
    while not (found := pool.cause_of_loss(upstream)) and (left_s := end - pool.loop.time()) > 0:
        await asyncio.wait((pool.next_snapshot(),), timeout=left_s)
    return found


def brought_events(record: Record) -> bool:
    """Whether the current attempt has brought events."""
    return record.relay is not None and record.relay.events > record.events_before


def _was_cut(record: Record, pool: Pool) -> bool:
    """Whether the supervisor had the instance's connections closed."""
    view = pool.directory.by_name.get(record.instance)
    return view is None or view.cut
