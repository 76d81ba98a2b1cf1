"""Unit files: their complete texts, systemd's own checks, and the rules behind them.

The golden files in tests/golden/service are rewritten by `python tests/pure/service/test_service_units.py`.
"""

from __future__ import annotations

import plistlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops.errors import ServiceError, UsageError
from nemotron_ops.paths import system_layout
from nemotron_ops.service import launchd
from nemotron_ops.service.commands import as_owner_argv, build_words, lacks_build, serve_argv
from nemotron_ops.service.gpu import GpuCheck, kind_for, missing_nodes, refusal
from nemotron_ops.service.granted import notes, withheld
from nemotron_ops.service.place import check_possible, place_for
from nemotron_ops.service.spec import PREPARE, SERVICE, SOCKET, Scope, ServiceSpec
from nemotron_ops.service.systemd import parse_status
from nemotron_ops.service.units import GPU_WAIT_S, unit_files
from nemotron_ops.service.words import check_address, check_networks, word

GOLDEN = Path(__file__).parents[2] / "golden/service"
PROGRAM = "/opt/nemotron-ops/current/venv/bin/nemotron-ops"
CPU = ServiceSpec(scope=Scope.SYSTEM, program=PROGRAM, recipes=("tiny",))
SPECS = {
    "system-cpu": CPU,
    "system-cuda-guide": replace(
        CPU, recipes=("30b",), profile="guide", prio=3, gpu="cuda", api_keys=True, hub_token=True, mlock=True
    ),
    "system-lan": replace(CPU, host="0.0.0.0", api_keys=True, allow_from=("10.0.0.0/8",), memory_max="64G"),
    "system-one-address": replace(CPU, host="10.0.0.5", api_keys=True),
    "user-cpu": replace(CPU, scope=Scope.USER, program="/home/me/.venv/bin/nemotron-ops"),
    "user-vulkan-lan": replace(
        CPU, scope=Scope.USER, program="/home/me/.venv/bin/nemotron-ops", host="0.0.0.0", gpu="vulkan",
        key_file="/home/me/keys.json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPECS)
def test_units_are_these_to_the_letter(case: str) -> None:
    folder = GOLDEN / case
    assert unit_files(SPECS[case]) == {p.name: p.read_text() for p in folder.iterdir()}


def write(spec: ServiceSpec, folder: Path) -> list[Path]:
    """The units on disk, with an existing program, for systemd-analyze."""
    program = shutil.which("true")
    assert program
    for name, text in unit_files(replace(spec, program=program)).items():
        (folder / name).write_text(text)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("case", SPECS)
def test_systemd_finds_nothing_wrong_with_them(case: str, tmp_path: Path) -> None:
    spec = SPECS[case]
    for path in write(spec, tmp_path):
        done = subprocess.run(
            ["systemd-analyze", f"--{spec.scope.value}", "verify", "--man=no", str(path)],
            capture_output=True, text=True, env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), path.name


@pytest.mark.parametrize(("case", "worst"), [("system-cpu", 1.3), ("system-cuda-guide", 1.5), ("system-lan", 1.3)])
def test_the_sandbox_is_as_tight_as_a_gpu_allows(case: str, worst: float, tmp_path: Path) -> None:
    for path in write(SPECS[case], tmp_path):
        if path.suffix != ".service":
            continue
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={worst * 10:.0f}", str(path)],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, (path.name, done.stdout.splitlines()[-1])


def directives(text: str, *names: str) -> list[str]:
    """The lines of a unit that set one of `names`."""
    return [line for line in text.splitlines() if line.startswith(tuple(f"{name}=" for name in names))]


@pytest.mark.parametrize("case", SPECS)
def test_every_directive_left_open_has_its_reason_above_it(case: str) -> None:
    open_ones = (
        "PrivateDevices=no", "RestrictRealtime=no", "ProcSubset=all", "SystemCallFilter=@system-service mincore",
        "SystemCallFilter=~@privileged", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "DeviceAllow=", "KillMode=process",
    )  # fmt: skip
    for name, text in unit_files(SPECS[case]).items():
        if name == SOCKET:
            assert "IPAddressDeny=any" in text or "# not set: IPAddressDeny=." in text
            continue
        lines = text.splitlines()
        for at, line in enumerate(lines):
            if line in open_ones:
                assert lines[at - 1].startswith("#"), (name, line)
        said = [line for line in lines if line.startswith("#")]
        for directive in ("PrivateUsers", "RootDirectory") if name == SERVICE and SPECS[case].system else ():
            assert any(f"not set: {directive}=" in line for line in said), (name, directive)


def test_the_unit_that_fetches_is_open_only_to_the_network() -> None:
    text = unit_files(SPECS["system-cuda-guide"])[PREPARE]
    assert directives(text, "ProcSubset", "RestrictRealtime", "PrivateDevices", "PrivateUsers") == [
        "PrivateDevices=yes", "PrivateUsers=yes", "ProcSubset=pid", "RestrictRealtime=yes",
    ]  # fmt: skip
    assert "SystemCallFilter=~@privileged @resources" in text
    assert "mincore" not in text


def test_a_threshold_below_the_score_fails() -> None:
    """The test above can fail: the same tool refuses the same unit at a threshold one step lower."""
    path = GOLDEN / "system-cuda-guide" / SERVICE
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=10", str(path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0


def test_the_prio_of_the_recipe_is_granted_exactly_and_only_if_asked_for() -> None:
    def limits(prio: int) -> list[str]:
        text = unit_files(replace(CPU, prio=prio))[SERVICE]
        return [x for x in text.splitlines() if x.startswith(("LimitNICE", "LimitRTPRIO", "RestrictRealtime"))]

    assert limits(0) == ["RestrictRealtime=yes"]
    assert limits(2) == ["LimitNICE=-10", "LimitRTPRIO=80", "RestrictRealtime=no"]
    assert limits(3) == ["LimitNICE=-20", "LimitRTPRIO=90", "RestrictRealtime=no"]


LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max locked memory         8388608              {memlock}            bytes
Max nice priority         {nice}               {nice}
Max realtime priority     {realtime}           {realtime}
"""


def test_what_the_machine_withholds_from_a_running_service_is_said() -> None:
    spec = replace(CPU, prio=2, mlock=True)
    assert withheld(spec, LIMITS.format(memlock="unlimited", nice=30, realtime=80)) == ()
    assert withheld(replace(CPU, prio=0), LIMITS.format(memlock=8388608, nice=0, realtime=0)) == ()
    nice, realtime, locked = withheld(spec, LIMITS.format(memlock=8388608, nice=0, realtime=0))
    assert nice == "--prio 2 wants nice -10; this machine grants 0"
    assert realtime == "--prio 2 wants real-time priority 80; this machine grants 0"
    assert "limited to 8 MiB" in locked


def test_a_user_service_says_what_it_cannot_give() -> None:
    told = " ".join(notes(replace(CPU, scope=Scope.USER, prio=2, mlock=True)))
    assert "--prio 2 will have no effect" in told
    assert "ulimit -l" in told
    assert "after suspend" in " ".join(notes(replace(CPU, scope=Scope.USER, gpu="cuda")))
    assert notes(CPU) == ()


def test_no_secret_is_in_a_unit_and_the_key_file_is_a_credential() -> None:
    files = unit_files(SPECS["system-cuda-guide"])
    assert "LoadCredential=api-keys:/etc/nemotron-ops/credentials/api-keys" in files[SERVICE]
    assert "hub-token" not in files[SERVICE]
    assert serve_argv(SPECS["system-cuda-guide"])[-2:] == ("--api-key-file", "${CREDENTIALS_DIRECTORY}/api-keys")


def access(spec: ServiceSpec, unit: str) -> list[str]:
    return directives(unit_files(spec)[unit], "IPAddressDeny", "IPAddressAllow")


def test_who_may_connect_is_said_in_the_socket_because_a_services_list_is_not_applied_to_it() -> None:
    local = ["IPAddressDeny=any", "IPAddressAllow=localhost"]
    lan = replace(CPU, host="0.0.0.0", api_keys=True)
    assert access(CPU, SOCKET) == local
    assert access(replace(lan, allow_from=("10.0.0.0/8",)), SOCKET) == [
        "IPAddressDeny=any", "IPAddressAllow=localhost 10.0.0.0/8",
    ]  # fmt: skip
    assert access(lan, SOCKET) == []
    assert "any network" in notes(lan)[0]
    for spec in (CPU, lan, replace(lan, allow_from=("10.0.0.0/8",))):
        assert access(spec, SERVICE) == local, "no way out, whoever may come in"


def test_an_address_that_comes_up_late_can_be_listened_on() -> None:
    assert "FreeBind=yes" in unit_files(replace(CPU, host="10.0.0.5"))[SOCKET]
    assert "FreeBind=yes" in unit_files(replace(CPU, host="fd00::5"))[SOCKET]
    for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::"):
        assert "FreeBind" not in unit_files(replace(CPU, host=host))[SOCKET]


def test_a_name_is_no_address_for_systemd_and_is_refused_with_the_way_out() -> None:
    for host in ("localhost", "0.0.0.0", "::", "10.0.0.5", "fd00::5"):
        check_address(host)
    with pytest.raises(UsageError, match="addresses, not names") as caught:
        check_address("gpu1.lan")
    assert "getent" in (caught.value.hint or "")


def test_a_network_that_systemd_would_pass_over_is_refused() -> None:
    check_networks(("10.0.0.0/8", "192.168.1.7", "fd00::/8"))
    with pytest.raises(UsageError, match="not a network or address"):
        check_networks(("10.0.0.0/33",))


def test_without_a_build_the_service_is_not_started_again_and_again() -> None:
    from nemotron_ops.errors import BuildError

    (line,) = directives(unit_files(CPU)[SERVICE], "RestartPreventExitStatus")
    assert str(BuildError.exit_code) in line.partition("=")[2].split()


def test_a_service_gets_the_build_it_needs_made_by_whom_it_belongs_to() -> None:
    cuda = replace(CPU, gpu="cuda")
    assert lacks_build(CPU, "") == "there is no build of llama.cpp"
    assert lacks_build(CPU, "cpu") == ""
    assert lacks_build(CPU, "cuda") == ""
    assert lacks_build(cuda, "cpu") == "the current build is for cpu, not for cuda"
    assert lacks_build(cuda, "cuda") == ""
    assert build_words(cuda) == ("build", "--cuda")
    assert build_words(CPU) == ("build",)
    assert build_words(replace(CPU, gpu_asked="none")) == ("build", "--cpu")
    assert as_owner_argv(CPU, "build") == (
        "runuser", "-u", "nemotron", "--", "env", "NEMOTRON_OPS_SYSTEM=1", "HOME=/var/lib/nemotron-ops", PROGRAM,
        "build",
    )  # fmt: skip
    assert as_owner_argv(SPECS["user-cpu"], "build") == ("/home/me/.venv/bin/nemotron-ops", "build")


def test_the_gpu_is_the_builds_else_the_machines_unless_it_was_said() -> None:
    assert kind_for("auto", backend="cuda", machine=()) == "cuda"
    assert kind_for("auto", backend="cpu", machine=("cuda",)) == ""
    assert kind_for("auto", backend="", machine=("hip",)) == "hip"
    assert kind_for("auto", backend="metal", machine=("metal",)) == ""
    assert kind_for("none", backend="cuda", machine=("cuda",)) == ""
    assert kind_for("vulkan", backend="cpu", machine=()) == "vulkan"


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain-word", "plain-word"),
        ("two words", '"two words"'),
        ("100%", "100%%"),
        ("$HOME", "$$HOME"),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("a;b", '"a;b"'),
        ("", '""'),
        ("${CREDENTIALS_DIRECTORY}/k", "${CREDENTIALS_DIRECTORY}/k"),
    ],
)
def test_words_are_quoted_as_systemd_reads_them(text: str, quoted: str) -> None:
    assert word(text) == quoted


def test_a_line_break_cannot_smuggle_a_directive_into_a_unit() -> None:
    with pytest.raises(UsageError, match="control character"):
        unit_files(replace(CPU, recipes=("tiny\nExecStartPre=/bin/evil",)))


def test_without_systemd_the_way_out_is_named() -> None:
    with pytest.raises(ServiceError, match="systemd does not run this machine") as caught:
        check_possible(CPU, booted=False, uid=0)
    assert "nemotron-ops serve tiny" in (caught.value.hint or "")


def test_a_system_service_needs_root_and_a_program_it_can_see() -> None:
    with pytest.raises(ServiceError, match="root is needed"):
        check_possible(CPU, booted=True, uid=1000)
    with pytest.raises(ServiceError, match="cannot see that folder"):
        check_possible(replace(CPU, program="/root/.venv/bin/nemotron-ops"), booted=True, uid=0)
    check_possible(CPU, booted=True, uid=0)


def test_units_go_where_systemd_looks() -> None:
    layout = system_layout()
    assert place_for(Scope.SYSTEM, layout, env={}).units == Path("/etc/systemd/system")
    assert place_for(Scope.USER, layout, env={"HOME": "/home/me"}).units == Path("/home/me/.config/systemd/user")


def test_the_launchd_agent_is_kept_alive_and_leaves_engines_alone() -> None:
    spec = replace(CPU, scope=Scope.USER, program="/Users/me/.venv/bin/nemotron-ops")
    agent = plistlib.loads(launchd.agent(spec, home=Path("/Users/me")))
    assert agent["ProgramArguments"] == [
        "/Users/me/.venv/bin/nemotron-ops", "serve", "tiny", "--host", "127.0.0.1", "--port", "8001",
        "--no-build", "--offline",
    ]  # fmt: skip
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["AbandonProcessGroup"] is True
    assert launchd.load_argv(501, Path("/x.plist")) == ("launchctl", "bootstrap", "gui/501", "/x.plist")


def test_every_command_of_launchd_is_this() -> None:
    home, target = Path("/Users/me"), "gui/501/io.github.nemotron-ops"
    plist = launchd.agent_path(home)
    assert str(plist) == "/Users/me/Library/LaunchAgents/io.github.nemotron-ops.plist"
    assert launchd.load_argv(501, plist) == ("launchctl", "bootstrap", "gui/501", str(plist))
    assert launchd.unload_argv(501) == ("launchctl", "bootout", target)
    assert launchd.status_argv(501) == ("launchctl", "print", target)
    assert launchd.hand_over_argv(501) == ("launchctl", "kill", "SIGKILL", target)
    log = "/Users/me/Library/Logs/nemotron-ops.log"
    assert launchd.logs_argv(home, follow=True, lines=5) == ("tail", "-n", "5", "-F", log)
    assert launchd.logs_argv(home, follow=False, lines=100) == ("tail", "-n", "100", log)


def test_the_process_of_an_agent_is_read_from_what_launchctl_prints() -> None:
    printed = "gui/501/io.github.nemotron-ops = {\n\tactive count = 1\n\tstate = running\n\tpid = 4711\n}\n"
    assert launchd.running_pid(printed) == 4711
    assert launchd.running_pid("gui/501/io.github.nemotron-ops = {\n\tstate = not running\n}\n") == 0


def test_a_gpu_service_starts_only_where_the_current_build_sees_its_gpu() -> None:
    assert refusal("cuda", GpuCheck(backend="cuda", devices=("CUDA0",))) == ("", "")
    why, hint = refusal("cuda", GpuCheck(backend="cuda"))
    assert "sees no such device" in why
    assert "DevicePolicy= forbids" in hint
    assert "current build is for cpu" in refusal("cuda", GpuCheck(backend="cpu"))[0]
    assert "no build" in refusal("cuda", GpuCheck())[0]
    assert refusal("cuda", GpuCheck(backend="cuda", missing=("/dev/nvidia-uvm",)))[0] == "no /dev/nvidia-uvm"


def test_what_counts_as_a_node_may_be_opened_too() -> None:
    allowed = directives(unit_files(replace(CPU, gpu="cuda"))[SERVICE], "DeviceAllow")
    assert allowed == ["DeviceAllow=char-drm rw", "DeviceAllow=char-nvidia* rw", "DeviceAllow=/dev/dxg rw"]


def test_a_gpu_counts_as_there_when_every_need_has_a_node() -> None:
    def on(*nodes: str) -> tuple[str, ...]:
        return missing_nodes("cuda", present=lambda pattern: pattern in nodes)

    assert on("/dev/nvidia[0-9]*", "/dev/nvidia-uvm") == ()
    assert on("/dev/nvidia[0-9]*") == ("/dev/nvidia-uvm",)
    assert on("/dev/dxg") == ()
    assert on() == ("/dev/nvidia[0-9]*", "/dev/nvidia-uvm")


def test_waiting_for_a_driver_never_uses_up_the_starts() -> None:
    text = unit_files(SPECS["system-cuda-guide"])[SERVICE]
    assert "StartLimitIntervalSec=10min\nStartLimitBurst=30\n" in text
    assert f"check-gpu cuda --within {GPU_WAIT_S}\n" in text
    assert GPU_WAIT_S + 1 > 10 * 60 / 30  # and a second from one start to the next


def test_the_answer_of_systemctl_show_is_understood() -> None:
    now = parse_status(
        "ActiveState=activating\nSubState=start\nStatusText=loading 30b-0 40 %\nNRestarts=2\nMainPID=71\n"
    )
    assert (now.active, now.text, now.restarts, now.pid, now.up) == ("activating", "loading 30b-0 40 %", 2, 71, False)
    assert parse_status("ActiveState=failed\nSubState=failed\nResult=exit-code\n").gave_up
    assert not parse_status("ActiveState=inactive\nSubState=dead\nResult=signal\nJob=4711\n").gave_up
    assert not parse_status("ActiveState=activating\nSubState=auto-restart\n").gave_up


if __name__ == "__main__":
    for name, spec in SPECS.items():
        shutil.rmtree(GOLDEN / name, ignore_errors=True)
        (GOLDEN / name).mkdir(parents=True)
        for unit, text in unit_files(spec).items():
            (GOLDEN / name / unit).write_text(text)
