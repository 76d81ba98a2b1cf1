"""Three machines, one endpoint: deployed as a group behind a real HAProxy, with faults under load.

The how-to docs/how-to/balancer.md is the script: its commands run in their order, and their output is compared.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nemotron_ops.deploy.balancer import haproxy
from tests.fakes.ports import free_port
from tests.stages.hosts import BROKEN, Host, Laptop, Load, make_laptop
from tests.tables.host_faults import PAGES, fault
from tests.tables.transcript import tell

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]
PAGE = PAGES["test_balancer_hosts"]
Eventually = Callable[..., None]


@dataclass(kw_only=True)
class Fleet:
    """Three hosts, the laptop that deploys, and the balancer in front of them. `asking` are the clients."""

    hosts: tuple[Host, ...]
    laptop: Laptop
    folder: Path  # where the how-to's commands are run
    port: int
    eventually: Eventually
    key: str = ""
    asking: Load = field(default_factory=Load)
    in_flight: list[str] = field(default_factory=list)  # requests that the power cut broke

    @property
    def runtime(self) -> Path:
        return self.folder / "admin.sock"

    def states(self) -> dict[str, str]:
        return {s.name: s.status.split()[0] for s in haproxy.states(self.runtime)}

    def running(self, name: str) -> int:
        """Requests that the balancer has at a machine."""
        return sum(s.running for s in haproxy.states(self.runtime) if s.name == name)

    def lost(self, name: str) -> None:
        """Wait until the balancer has marked a machine down and has no request left there."""
        try:
            self.eventually(lambda: self.states()[name] == "DOWN" and not self.running(name), within_s=120)
        except AssertionError:
            door = haproxy.ask(self.runtime, "show stat") + haproxy.ask(self.runtime, "show sess all")
            raise AssertionError(door) from None

    def all_up(self) -> str:
        """Wait until the balancer sends requests to all three."""
        self.eventually(lambda: {s.status for s in haproxy.states(self.runtime)} == {"UP"})
        return ""

    def cut_power(self) -> None:
        """Cut gpu1's power once gpu2 is drained for its switch."""
        self.eventually(lambda: self.states()["gpu2"] == "DRAIN", within_s=400)
        self.hosts[0].cut_power()

    def ask(self) -> str:
        """Start four clients of the balancer."""
        self.asking = Load(port=self.port, key=self.key, threads=4)
        self.asking.__enter__()
        self.go_on()
        return ""

    def go_on(self) -> None:
        """Wait for ten more answers."""
        seen = self.asking.answered
        self.eventually(lambda: self.asking.answered > seen + 10)

    def told(self) -> str:
        """Stop the clients after ten more answers; their counts, in words."""
        self.go_on()
        self.asking.__exit__()
        return f"{self.asking.answered} requests served, {len(self.asking.failed)} failed"

    def sh(self, command: str) -> str:
        """Run a command of the how-to, on a free port instead of its own; a new key is remembered."""
        mine = command.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        env = {**self.laptop.env, "PATH": f"{self.folder}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", "-c", f"{{ {mine}\n}} 2>&1"], cwd=self.folder, env=env, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if found := re.search(r"\bnok-\S+", done.stdout):
            self.key = found.group()
        return done.stdout


@pytest.fixture(scope="module")
def fleet(
    new_host: Callable[[], Host],
    tmp_path_factory: pytest.TempPathFactory,
    llama_bin: Path,
    bundles: Path,
    eventually: Eventually,
) -> Iterator[Fleet]:
    """The start of the how-to: three hosts that ssh knows as gpu1, gpu2 and gpu3, deployed to, behind a balancer."""
    folder = tmp_path_factory.mktemp("fleet")
    hosts = tuple(new_host() for _ in range(3))
    laptop = make_laptop(folder, llama_bin, bundles)
    laptop.ssh_config.write_text(
        "".join(
            h.ssh_config.read_text().replace(f"Host {h.name} ", f"Host gpu{n} {h.name} ") + "  User deploy\n"
            for n, h in enumerate(hosts, 1)
        )
    )
    group = PAGE.read_text().partition("<!-- targets.toml -->\n```toml\n")[2].partition("```")[0]
    (laptop.home / "config").mkdir()
    (laptop.home / "config/targets.toml").write_text(group)
    program = folder / "nemotron-ops"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m nemotron_ops "$@"\n')
    program.chmod(0o755)
    fleet = Fleet(hosts=hosts, laptop=laptop, folder=folder, port=free_port(), eventually=eventually)
    pid = folder / "door.pid"
    try:
        tell(PAGE, "deploy", fleet.sh)
        tell(PAGE, "door", fleet.sh, events={"all three are found to be ready": fleet.all_up})
        yield fleet
    finally:
        fleet.asking.__exit__()
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGKILL)


def test_the_how_to_ends_in_one_door_behind_which_everybody_answers(fleet: Fleet) -> None:
    fleet.ask()
    fleet.told()
    assert fleet.asking.failed == []


def test_without_a_key_nobody_gets_an_answer(fleet: Fleet) -> None:
    with Load(port=fleet.port, key="nok-wrong", threads=1) as load:
        fleet.eventually(lambda: load.by_status)
    assert set(load.by_status) == {401}


@fault("a deploy to the group that fails on its first machine", "the other machines are not touched")
def test_a_deploy_that_fails_on_the_first_host_leaves_the_others_alone(fleet: Fleet) -> None:
    fleet.laptop.recipe(BROKEN.format(slots=2))
    keys = str(fleet.folder / "keys.json")
    done = fleet.laptop.run("deploy", "prod", "--api-keys", keys, "--yes", "--json", check=False)
    (fleet.laptop.home / "config/recipes/tiny.toml").unlink()
    assert done.returncode == 13
    assert [o["result"] for o in json.loads(done.stdout)] == ["failed", "not tried", "not tried"]


@fault("all machines are upgraded under client load", "no request fails")
def test_the_how_to_upgrades_all_three_under_load_and_fails_no_request(fleet: Fleet) -> None:
    events = {"four clients ask all the while": fleet.ask, "the clients are asked how it was": fleet.told}
    tell(PAGE, "upgrade", fleet.sh, events=events)
    print(f"\nthree machines upgraded under load: {fleet.asking.answered} served, {len(fleet.asking.failed)} failed")
    assert fleet.asking.failed == []


@fault(
    "one machine loses its power while another is upgraded, under client load",
    "at most the answers in flight there break off; no request fails after that",
)
def test_the_how_to_loses_one_machine_while_another_is_upgraded_and_the_door_stays_open(fleet: Fleet) -> None:
    beside = ThreadPoolExecutor(max_workers=1)
    cuts: list[Future[None]] = []

    def ask_and_cut() -> str:
        fleet.ask()
        cuts.append(beside.submit(fleet.cut_power))
        return ""

    def told() -> str:
        cuts[0].result()
        fleet.lost("gpu1")
        fleet.in_flight = list(fleet.asking.failed)
        return fleet.told()

    def power_back() -> str:
        fleet.hosts[0].power_back()
        return fleet.all_up()

    fleet.all_up()
    events = {
        "four clients ask all the while; as gpu2 is being upgraded, gpu1 loses its power": ask_and_cut,
        "the clients are asked how it was": told,
        "gpu1 has its power back": power_back,
    }
    tell(PAGE, "cut", fleet.sh, events=events)
    print(f"\none machine cut off and one upgraded: {fleet.asking.answered} served, failed: {fleet.asking.failed}")
    assert len(fleet.in_flight) <= fleet.asking.threads
    assert fleet.asking.failed == fleet.in_flight
