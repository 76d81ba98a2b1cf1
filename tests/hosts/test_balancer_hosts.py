"""Three machines, one endpoint: deployed as a group behind a real HAProxy, then disturbed under load."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nemotron_ops.deploy import haproxy

from .conftest import PORT, Host, Laptop, Load, make_laptop
from .test_deploy_hosts import BROKEN, TINY

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]
Eventually = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Three hosts, the laptop that deploys, and the door in front."""

    hosts: tuple[Host, ...]
    laptop: Laptop
    port: int
    key: str
    runtime: Path

    def states(self) -> dict[str, str]:
        return {s.name: s.status.split()[0] for s in haproxy.states(self.runtime)}

    def load(self) -> Load:
        return Load(port=self.port, key=self.key, threads=4)


@pytest.fixture(scope="module")
def fleet(
    new_host: Callable[[], Host], tmp_path_factory: pytest.TempPathFactory, llama_bin: Path, bundles: Path
) -> Iterator[Fleet]:
    """Deployed to as a group, keys and all; HAProxy runs here with the configuration made for the group."""
    folder = tmp_path_factory.mktemp("fleet")
    hosts = tuple(new_host() for _ in range(3))
    laptop = make_laptop(folder, llama_bin, bundles)
    laptop.knows(*hosts)
    laptop.recipe(TINY.format(slots=2))
    targets = [f"deploy@{h.name}" for h in hosts]
    (laptop.home / "config/targets.toml").write_text(
        f'[groups.fleet]\ntargets = {json.dumps(targets)}\nrecipes = ["tiny"]\nhost = "0.0.0.0"\nslots = 2\n'
    )
    keys = folder / "keys.json"
    key = json.loads(laptop.run("keys", "create", "test", "--file", str(keys), "--json").stdout)["text"]
    done = laptop.run("deploy", "fleet", "--api-keys", str(keys), "--yes", "--json", timeout_s=600)
    assert [o["result"] for o in json.loads(done.stdout)] == ["deployed"] * 3
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = int(s.getsockname()[1])
    runtime = folder / "admin.sock"
    addresses = [w for h in hosts for w in ("--address", f"deploy@{h.name}={h.address}:{PORT}")]
    config = folder / "haproxy.cfg"
    config.write_text(
        laptop.run(
            "balancer",
            "render",
            "fleet",
            "--bind",
            f"127.0.0.1:{port}",
            "--stats",
            "",
            "--socket",
            str(runtime),
            *addresses,
        ).stdout
    )
    haproxy.check(config)
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(["haproxy", "-db", "-f", config], stdout=log, stderr=log)
    deadline = time.monotonic() + 30
    while not runtime.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield Fleet(hosts=hosts, laptop=laptop, port=port, key=key, runtime=runtime)
    child.kill()
    child.wait()


def test_every_host_answers_through_the_one_door(fleet: Fleet, eventually: Eventually) -> None:
    eventually(lambda: set(fleet.states().values()) == {"UP"})
    with fleet.load() as load:
        eventually(lambda: load.answered > 20)
    assert load.failed == []


def test_without_a_key_nobody_gets_an_answer(fleet: Fleet, eventually: Eventually) -> None:
    with Load(port=fleet.port, key="nok-wrong", threads=1) as load:
        eventually(lambda: load.by_status)
    assert set(load.by_status) == {401}


def test_a_deploy_that_fails_on_the_first_host_leaves_the_others_alone(fleet: Fleet) -> None:
    fleet.laptop.recipe(BROKEN.format(slots=2))
    keys = str(fleet.runtime.parent / "keys.json")
    done = fleet.laptop.run("deploy", "fleet", "--api-keys", keys, "--yes", "--json", check=False)
    assert done.returncode == 13
    assert [o["result"] for o in json.loads(done.stdout)] == ["failed", "not tried", "not tried"]


def test_an_upgrade_of_all_three_under_load_fails_no_request(fleet: Fleet, eventually: Eventually) -> None:
    fleet.laptop.recipe(TINY.format(slots=3))
    keys = str(fleet.runtime.parent / "keys.json")
    with fleet.load() as load:
        eventually(lambda: load.answered > 10)
        fleet.laptop.run(
            "deploy", "fleet", "--api-keys", keys, "--yes", "--balancer", str(fleet.runtime), timeout_s=600
        )  # fmt: skip
        seen = load.answered
        eventually(lambda: load.answered > seen + 10)
    retried = sum(s.retried for s in haproxy.states(fleet.runtime))
    print(f"\nthree hosts upgraded under load: {load.answered} served, {len(load.failed)} failed, {retried} retried")
    assert load.failed == []


def test_a_power_cut_of_one_while_another_is_upgraded_leaves_the_door_open(
    fleet: Fleet, eventually: Eventually
) -> None:
    cut, upgraded = fleet.hosts[0], fleet.hosts[1]
    fleet.laptop.recipe(TINY.format(slots=4))
    keys = str(fleet.runtime.parent / "keys.json")
    words = ("deploy", f"deploy@{upgraded.name}", "-r", "tiny", "--host", "0.0.0.0", "--api-keys", keys, "--yes")
    with fleet.load() as load:
        eventually(lambda: load.answered > 10)
        child = fleet.laptop.start(*words, "--balancer", str(fleet.runtime))
        cut.control("crash")
        eventually(lambda: fleet.states()[cut.name] == "DOWN")
        output = child.communicate(timeout=300)[0]
        assert child.returncode == 0, output
        in_flight = list(load.failed)
        seen = load.answered
        eventually(lambda: load.answered > seen + 10)
        later = load.failed[len(in_flight) :]
        cut.control("start")
        eventually(lambda: fleet.states()[cut.name] == "UP")
    retried = sum(s.retried for s in haproxy.states(fleet.runtime))
    print(
        f"\none host cut off and one upgraded under load: {load.answered} served, {len(load.failed)} failed, "
        f"{retried} retried; failures: {sorted(set(load.failed))}"
    )
    # what was being answered by the machine that lost its power is lost, and honestly so; nothing after that is
    assert len(in_flight) <= 4
    assert later == []
