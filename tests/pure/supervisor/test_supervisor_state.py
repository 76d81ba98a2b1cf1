"""The lifecycle table: every state and event, and long random walks against a simulated process."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.policy import Health, Restart, RestartPolicy
from nemotron_ops.supervisor.instance.state import (
    FIRST_WAIT_S,
    FORKS,
    TABLE,
    UNCOUNTED_WAIT_S,
    Action,
    Event,
    Fork,
    Message,
    Rules,
    Status,
    StopStep,
    backoff_s,
    step,
)
from nemotron_ops.supervisor.snapshot import State

RULES = Rules(
    restart=Restart(max_restarts=3, window_s=100, backoff_initial_s=1, backoff_max_s=8, stable_s=50),
    health=Health(drain_s=30, stop_s=5, load_stall_s=20),
)
RESTING = {State.STOPPED, State.FAILED}
NO_PROCESS = {State.STOPPED, State.FAILED, State.BACKOFF}


def go(status: Status, *events: Event | Message, now: float = 0.0, rules: Rules = RULES) -> tuple[Status, list[Action]]:
    done: list[Action] = []
    for event in events:
        what = event if isinstance(event, Message) else Message(event=event, reason=str(event))
        status, actions = step(status, what, now=now, rules=rules, jitter=1.0)
        done += actions
    return status, done


def ready() -> Status:
    return go(Status(), Event.START, Event.SPAWNED, Event.READY)[0]


def test_a_start_spawns_once_and_readiness_ends_it() -> None:
    status, done = go(Status(), Event.START, Event.START, Event.SPAWNED, Event.PROGRESS, Event.READY, Event.READY)
    assert (status.state, status.wanted, done) == (State.READY, True, [Action.SPAWN])


def test_the_stop_recipe_goes_up_rung_by_rung_and_ends_with_sigkill() -> None:
    status, done = go(ready(), Event.STOP)
    assert (status.state, status.stop_step, done) == (State.STOPPING, StopStep.DRAIN, [Action.DRAIN])
    seen = []
    for _ in range(5):
        assert status.deadline is not None
        status, done = go(status, Event.DEADLINE, now=status.deadline)
        seen += done
    assert seen == [Action.CUT, Action.TERM, Action.TERM, Action.KILL, Action.KILL]
    status, done = go(status, Event.EXITED)
    assert (status.state, done) == (State.STOPPED, [Action.CLEAN])


def test_a_drained_instance_gets_sigterm_at_once_and_its_full_time_to_end() -> None:
    status, done = go(ready(), Event.STOP, Event.DRAINED, Event.DRAINED, now=7.0)
    assert done == [Action.DRAIN, Action.TERM]
    assert status.deadline == 7.0 + RULES.health.stop_s


def test_a_stop_while_loading_needs_no_drain() -> None:
    status, done = go(Status(), Event.START, Event.SPAWNED, Event.STOP)
    assert done == [Action.SPAWN, Action.TERM]
    assert go(status, Event.EXITED)[0].state is State.STOPPED


def test_a_stop_while_backing_off_sticks() -> None:
    status, _ = go(ready(), Event.EXITED, Event.STOP)
    status, done = go(status, Event.DEADLINE, now=1e6)
    assert (status.state, status.wanted, done) == (State.STOPPED, False, [])


def test_a_start_during_a_stop_is_not_forgotten() -> None:
    status, done = go(ready(), Event.STOP, Event.START, Event.DRAINED, Event.EXITED)
    assert status.state is State.STARTING
    assert done[-1] is Action.SPAWN
    assert status.deaths == ()


def test_a_restart_that_was_asked_for_is_no_death() -> None:
    status, done = go(ready(), Event.RESTART, Event.DRAINED, Event.EXITED)
    assert (status.state, status.deaths, status.restarts) == (State.STARTING, (), 1)
    assert done == [Action.DRAIN, Action.TERM, Action.CLEAN, Action.SPAWN]


def test_too_many_failed_starts_within_the_window_fail_loudly_until_someone_acts() -> None:
    status, _ = go(Status(), Event.START, Event.SPAWNED)
    for n in range(RULES.restart.max_restarts):
        status, _ = go(status, Message(event=Event.EXITED, reason="boom"), now=float(n))
        assert status.state is State.BACKOFF
        status, _ = go(status, Event.DEADLINE, Event.SPAWNED, now=float(n) + 90)
    status, _ = go(status, Message(event=Event.EXITED, reason="boom"), now=4.0)
    assert status.state is State.FAILED
    assert "boom" in status.reason
    assert "4 times within 100 s" in status.reason
    assert go(status, Event.READY, Event.DEADLINE, Event.EXITED, now=1e6) == (status, [])
    assert go(status, Event.RESTART)[0] == replace(
        status, state=State.STARTING, deaths=(), failed_starts=(), reason="", deadline=20.0, since=0.0
    )


@pytest.mark.parametrize("deadly", [(Event.EXITED,), (Event.WEDGED, Event.EXITED)])
def test_deaths_of_a_ready_process_never_fail_it_and_its_waits_grow(deadly: tuple[Event, ...]) -> None:
    status, waits = ready(), []
    for n in range(20):
        now = float(n)
        status, _ = go(status, *deadly, now=now)
        assert status.state is State.BACKOFF
        waits.append((status.deadline or 0.0) - now)
        status, _ = go(status, Event.DEADLINE, now=now + 90)
        status, _ = go(status, Event.SPAWNED, Event.READY, now=now)
    assert waits == sorted(waits)
    assert (waits[0] <= FIRST_WAIT_S, waits[-1]) == (True, RULES.restart.backoff_max_s)
    status, _ = go(status, Event.EXITED, Event.START, Event.SPAWNED)
    assert go(status, Event.EXITED)[0].state is State.BACKOFF, "one failed start after many deaths by requests"


def test_failed_starts_outside_the_window_do_not_count() -> None:
    status, _ = go(Status(), Event.START, Event.SPAWNED)
    for n in range(10):
        status, _ = go(status, Event.EXITED, now=n * 101.0)
        assert status.state is State.BACKOFF
        status, _ = go(status, Event.DEADLINE, Event.SPAWNED, now=n * 101.0 + 90)


def test_a_start_that_a_full_disk_prevents_is_no_death_and_is_tried_again_for_ever() -> None:
    status, _ = go(Status(), Event.START)
    for n in range(50):
        status, _ = go(status, Message(event=Event.SPAWN_FAILED, reason="full", counts=False), now=n * 10.0)
        assert (status.state, status.reason, status.deaths, status.restarts) == (State.BACKOFF, "full", (), 0)
        status, done = go(status, Event.DEADLINE, now=n * 10.0 + UNCOUNTED_WAIT_S)
        assert done == [Action.SPAWN]
    status, _ = go(status, Message(event=Event.SPAWN_FAILED, reason="full", counts=False), Event.STOP)
    assert status.state is State.STOPPED


def test_silence_is_not_stability() -> None:
    status, _ = go(ready(), Event.EXITED)
    status, _ = go(status, Event.DEADLINE, now=2.0)
    status, _ = go(status, Event.READY, now=3.0)
    status, _ = go(status, Event.SILENT, now=40.0)
    assert len(go(status, Event.DEADLINE, now=3.0 + RULES.restart.stable_s)[0].deaths) == 1
    status, _ = go(status, Event.DEADLINE, now=40.0 + RULES.restart.stable_s)
    assert status.deaths == ()
    assert go(status, Event.SILENT, now=100.0)[0] == status, "forgotten already"


def test_a_stable_period_forgets_earlier_deaths() -> None:
    status, _ = go(ready(), Event.EXITED)
    status, _ = go(status, Event.DEADLINE, now=2.0)
    status, _ = go(status, Event.READY, now=3.0)
    assert len(status.deaths) == 1
    status, _ = go(status, Event.DEADLINE, now=3.0 + RULES.restart.stable_s)
    assert status.deaths == ()
    assert status.state is State.READY


def test_a_hopeless_death_is_not_repeated() -> None:
    status, _ = go(Status(), Event.START, Event.SPAWNED, Message(event=Event.EXITED, reason="bad flag", hopeless=True))
    assert (status.state, status.reason) == (State.FAILED, "bad flag")


def test_a_failed_spawn_is_an_exit() -> None:
    status, done = go(Status(), Event.START, Message(event=Event.SPAWN_FAILED, reason="no such file"))
    assert (status.state, status.reason) == (State.BACKOFF, "no such file")
    assert done == [Action.SPAWN, Action.CLEAN]


def test_a_wedge_cuts_and_counts_as_a_death() -> None:
    status, done = go(ready(), Message(event=Event.WEDGED, reason="stuck"))
    assert done == [Action.DRAIN, Action.CUT]
    status, _ = go(status, Message(event=Event.EXITED, reason="signal 9"))
    assert (status.state, status.reason, len(status.deaths)) == (State.BACKOFF, "stuck", 1)


def test_silence_while_loading_is_a_fault_and_progress_is_not() -> None:
    status, _ = go(Status(), Event.START, Event.SPAWNED)
    for n in range(1, 200):
        status, _ = go(status, Event.PROGRESS, Event.DEADLINE, now=n * 19.0)
        assert status.state is State.STARTING
    status, done = go(status, Message(event=Event.DEADLINE), now=199 * 19.0 + 20)
    assert (status.state, done) == (State.STOPPING, [Action.TERM])
    assert go(status, Event.EXITED)[0].reason == "no progress while loading"


@pytest.mark.parametrize(
    ("policy", "failure", "state"),
    [
        (RestartPolicy.ALWAYS, True, State.BACKOFF),
        (RestartPolicy.ALWAYS, False, State.BACKOFF),
        (RestartPolicy.ON_FAILURE, True, State.BACKOFF),
        (RestartPolicy.ON_FAILURE, False, State.STOPPED),
        (RestartPolicy.NO, True, State.FAILED),
        (RestartPolicy.NO, False, State.STOPPED),
    ],
)
def test_the_restart_policy_decides_what_a_death_means(policy: RestartPolicy, failure: bool, state: State) -> None:
    rules = replace(RULES, restart=replace(RULES.restart, policy=policy))
    what = Message(event=Event.EXITED, reason="r", failure=failure)
    assert go(ready(), what, rules=rules)[0].state is state


def test_backoff_doubles_is_capped_and_spread() -> None:
    restart = RULES.restart
    assert [backoff_s(n, restart, 1.0) for n in (1, 2, 3, 4, 5, 50)] == [FIRST_WAIT_S, 1, 2, 4, 8, 8]
    assert backoff_s(4, restart, 0.0) == 2


def test_a_late_timer_changes_nothing() -> None:
    for state in State:
        status = replace(ready(), state=state, deadline=100.0)
        assert go(status, Event.DEADLINE, now=99.9) == (status, [])
        status = replace(status, deadline=None)
        assert go(status, Event.DEADLINE, now=1e9) == (status, [])


def ways_out(to: State | Fork) -> tuple[State, ...]:
    return FORKS[to] if isinstance(to, Fork) else (to,)


def test_every_state_has_a_way_out() -> None:
    for state in State:
        targets = {t for (s, _), row in TABLE.items() if s is state for t in ways_out(row.to)}
        assert targets - {state}, state


def test_a_stop_is_understood_in_every_state() -> None:
    for state in State:
        assert TABLE[state, Event.STOP].wanted is False


def test_only_states_without_a_process_order_a_spawn() -> None:
    for (state, _), row in TABLE.items():
        if Action.SPAWN in row.actions:
            assert state in NO_PROCESS
        if row.to is Fork.AFTER_EXIT:
            assert Action.CLEAN in row.actions


@dataclass
class World:
    """A simulated process that follows the events and asserts the invariants of the table."""

    status: Status
    alive: bool = False
    spawned: int = 0
    asked_to_run: bool = False

    def tell(self, what: Message, now: float) -> None:
        if what.event is Event.EXITED:
            if not self.alive:
                return
            self.alive = False
        if what.event is Event.SPAWN_FAILED and (not self.alive or self.status.state is not State.STARTING):
            return
        if what.event in (Event.ADOPTED_READY, Event.ADOPTED_LOADING):
            return
        if what.event is Event.SPAWN_FAILED:
            self.alive = False
        if what.event in (Event.START, Event.RESTART):
            self.asked_to_run = True
        if what.event is Event.STOP:
            self.asked_to_run = False
        self.status, actions = step(self.status, what, now=now, rules=RULES, jitter=0.5)
        for action in actions:
            if action is Action.SPAWN:
                assert not self.alive, "two processes for one instance"
                assert self.asked_to_run, "a process that is not wanted"
                self.alive = True
                self.spawned += 1
            elif action is Action.CLEAN:
                assert not self.alive, "cleaned up under a living process"
        assert self.alive == (self.status.state not in NO_PROCESS), f"{self.status.state} with process {self.alive}"
        assert self.status.wanted == self.asked_to_run or self.status.state is State.STOPPED

    def settle(self, now: float) -> float:
        """Let time pass and SIGKILL take effect: the instance must come to rest."""
        for _ in range(60):
            if self.status.state in RESTING or (self.status.state is State.READY and self.status.deadline is None):
                return now
            if self.status.deadline is not None:
                now = max(now, self.status.deadline)
                self.tell(Message(event=Event.DEADLINE), now)
            if self.status.state is State.KILLING:
                self.tell(Message(event=Event.EXITED, reason="killed"), now)
        raise AssertionError(f"never at rest: {self.status}")


messages = st.builds(
    Message, event=st.sampled_from(list(Event)), reason=st.just("r"), failure=st.booleans(),
    hopeless=st.sampled_from([False, False, False, True]), counts=st.sampled_from([True, True, False]),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(messages, st.floats(0, 40)), max_size=60))
def test_a_random_walk_never_has_two_processes_nor_an_unwanted_one_and_comes_to_rest(
    walk: list[tuple[Message, float]],
) -> None:
    world, now = World(status=Status()), 0.0
    for what, later in walk:
        now += later
        world.tell(what, now)
    world.tell(Message(event=Event.STOP), now)
    world.settle(now)
    assert world.status.state is State.STOPPED
    assert not world.alive
