"""The lifecycle of one instance: a table of states and events, and `step`, which walks it. Pure.

`TABLE` says for every state and event where to go and what to do on the way. Two targets are decided when they are
reached: `Fork.AFTER_EXIT` (the process is gone: stopped, restart, back off, or give up) and `Fork.NEXT_RUNG` (the
stop recipe goes on: drain, cut, SIGTERM, second SIGTERM, SIGKILL). An event that a state does not list changes
nothing, so late timers and double messages are harmless.

Invariants, held by tests: SPAWN is only ordered while there is no process; every state with a process or a deadline
has a way out; a stop is never forgotten (`wanted` is a fact of its own beside `state`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from nemotron_ops.policy import Health, Restart, RestartPolicy
from nemotron_ops.supervisor.snapshot import State

CUT_S = 1.5  # llama-server notices a closed connection within 1 s when nothing else streams
SECOND_TERM_S = 1.0
KILL_AGAIN_S = 2.0


class Event(StrEnum):
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    SPAWNED = "spawned"
    SPAWN_FAILED = "spawn_failed"
    REFUSED = "refused"  # can never fit beside what is pinned
    ADOPTED_LOADING = "adopted_loading"
    ADOPTED_READY = "adopted_ready"
    READY = "ready"
    PROGRESS = "progress"
    WEDGED = "wedged"
    DRAINED = "drained"
    HURRY = "hurry"  # skip what is left of draining
    EXITED = "exited"
    DEADLINE = "deadline"


class Action(StrEnum):
    SPAWN = "spawn"
    DRAIN = "drain"  # take no new requests
    CUT = "cut"  # close upstream connections
    TERM = "term"
    KILL = "kill"
    CLEAN = "clean"  # remove socket, key and record of a process that is gone


class Fork(StrEnum):
    """Targets that depend on more than state and event."""

    AFTER_EXIT = "after exit"
    NEXT_RUNG = "next rung"


FORKS: Mapping[Fork, tuple[State, ...]] = {
    Fork.AFTER_EXIT: (State.STOPPED, State.STARTING, State.BACKOFF, State.FAILED),
    Fork.NEXT_RUNG: (State.STOPPING, State.KILLING),
}


@dataclass(frozen=True)
class Row:
    """One cell of the table: where to, what to do, and what becomes of `wanted` (None: as it was)."""

    to: State | Fork
    actions: tuple[Action, ...] = ()
    wanted: bool | None = None


S, E, A = State, Event, Action
TABLE: Mapping[tuple[State, Event], Row] = {
    (S.STOPPED, E.START): Row(S.STARTING, (A.SPAWN,), True),
    (S.STOPPED, E.RESTART): Row(S.STARTING, (A.SPAWN,), True),
    (S.STOPPED, E.STOP): Row(S.STOPPED, (), False),
    (S.STOPPED, E.REFUSED): Row(S.FAILED, ()),
    (S.STOPPED, E.ADOPTED_LOADING): Row(S.STARTING, ()),
    (S.STOPPED, E.ADOPTED_READY): Row(S.READY, ()),
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
    (S.READY, E.EXITED): Row(Fork.AFTER_EXIT, (A.CLEAN,)),
    (S.STOPPING, E.START): Row(S.STOPPING, (), True),
    (S.STOPPING, E.RESTART): Row(S.STOPPING, (), True),
    (S.STOPPING, E.STOP): Row(S.STOPPING, (), False),
    (S.STOPPING, E.DRAINED): Row(Fork.NEXT_RUNG, ()),
    (S.STOPPING, E.HURRY): Row(Fork.NEXT_RUNG, ()),
    (S.STOPPING, E.DEADLINE): Row(Fork.NEXT_RUNG, ()),
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


class Rung(StrEnum):
    """How far the stop recipe has come."""

    DRAIN = "drain"
    CUT = "cut"
    TERM = "term"
    TERM_AGAIN = "term-again"


LADDER = (Rung.DRAIN, Rung.CUT, Rung.TERM, Rung.TERM_AGAIN)
RUNG_ACTIONS: Mapping[Rung, tuple[Action, ...]] = {
    Rung.DRAIN: (Action.DRAIN,),
    Rung.CUT: (Action.CUT,),
    Rung.TERM: (Action.TERM,),
    Rung.TERM_AGAIN: (Action.TERM,),
}


@dataclass(frozen=True, kw_only=True)
class Life:
    """What is known of one instance. `now`s and deadlines are monotonic seconds.

    `fault` says why a process is being stopped although it is wanted (wedged, stalled while loading): its exit
    then counts as a death. `deaths` are the times of deaths within the window. `asked` is true from a restart that
    was asked for until its exit: that exit is no death.
    """

    state: State = State.STOPPED
    wanted: bool = False
    since: float = 0.0
    deadline: float | None = None
    rung: Rung = Rung.DRAIN
    deaths: tuple[float, ...] = ()
    restarts: int = 0
    reason: str = ""
    fault: str = ""
    asked: bool = False


@dataclass(frozen=True, kw_only=True)
class Rules:
    restart: Restart = field(default_factory=Restart)
    health: Health = field(default_factory=Health)


@dataclass(frozen=True, kw_only=True)
class Happening:
    """An event, and what came with it.

    `failure`: the exit was no orderly one; `hopeless`: trying again cannot help.
    """

    event: Event
    reason: str = ""
    failure: bool = True
    hopeless: bool = False


def step(life: Life, what: Happening, *, now: float, rules: Rules, jitter: float) -> tuple[Life, tuple[Action, ...]]:
    """The next Life, and what to do. `jitter` is a random number in 0..1, used for the backoff alone."""
    if what.event is Event.DEADLINE and (life.deadline is None or now < life.deadline):
        return life, ()  # a timer that was set for something that is over
    row = TABLE.get((life.state, what.event))
    if row is None:
        return life, ()
    after = replace(life, wanted=life.wanted if row.wanted is None else row.wanted)
    match row.to:
        case Fork.AFTER_EXIT:
            after, more = _after_exit(after, what, now, rules, jitter)
        case Fork.NEXT_RUNG:
            after, more = _next_rung(after, what, now, rules)
        case State() as state:
            after, more = _enter(after, state, what, now, rules), ()
    return after, (*row.actions, *more)


def backoff_s(deaths: int, restart: Restart, jitter: float) -> float:
    """How long to wait after the nth death in a row: doubled each time, capped, and spread over 50 to 100 %."""
    full = min(restart.backoff_max_s, restart.backoff_initial_s * 2.0 ** max(0, deaths - 1))
    return float(full * (0.5 + 0.5 * jitter))


def _enter(life: Life, state: State, what: Happening, now: float, rules: Rules) -> Life:
    """`life` in `state`, with that state's deadline."""
    again = state is life.state
    since = life.since if again else now
    match state:
        case State.STARTING:
            fresh = life.state in (State.FAILED, State.BACKOFF) and what.event in (Event.START, Event.RESTART)
            deaths = () if fresh else life.deaths
            return replace(
                life, state=state, since=since, deadline=now + rules.health.load_stall_s, deaths=deaths,
                reason="" if not again else life.reason, fault="", asked=False,
            )  # fmt: skip
        case State.READY if not again:
            return replace(life, state=state, since=now, deadline=now + rules.restart.stable_s, reason="")
        case State.READY:  # stable for long enough: old deaths are forgotten
            forget = what.event is Event.DEADLINE
            return replace(life, deaths=() if forget else life.deaths, deadline=None if forget else life.deadline)
        case State.STOPPING if again:
            return replace(life, asked=life.asked or what.event in (Event.START, Event.RESTART))
        case State.STOPPING:
            return _begin_stop(life, what, now, rules)
        case State.KILLING:
            deadline = now + KILL_AGAIN_S if what.event is Event.DEADLINE else life.deadline
            asked = life.asked or what.event in (Event.START, Event.RESTART)
            return replace(life, deadline=deadline, asked=asked)
        case State.FAILED | State.STOPPED | State.BACKOFF:
            return replace(
                life, state=state, since=since, deadline=None, reason=what.reason, fault="", asked=False,
                deaths=() if state is State.STOPPED else life.deaths,
            )  # fmt: skip


