"""The service on a real host: installed for the machine, crashed, watched, stopped, rebooted, cut off, removed."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path

import pytest

from nemotron_ops.service.granted import LOCKED, NICE, REALTIME, hard_limits
from tests.hosts.scarce import scarce
from tests.stages.hosts import Host, Laptop, Load, make_laptop
from tests.tables.host_faults import fault

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
    """How often a gateway has drained, leaving new clients to the next start."""
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
    "no request fails, the model stays loaded, the gateway keeps running",
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


@fault("the supervisor hangs", "systemd's watchdog kills it; the next supervisor adopts the loaded model")
def test_a_hung_supervisor_is_bitten_by_the_watchdog_and_the_model_stays(host: Host, eventually: Eventually) -> None:
    drop_in = "/run/systemd/system/nemotron-ops.service.d"
    host.ssh(f"mkdir -p {drop_in}; printf '[Service]\\nWatchdogSec=3s\\n' > {drop_in}/w.conf; systemctl daemon-reload")
    host.ssh("/opt/nemotron-ops/current/venv/bin/nemotron-ops service restart")  # reads the shorter timeout
    eventually(lambda: host.ssh("systemctl is-active nemotron-ops || true") == "active")  # the watchdog runs
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
def test_a_stop_stops_everything(host: Host, eventually: Eventually) -> None:
    host.ssh("systemctl stop nemotron-ops 2>/dev/null")  # it warns that the socket could start it again
    assert (host.pids(ENGINE), host.pids(GATEWAY), host.pids(SUPERVISOR)) == ([], [], [])
    eventually(lambda: host.ssh("systemctl is-active nemotron-ops-engines || true") == "inactive")


@fault("`systemctl stop` of a supervisor that hangs", "the same after the stop timeout: no engine is left")
def test_a_stop_of_a_hung_supervisor_stops_everything_too(host: Host, eventually: Eventually) -> None:
    """Only the engines' unit, which stops with the service, can kill the engines here."""
    drop_in = "/run/systemd/system/nemotron-ops.service.d"
    short = "[Service]\\nTimeoutStopSec=2s\\nTimeoutAbortSec=1s\\nWatchdogSec=0\\n"
    host.ssh(f"mkdir -p {drop_in}; printf '{short}' > {drop_in}/w.conf; systemctl daemon-reload")
    assert host.pids(ENGINE)
    host.ssh("kill -STOP $(systemctl show -P MainPID nemotron-ops); systemctl stop nemotron-ops 2>/dev/null")
    # systemctl waited for the service only; the engines' unit stops after it
    eventually(lambda: (host.pids(ENGINE), host.pids(GATEWAY), host.pids(SUPERVISOR)) == ([], [], []))
    host.ssh(f"rm -r {drop_in}; systemctl daemon-reload")


@fault("`service stop`", "the socket stops too: clients are refused at once instead of waiting")
def test_a_stop_of_the_service_with_its_socket_leaves_nobody_waiting(host: Host) -> None:
    before = drains(host)
    host.ssh(f"{PROGRAM} service stop")
    assert (host.pids(ENGINE), host.pids(GATEWAY), host.pids(SUPERVISOR)) == ([], [], [])
    assert drains(host) == before


@fault("`systemctl stop` between a crash and the restart", "the same: nothing is left")
def test_a_stop_between_crash_and_restart_stops_everything_too(host: Host, eventually: Eventually) -> None:
    drop_in = "/run/systemd/system/nemotron-ops.service.d"
    host.ssh(f"mkdir -p {drop_in}; printf '[Service]\\nRestartSec=60s\\n' > {drop_in}/w.conf; systemctl daemon-reload")
    host.ssh("systemctl kill --kill-who=main --signal=SIGKILL nemotron-ops")
    eventually(lambda: host.ssh("systemctl show -P SubState nemotron-ops") == "auto-restart")
    assert host.pids(ENGINE)
    host.ssh("systemctl stop nemotron-ops 2>/dev/null")
    eventually(lambda: (host.pids(ENGINE), host.pids(GATEWAY)) == ([], []))
    host.ssh(f"rm -r {drop_in}; systemctl daemon-reload")


