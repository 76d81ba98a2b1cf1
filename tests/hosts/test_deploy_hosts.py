"""Deploys to a real host: fresh, again, under load, broken, cut off at every step, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.stages.hosts import BROKEN, TINY, Host, Laptop, Load, make_laptop
from tests.tables.host_faults import PAGES, fault
from tests.tables.transcript import tell

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]
ROOT = ".local/lib/nemotron-ops"
ENGINE = "llama-server --model"
Eventually = Callable[..., None]


@pytest.fixture(scope="module")
def place(
    new_host: Callable[[], Host], tmp_path_factory: pytest.TempPathFactory, llama_bin: Path, bundles: Path
) -> tuple[Host, Laptop]:
    """A host with a deploy as a user whose only privilege is lingering."""
    host = new_host()
    laptop = make_laptop(tmp_path_factory.mktemp("laptop"), llama_bin, bundles)
    laptop.knows(host)
    laptop.recipe(TINY.format(slots=2))
    done = laptop.run("deploy", target(host), "-r", "tiny", "--yes", "--json")
    assert [o["result"] for o in json.loads(done.stdout)] == ["deployed"]
    return host, laptop


@pytest.fixture
def host(place: tuple[Host, Laptop]) -> Host:
    return place[0]


@pytest.fixture
def laptop(place: tuple[Host, Laptop]) -> Laptop:
    return place[1]


def target(host: Host, user: str = "deploy") -> str:
    return f"{user}@{host.name}"


def current(host: Host) -> str:
    return host.ssh(f"basename $(readlink {ROOT}/current)", user="deploy")


def recipes(host: Host) -> str:
    """The recipes in the target's configuration."""
    return host.ssh("tail -n +1 .config/nemotron-ops/recipes/*.toml", user="deploy")


def audit(host: Host) -> list[tuple[str, str]]:
    lines = host.ssh(f"cat {ROOT}/deploy.log", user="deploy").splitlines()
    return [(json.loads(line)["event"], json.loads(line).get("release", "")) for line in lines]


def test_a_fresh_deploy_serves_as_that_user_and_after_logout(host: Host, laptop: Laptop) -> None:
    assert host.ask() == "2 + 2 = 4."
    (pid,) = host.pids(ENGINE)
    assert host.ssh(f"ps -o user= -p {pid}") == "deploy"
    (row,) = json.loads(laptop.run("deploy", "status", target(host), "--json").stdout)
    assert (row["service"], row["says"], row["release"]) == ("active", "1 of 1 ready", current(host))
    assert audit(host)[-1] == ("good", current(host))


@fault("the same deployed again", "nothing changes")
def test_deploying_the_same_again_does_nothing(host: Host, laptop: Laptop) -> None:
    before = (current(host), host.pids(ENGINE), len(audit(host)))
    done = laptop.run("deploy", target(host), "-r", "tiny", "--yes", "--json")
    assert json.loads(done.stdout)[0]["result"] == "already there"
    assert (current(host), host.pids(ENGINE), len(audit(host))) == before


def test_a_dry_run_changes_nothing(host: Host, laptop: Laptop) -> None:
    laptop.recipe(TINY.format(slots=7))
    before = host.ssh(f"find {ROOT} -maxdepth 2 | sort", user="deploy")
    plan = json.loads(laptop.run("deploy", target(host), "-r", "tiny", "--dry-run", "--json").stdout)
    assert [s["name"] for s in plan[0]["steps"]] == [
        "begin", "unpack", "doctor", "build", "models", "try", "activate", "verify", "finish",
    ]  # fmt: skip
    assert host.ssh(f"find {ROOT} -maxdepth 2 | sort", user="deploy") == before


def test_chat_reaches_the_target_through_ssh(host: Host, laptop: Laptop) -> None:
    said = laptop.run("chat", "tiny", "--target", target(host), "--once", "What is 2 + 2?", "--json").stdout
    assert json.loads(said)["content"] == "2 + 2 = 4."


def test_bench_measures_the_target_through_ssh_and_keeps_what_made_it(host: Host, laptop: Laptop) -> None:
    load = ("--requests", "4", "--repeat", "2", "--prompt", "60", "--answer", "8")
    (run,) = json.loads(laptop.run("bench", "--target", target(host), "--model", "tiny", *load, "--json").stdout)
    assert run["label"] == f"tiny at {target(host)}"
    assert run["results"][0]["summary"]["errors"] == 0
    made = run["made_by"]
    assert made["build"]["id"] == "testbuild-cpu"
    assert made["machine"]["kernel"] == host.ssh("uname -r")
    assert made["versions"]["nemotron_ops"]


