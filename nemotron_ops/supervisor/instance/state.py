"""The lifecycle of one instance: a table of states and events, and `step`, which walks it. Pure.

`TABLE` maps each state and event to the next state and its actions. Two targets depend on more than that:
`Fork.AFTER_EXIT` (after the exit: stopped, restarted, backoff or failed) and `Fork.NEXT_STOP_STEP` (the stop recipe:
drain, cut, SIGTERM, second SIGTERM, SIGKILL). An event that a state does not list changes nothing, so late timers and
duplicate messages are harmless. Companions (the gateway's process) use the same table, with other `Rules`.

Invariants, held by tests: SPAWN is ordered only without a process; every state with a process or a deadline has a way
out; a stop is never forgotten (`wanted` is a field beside `state`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from nemotron_ops.policy import Health, Restart, RestartPolicy
from nemotron_ops.supervisor.snapshot import State


class Event(StrEnum):
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    SPAWNED = "spawned"
    SPAWN_FAILED = "spawn_failed"
    REFUSED = "refused"  # its memory can never fit beside the pinned instances
    ADOPTED_LOADING = "adopted_loading"
    ADOPTED_READY = "adopted_ready"
    READY = "ready"
    PROGRESS = "progress"
    SILENT = "silent"  # a probe of a ready instance found no sign of life
    WEDGED = "wedged"
    DRAINED = "drained"
    FORCE = "force"  # skips the rest of the drain
    EXITED = "exited"
    DEADLINE = "deadline"


class Action(StrEnum):
    SPAWN = "spawn"
    DRAIN = "drain"  # no new requests
    CUT = "cut"  # closes upstream connections
    TERM = "term"
    KILL = "kill"
    CLEAN = "clean"  # removes socket, key and record of a process that has ended


class Fork(StrEnum):
    """Targets that depend on more than state and event."""

    AFTER_EXIT = "after exit"
    NEXT_STOP_STEP = "next stop step"


FORKS: Mapping[Fork, tuple[State, ...]] = {
    Fork.AFTER_EXIT: (State.STOPPED, State.STARTING, State.BACKOFF, State.FAILED),
    Fork.NEXT_STOP_STEP: (State.STOPPING, State.KILLING),
}


@dataclass(frozen=True)
class Row:
    """One cell of the table: next state, actions, and the new value of `wanted` (None: unchanged)."""

    to: State | Fork
    actions: tuple[Action, ...] = ()
    wanted: bool | None = None


S, E, A = State, Event, Action
TABLE: Mapping[tuple[State, Event], Row] = {
    (S.STOPPED, E.START): Row(S.STARTING, (A.SPAWN,), True),
    (S.STOPPED, E.RESTART): Row(S.STARTING, (A.SPAWN,), True),
    (S.STOPPED, E.STOP): Row(S.STOPPED, (), False),
    (S.STOPPED, E.REFUSED): Row(S.FAILED, ()),
    (S.STOPPED, E.ADOPTED_LOADING): Row(S.STARTING, (), True),
    (S.STOPPED, E.ADOPTED_READY): Row(S.READY, (), True),
    (S.STARTING, E.SPAWNED): Row(S.STARTING, ()),
    (S.STARTING, E.SPAWN_FAILED): Row(Fork.AFTER_EXIT, (A.CLEAN,)),
    (S.STARTING, E.PROGRESS): Row(S.STARTING, ()),
    (S.STARTING, E.READY): Row(S.READY, ()),
    (S.STARTING, E.WEDGED): Row(S.STOPPING, (A.TERM,)),
    (S.STARTING, E.START): Row(S.STARTING, (), True),
    (S.STARTING, E.STOP): Row(S.STOPPING, (A.TERM,), False),
    (S.STARTING, E.RESTART): Row(S.STOPPING, (A.TERM,), True),
    (S.STARTING, E.DEADLINE): Row(S.STOPPING, (A.TERM,)),
    (S.STARTING, E.EXITED): Row(Fork.AFTER_EXIT, (A.CLEAN,)),
    (S.READY, E.START): Row(S.READY, (), True),
    (S.READY, E.STOP): Row(S.STOPPING, (A.DRAIN,), False),
    (S.READY, E.RESTART): Row(S.STOPPING, (A.DRAIN,), True),
    (S.READY, E.WEDGED): Row(S.STOPPING, (A.DRAIN, A.CUT)),
    (S.READY, E.DEADLINE): Row(S.READY, ()),
    (S.READY, E.SILENT): Row(S.READY, ()),
    (S.READY, E.EXITED): Row(Fork.AFTER_EXIT, (A.CLEAN,)),
    (S.STOPPING, E.START): Row(S.STOPPING, (), True),
    (S.STOPPING, E.RESTART): Row(S.STOPPING, (), True),
    (S.STOPPING, E.STOP): Row(S.STOPPING, (), False),
    (S.STOPPING, E.DRAINED): Row(Fork.NEXT_STOP_STEP, ()),
    (S.STOPPING, E.FORCE): Row(Fork.NEXT_STOP_STEP, ()),
    (S.STOPPING, E.DEADLINE): Row(Fork.NEXT_STOP_STEP, ()),
    (S.STOPPING, E.EXITED): Row(Fork.AFTER_EXIT, (A.CLEAN,)),
    (S.KILLING, E.START): Row(S.KILLING, (), True),
    (S.KILLING, E.RESTART): Row(S.KILLING, (), True),
    (S.KILLING, E.STOP): Row(S.KILLING, (), False),
    (S.KILLING, E.DEADLINE): Row(S.KILLING, (A.KILL,)),
    (S.KILLING, E.EXITED): Row(Fork.AFTER_EXIT, (A.CLEAN,)),
    (S.BACKOFF, E.START): Row(S.STARTING, (A.SPAWN,), True),
    (S.BACKOFF, E.RESTART): Row(S.STARTING, (A.SPAWN,), True),
    (S.BACKOFF, E.DEADLINE): Row(S.STARTING, (A.SPAWN,)),
    (S.BACKOFF, E.STOP): Row(S.STOPPED, (), False),
    (S.FAILED, E.START): Row(S.STARTING, (A.SPAWN,), True),
    (S.FAILED, E.RESTART): Row(S.STARTING, (A.SPAWN,), True),
    (S.FAILED, E.STOP): Row(S.STOPPED, (), False),
}
del S, E, A


class StopStep(StrEnum):
    """The steps of the stop recipe before SIGKILL."""

    DRAIN = "drain"
    CUT = "cut"
    TERM = "term"
    TERM_AGAIN = "term-again"


STOP_STEPS = (StopStep.DRAIN, StopStep.CUT, StopStep.TERM, StopStep.TERM_AGAIN)
STOP_ACTIONS: Mapping[StopStep, tuple[Action, ...]] = {
    StopStep.DRAIN: (Action.DRAIN,),
    StopStep.CUT: (Action.CUT,),
    StopStep.TERM: (Action.TERM,),
    StopStep.TERM_AGAIN: (Action.TERM,),
}


@dataclass(frozen=True, kw_only=True)
class Status:
    """State and history of one instance. Times and deadlines are monotonic seconds.

    `fault` says why a wanted process is being stopped (wedged, stalled while loading): its exit then counts as a death.
    `deaths` are the times of deaths within the window; `failed_starts` those of them that came before readiness, which
    alone count for `max_restarts`: a request can end a ready process, and must not end the service. `served`: the
    present process was ready. `asked` is true from a requested restart until its exit, which
    is no death.
    """

    state: State = State.STOPPED
    wanted: bool = False
    since: float = 0.0
    deadline: float | None = None
    stop_step: StopStep = StopStep.DRAIN
    deaths: tuple[float, ...] = ()
    failed_starts: tuple[float, ...] = ()
    served: bool = False
    restarts: int = 0
    reason: str = ""
    fault: str = ""
    asked: bool = False


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When a process is restarted, counts as stuck, and how long each step of its stop takes."""

    restart: Restart = field(default_factory=Restart)
    health: Health = field(default_factory=Health)
    cut_s: float = 1.5  # llama-server notices a closed connection within 1 s when nothing else streams
    second_term_s: float = 1.0
    kill_again_s: float = 2.0
    ready_at_once: bool = False  # READY says nothing about the process: each of its deaths is a failed start