def _begin_stop(life: Life, what: Happening, now: float, rules: Rules) -> Life:
    """The first rung: draining from READY, SIGTERM at once where nothing can be in flight, the cut for a wedge."""
    asked = what.event in (Event.STOP, Event.RESTART)
    fault = "" if asked else what.reason or "no progress while loading"
    if life.state is State.STARTING:
        rung, wait_s = Rung.TERM, rules.health.stop_s
    elif what.event is Event.WEDGED:
        rung, wait_s = Rung.CUT, CUT_S
    else:
        rung, wait_s = Rung.DRAIN, rules.health.drain_s
    return replace(
        life,
        state=State.STOPPING,
        since=now,
        rung=rung,
        deadline=now + wait_s,
        reason=what.reason or fault,
        fault=fault,
        asked=what.event is Event.RESTART,
    )


def _next_rung(life: Life, what: Happening, now: float, rules: Rules) -> tuple[Life, tuple[Action, ...]]:
    """One rung up. Drained or hurried, nothing but the first rungs is skipped: SIGTERM still gets its time."""
    if what.event in (Event.DRAINED, Event.HURRY) and life.rung is not Rung.DRAIN:
        return life, ()
    if life.rung is LADDER[-1]:
        return replace(life, state=State.KILLING, since=now, deadline=now + KILL_AGAIN_S), (Action.KILL,)
    rung = Rung.TERM if what.event is Event.DRAINED else LADDER[LADDER.index(life.rung) + 1]
    waits = {Rung.CUT: CUT_S, Rung.TERM: rules.health.stop_s, Rung.TERM_AGAIN: SECOND_TERM_S}
    return replace(life, rung=rung, deadline=now + waits[rung]), RUNG_ACTIONS[rung]


