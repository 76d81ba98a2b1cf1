"""The steps of a deploy to the letter, and the rules behind them.

The golden scripts in tests/golden/deploy are rewritten by `python tests/pure/deploy/test_deploy_plan.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.deploy.artifacts.fits import PROGRAM_BYTES, SpaceNeeded, check_room, why_not_send
from nemotron_ops.deploy.remote.ssh import Connection, accept_script, offset_script, tunnel_argv, unreachable
from nemotron_ops.deploy.remote.targets import expand, parse_groups
from nemotron_ops.deploy.steps.context import Context
from nemotron_ops.deploy.steps.facts import TargetFacts, check_target, site_for
from nemotron_ops.deploy.steps.plan import deploy_plan
from nemotron_ops.deploy.steps.probe import facts_script, parse_facts, printable
from nemotron_ops.deploy.steps.release import Artifact, DeployPlan, Release, Request
from nemotron_ops.deploy.steps.rollback import rollback_plan, rollback_target
from nemotron_ops.deploy.steps.scripts import break_script, claim_script, exec_script, hold_script, read_hold
from nemotron_ops.errors import DeployError, RecipeError, UsageError
from nemotron_ops.service.spec import Scope

GOLDEN = Path(__file__).parents[2] / "golden/deploy"
FACTS = TargetFacts(
    user="me", uid=1000, home="/home/me", hostname="gpu1", machine="x86_64", python="/usr/bin/python3.11",
    python_version=(3, 11), glibc=(2, 36), systemd=252, free_bytes=10**12, data_free_bytes=10**12,
    cpu_features=frozenset({"avx2", "fma"}),
)  # fmt: skip
RELEASE = Release(
    version="1.2.3",
    bundle=Artifact(name="bundle-aaaa.tar", sha256="a" * 64),
    build_id="cpu-1234",
    build=Artifact(name="build-cpu-1234.tar", sha256="b" * 64),
)
NOW = "2026-01-01T00:00:00+00:00"
KEYS = Artifact(name="keys-cccc.json", sha256="c" * 64)
MODEL = (Artifact(name="model-30b/m.json", sha256="d"), Artifact(name="model-30b/x.gguf", sha256="e"))
USER = Request(scope=Scope.USER, recipes=("30b",))
SYSTEM = Request(
    scope=Scope.SYSTEM, recipes=("30b", "mine"), profile="guide", host="0.0.0.0",
    own_recipes={"mine.toml": "title = 'it'\n"}, backend="cuda", service_words=("--allow-from", "10.0.0.0/8"),
    serve_options=("--ctx-size", "8192"),
)  # fmt: skip


def plan_for(request: Request, release: Release = RELEASE, facts: TargetFacts = FACTS) -> DeployPlan:
    site = site_for(request.scope, home=facts.home)
    return deploy_plan(
        Context(request=request, release=release, facts=facts, site=site, who="ann@desk", now=NOW, why="a new driver")
    )


def scripts(plan: DeployPlan) -> dict[str, str]:
    """Every script of a plan, in order."""
    steps = [*plan.steps, plan.withdraw, plan.back]
    return {f"{i}-{s.name}.sh": s.script for i, s in enumerate(steps)}


CASES = {
    "user-sends-build": plan_for(USER),
    "system-builds-there": plan_for(SYSTEM, replace(RELEASE, build=None, build_id="", keys=KEYS)),
    "user-sends-model": plan_for(
        USER,
        replace(
            RELEASE,
            models={
                "30b": (Artifact(name="model-30b/m.json", sha256="d"), Artifact(name="model-30b/x.gguf", sha256="e"))
            },
        ),
    ),
    "user-with-keys-in-place": plan_for(replace(USER, candidate=False), replace(RELEASE, keys=KEYS)),
}


def small(scope: Scope) -> dict[str, str]:
    """The scripts of other commands than `deploy`."""
    site = site_for(scope, home="/home/me")
    rollback = rollback_plan(site, current="1.2.3-new", to="1.2.2-old", who="ann@desk", now=NOW, why="it is slow")
    hold = {"who": "ann@desk", "since": NOW, "why": "benchmarks"}
    found = {
        "facts": facts_script(scope),
        "claim": claim_script(site, who="ann@desk", now=NOW, why="deploy of 1.2.3"),
        "hold": hold_script(site, hold=hold, who="ann@desk", now=NOW),
        "unhold": hold_script(site, hold=None, who="ann@desk", now=NOW),
        "hold-there": read_hold(site),
        "break": break_script(site),
        "exec": exec_script(site, ("builds", "list")),
        "offset": offset_script("/x/a.part", "/x/a", "0" * 64),
        "accept": accept_script("/x/a.part", "/x/a", "0" * 64),
        **{f"rollback-{s.name}": s.script for s in (rollback.switch, rollback.verify, rollback.settle)},
        "rollback-forward": rollback.forward.script,
    }
    return {f"{name}.sh": script for name, script in found.items()}


ALL = {
    **{case: scripts(plan) for case, plan in CASES.items()},
    **{f"{scope.value}-small": small(scope) for scope in Scope},
}


@pytest.mark.parametrize("case", ALL)
def test_every_remote_step_is_this_to_the_letter(case: str) -> None:
    assert ALL[case] == {p.name: p.read_text() for p in (GOLDEN / case).iterdir()}


@pytest.mark.parametrize("case", ALL)
def test_every_remote_step_is_shell_that_bash_understands(case: str) -> None:
    for name, script in ALL[case].items():
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, (name, done.stderr)


def test_the_questions_to_a_target_are_plain_posix_shell_and_write_nothing() -> None:
    for scope in Scope:
        script = facts_script(scope)
        assert subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True).returncode == 0
        assert not any(word in script for word in (" > ", ">>", "rm ", "mkdir", "touch "))


def test_this_machine_answers_the_questions(tmp_path: Path) -> None:
    done = subprocess.run(["sh", "-s"], input=facts_script(Scope.USER), capture_output=True, text=True,
                          env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path)})  # fmt: skip
    facts = parse_facts(done.stdout)
    assert facts.home == str(tmp_path)
    assert facts.python_version >= (3, 9)
    assert facts.free_bytes > 0
    assert facts.current == ""


def test_same_content_is_the_same_release_and_any_change_another() -> None:
    name = RELEASE.id(USER)
    assert name == RELEASE.id(USER)
    assert name.startswith("1.2.3-")
    others = [
        RELEASE.id(replace(USER, recipes=("4b",))),
        RELEASE.id(replace(USER, port=9000)),
        RELEASE.id(replace(USER, own_recipes={"30b.toml": "x"})),
        replace(RELEASE, bundle=Artifact(name="bundle", sha256="c" * 64)).id(USER),
        replace(RELEASE, build_id="cpu-9").id(USER),
    ]
    assert len({name, *others}) == 6


def test_who_and_when_are_no_part_of_a_releases_name() -> None:
    site = site_for(Scope.USER, home="/home/me")
    later = deploy_plan(Context(request=USER, release=RELEASE, facts=FACTS, site=site, who="bob", now="2027"))
    assert later.release == plan_for(USER).release


def test_words_from_outside_cannot_break_out_of_a_script() -> None:
    evil = replace(
        USER, recipes=("a; touch /tmp/evil",), own_recipes={"x.toml": "'; touch /tmp/evil; '"}, profile="$(id)"
    )
    for name, script in scripts(plan_for(evil)).items():
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, name
        assert "fetch a; touch" not in script
        assert "--profile $(id)" not in script


def test_rolling_back_takes_the_previous_release_or_the_newest_good_one() -> None:
    facts = replace(FACTS, current="c", previous="b", releases=("a", "b", "c"), good=("a", "b", "c"))
    assert rollback_target(facts) == "b"
    assert rollback_target(replace(facts, bad=("b",))) == "a"
    assert rollback_target(replace(facts, previous="c")) == "b"
    assert rollback_target(replace(facts, good=("c",))) == ""


def test_words_from_outside_cannot_break_out_of_a_small_script() -> None:
    site = site_for(Scope.USER, home="/home/me")
    evil = {"who": "a'b", "since": "t", "why": "'; touch /tmp/evil; '"}
    rollback = rollback_plan(site, current="a; b", to="$(id)", who="'", now="y", why=evil["why"])
    for script in (
        hold_script(site, hold=evil, who="x'y", now="t"),
        exec_script(site, ("logs", "a b; c")),
        *(s.script for s in (rollback.switch, rollback.verify, rollback.settle, rollback.forward)),
    ):
        assert subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True).returncode == 0, script


def test_the_reason_is_in_the_lock_and_in_the_audit_log() -> None:
    begin = scripts(plan_for(USER))["0-begin.sh"]
    assert '"why": "deploy of ' in begin
    assert begin.count("a new driver") == 2


def test_a_lock_whose_session_is_gone_is_told_from_one_that_is_held(tmp_path: Path) -> None:
    def alive(start: str) -> bool:
        root = tmp_path / ".local/lib/nemotron-ops"
        root.mkdir(parents=True, exist_ok=True)
        lock = {"who": "ann", "since": "noon", "why": "x", "sid": os.getpid(), "start": "START"}
        (root / "LOCK.json").write_text(json.dumps(lock).replace('"START"', start))
        done = subprocess.run(["sh", "-s"], input=facts_script(Scope.USER), capture_output=True, text=True,
                              env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})  # fmt: skip
        return parse_facts(done.stdout).lock_alive

    own = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19]
    assert alive(own)
    assert not alive("1")


def test_host_keys_are_checked_and_nobody_is_asked(tmp_path: Path) -> None:
    connection = Connection(target="ann@gpu1", config=tmp_path / "c", control=tmp_path)
    assert connection.argv("echo", "a b") == (
        "ssh", "-F", f"{tmp_path}/c", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
        "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
        "-o", "ControlMaster=auto", "-o", f"ControlPath={tmp_path}/%C", "-o", "ControlPersist=60",
        "--", "ann@gpu1", "echo 'a b'",
    )  # fmt: skip
    assert tunnel_argv("gpu1", config=None, port=8001, remote_port=9000)[-6:] == (
        "ExitOnForwardFailure=yes", "-N", "-L", "127.0.0.1:8001:127.0.0.1:9000", "--", "gpu1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stderr", "why"),
    [
        ("No ED25519 host key is known for x\nHost key verification failed.", "host key is not known"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", "not the known one"),
        ("ann@gpu1: Permission denied (publickey).", "does not accept our key"),
        ("ssh: Could not resolve hostname gpu9: Name or service not known", "no host of that name"),
        ("ssh: connect to host gpu1 port 22: Connection refused", "no answer"),
        ("client_loop: send disconnect: Broken pipe", "the connection broke"),
    ],
)
def test_what_ssh_says_is_explained(stderr: str, why: str) -> None:
    error = unreachable("gpu1", stderr)
    assert why in error.message
    assert error.hint


def test_a_target_that_will_not_do_is_refused_before_anything_is_sent() -> None:
    def refusal(facts: TargetFacts, scope: Scope = Scope.USER) -> str:
        with pytest.raises(DeployError) as caught:
            check_target("gpu1", facts, scope)
        return caught.value.message

    assert "/usr/bin/python3 is 3.9" in refusal(replace(FACTS, python="/usr/bin/python3", python_version=(3, 9)))
    assert "there is none" in refusal(replace(FACTS, python="", python_version=(0, 0)))
    assert "systemd does not run" in refusal(replace(FACTS, systemd=0))
    assert "needs root" in refusal(FACTS, Scope.SYSTEM)
    check_target("gpu1", replace(FACTS, sudo=True), Scope.SYSTEM)


CPU_BUILD: dict[str, Any] = {
    "plan": {"backend": "cpu"},
    "platform": {"system": "Linux", "machine": "x86_64", "glibc": [2, 31], "isa": ["avx2", "fma"]},
}
CUDA_BUILD: dict[str, Any] = {
    **CPU_BUILD,
    "plan": {"backend": "cuda", "cuda": "13.0.2", "cuda_from_wheels": True, "archs": ["90-real", "120a-real"]},
}
H100 = replace(FACTS, gpus=2, compute=(90,), driver_cuda=(13, 1))


def test_a_build_is_sent_only_where_it_can_run() -> None:
    def why_not(**platform: object) -> str:
        return why_not_send({**CPU_BUILD, "platform": {**CPU_BUILD["platform"], **platform}}, FACTS)

    assert why_not() == ""
    assert "the target is x86_64" in why_not(machine="aarch64")
    assert "needs glibc 2.39" in why_not(glibc=[2, 39])
    assert "lacks amx_int8, avx512f" in why_not(isa=["avx2", "avx512f", "amx_int8"])
    assert why_not(isa=[], glibc=[]) == ""
    assert "does not say what it needs" in why_not_send({"plan": {"backend": "cpu"}}, FACTS)


def test_a_build_is_sent_only_where_its_backend_is_the_one_to_serve_with() -> None:
    assert why_not_send(CPU_BUILD, H100) == "it is for the CPU, and the target has NVIDIA GPUs"
    assert why_not_send(CPU_BUILD, replace(FACTS, hip=True)) == "it is for the CPU, and the target has AMD GPUs"
    assert why_not_send(CPU_BUILD, H100, asked="cpu") == ""
    assert why_not_send(CPU_BUILD, H100, asked="cuda") == "it is for the CPU, and --cuda is asked for"
    assert why_not_send(CUDA_BUILD, FACTS) == "it is for NVIDIA GPUs, and the target has no GPU"
    assert "libraries of this machine" in why_not_send(
        {**CPU_BUILD, "plan": {"backend": "hip"}}, replace(FACTS, hip=True)
    )


def test_a_cuda_build_is_sent_only_to_the_gpus_and_the_driver_that_it_was_made_for() -> None:
    def why_not(facts: TargetFacts = H100, **plan: object) -> str:
        return why_not_send({**CUDA_BUILD, "plan": {**CUDA_BUILD["plan"], **plan}}, facts)

    assert why_not() == ""
    assert why_not(replace(H100, compute=(90, 120))) == ""
    assert why_not(replace(H100, compute=(89, 90))) == "it is for compute capability 9.0, 12.0, the target has 8.9"
    assert "does not tell" in why_not(replace(H100, compute=()))
    assert "needs a driver for CUDA 13, the target's is for 12.4" in why_not(replace(H100, driver_cuda=(12, 4)))
    assert why_not(replace(H100, driver_cuda=(12, 0)), cuda="12.4.1") == ""
    assert "toolkit that is installed on this machine" in why_not(cuda_from_wheels=False)


def test_the_gpus_of_a_target_are_in_its_facts() -> None:
    said = "user=me\nhome=/home/me\ngpus=2\ncompute=9.0\ncompute=9.0\ncompute=12.0\ndriver_cuda=13.1\n"
    facts = parse_facts(said)
    assert (facts.gpus, facts.compute, facts.driver_cuda, facts.backend) == (2, (90, 120), (13, 1), "cuda")
    assert parse_facts("user=me\nhome=/\ngpus=0\nhip=yes\n").backend == "hip"
    assert parse_facts("user=me\nhome=/\ngpus=0\n").backend == "cpu"


def test_control_characters_of_a_target_are_escaped() -> None:
    facts = parse_facts("user=me\nhome=/h\x1b[2J\nhostname=\x1b]0;title\x07\nrelease=\x9b1\nlock={\x1b}\n")
    assert (facts.home, facts.hostname) == (r"/h\x1b[2J", r"\x1b]0;title\x07")
    assert (facts.releases, facts.lock) == ((r"\x9b1",), r"{\x1b}")
    with pytest.raises(DeployError) as caught:
        parse_facts("\x1b[31mred")
    assert caught.value.log_tail == (r"\x1b[31mred",)
    assert printable("grün 中\ttab") == "grün 中\ttab"


def test_room_is_asked_for_what_is_brought_and_made_on_the_disk_where_it_goes() -> None:
    gib = 1 << 30
    site = site_for(Scope.SYSTEM, home="/root")

    def refusal(space: SpaceNeeded, **facts: Any) -> str:
        try:
            check_room("gpu1", replace(FACTS, **facts), site, space)
        except DeployError as exc:
            return exc.message
        return ""

    assert refusal(SpaceNeeded(), free_bytes=PROGRAM_BYTES) == ""
    assert "for /opt/nemotron-ops, 399 MiB are free" in refusal(SpaceNeeded(), free_bytes=PROGRAM_BYTES - 1)
    model = SpaceNeeded(models=(("m.gguf", 20 * gib),))
    assert "20880 MiB are needed there" in refusal(model, free_bytes=20 * gib)
    assert refusal(model, free_bytes=gib, models=frozenset({("m.gguf", 20 * gib)})) == ""
    assert refusal(model, free_bytes=gib, incoming_bytes=20 * gib) == ""
    build = SpaceNeeded(compile_bytes=2 * gib)
    apart = {"one_disk": False, "data_free_bytes": gib}
    assert "2048 MiB are needed there for /var/lib/nemotron-ops" in refusal(build, **apart)
    assert refusal(build, **apart, builds=("cpu-1-2",)) == ""
    sent = SpaceNeeded(build_bytes=gib, build_id="cpu-1234")
    assert "2448 MiB" in refusal(sent, free_bytes=gib)
    assert refusal(sent, free_bytes=gib, builds=("cpu-1234",)) == ""


def test_groups_are_read_and_expanded() -> None:
    groups = parse_groups(
        '[groups.prod]\ntargets = ["gpu1", "ann@gpu2"]\nrecipes = ["30b"]\nscope = "system"\n', origin="targets.toml"
    )
    targets, group = expand(["prod"], groups)
    assert targets == ("gpu1", "ann@gpu2")
    assert group
    assert (group.scope, group.recipes) == (Scope.SYSTEM, ("30b",))
    assert expand(["prod", "gpu1", "gpu9"], groups) == (("gpu1", "ann@gpu2", "gpu9"), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[groups.a]\ntargets = ["x"]\nrecipe = ["30b"]', "groups.a.recipe: unknown key; did you mean recipes?"),
        ("[groups.a]", "groups.a.targets: expected a list of host names, found nothing"),
        ('[groups.a]\ntargets = "x"', "groups.a.targets: expected a list of strings, found 'x'"),
        ('[groups.a]\ntargets = ["x"]\nport = "1"', "groups.a.port: expected an integer, found '1'"),
        ('[groups.a]\ntargets = ["x"]\nscope = "root"', 'groups.a.scope: expected "user" or "system"'),
        ("[group.a]", "group: unknown key; expected [groups.NAME]"),
        ("x", "not valid TOML"),
    ],
)
def test_a_wrong_targets_file_is_explained(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_groups(text, origin="targets.toml")
    assert message in caught.value.message


def test_a_target_cannot_be_an_option_of_ssh() -> None:
    with pytest.raises(UsageError, match="not the name of a host"):
        expand(["-oProxyCommand=evil"], {})


if __name__ == "__main__":
    for case, found in ALL.items():
        shutil.rmtree(GOLDEN / case, ignore_errors=True)
        (GOLDEN / case).mkdir(parents=True)
        for name, script in found.items():
            (GOLDEN / case / name).write_text(script)