@dataclass(frozen=True, kw_only=True)
class Message:
    """An event and its details. `failure`: the exit was not orderly; `hopeless`: a restart cannot help.

    `counts`: it is a death. A process that could not be started because the disk is full has not died.
    """

    event: Event
    reason: str = ""
    failure: bool = True
    hopeless: bool = False
    counts: bool = True


FIRST_WAIT_S = 0.05  # after the first death
UNCOUNTED_WAIT_S = 5.0  # before the next try of a start that a full disk prevented
DEADLINE = Message(event=Event.DEADLINE)  # before its time it changes nothing


def step(
    status: Status, what: Message, *, now: float, rules: Rules, jitter: float
) -> tuple[Status, tuple[Action, ...]]:
    """The next status and the actions. `jitter` is a random number in 0..1 for the backoff."""
    if what.event is Event.DEADLINE and (status.deadline is None or now < status.deadline):
        return status, ()  # a timer of an earlier state
    row = TABLE.get((status.state, what.event))
    if row is None:
        return status, ()
    after = replace(status, wanted=status.wanted if row.wanted is None else row.wanted)
    match row.to:
        case Fork.AFTER_EXIT:
            after, more = _after_exit(after, what, now, rules, jitter)
        case Fork.NEXT_STOP_STEP:
            after, more = _next_stop_step(after, what, now, rules)
        case State() as state:
            after, more = _enter(after, state, what, now, rules), ()
    return after, (*row.actions, *more)