@fault("upgrade, and rollback, under client load", "no request fails")
def test_an_upgrade_under_load_fails_no_request_and_can_be_rolled_back(
    host: Host, laptop: Laptop, eventually: Eventually
) -> None:
    first = current(host)
    laptop.recipe(TINY.format(slots=3))
    with laptop.tunnel(target(host)) as port, Load(port=port) as load:
        eventually(lambda: load.answered > 10)
        laptop.run("deploy", target(host), "-r", "tiny", "--yes")
        second = current(host)
        seen = load.answered
        eventually(lambda: load.answered > seen + 10)
        upgraded = (load.answered, len(load.failed))
        laptop.run("deploy", "rollback", target(host))
        seen = load.answered
        eventually(lambda: load.answered > seen + 10)
    print(f"\nupgrade under load: {upgraded[0]} answered, {upgraded[1]} failed; "
          f"with the rollback: {load.answered} answered, {len(load.failed)} failed")  # fmt: skip
    assert second != first
    assert current(host) == first
    assert load.failed == []


@fault("a recipe that cannot load", "it is withdrawn; the old release never stops, no request fails")
def test_a_recipe_that_cannot_load_is_withdrawn_and_the_old_release_never_stopped(
    host: Host, laptop: Laptop, eventually: Eventually
) -> None:
    before = (current(host), host.pids(ENGINE), recipes(host))
    laptop.recipe(BROKEN.format(slots=2))
    with laptop.tunnel(target(host)) as port, Load(port=port) as load:
        eventually(lambda: load.answered > 5)
        done = laptop.run("deploy", target(host), "-r", "tiny", "--yes", check=False)
        seen = load.answered
        eventually(lambda: load.answered > seen + 5)
    assert done.returncode == 13
    assert "the old release was not touched" in done.stderr
    assert (current(host), host.pids(ENGINE), recipes(host)) == before
    assert load.failed == []
    assert audit(host)[-1][0] == "failed"


@fault(
    "a change in place (`--in-place`) whose engine does not come up",
    "the old engine still serves, and the release is rolled back",
)
def test_a_change_in_place_that_the_supervisor_undoes_is_no_good_release(host: Host, laptop: Laptop) -> None:
    """Plan and switch succeed; then llama-server does not know the model's kind of vocabulary."""
    before = (current(host), host.pids(ENGINE))
    model = host.ssh("find ~/.local/share/nemotron-ops/models -name '*.gguf' | head -1", user="deploy")
    host.ssh(f"sed s/gpt2/gpt0/ {model} > ~/odd.gguf", user="deploy")
    laptop.recipe(TINY.format(slots=2).replace('synthetic = "moe"\nquant = "Q8_0"', 'path = "/home/deploy/odd.gguf"'))
    done = laptop.run("deploy", target(host), "-r", "tiny", "--in-place", "--yes", check=False)
    assert done.returncode == 13
    assert "step verify" in done.stderr
    assert "still runs its old configuration" in done.stderr
    assert (current(host), host.pids(ENGINE)) == before
    assert audit(host)[-1][0] == "failed"
    assert host.ask() == "2 + 2 = 4."


@fault("a build that cannot serve", "it is withdrawn; the old release never stops")
def test_a_broken_build_is_withdrawn_before_it_could_serve(host: Host, laptop: Laptop) -> None:
    before = (current(host), host.pids(ENGINE))
    bad = laptop.home / "data/builds/badbuild-cpu"
    (bad / "bin").mkdir(parents=True)
    (bad / "bin/llama-server").write_text("#!/bin/sh\necho version: broken\n[ $1 = --version ]\n")
    (bad / "bin/llama-server").chmod(0o755)
    (bad / "manifest.json").write_text((laptop.home / "data/builds/testbuild-cpu/manifest.json").read_text())
    pointer = laptop.home / "data/builds/current.json"
    good = pointer.read_text()
    pointer.write_text(json.dumps({"current": bad.name, "previous": []}))
    laptop.recipe(TINY.format(slots=2))
    try:
        done = laptop.run("deploy", target(host), "-r", "tiny", "--yes", check=False)
    finally:
        pointer.write_text(good)
    assert done.returncode == 13
    assert "step try" in done.stderr
    assert (current(host), host.pids(ENGINE)) == before
    assert host.ask() == "2 + 2 = 4."


