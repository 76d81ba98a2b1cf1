"""What follows from a failure, a lost connection or Ctrl-C, with steps of one line and an `ssh` that stays here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from nemotron_ops.deploy.remote.fleet import Outcome, Turn, first_then_rest
from nemotron_ops.deploy.remote.prepare import Hooks, Job, Ready
from nemotron_ops.deploy.remote.rollout import carry_out, roll_out
from nemotron_ops.deploy.remote.ssh import Connection
from nemotron_ops.deploy.steps.facts import parse_facts, site_for
from nemotron_ops.deploy.steps.release import DeployPlan, Parcel, RemoteStep, Request
from nemotron_ops.errors import DeployError
from nemotron_ops.progress import Report, silent
from nemotron_ops.service.units import Scope
from tests.process.deploy.test_deploy_ssh import there  # noqa: F401  (the fixture)

pytestmark = pytest.mark.process
Eventually = Callable[..., None]


@dataclass(kw_only=True)
class Door:
    """A balancer that only remembers who it was told to take out and to put back."""

    told: list[str] = field(default_factory=list)
    out: set[str] = field(default_factory=set)
    most_out: int = 0
    refuses: bool = False

    def take_out(self, target: str, report: Report) -> None:
        self.told.append(f"out {target}")
        self.out.add(target)
        self.most_out = max(self.most_out, len(self.out))
        if self.refuses:
            raise DeployError("cannot talk to the balancer")

    def put_back(self, target: str) -> None:
        self.told.append(f"back {target}")
        self.out.discard(target)

    @property
    def hooks(self) -> Hooks:
        import threading

        return Hooks(before_switch=self.take_out, after_switch=self.put_back, turn=threading.Lock())


def step(name: str, home: Path, script: str = "") -> RemoteStep:
    """A step that notes its name at the target, and does what `script` says."""
    return RemoteStep(name=name, about=name, script=f"echo {name} >> {home}/steps\n{script}\n")


def ready_for(home: Path, *, target: str = "gpu1", send: tuple[Parcel, ...] = (), **scripts: str) -> Ready:
    """A target with a plan of small steps, of which some have a script."""
    facts = parse_facts(f"user=me\nhome={home}\n")
    first = replace(step("first", home, scripts.get("first", "")), send=send)
    plan = DeployPlan(
        release="r1",
        before=(first,),
        activate=(step("activate", home, scripts.get("activate", "")), step("verify", home, scripts.get("verify", ""))),
        finish=step("finish", home, scripts.get("finish", "")),
        withdraw=step("withdraw", home),
        back=step("back", home),
    )
    site = site_for(Scope.USER, home=str(home))
    return Ready(connection=Connection(target=target), facts=facts, site=site, plan=plan, parcels={})


def job_with(door: Door) -> Job:
    request = Request(scope=Scope.USER, recipes=("tiny",))
    return Job(request=request, cache=Path("/nowhere"), who="ann", now="noon", hooks=door.hooks)


def steps(home: Path) -> list[str]:
    return (home / "steps").read_text().split() if (home / "steps").exists() else []


def test_a_deploy_takes_the_target_out_for_the_switch_only(there: Path) -> None:  # noqa: F811
    door = Door()
    assert carry_out(ready_for(there), job_with(door), silent).result == "deployed"
    assert steps(there) == ["first", "activate", "verify", "finish"]
    assert door.told == ["out gpu1", "back gpu1"]


@pytest.mark.parametrize("fails", ["activate", "verify", "finish"])
def test_a_target_is_back_in_its_balancer_whatever_fails_in_the_switch(fails: str, there: Path) -> None:  # noqa: F811
    door = Door()
    with pytest.raises(DeployError, match=f"step {fails}"):
        carry_out(ready_for(there, target="gpu1", send=(), **{fails: "exit 3"}), job_with(door), silent)
    assert door.told == ["out gpu1", "back gpu1"]
    assert steps(there)[-1] == ("finish" if fails == "finish" else "back")


def test_a_target_is_back_in_its_balancer_when_the_connection_is_lost(there: Path) -> None:  # noqa: F811
    door = Door()
    with pytest.raises(DeployError, match="connection's shell ended"):
        carry_out(ready_for(there, activate="kill -9 $PPID"), job_with(door), silent)
    assert door.told == ["out gpu1", "back gpu1"]


def test_a_balancer_that_cannot_be_reached_withdraws_the_release(there: Path) -> None:  # noqa: F811
    door = Door(refuses=True)
    with pytest.raises(DeployError, match="cannot talk to the balancer"):
        carry_out(ready_for(there), job_with(door), silent)
    assert steps(there) == ["first", "withdraw"]
    assert door.told == ["out gpu1", "back gpu1"]


def test_an_upload_that_fails_withdraws_the_release(there: Path, tmp_path: Path) -> None:  # noqa: F811
    cargo = tmp_path / "cargo"
    cargo.write_bytes(b"x")
    ready = ready_for(there, send=(Parcel(name="cargo", sha256="0" * 64),))
    with pytest.raises(DeployError, match="another sha256"):
        carry_out(replace(ready, parcels={"cargo": cargo}), job_with(Door()), silent)
    assert steps(there) == ["withdraw"]


def test_a_release_that_cannot_be_marked_good_is_not_called_deployed(there: Path) -> None:  # noqa: F811
    with pytest.raises(DeployError, match="the new release serves"):
        carry_out(ready_for(there, finish="exit 1"), job_with(Door()), silent)


def test_one_target_at_a_time_is_out_of_the_balancer(there: Path, tmp_path: Path) -> None:  # noqa: F811
    door = Door()
    homes = [tmp_path / f"home{n}" for n in range(4)]
    for home in homes:
        home.mkdir()
    readies = [ready_for(home, target=f"gpu{n}", activate="sleep 0.2") for n, home in enumerate(homes)]
    outcomes, errors = roll_out(readies, job_with(door), parallel=4, report=silent)
    assert not errors
    assert [o.result for o in outcomes] == ["deployed"] * 4
    assert (door.most_out, len(door.told)) == (1, 8)


def test_a_lock_that_a_person_puts_down_meanwhile_keeps_a_deploy_out(there: Path) -> None:  # noqa: F811
    ready = ready_for(there)
    root = Path(ready.site.root)
    root.mkdir(parents=True)
    (root / "HOLD.json").write_text('{"who": "ann", "since": "noon", "why": "benchmarks"}\n')
    with pytest.raises(DeployError, match="it is locked: ann since noon: benchmarks"):
        carry_out(ready, job_with(Door()), silent)
    assert not (there / "steps").exists()
    assert carry_out(ready, replace(job_with(Door()), force=True), silent).result == "deployed"


def test_after_a_failure_no_further_target_is_begun() -> None:
    def act(name: str) -> Callable[[Report], Outcome]:
        def run(report: Report) -> Outcome:
            if name == "b":
                raise DeployError("cannot: no")
            return Outcome(target=name, release="r", result="deployed")

        return run

    turns = [Turn(connection=Connection(target=n), release="r", act=act(n)) for n in ("a", "b", "c")]
    outcomes, errors = first_then_rest(turns, parallel=1, report=silent)
    assert [o.result for o in outcomes] == ["deployed", "failed", "not tried"]
    assert len(errors) == 1


INTERRUPTED = """
import sys, threading
from pathlib import Path
from nemotron_ops.deploy.remote.rollout import roll_out
from nemotron_ops.progress import silent
from tests.process.deploy.test_deploy_rollout import Door, job_with, ready_for
door = Door()
homes = [Path(p) for p in sys.argv[1:]]
readies = [ready_for(h, target=f"gpu{n}", activate="" if n == 0 else "sleep 60")
           for n, h in enumerate(homes)]
try:
    roll_out(readies, job_with(door), parallel=4, report=silent)
finally:
    print(*door.told, "still out:", *door.out, sep="\\n", flush=True)
"""


def test_ctrl_c_ends_all_targets_at_once_and_leaves_none_out_of_the_balancer(
    there: Path,  # noqa: F811
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    homes = [tmp_path / f"home{n}" for n in range(3)]
    for home in homes:
        home.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *map(str, homes)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    eventually(lambda: all(map(steps, homes)) and sum("activate" in steps(h) for h in homes) == 2)
    os.kill(child.pid, signal.SIGINT)
    said, _ = child.communicate(timeout=30)  # the second one's step takes a minute
    assert child.returncode != 0
    assert said.endswith("still out:\n")
    # the third had not begun to switch, and does not begin any more
    assert sum("activate" in steps(h) for h in homes) == 2