def backoff_s(deaths: int, restart: Restart, jitter: float) -> float:
    """The wait after the nth death in a row: none worth the name after the first, so that requests hardly notice it.

    From the second on it is doubled each time, capped, and spread over 50 to 100 %.
    """
    full = FIRST_WAIT_S if deaths <= 1 else restart.backoff_initial_s * 2.0 ** (deaths - 2)
    full = min(restart.backoff_max_s, full)
    return float(full * (0.5 + 0.5 * jitter))


def _enter(status: Status, state: State, what: Message, now: float, rules: Rules) -> Status:
    """`status` in `state`, with that state's deadline."""
    again = state is status.state
    since = status.since if again else now
    match state:
        case State.STARTING:
            fresh = status.state in (State.FAILED, State.BACKOFF) and what.event in (Event.START, Event.RESTART)
            status = _forgetting(status) if fresh else status
            return replace(
                status, state=state, since=since, deadline=now + rules.health.load_stall_s, served=False,
                reason="" if not again else status.reason, fault="", asked=False,
            )  # fmt: skip
        case State.READY if not again:
            stable_at = now + rules.restart.stable_s
            return replace(status, state=state, since=now, deadline=stable_at, reason="", served=True)
        case State.READY if what.event is Event.DEADLINE:  # stable for `stable_s`: earlier deaths no longer count
            return replace(_forgetting(status), deadline=None)
        case State.READY if what.event is Event.SILENT and status.deadline is not None:
            return replace(status, deadline=now + rules.restart.stable_s)  # silence is not stability
        case State.READY:
            return status
        case State.STOPPING if again:
            return replace(status, asked=status.asked or what.event in (Event.START, Event.RESTART))
        case State.STOPPING:
            return _begin_stop(status, what, now, rules)
        case State.KILLING:
            deadline = now + rules.kill_again_s if what.event is Event.DEADLINE else status.deadline
            asked = status.asked or what.event in (Event.START, Event.RESTART)
            return replace(status, deadline=deadline, asked=asked)
        case State.FAILED | State.STOPPED | State.BACKOFF:
            status = _forgetting(status) if state is State.STOPPED else status
            return replace(
                status, state=state, since=since, deadline=None, reason=what.reason, fault="", asked=False
            )  # fmt: skip


def _forgetting(status: Status) -> Status:
    """`status` without its deaths."""
    return replace(status, deaths=(), failed_starts=())