# step, or file that is sent -> what a deploy prints when it begins it; in their order
CUTS = {
    "begin": ": begin: ", "bundle": "send bundle-", "unpack": ": unpack: ", "doctor": ": doctor: ",
    "llama.cpp": "send build-", "build": ": build: ", "model": "send nemotron-ops-model.json", "models": ": models: ",
    "try": ": try: ", "activate": ": activate: ", "verify": ": verify: ", "finish": ": finish: ",
}  # fmt: skip


@fault(
    "the connection is cut, or Ctrl-C is pressed, at `begin`, `unpack`, `doctor`, `build`, `models`, `try`, "
    "`activate`, `verify` or `finish`, or as the program, the build or a model is sent",
    "it still serves; deploying again continues",
)
@pytest.mark.parametrize("how", ["cut", "ctrl-c"])
def test_a_connection_cut_at_any_step_leaves_it_serving_and_is_continued(
    how: str, host: Host, laptop: Laptop, eventually: Eventually
) -> None:
    """One deploy, interrupted at every step in turn: a run that gets to the next step has continued the last one."""
    carry(laptop, name=f"carried-{how}")
    words = ("deploy", target(host), "-r", f"carried-{how}", "--send-models", "--yes")

    # the interrupted step ends first on the target, and holds the lock until then
    def free() -> bool:
        return host.ssh(f"flock -n {ROOT}/.lock echo free || true", user="deploy") == "free"

    for step in CUTS:
        interrupt(how, step, laptop.start(*words), host, laptop)
        assert host.ask() == "2 + 2 = 4.", step
        eventually(free, within_s=120)
        (row,) = json.loads(laptop.run("deploy", "status", target(host), "--json").stdout)
        assert row["lock"] == "" or row["lock"].startswith("free; cut off: tester since"), step
    laptop.run(*words)
    assert audit(host)[-1] == ("good", current(host))
    assert host.ask() == "2 + 2 = 4."
    assert len(host.pids(ENGINE)) == 1


def interrupt(how: str, step: str, child: subprocess.Popen[str], host: Host, laptop: Laptop) -> None:
    """End a deploy when it begins `step`."""
    assert child.stdout
    said = ""
    for line in child.stdout:
        said += line
        if step == "finish" and CUTS["verify"] in line:
            hold_the_end(host)
        if CUTS[step] in line:
            break
    else:
        raise AssertionError(f"no {CUTS[step]} in {said}")
    if how == "cut":
        lose_connection(child, laptop)
    else:
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    if step == "finish":
        let_it_end(host)
    child.communicate()
    assert child.returncode == (-signal.SIGKILL if how == "cut" else 130), step


def hold_the_end(host: Host) -> None:
    """Make the last step, which is short, block before it appends to the audit log."""
    host.ssh(f"cd {ROOT} && mv deploy.log noted && mkfifo deploy.log", user="deploy")


def let_it_end(host: Host) -> None:
    """Take its line, if it got that far before the interruption, and restore the audit log."""
    host.ssh(
        f"cd {ROOT} && mv deploy.log gate && mv noted deploy.log && exec 3<>gate && rm gate\n"
        "timeout 2 cat <&3 >> deploy.log || true",
        user="deploy",
    )


def carry(laptop: Laptop, *, name: str) -> None:
    """A recipe for a model that only the laptop has, under a name that no hub knows."""
    made = json.loads(laptop.run("fetch", "tiny", "--json").stdout)["path"]
    laptop.run("models", "import", made, "--as", f"test/{name}:Q8_0")
    text = TINY.format(slots=2).replace('synthetic = "moe"', f'repo = "test/{name}"')
    laptop.recipe(text.replace("nemotron-ops/tiny", name), name=name)


def lose_connection(child: subprocess.Popen[str], laptop: Laptop) -> None:
    """Kill the whole process group and every ssh at once, as when a laptop's lid is closed."""
    os.killpg(child.pid, signal.SIGKILL)
    for ssh in laptop_ssh(laptop):
        with suppress(ProcessLookupError):  # killed with the group
            os.kill(ssh, signal.SIGKILL)


