"""What a failure, a lost connection or Ctrl-C leads to, with one-line steps and an `ssh` that runs them here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops.deploy.remote.fleet import Outcome, TargetTask, first_then_rest
from nemotron_ops.deploy.remote.rollout import carry_out, roll_out
from nemotron_ops.deploy.remote.ssh import Connection
from nemotron_ops.deploy.steps.release import Artifact
from nemotron_ops.errors import DeployError
from nemotron_ops.progress import Report, silent
from tests.stages.deploy import FakeBalancer, job_for, prepared_target

pytestmark = pytest.mark.process
Eventually = Callable[..., None]


def steps(home: Path) -> list[str]:
    return (home / "steps").read_text().split() if (home / "steps").exists() else []


def test_a_deploy_takes_the_target_out_for_the_switch_only(there: Path) -> None:
    balancer = FakeBalancer()
    assert carry_out(prepared_target(there), job_for(balancer), silent).result == "deployed"
    assert steps(there) == ["first", "activate", "verify", "finish"]
    assert balancer.calls == ["out gpu1", "back gpu1"]


@pytest.mark.parametrize("fails", ["activate", "verify", "finish"])
def test_a_target_is_back_in_its_balancer_whatever_fails_in_the_switch(fails: str, there: Path) -> None:
    balancer = FakeBalancer()
    with pytest.raises(DeployError, match=f"step {fails}"):
        carry_out(prepared_target(there, target="gpu1", send=(), **{fails: "exit 3"}), job_for(balancer), silent)
    assert balancer.calls == ["out gpu1", "back gpu1"]
    assert steps(there)[-1] == ("finish" if fails == "finish" else "back")


def test_a_target_is_back_in_its_balancer_when_the_connection_is_lost(there: Path) -> None:
    balancer = FakeBalancer()
    with pytest.raises(DeployError, match="connection's shell ended"):
        carry_out(prepared_target(there, activate="kill -9 $PPID"), job_for(balancer), silent)
    assert balancer.calls == ["out gpu1", "back gpu1"]


def test_a_balancer_that_cannot_be_reached_withdraws_the_release(there: Path) -> None:
    balancer = FakeBalancer(refuses=True)
    with pytest.raises(DeployError, match="cannot talk to the balancer"):
        carry_out(prepared_target(there), job_for(balancer), silent)
    assert steps(there) == ["first", "withdraw"]
    assert balancer.calls == ["out gpu1", "back gpu1"]


def test_an_upload_that_fails_withdraws_the_release(there: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    artifact.write_bytes(b"x")
    target = prepared_target(there, send=(Artifact(name="artifact", sha256="0" * 64),))
    with pytest.raises(DeployError, match="another sha256"):
        carry_out(replace(target, files={"artifact": artifact}), job_for(FakeBalancer()), silent)
    assert steps(there) == ["withdraw"]


def test_a_release_that_cannot_be_marked_good_is_not_called_deployed(there: Path) -> None:
    with pytest.raises(DeployError, match="the new release serves"):
        carry_out(prepared_target(there, finish="exit 1"), job_for(FakeBalancer()), silent)


def test_one_target_at_a_time_is_out_of_the_balancer(there: Path, tmp_path: Path) -> None:
    balancer = FakeBalancer()
    homes = [tmp_path / f"home{n}" for n in range(4)]
    for home in homes:
        home.mkdir()
    targets = [prepared_target(home, target=f"gpu{n}", activate="sleep 0.2") for n, home in enumerate(homes)]
    outcomes, errors = roll_out(targets, job_for(balancer), parallel=4, report=silent)
    assert not errors
    assert [o.result for o in outcomes] == ["deployed"] * 4
    assert (balancer.most_out, len(balancer.calls)) == (1, 8)


def test_a_lock_that_a_person_puts_down_meanwhile_keeps_a_deploy_out(there: Path) -> None:
    target = prepared_target(there)
    root = Path(target.site.root)
    root.mkdir(parents=True)
    (root / "HOLD.json").write_text('{"who": "ann", "since": "noon", "why": "benchmarks"}\n')
    with pytest.raises(DeployError, match="it is locked: ann since noon: benchmarks"):
        carry_out(target, job_for(FakeBalancer()), silent)
    assert not (there / "steps").exists()
    assert carry_out(target, replace(job_for(FakeBalancer()), force=True), silent).result == "deployed"


def test_after_a_failure_no_further_target_is_begun() -> None:
    def act(name: str) -> Callable[[Report], Outcome]:
        def run(report: Report) -> Outcome:
            if name == "b":
                raise DeployError("cannot: no")
            return Outcome(target=name, release="r", result="deployed")

        return run

    tasks = [TargetTask(connection=Connection(target=n), release="r", act=act(n)) for n in ("a", "b", "c")]
    outcomes, errors = first_then_rest(tasks, parallel=1, report=silent)
    assert [o.result for o in outcomes] == ["deployed", "failed", "not tried"]
    assert len(errors) == 1


INTERRUPTED = """
import sys
from pathlib import Path
from nemotron_ops.deploy.remote.rollout import roll_out
from nemotron_ops.progress import silent
from tests.stages.deploy import FakeBalancer, job_for, prepared_target
balancer = FakeBalancer()
homes = [Path(p) for p in sys.argv[1:]]
targets = [prepared_target(h, target=f"gpu{n}", activate="" if n == 0 else "sleep 60")
           for n, h in enumerate(homes)]
try:
    roll_out(targets, job_for(balancer), parallel=4, report=silent)
finally:
    print(*balancer.calls, "still out:", *balancer.out, sep="\\n", flush=True)
"""


def test_ctrl_c_ends_all_targets_at_once_and_leaves_none_out_of_the_balancer(
    there: Path,
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
    said, _ = child.communicate(timeout=30)  # the second target's step takes a minute
    assert child.returncode != 0
    assert said.endswith("still out:\n")
    # the third had not begun to switch, and does not begin
    assert sum("activate" in steps(h) for h in homes) == 2
