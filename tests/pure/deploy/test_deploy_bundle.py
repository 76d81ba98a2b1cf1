"""The bundle: our own wheel, dependencies' wheels for another machine, and the same bytes each time."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from nemotron_ops import __version__
from nemotron_ops.deploy.artifacts.bundle import Platform, download_argv, pack_folder
from nemotron_ops.deploy.artifacts.wheel import write_wheel
from nemotron_ops.deploy.on_target.canary import judge
from nemotron_ops.deploy.on_target.settled import CHANGING, FAILED, SETTLED, verdict


def test_the_wheel_has_the_program_its_recipes_and_its_command(tmp_path: Path) -> None:
    with zipfile.ZipFile(write_wheel(tmp_path)) as z:
        names = set(z.namelist())
        assert {"nemotron_ops/cli/deploy.py", "nemotron_ops/recipes/shipped/30b.toml"} <= names
        info = f"nemotron_ops-{__version__}.dist-info"
        assert "nemotron-ops = nemotron_ops.cli:main" in z.read(f"{info}/entry_points.txt").decode()
        assert "Requires-Dist: click" in z.read(f"{info}/METADATA").decode()
        recorded = {line.split(",")[0] for line in z.read(f"{info}/RECORD").decode().splitlines()}
        assert recorded == names
        assert not [n for n in names if n.endswith(".pyc")]


def test_the_same_code_is_the_same_wheel(tmp_path: Path) -> None:
    assert write_wheel(tmp_path / "a").read_bytes() == write_wheel(tmp_path / "b").read_bytes()


def test_a_changed_line_is_another_wheel(tmp_path: Path) -> None:
    package = tmp_path / "src/nemotron_ops"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("a = 1\n")
    one = write_wheel(tmp_path / "a", package=package).read_bytes()
    (package / "__init__.py").write_text("a = 2\n")
    assert write_wheel(tmp_path / "b", package=package).read_bytes() != one


def test_wheels_are_asked_for_the_targets_python_and_c_library() -> None:
    platform = Platform(python=(3, 12), machine="aarch64", glibc=(2, 28))
    argv = download_argv(platform, Path("/x/r.txt"), Path("/x"), python="python3")
    assert argv[:9] == ("python3", "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
                        "--only-binary=:all:", "--implementation=cp")  # fmt: skip
    assert "--python-version=3.12" in argv
    assert argv[-4:] == ("--dest=/x", "--no-deps", "--require-hashes", "--requirement=/x/r.txt")
    assert platform.tags[0] == "manylinux_2_28_aarch64"
    assert "manylinux2014_aarch64" in platform.tags
    assert "manylinux_2_29_aarch64" not in platform.tags


def test_a_folder_is_packed_to_the_same_bytes_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "build"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/llama-server").write_text("#!/bin/sh\n")
    (folder / "bin/llama-server").chmod(0o755)
    path, sha256 = pack_folder(folder, tmp_path / "cache", prefix="cpu-1")
    (folder / "bin/llama-server").touch()
    assert pack_folder(folder, tmp_path / "cache", prefix="cpu-1") == (path, sha256)
    with tarfile.open(path) as tar:
        assert tar.getmember("cpu-1/bin/llama-server").mode & 0o111


def test_packing_again_changes_nothing_of_a_tar_that_another_deploy_sends(tmp_path: Path) -> None:
    folder, cache = tmp_path / "build", tmp_path / "cache"
    folder.mkdir()
    (folder / "llama-server").write_bytes(b"x" * 100_000)
    path, sha256 = pack_folder(folder, cache, prefix="cpu-1")
    with path.open("rb") as sent:
        begin = sent.read(1000)
        assert pack_folder(folder, cache, prefix="cpu-1") == (path, sha256)
        (folder / "llama-server").write_bytes(b"y" * 50)
        other, _ = pack_folder(folder, cache, prefix="cpu-1")
        assert hashlib.sha256(begin + sent.read()).hexdigest() == sha256
    assert other != path
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert sorted(cache.iterdir()) == sorted([path, other])


def status(*states: str, wanted: bool = True, build: str = "b1", **rest: Any) -> dict[str, Any]:
    instances = [{"name": f"i-{n}", "state": s, "wanted": wanted, "build": build} for n, s in enumerate(states)]
    return {"instances": instances, "changing": False, "refused": {}, **rest}


def test_a_release_is_judged_only_when_everything_is_at_rest() -> None:
    def of(*states: str) -> int:
        return verdict(status(*states))[0]

    assert of("ready", "ready") == SETTLED
    assert of("ready", "starting") == CHANGING
    assert of("ready", "stopping") == CHANGING
    assert of("ready", "failed") == FAILED
    assert of("ready", "backoff") == FAILED
    assert of("stopped") == SETTLED  # on demand
    assert of() == FAILED
    assert verdict({"error": "no supervisor"})[0] == FAILED


def test_a_release_whose_change_was_undone_does_not_serve_what_it_asks_for() -> None:
    assert verdict(status("ready", changing=True))[0] == CHANGING
    code, why = verdict(status("ready", refused={"30b-0": "no answer to the canary"}))
    assert (code, why) == (FAILED, "30b-0 still runs its old configuration: no answer to the canary")


def test_a_release_is_good_only_if_its_own_build_serves() -> None:
    assert verdict(status("ready", build="b1"), build="b1")[0] == SETTLED
    assert verdict(status("ready", build="b0"), build="b1") == (FAILED, "i-0: another build than b1 serves")
    assert verdict(status("stopped", build="b0", wanted=False), build="b1")[0] == SETTLED


def test_an_answer_counts_only_with_text_and_tokens() -> None:
    good = {"choices": [{"message": {"content": "4", "reasoning_content": None}}], "usage": {"completion_tokens": 1}}
    assert judge(200, good, model="m").outcome == "answered"
    empty = {"choices": [{"message": {"content": ""}}], "usage": {"completion_tokens": 0}}
    assert judge(200, empty, model="m").outcome == "failed"
    assert judge(200, {"choices": []}, model="m").outcome == "failed"
    assert judge(500, {"error": {"message": "boom"}}, model="m").reason.startswith("500")