def laptop_ssh(laptop: Laptop) -> list[int]:
    """Every ssh process with this laptop's configuration, shared connections too."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if entry.name.isdigit() and words.startswith("ssh") and str(laptop.ssh_config) in words:
            found.append(int(entry.name))
    return found


@fault("two deployers at once", "the second one is refused, and told who holds the lock since when")
def test_the_second_of_two_deployers_is_told_who_the_first_is(host: Host, laptop: Laptop) -> None:
    laptop.recipe(TINY.format(slots=4))
    first = laptop.start("deploy", target(host), "-r", "tiny", "--yes")
    assert first.stdout
    for line in first.stdout:
        if ": unpack: " in line:
            break
    other = replace(laptop, who="bob@desk")
    done = other.run("deploy", target(host), "-r", "tiny", "--yes", "--force", check=False)
    rest = first.communicate(timeout=240)[0]
    assert first.returncode == 0, rest
    assert done.returncode == 13
    assert "another deploy is under way there (tester since" in done.stderr


@fault("an operator has locked the target", "the deploy is refused, with the operator's reason")
def test_a_lock_put_down_by_a_person_keeps_others_out_until_it_is_taken_away(host: Host, laptop: Laptop) -> None:
    laptop.run("deploy", "lock", target(host), "-m", "benchmarks are running")
    laptop.recipe(TINY.format(slots=2))
    done = laptop.run("deploy", target(host), "-r", "tiny", "--yes", check=False)
    assert "it is locked: tester since" in done.stderr
    assert "benchmarks are running" in done.stderr
    for words in (("rollback",), ("restart",), ("exec", "{}", "builds", "list")):
        refused = laptop.run("deploy", words[0], target(host), *words[2:], check=False)
        assert "it is locked: tester since" in refused.stderr
    assert "cpu" in laptop.run("deploy", "exec", "--force", target(host), "builds", "list").stdout
    laptop.run("deploy", "unlock", target(host))
    assert [event for event, _ in audit(host)[-3:]] == ["lock", "exec", "unlock"]
    assert laptop.run("deploy", target(host), "-r", "tiny", "--dry-run").returncode == 0


@fault(
    "a session whose client is gone still holds the lock",
    "the next deploy is refused, and names it; `deploy unlock --force` ends it",
)
def test_a_ghost_that_holds_the_lock_is_named_and_can_be_ended(
    host: Host, laptop: Laptop, eventually: Eventually
) -> None:
    ghost = laptop.start("deploy", "exec", target(host), "logs", "--follow", "tiny-0")
    eventually(lambda: '"why": "exec"' in host.ssh(f"cat {ROOT}/LOCK.json 2>/dev/null || true", user="deploy"))
    eventually(lambda: host.pids("nemotron-ops logs --follow"))
    lose_connection(ghost, laptop)
    ghost.communicate()
    laptop.recipe(TINY.format(slots=5))
    refused = laptop.run("deploy", target(host), "-r", "tiny", "--yes", check=False)
    assert "another deploy is under way there (tester since" in refused.stderr
    assert ": exec)" in refused.stderr
    said = laptop.run("deploy", "unlock", "--force", target(host)).stderr
    assert "ended session" in said
    eventually(lambda: host.ssh(f"flock -n {ROOT}/.lock echo free || true", user="deploy") == "free")


def test_exec_runs_commands_of_the_release_that_serves(host: Host, laptop: Laptop) -> None:
    assert "testbuild-cpu" in laptop.run("deploy", "exec", target(host), "builds", "list").stdout
    assert "nemotron-ops[" in laptop.run("deploy", "logs", target(host)).stdout
    pids = host.pids(ENGINE)
    laptop.run("deploy", "restart", target(host))
    assert host.pids(ENGINE) == pids


@fault("the target has no network", "`--send-models`: the model is sent from this machine, and verified on the target")
def test_a_model_is_sent_and_proven_where_the_target_has_no_network(host: Host, laptop: Laptop) -> None:
    laptop.recipe(TINY.format(slots=2))
    carry(laptop, name="carried")
    laptop.run("deploy", target(host), "-r", "carried", "--send-models", "--yes")
    assert host.ask() == "2 + 2 = 4."
    assert "carried" in laptop.run("deploy", "exec", target(host), "models", "list").stdout


def test_the_how_to_a_service_in_one_command_is_what_happens(host: Host) -> None:
    path = f'export PATH="$HOME/{ROOT}/current/venv/bin:$PATH"\n'
    host.ssh(f"{path}nemotron-ops service uninstall", user="deploy")
    assert host.pids(ENGINE) == []
    tell(PAGES["test_service_hosts"], "service", lambda command: host.ssh(f"{path}{command} 2>&1", user="deploy"))
    assert host.pids(ENGINE) == []
    places = "~/.config ~/.local/state /run/user/1000"
    left = host.ssh(f"find {places} -maxdepth 3 -name '*nemotron*' 2>/dev/null || true", user="deploy").split()
    assert left == ["/home/deploy/.config/nemotron-ops"]  # the user's own recipes


@fault("too little disk", "the deploy is refused before anything is sent")
def test_a_full_disk_is_found_before_anything_is_sent(host: Host, laptop: Laptop) -> None:
    host.ssh("mkdir -p /home/alice/.local/lib && mount -t tmpfs -o size=50m none /home/alice/.local/lib")
    done = laptop.run("deploy", target(host, "alice"), "-r", "tiny", "--yes", check=False)
    host.ssh("umount /home/alice/.local/lib")
    assert done.returncode == 13
    assert "MiB are needed there for /home/alice/.local/lib/nemotron-ops, 50 MiB are free" in done.stderr


@fault(
    "the target's disk fills up while a release is sent, or while it is switched to",
    "it is withdrawn or rolled back; the lock is free; deploying again continues",
)
def test_a_disk_that_fills_up_meanwhile_leaves_no_lock_and_what_served_before(host: Host, laptop: Laptop) -> None:
    root = "/home/alice/.local/lib/nemotron-ops"
    host.ssh(f"""
        install -d -o alice -g alice /home/alice/.local /home/alice/.local/lib {root}
        mount -t tmpfs -o size=700m,uid=1001,gid=1001 none {root}
    """)
    full = f"head -c 2G /dev/zero > {root}/filler 2>/dev/null || true"
    words = ("deploy", target(host, "alice"), "-r", "tiny", "--port", "8002", "--yes")

    def fills_at(line: str, *more: str) -> str:
        child = laptop.start(*words, *more)
        assert child.stdout
        said = ""
        for text in child.stdout:
            said += text
            if line in text:
                host.ssh(full)
        child.communicate()
        assert child.returncode == 13, said
        assert host.ssh(f"ls {root}/LOCK.json 2>/dev/null || true") == ""
        host.ssh(f"rm {root}/filler")
        return said

    try:
        laptop.recipe(TINY.format(slots=2))
        assert "No space left on device" in fills_at(": begin: ")
        laptop.run(*words)
        before = host.ssh(f"readlink {root}/current")
        laptop.recipe(BROKEN.format(slots=2))
        assert "the previous release serves again" in fills_at(": activate: ", "--in-place")
        assert host.ssh(f"readlink {root}/current") == before
        assert host.ask(port=8002) == "2 + 2 = 4."
    finally:
        host.ssh("systemctl --user --machine=alice@ stop nemotron-ops.socket nemotron-ops.service || true")
        host.ssh(f"loginctl disable-linger alice; loginctl terminate-user alice; umount -l {root}")


@fault("the first deploy to a machine fails", "the machine is restored; a service installed by hand serves again")
def test_a_first_deploy_that_fails_gives_back_a_service_that_was_there(host: Host, laptop: Laptop) -> None:
    laptop.recipe(TINY.format(slots=2))
    laptop.run("deploy", target(host), "-r", "tiny", "--yes")
    config, units = ".config/nemotron-ops", ".config/systemd/user"
    # as installed by hand: the program in its own folder, units that name it, settings, a key; no releases
    host.ssh(
        f"""
        ln -sfn ~/{ROOT}/programs/$(ls {ROOT}/programs | head -1) ~/hand
        ~/hand/bin/nemotron-ops service uninstall
        ~/hand/bin/nemotron-ops service install tiny --user --port 8001
        mkdir ~/aside; mv {ROOT}/releases {ROOT}/current {ROOT}/previous ~/aside/ 2>/dev/null || true
        mkdir -p {config}/recipes
        echo mine > {config}/recipes/mine.toml.txt; echo secret > {config}/token
        """,
        user="deploy",
    )
    seen = f"cat {units}/nemotron-ops* {config}/service.json; find {config} -type f | sort | xargs sha256sum"
    before = host.ssh(seen, user="deploy")
    laptop.recipe(BROKEN.format(slots=2))
    done = laptop.run("deploy", target(host), "-r", "tiny", "--in-place", "--yes", check=False)
    assert done.returncode == 13
    assert "it is as it was before" in done.stderr, done.stderr
    assert host.ssh(seen, user="deploy") == before
    assert host.ask() == "2 + 2 = 4."
    assert host.ssh(f"ls -d {ROOT}/current {ROOT}/before 2>/dev/null || true", user="deploy") == ""
    host.ssh("~/hand/bin/nemotron-ops service uninstall", user="deploy")


@fault("the first deploy of a system service fails", "no unit is left; credentials, settings and the hub token stay")
def test_a_first_deploy_of_a_system_service_that_fails_leaves_credentials_alone(
    new_host: Callable[[], Host], laptop: Laptop
) -> None:
    host = new_host()
    config = laptop.ssh_config.read_text()
    laptop.ssh_config.write_text(config + host.ssh_config.read_text())
    host.ssh("""
        install -d -m 700 /etc/nemotron-ops/credentials
        echo hf_secret > /etc/nemotron-ops/credentials/hub-token; chmod 600 /etc/nemotron-ops/credentials/hub-token
        printf '' > /etc/nemotron-ops/settings.toml
        echo 'umask 077' > /root/.bashrc
    """)
    words = ("deploy", target(host, "root"), "--system", "-r", "tiny", "--yes")
    laptop.recipe(BROKEN.format(slots=2))
    try:
        # systemd would start it thirty times in a minute before it gives up
        done = laptop.run(*words, "--in-place", "--ready-timeout", "10", check=False)
        assert done.returncode == 13
        assert "it is as it was before" in done.stderr, done.stderr
        assert host.ssh("ls /etc/systemd/system | grep nemotron || true") == ""
        assert host.ssh("find /etc/nemotron-ops -type f | sort").split() == [
            "/etc/nemotron-ops/credentials/hub-token", "/etc/nemotron-ops/settings.toml",
        ]  # fmt: skip
        laptop.recipe(TINY.format(slots=2))
        laptop.run(*words)
        assert host.ask() == "2 + 2 = 4."
        (pid,) = host.pids(ENGINE)
        assert host.ssh(f"ps -o user= -p {pid}") == "nemotron"
        assert host.ssh("ls -A /opt/nemotron-ops | grep token || true") == ""
    finally:
        laptop.ssh_config.write_text(config)


@fault("a rollback to a release that cannot serve any more", "the current release serves again")
def test_a_rollback_to_a_release_that_is_no_good_goes_forward_again(host: Host, laptop: Laptop) -> None:
    for slots in (2, 3):
        laptop.recipe(TINY.format(slots=slots))
        laptop.run("deploy", target(host), "-r", "tiny", "--force", "--yes")
    now, pids = current(host), host.pids(ENGINE)
    before = host.ssh(f"basename $(readlink {ROOT}/previous)", user="deploy")
    host.ssh(f"cat > {ROOT}/releases/{before}/recipes/tiny.toml <<'END'\n{BROKEN.format(slots=2)}END", user="deploy")
    done = laptop.run("deploy", "rollback", target(host), "--json", check=False)
    assert done.returncode == 13
    assert f"{now} serves again" in done.stderr, done.stderr
    assert [o["result"] for o in json.loads(done.stdout)] == ["failed"]
    assert (current(host), host.pids(ENGINE)) == (now, pids)
    assert audit(host)[-1] == ("failed", before)
    assert host.ask() == "2 + 2 = 4."
    host.ssh(f"rm -rf {ROOT}/releases/{before} {ROOT}/previous", user="deploy")  # not a release that a deploy made


def test_the_balancer_is_installed_into_haproxys_own_service_and_gives_up_root(
    host: Host, laptop: Laptop, eventually: Eventually
) -> None:
    laptop.recipe(TINY.format(slots=2))
    laptop.run("deploy", target(host), "-r", "tiny", "--yes")
    bring_haproxy(host)
    program = f"NEMOTRON_OPS_HOME=/root/ops /home/deploy/{ROOT}/current/venv/bin/nemotron-ops balancer"
    host.ssh("""
        mkdir -p /root/ops/config
        printf '[groups.prod]\\ntargets = ["here", "away.invalid"]\\n' > /root/ops/config/targets.toml
    """)
    install = f"{program} install prod --address here=127.0.0.1:8001 2>&1"
    refused = host.ssh(f"{install} || true")
    assert "/etc/haproxy/haproxy.cfg is not ours" in refused, refused
    host.ssh(f"{install} --force")
    for _ in range(2):  # the second time HAProxy is reloaded
        host.ssh(install)
        eventually(lambda: "UP" in host.ssh(f"{program} status | grep here || true"))
        assert host.ask(port=8000) == "2 + 2 = 4."
    assert host.ssh("systemctl is-active haproxy.service") == "active"
    assert sorted(host.ssh("ps -o user= -C haproxy").split())[0] == "haproxy"
    assert "MAINT" in host.ssh(f"{program} status | grep away")
    host.ssh(f"{program} drain here && {program} status | grep here | grep DRAIN && {program} ready here")
    assert "/etc/haproxy/haproxy.cfg.before" in host.ssh("ls /etc/haproxy/haproxy.cfg.before")


def bring_haproxy(host: Host) -> None:
    """Copy HAProxy from this machine's package: hosts have no network to install it from."""
    ours = subprocess.run(["dpkg", "-L", "haproxy"], capture_output=True, text=True, check=True).stdout.split()
    libraries = subprocess.run(["ldd", "/usr/sbin/haproxy"], capture_output=True, text=True, check=True).stdout.split()
    files = [f for f in (*ours, *(w for w in libraries if w.startswith("/lib/x86_64"))) if Path(f).is_file()]
    pack = ["tar", "-ch", "-C", "/", *(f.lstrip("/") for f in files if not f.startswith("/usr/share"))]
    unpack = ["ssh", "-F", str(host.ssh_config), "-l", "root", host.name, "tar -x --skip-old-files -C /"]
    packed = subprocess.run(pack, capture_output=True, check=True).stdout
    subprocess.run(unpack, input=packed, check=True, timeout=120)
    host.ssh("""
        mkdir -p /var/lib/haproxy/dev
        id haproxy 2>/dev/null || useradd --system --no-create-home --home-dir /var/lib/haproxy haproxy
        systemd-tmpfiles --create /usr/lib/tmpfiles.d/haproxy.conf; systemctl daemon-reload
    """)


