"""The service on a real host: installed for the machine, crashed, watched, stopped, rebooted, cut off, removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest

from nemotron_ops.service.granted import LOCKED, NICE, REALTIME, hard_limits

from .conftest import Host, Laptop, Load, make_laptop
from .faults import fault
from .scarce import scarce

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(600)]
SUPERVISOR = "nemotron-ops serve tiny"
ENGINE = "llama-server --model"
GATEWAY = "nemotron_ops.gateway"
PROGRAM = "NEMOTRON_OPS_SYSTEM=1 /opt/nemotron-ops/current/venv/bin/nemotron-ops"
Eventually = Callable[..., None]


@pytest.fixture(scope="module")
def machine(
    new_host: Callable[[], Host], tmp_path_factory: pytest.TempPathFactory, llama_bin: Path, bundles: Path
) -> tuple[Host, Laptop]:
    """A host with the system service for `tiny`, installed by a deploy."""
    host = new_host()
    laptop = make_laptop(tmp_path_factory.mktemp("laptop"), llama_bin, bundles)
    laptop.knows(host)
    laptop.run("deploy", f"deploy@{host.name}", "--system", "-r", "tiny", "--yes")
    return host, laptop


@pytest.fixture
def host(machine: tuple[Host, Laptop], eventually: Eventually) -> Host:
    """The host, with the service up."""
    host = machine[0]
    host.ssh("systemctl reset-failed nemotron-ops || true; systemctl start nemotron-ops.socket nemotron-ops")
    eventually(lambda: host.ssh("systemctl is-active nemotron-ops || true") == "active")
    return host


def engine(host: Host) -> str:
    (pid,) = host.pids(ENGINE)
    return pid


def drains(host: Host) -> int:
    """How often a gateway has left new clients to the next start."""
    return int(host.ssh("grep -c gateway-draining /var/log/nemotron-ops/events.jsonl || true"))


def test_it_answers_as_its_own_user_in_its_sandbox(host: Host) -> None:
    assert host.ask() == "2 + 2 = 4."
    assert host.ssh(f"ps -o user= -p {engine(host)}") == "nemotron"
    assert host.ssh("systemctl show -P StatusText nemotron-ops") == "1 of 1 ready"
    status = host.ssh(f"cat /proc/{engine(host)}/status")
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert "CapBnd:\t0000000000000000" in status


@fault(
    "the supervisor is killed (`kill -9`) under load",
    "no request fails, the model stays loaded, the same gateway goes on",
)
def test_a_killed_supervisor_costs_no_request_and_no_model(
    host: Host, machine: tuple[Host, Laptop], eventually: Eventually
) -> None:
    _, laptop = machine
    before, gateway = engine(host), host.pids(GATEWAY)
    with laptop.tunnel(f"root@{host.name}") as port, Load(port=port) as load:
        eventually(lambda: load.answered > 20)
        restarts = int(host.ssh("systemctl show -P NRestarts nemotron-ops"))
        host.ssh("systemctl kill --kill-who=main --signal=SIGKILL nemotron-ops")
        eventually(lambda: int(host.ssh("systemctl show -P NRestarts nemotron-ops")) > restarts)
        eventually(lambda: host.ssh("systemctl is-active nemotron-ops || true") == "active")
        seen = load.answered
        eventually(lambda: load.answered > seen + 20)
    print(f"\nsupervisor killed under load: {load.answered} answered, {len(load.failed)} failed")
    assert load.failed == []
    assert engine(host) == before
    assert host.pids(GATEWAY) == gateway


@fault("the supervisor hangs", "systemd's watchdog ends it; its successor finds the model loaded")
def test_a_hung_supervisor_is_bitten_by_the_watchdog_and_the_model_stays(host: Host, eventually: Eventually) -> None:
    drop_in = "/run/systemd/system/nemotron-ops.service.d"
    host.ssh(f"mkdir -p {drop_in}; printf '[Service]\\nWatchdogSec=3s\\n' > {drop_in}/w.conf; systemctl daemon-reload")
    host.ssh("/opt/nemotron-ops/current/venv/bin/nemotron-ops service restart")  # to learn of the shorter watchdog
    eventually(lambda: host.ssh("systemctl is-active nemotron-ops || true") == "active")  # from here on it is watched
    before = engine(host)
    restarts = int(host.ssh("systemctl show -P NRestarts nemotron-ops"))
    host.ssh("kill -STOP $(systemctl show -P MainPID nemotron-ops)")
    eventually(lambda: int(host.ssh("systemctl show -P NRestarts nemotron-ops")) > restarts)
    eventually(lambda: host.ssh("systemctl is-active nemotron-ops || true") == "active")
    assert "Watchdog timeout" in host.ssh("journalctl -u nemotron-ops -o cat --no-pager | grep Watchdog")
    assert engine(host) == before
    assert host.ask() == "2 + 2 = 4."
    host.ssh(f"rm -r {drop_in}; systemctl daemon-reload")


@fault("`systemctl stop`", "engine, gateway and supervisor are gone")
def test_a_stop_stops_everything(host: Host) -> None:
    before = drains(host)
    host.ssh("systemctl stop nemotron-ops.socket nemotron-ops nemotron-ops-engines")
    assert (host.pids(ENGINE), host.pids(GATEWAY), host.pids(SUPERVISOR)) == ([], [], [])
    assert drains(host) == before  # the socket goes too: clients are told at once, not left to a successor


@fault("`systemctl stop` between a crash and the restart", "the same: nothing is left over")
def test_a_stop_between_crash_and_restart_stops_everything_too(host: Host, eventually: Eventually) -> None:
    drop_in = "/run/systemd/system/nemotron-ops.service.d"
    host.ssh(f"mkdir -p {drop_in}; printf '[Service]\\nRestartSec=60s\\n' > {drop_in}/w.conf; systemctl daemon-reload")
    host.ssh("systemctl kill --kill-who=main --signal=SIGKILL nemotron-ops")
    eventually(lambda: host.ssh("systemctl show -P SubState nemotron-ops") == "auto-restart")
    assert host.pids(ENGINE)
    host.ssh("systemctl stop nemotron-ops.socket nemotron-ops nemotron-ops-engines")
    eventually(lambda: (host.pids(ENGINE), host.pids(GATEWAY)) == ([], []))
    host.ssh(f"rm -r {drop_in}; systemctl daemon-reload")


@fault(
    "`systemctl restart` (a full stop) under load",
    "none is refused, none fails: what was accepted is answered, who comes later waits for the model",
)
def test_a_full_restart_under_load_loses_no_request(
    host: Host, machine: tuple[Host, Laptop], eventually: Eventually
) -> None:
    _, laptop = machine
    before, drained = engine(host), drains(host)
    with laptop.tunnel(f"root@{host.name}") as port, Load(port=port, threads=6, kept=3) as load:
        eventually(lambda: load.answered > 20)
        host.ssh("systemctl restart nemotron-ops")
        seen = load.answered
        eventually(lambda: load.answered > seen + 20)
    print(f"\nservice restarted under load: {load.answered} answered, {len(load.failed)} failed")
    assert load.failed == []
    assert (engine(host) != before, drains(host)) == (True, drained + 1)


@fault("reboot, power cut", "serves again without a touch")
def test_after_a_reboot_and_after_a_power_cut_it_serves_without_a_touch(host: Host, eventually: Eventually) -> None:
    host.control("reboot")
    eventually(lambda: host.ssh("systemctl is-active nemotron-ops || true") == "active")
    assert host.ask() == "2 + 2 = 4."
    host.control("crash")
    host.control("start")
    eventually(lambda: host.ssh("systemctl is-active nemotron-ops || true") == "active")
    assert host.ask() == "2 + 2 = 4."


@fault("`service install` a second time", "nothing changes")
def test_installing_twice_changes_nothing(host: Host) -> None:
    install = "/opt/nemotron-ops/current/venv/bin/nemotron-ops service install tiny --no-fetch --json"
    host.ssh(install)
    before = (engine(host), host.pids(SUPERVISOR))
    assert '"changed": []' in host.ssh(install)
    assert (engine(host), host.pids(SUPERVISOR)) == before


def test_keys_reach_the_service_as_a_credential_and_models_come_by_the_prepare_unit(
    host: Host, eventually: Eventually
) -> None:
    program = "/opt/nemotron-ops/current/venv/bin/nemotron-ops"
    made = host.ssh(f"{program} keys create team --file /etc/nemotron-ops/credentials/api-keys --json")
    key = json.loads(made)["text"]
    host.ssh(f"rm -rf /var/lib/nemotron-ops/models/synthetic; {program} service install tiny")
    assert host.ssh("stat -c %U /var/lib/nemotron-ops/models/synthetic") == "nemotron"
    (credential,) = host.ssh("find /run/credentials/nemotron-ops.service -type f").split()
    assert host.ssh(f"stat -c %a {credential}") in ("400", "440")
    url = "http://127.0.0.1:8001/v1/models"
    code = (
        "import sys,urllib.request as u;"
        "u.urlopen(u.Request(sys.argv[1],headers=dict(a.split(':') for a in sys.argv[2:])))"
    )
    eventually(lambda: "401" in host.ssh(f"python3 -c {code!r} {url} 2>&1 || true"))
    host.ssh(f"python3 -c {code!r} {url} 'Authorization:Bearer {key}'")
    assert key not in host.ssh("cat /etc/systemd/system/nemotron-ops*; ps axe -o args")
    host.ssh(f"rm /etc/nemotron-ops/credentials/api-keys; {program} service install tiny --no-fetch")
    eventually(lambda: host.ask() == "2 + 2 = 4.")


@fault(
    "memory runs out in the service",
    "the kernel takes an engine, not the supervisor or the gateway; the engine is started again",
)
def test_when_memory_runs_out_the_kernel_takes_the_engine_and_nothing_else(host: Host, eventually: Eventually) -> None:
    def score(pid: str) -> int:
        return int(host.ssh(f"cat /proc/{pid}/oom_score_adj"))

    supervisor, (gateway,) = host.ssh("systemctl show -P MainPID nemotron-ops"), host.pids(GATEWAY)
    assert score(engine(host)) >= score(supervisor) + 500
    assert host.ssh("systemctl show -P OOMPolicy nemotron-ops") == "continue"
    with scarce(host) as memory:
        for pid in (supervisor, gateway):
            memory.take(host.outer(pid))
        host.ssh(f"{PROGRAM} restart")  # the new engine's memory is the cgroup's
        victim = engine(host)
        eventually(lambda: host.ask() == "2 + 2 = 4.")
        killed = memory.run_out(left_bytes=32 << 20)
        eventually(lambda: host.pids(ENGINE) not in ([], [victim]))
    assert killed >= 1
    eventually(lambda: host.ask() == "2 + 2 = 4.")
    assert (host.ssh("systemctl show -P MainPID nemotron-ops"), host.pids(GATEWAY)) == (supervisor, [gateway])


def test_priority_and_locked_memory_are_what_the_machine_can_give_and_the_rest_is_said(host: Host) -> None:
    shipped = (Path(__file__).parents[2] / "recipes/tiny.toml").read_text()
    recipe = shipped.replace("[server]\n", '[server]\nprio = 2\nload_mode = "mlock"\n')
    host.ssh(f"mkdir -p /etc/nemotron-ops/recipes; cat > /etc/nemotron-ops/recipes/locked.toml <<'END'\n{recipe}\nEND")
    host.ssh(f"{PROGRAM} service install locked")
    pid, asked = engine(host), {NICE: 30.0, REALTIME: 80.0, LOCKED: inf}
    unbounded = int(host.ssh("sed -n 's/^CapEff:\\t//p' /proc/1/status"), 16) >> 24 & 1  # CAP_SYS_RESOURCE
    most = {} if unbounded else hard_limits(host.ssh("cat /proc/1/limits"))
    can = {name: min(value, most.get(name, inf)) for name, value in asked.items()}
    have = hard_limits(host.ssh(f"cat /proc/{pid}/limits"))
    assert {name: have[name] for name in asked} == can
    nice = int(host.ssh(f"cat /proc/{pid}/stat").rpartition(") ")[2].split()[16])
    assert nice == (-10 if can[NICE] == 30 else 0)
    assert int(host.ssh(f"sed -n 's/^VmLck:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/{pid}/status")) > 0
    withheld = json.loads(host.ssh(f"{PROGRAM} service status --json"))["withheld"]
    assert len(withheld) == sum(can[name] < asked[name] for name in asked)
    host.ssh(f"{PROGRAM} service install tiny --no-fetch; rm /etc/nemotron-ops/recipes/locked.toml")
    assert host.ask() == "2 + 2 = 4."


def test_the_installed_units_are_without_a_warning_and_as_tight_as_they_were_made(host: Host) -> None:
    units = host.ssh("ls /etc/systemd/system/nemotron-ops*").split()
    assert len(units) == 4
    assert host.ssh(f"systemd-analyze verify --man=no {' '.join(units)} 2>&1") == ""
    host.ssh("systemd-analyze security --no-pager --threshold=13 nemotron-ops.service")


@fault("the GPU's driver is late at boot", "the service waits for it, and nothing runs on the CPU meanwhile")
def test_a_service_for_a_gpu_waits_for_its_device_nodes(host: Host, eventually: Eventually) -> None:
    """Plain files in the place of the nodes: what is shown is the waiting, and that the GPU's sandbox serves."""
    nodes = "/dev/nvidia0 /dev/nvidia-uvm"
    host.ssh("systemctl stop nemotron-ops.socket nemotron-ops")
    host.ssh(
        f"{PROGRAM} service install tiny --gpu cuda --no-fetch --no-start; systemctl start --no-block nemotron-ops"
    )
    eventually(lambda: host.ssh("systemctl show -P SubState nemotron-ops") == "start-pre")
    assert (host.pids(ENGINE), host.pids(SUPERVISOR)) == ([], [])
    host.ssh(f"touch {nodes}")
    eventually(lambda: host.ssh("systemctl is-active nemotron-ops || true") == "active")
    assert host.ask() == "2 + 2 = 4."
    assert host.ssh("systemctl show -P DevicePolicy nemotron-ops") == "closed"
    host.ssh(f"rm {nodes}; {PROGRAM} service install tiny --gpu none --no-fetch")
    assert host.ask() == "2 + 2 = 4."


@fault("`service upgrade`", "the new program takes over; the model stays loaded")
def test_an_upgrade_in_place_keeps_the_model(host: Host) -> None:
    before = engine(host)
    host.ssh("/opt/nemotron-ops/current/venv/bin/nemotron-ops service upgrade")
    assert engine(host) == before
    assert host.ask() == "2 + 2 = 4."


@fault("`service uninstall`", "nothing is left but models and builds")
def test_uninstall_leaves_nothing_but_models_and_builds(host: Host) -> None:
    host.ssh("/opt/nemotron-ops/current/venv/bin/nemotron-ops service uninstall --system")
    assert (host.pids(ENGINE), host.pids(GATEWAY), host.pids(SUPERVISOR)) == ([], [], [])
    assert host.ssh("ls /etc/systemd/system | grep -c nemotron || true") == "0"
    assert host.ssh("find /run /etc /var/log -name '*nemotron-ops*' ! -path '/etc/sysusers.d/*'") == ""
    kept = host.ssh("ls /var/lib/nemotron-ops").split()
    assert set(kept) == {"builds", "models"}
    assert host.ssh("systemctl list-units --all --no-legend '*nemotron*'") == ""