def _begin_stop(status: Status, what: Message, now: float, rules: Rules) -> Status:
    """The first stop step: drain from READY, SIGTERM while loading (without requests), the cut for a wedge."""
    asked = what.event in (Event.STOP, Event.RESTART)
    fault = "" if asked else what.reason or "no progress while loading"
    if status.state is State.STARTING:
        first = StopStep.TERM
    else:
        first = StopStep.CUT if what.event is Event.WEDGED else StopStep.DRAIN
    return replace(
        status, state=State.STOPPING, since=now, stop_step=first, deadline=now + _wait_s(first, rules),
        reason=what.reason or fault, fault=fault, asked=what.event is Event.RESTART,
    )  # fmt: skip


def _next_stop_step(status: Status, what: Message, now: float, rules: Rules) -> tuple[Status, tuple[Action, ...]]:
    """The stop step after this one. DRAINED and FORCE only end the drain: SIGTERM keeps its full wait."""
    if what.event in (Event.DRAINED, Event.FORCE) and status.stop_step is not StopStep.DRAIN:
        return status, ()
    if status.stop_step is STOP_STEPS[-1]:
        return replace(status, state=State.KILLING, since=now, deadline=now + rules.kill_again_s), (Action.KILL,)
    following = STOP_STEPS[STOP_STEPS.index(status.stop_step) + 1]
    after = StopStep.TERM if what.event is Event.DRAINED else following
    return replace(status, stop_step=after, deadline=now + _wait_s(after, rules)), STOP_ACTIONS[after]


def _wait_s(stop_step: StopStep, rules: Rules) -> float:
    """How long a stop step may take before the next one."""
    match stop_step:
        case StopStep.DRAIN:
            return rules.health.drain_s
        case StopStep.CUT:
            return rules.cut_s
        case StopStep.TERM:
            return rules.health.stop_s
        case StopStep.TERM_AGAIN:
            return rules.second_term_s


def _after_exit(
    status: Status, what: Message, now: float, rules: Rules, jitter: float
) -> tuple[Status, tuple[Action, ...]]:
    """The state after an exit, or after a spawn that failed."""
    reason = status.fault or what.reason
    failed = bool(status.fault) or (what.failure and not status.asked)
    if not status.wanted:
        why = status.reason if status.state in (State.STOPPING, State.KILLING) else ""  # of the stop, not of the exit
        return _enter(status, State.STOPPED, replace(what, reason=why), now, rules), ()
    if status.asked and not status.fault:
        return replace(_starting(status, now, rules), restarts=status.restarts + 1), (Action.SPAWN,)
    if not what.counts:
        resting = _enter(status, State.BACKOFF, replace(what, reason=reason), now, rules)
        return replace(resting, deadline=now + UNCOUNTED_WAIT_S), ()
    policy = rules.restart.policy
    if policy is RestartPolicy.NO or (policy is RestartPolicy.ON_FAILURE and not failed):
        state = State.FAILED if failed else State.STOPPED
        return replace(_enter(status, state, replace(what, reason=reason), now, rules), wanted=failed), ()
    window_s = rules.restart.window_s
    spared = status.served and not rules.ready_at_once and rules.restart.max_restarts > 0  # 0: no restart at all
    deaths = (*(t for t in status.deaths if now - t < window_s), now)
    starts = tuple(t for t in (*status.failed_starts, *(() if spared else (now,))) if now - t < window_s)
    status = replace(status, deaths=deaths, failed_starts=starts)
    if what.hopeless and failed:
        return _enter(status, State.FAILED, replace(what, reason=reason), now, rules), ()
    if not spared and len(starts) > rules.restart.max_restarts:
        text = f"{reason}; died {len(starts)} times within {window_s:g} s"
        return _enter(status, State.FAILED, replace(what, reason=text), now, rules), ()
    resting = _enter(status, State.BACKOFF, replace(what, reason=reason), now, rules)
    wait_s = backoff_s(len(deaths), rules.restart, jitter)
    return replace(resting, deadline=now + wait_s, restarts=status.restarts + 1), ()


def _starting(status: Status, now: float, rules: Rules) -> Status:
    deadline = now + rules.health.load_stall_s
    return replace(
        status, state=State.STARTING, since=now, deadline=deadline, reason="", fault="", asked=False, served=False
    )