@fault("no sudo for `--system`", "the deploy is refused, with a hint")
def test_a_system_service_without_sudo_is_refused_cleanly(host: Host, laptop: Laptop) -> None:
    done = laptop.run("deploy", target(host, "alice"), "--system", "-r", "tiny", "--yes", check=False)
    assert "alice has no sudo without a password" in done.stderr
    assert "Traceback" not in done.stderr


@fault("the host key is not the known one", "the deploy is refused")
def test_a_changed_host_key_stops_it(host: Host, laptop: Laptop, tmp_path: Path) -> None:
    other = tmp_path / "key"
    os.system(f"ssh-keygen -q -t ed25519 -N '' -f {other}")
    known = tmp_path / "known_hosts"
    known.write_text(f"{host.address} {' '.join((tmp_path / 'key.pub').read_text().split()[:2])}\n")
    config = tmp_path / "config"
    config.write_text(laptop.ssh_config.read_text().replace(host.info["known_hosts"], str(known)))
    done = replace(laptop, ssh_config=config).run("deploy", target(host), "-r", "tiny", "--yes", check=False)
    assert done.returncode == 13
    assert "its host key is not the known one" in done.stderr


@fault("Python on the target is too old", "the deploy is refused, with a hint")
def test_a_python_too_old_is_named_with_the_way_out(host: Host, laptop: Laptop) -> None:
    host.ssh("""
        cd /usr/bin && mv python3.11 python3.11.real
        printf '#!/bin/sh\\necho 3.9\\n' > python3.9 && chmod 755 python3.9 && ln -sf python3.9 python3
    """)
    try:
        done = laptop.run("deploy", target(host), "-r", "tiny", "--yes", check=False)
    finally:
        host.ssh("cd /usr/bin && mv python3.11.real python3.11 && rm python3.9 && ln -sf python3.11 python3")
    assert done.returncode == 13
    assert "Python 3.11 or newer is needed there, and /usr/bin/python3 is 3.9" in done.stderr