def _after_exit(
    life: Life, what: Happening, now: float, rules: Rules, jitter: float
) -> tuple[Life, tuple[Action, ...]]:
    """Where to go when the process is gone (or was never there)."""
    reason = life.fault or what.reason
    failed = bool(life.fault) or (what.failure and not life.asked)
    if not life.wanted:
        why = life.reason if life.state in (State.STOPPING, State.KILLING) else ""  # who asked for it, not how it ended
        return _enter(life, State.STOPPED, replace(what, reason=why), now, rules), ()
    if life.asked and not life.fault:
        return replace(_starting(life, now, rules), restarts=life.restarts + 1), (Action.SPAWN,)
    policy = rules.restart.policy
    if policy is RestartPolicy.NO or (policy is RestartPolicy.ON_FAILURE and not failed):
        state = State.FAILED if failed else State.STOPPED
        return replace(_enter(life, state, replace(what, reason=reason), now, rules), wanted=failed), ()
    deaths = (*(t for t in life.deaths if now - t < rules.restart.window_s), now)
    life = replace(life, deaths=deaths)
    if what.hopeless and failed:
        return _enter(life, State.FAILED, replace(what, reason=reason), now, rules), ()
    if len(deaths) > rules.restart.max_restarts:
        text = f"{reason}; died {len(deaths)} times within {rules.restart.window_s:g} s"
        return _enter(life, State.FAILED, replace(what, reason=text), now, rules), ()
    resting = _enter(life, State.BACKOFF, replace(what, reason=reason), now, rules)
    wait_s = backoff_s(len(deaths), rules.restart, jitter)
    return replace(resting, deadline=now + wait_s, restarts=life.restarts + 1), ()


def _starting(life: Life, now: float, rules: Rules) -> Life:
    return replace(
        life,
        state=State.STARTING,
        since=now,
        deadline=now + rules.health.load_stall_s,
        reason="",
        fault="",
        asked=False,
    )