@fault(
    "`systemctl restart` (a full stop) under load",
    "no request is refused or fails: accepted requests are answered, later ones wait for the model",
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


@fault("reboot, power cut", "serves again without intervention")
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
    eventually(lambda: host.ask(check=False) == "2 + 2 = 4.")


@fault(
    "memory runs out in the service",
    "the kernel kills an engine, not the supervisor or the gateway; the engine is started again",
)
def test_when_memory_runs_out_the_kernel_takes_the_engine_and_nothing_else(host: Host, eventually: Eventually) -> None:
    def score(pid: str) -> int:
        return int(host.ssh(f"cat /proc/{pid}/oom_score_adj"))

    eventually(lambda: len(host.pids(GATEWAY)) == 1)  # a replaced gateway has exited
    supervisor, (gateway,) = host.ssh("systemctl show -P MainPID nemotron-ops"), host.pids(GATEWAY)
    assert score(engine(host)) >= score(supervisor) + 500
    assert host.ssh("systemctl show -P OOMPolicy nemotron-ops") == "continue"
    with scarce(host) as memory:
        for pid in (supervisor, gateway):
            memory.take(host.outer(pid))
        host.ssh(f"{PROGRAM} restart")  # the new engine allocates in the cgroup
        victim = engine(host)
        eventually(lambda: host.ask(check=False) == "2 + 2 = 4.")
        killed = memory.run_out(left_bytes=128 << 20)
        eventually(lambda: host.pids(ENGINE) not in ([], [victim]))
    assert killed >= 1
    eventually(lambda: host.ask(check=False) == "2 + 2 = 4.")
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


@contextmanager
def gpu_build(host: Host) -> Iterator[str]:
    """A current build that says it is for CUDA: the same llama-server, which lists a device once a file is there.

    Gives the path of that file.
    """
    builds, works = "/var/lib/nemotron-ops/builds", "/var/lib/nemotron-ops/driver-works"
    now = json.loads(host.ssh(f"cat {builds}/current.json"))["current"]
    use = f"runuser -u nemotron -- env HOME=/var/lib/nemotron-ops {PROGRAM} builds use"
    script = f"""#!/bin/sh
[ "$1" = --list-devices ] || exec {builds}/{now}/bin/llama-server "$@"
echo "Available devices:"
[ ! -e {works} ] || echo "  CUDA0: NVIDIA H100 (80000 MiB, 79000 MiB free)"
"""
    host.ssh(f"""mkdir -p {builds}/for-cuda/bin; cat > {builds}/for-cuda/bin/llama-server <<'END'
{script}
END
chmod 755 {builds}/for-cuda/bin/llama-server
sed 's/"backend": "cpu"/"backend": "cuda"/' {builds}/{now}/manifest.json > {builds}/for-cuda/manifest.json
chown -R nemotron: {builds}/for-cuda; {use} for-cuda""")
    try:
        yield works
    finally:
        host.ssh(f"{use} {now}; rm -rf {builds}/for-cuda {works}; {PROGRAM} service install tiny --no-fetch")


@fault("the GPU's driver is late at boot", "the service waits for it; no model runs on the CPU meanwhile")
def test_a_service_for_a_gpu_waits_until_llama_server_sees_it(host: Host, eventually: Eventually) -> None:
    """Plain files stand for the device nodes, a script for llama-server's list: shows that the service waits, and
    that it serves in the sandbox for GPUs."""
    nodes = "/dev/nvidia0 /dev/nvidia-uvm"
    check = f"{PROGRAM} service check-gpu cuda 2>&1 || true"
    host.ssh("systemctl stop nemotron-ops.socket nemotron-ops")
    with gpu_build(host) as driver_works:
        host.ssh(f"{PROGRAM} service install tiny --no-fetch --no-start; systemctl start --no-block nemotron-ops")
        eventually(lambda: host.ssh("systemctl show -P SubState nemotron-ops") == "start-pre")
        assert "no /dev/nvidia" in host.ssh(check)
        host.ssh(f"touch {nodes}")
        assert "llama-server sees no such device" in host.ssh(check)
        assert (host.pids(ENGINE), host.pids(SUPERVISOR)) == ([], [])
        host.ssh(f"touch {driver_works}")
        eventually(lambda: host.ssh("systemctl is-active nemotron-ops || true") == "active")
        assert host.ask() == "2 + 2 = 4."
        assert host.ssh("systemctl show -P DevicePolicy nemotron-ops") == "closed"
        before = engine(host)
        host.ssh("systemctl start nemotron-ops-resume")  # as after a resume
        eventually(lambda: host.pids(ENGINE) not in ([], [before]))
        eventually(lambda: host.ssh("systemctl is-active nemotron-ops || true") == "active")
        host.ssh(f"rm {nodes}")
    assert host.ask() == "2 + 2 = 4."


def answers(host: Host, *, source: str = "", within_s: float = 30.0) -> int:
    """The status of the host's endpoint over the network, asked from `source`; 0 without an answer."""
    bound = (source, 0) if source else None
    c = http.client.HTTPConnection(host.address, 8001, timeout=within_s, source_address=bound)
    try:
        c.request("GET", "/health")
        return c.getresponse().status
    except OSError:
        return 0
    finally:
        c.close()


@fault("a client outside `--allow-from` connects", "it gets no answer; a client inside is served")
def test_only_networks_that_were_named_get_an_answer(host: Host) -> None:
    stranger = host.address.replace("10.231.", "10.232.")  # outside the hosts' own networks, one for each host
    wire = json.loads(subprocess.check_output(["ip", "-json", "route", "get", host.address]))[0]["dev"]
    assert stranger not in subprocess.check_output(["ip", "addr"], text=True)
    subprocess.run(["ip", "addr", "add", f"{stranger}/32", "dev", wire], check=True)  # removed with the interface
    host.ssh(f"ip route add {stranger} dev eth0; {PROGRAM} keys create team --file /root/keys --json")
    install = f"{PROGRAM} service install tiny --host 0.0.0.0 --no-fetch"
    assert "cannot listen on 0.0.0.0" in host.ssh(f"{install} 2>&1 || true")
    host.ssh(f"{install} --api-keys /root/keys")
    assert host.ssh("stat -c '%U %a' /etc/nemotron-ops/credentials/api-keys") == "root 600"
    assert (answers(host), answers(host, source=stranger)) == (200, 200)
    host.ssh(f"{install} --api-keys /root/keys --allow-from 10.231.0.0/16")
    assert (answers(host), answers(host, source=stranger, within_s=3)) == (200, 0)
    host.ssh("systemctl kill --kill-who=main --signal=SIGKILL nemotron-ops")  # the next supervisor gets the same socket
    assert answers(host, source=stranger, within_s=3) == 0
    host.ssh(f"rm /etc/nemotron-ops/credentials/api-keys /root/keys; {PROGRAM} service install tiny --no-fetch")
    assert host.ask() == "2 + 2 = 4."


def test_the_socket_listens_on_an_address_that_is_not_there_yet(host: Host) -> None:
    host.ssh(f"{PROGRAM} service stop; {PROGRAM} keys create team --file /root/keys --json")
    host.ssh(f"{PROGRAM} service install tiny --host 10.99.0.7 --api-keys /root/keys --no-fetch --no-start")
    host.ssh("systemctl start nemotron-ops.socket")
    assert "10.99.0.7:8001" in host.ssh("ss -ltn")
    refused = host.ssh(f"{PROGRAM} service install tiny --host gpu1.lan --api-keys /root/keys --no-fetch 2>&1 || true")
    assert "systemd opens the socket, and takes addresses, not names" in refused
    host.ssh(f"rm /etc/nemotron-ops/credentials/api-keys /root/keys; {PROGRAM} service install tiny --no-fetch")
    assert host.ask() == "2 + 2 = 4."


@fault(
    "there is no build (or it was removed)",
    "`service install` makes one or says why it cannot; a start fails once and is not repeated",
)
def test_without_a_build_install_makes_one_and_a_start_fails_only_once(host: Host, eventually: Eventually) -> None:
    builds = "/var/lib/nemotron-ops/builds"
    install = f"{PROGRAM} service install tiny --no-fetch"
    host.ssh(f"{PROGRAM} service stop; mv {builds} {builds}.away")
    try:
        assert "there is no build of llama.cpp" in host.ssh(f"{install} --no-build 2>&1 || true")
        tried = host.ssh(f"{install} 2>&1 || true")
        assert "this machine has no C and C++ compiler" in tried  # as far as a bare host gets
        assert "cannot build llama.cpp for the service" in tried
        assert "runuser -u nemotron" in tried
        restarts = host.ssh("systemctl show -P NRestarts nemotron-ops")
        host.ssh("systemctl start nemotron-ops || true")
        eventually(lambda: host.ssh("systemctl show -P ActiveState nemotron-ops") == "failed")
        assert host.ssh("systemctl show -P ExecMainStatus nemotron-ops") == "6"
        assert host.ssh("systemctl show -P NRestarts nemotron-ops") == restarts
    finally:
        host.ssh(f"rm -rf {builds}; mv {builds}.away {builds}; {install}")
    assert host.ask() == "2 + 2 = 4."


@fault("`service upgrade`", "the new program takes over; the model stays loaded")
def test_an_upgrade_in_place_keeps_the_model(host: Host) -> None:
    before = engine(host)
    host.ssh("/opt/nemotron-ops/current/venv/bin/nemotron-ops service upgrade")
    assert engine(host) == before
    assert host.ask() == "2 + 2 = 4."


@fault(
    "`service upgrade` does not come up",
    "the earlier units are restored and serve; the program is not, and that is said",
)
def test_an_upgrade_that_does_not_come_up_puts_the_units_back(host: Host) -> None:
    """The build is replaced by one for a GPU that this host lacks: the new units wait for it in vain."""
    units = "cat /etc/systemd/system/nemotron-ops*"
    before = host.ssh(units)
    with gpu_build(host):
        said = host.ssh(f"{PROGRAM} service upgrade --ready-timeout 60 2>&1 || true")
        assert "cannot start nemotron-ops.service" in said
        assert "the earlier units are restored and serve; this program cannot be restored" in said
        assert host.ssh(units) == before
        assert host.ask() == "2 + 2 = 4."


def test_an_upgrade_looks_again_at_what_there_is_and_remembers_it(host: Host) -> None:
    key = host.ssh(f"{PROGRAM} keys create team --file /etc/nemotron-ops/credentials/api-keys --json")
    host.ssh(f"{PROGRAM} service upgrade")
    assert "--api-key-file" in host.ssh("cat /etc/systemd/system/nemotron-ops.service")
    assert json.loads(host.ssh("cat /etc/nemotron-ops/service.json"))["spec"]["api_keys"]
    assert json.loads(key)["text"] not in host.ssh("cat /etc/nemotron-ops/service.json")
    host.ssh(f"rm /etc/nemotron-ops/credentials/api-keys; {PROGRAM} service upgrade")
    assert host.ask() == "2 + 2 = 4."


@fault("`service uninstall`", "only models and builds are left")
def test_uninstall_leaves_nothing_but_models_and_builds(host: Host) -> None:
    host.ssh("/opt/nemotron-ops/current/venv/bin/nemotron-ops service uninstall --system")
    assert (host.pids(ENGINE), host.pids(GATEWAY), host.pids(SUPERVISOR)) == ([], [], [])
    assert host.ssh("ls /etc/systemd/system | grep -c nemotron || true") == "0"
    assert host.ssh("find /run /etc /var/log -name '*nemotron-ops*' ! -path '/etc/sysusers.d/*'") == ""
    kept = host.ssh("ls /var/lib/nemotron-ops").split()
    assert set(kept) == {"builds", "models"}
    assert host.ssh("systemctl list-units --all --no-legend '*nemotron*'") == ""


@fault("`service uninstall --purge`", "models, builds, recipes, keys and the service's user are removed too")
def test_a_purge_leaves_nothing_at_all(machine: tuple[Host, Laptop]) -> None:
    host, _ = machine
    host.ssh(f"{PROGRAM} service install tiny --no-fetch")
    would = host.ssh(f"{PROGRAM} service uninstall --purge --dry-run").splitlines()
    assert "/var/lib/nemotron-ops" in would
    assert host.pids(ENGINE), "a dry run removes nothing"
    host.ssh(f"{PROGRAM} service uninstall --purge")
    assert (host.pids(ENGINE), host.pids(GATEWAY), host.pids(SUPERVISOR)) == ([], [], [])
    assert host.ssh("find /run /etc /var -name '*nemotron*' ! -path '/var/log/journal/*'") == ""
    assert host.ssh("getent passwd nemotron || true") == ""
