"""Wheels of a bundle that somebody changed: on this machine, on the way, and on the target. Real pip, about 15 s.

The bundles here hold pip itself and two wheels that the test makes; `tests/hosts` installs whole ones.
"""

from __future__ import annotations

import base64
import ensurepip
import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from nemotron_ops.deploy.artifacts.bundle import Bundle, Platform, make_bundle, pack_wheels
from nemotron_ops.deploy.steps.context import Context
from nemotron_ops.deploy.steps.facts import TargetFacts, site_for
from nemotron_ops.deploy.steps.plan import deploy_plan
from nemotron_ops.deploy.steps.release import Artifact, Release, Request
from nemotron_ops.errors import DeployError
from nemotron_ops.files import sha256_of
from nemotron_ops.progress import silent
from nemotron_ops.service.spec import Scope

pytestmark = pytest.mark.process
PLATFORM = Platform(python=sys.version_info[:2], machine="x86_64", glibc=(2, 36))
PIP = next(Path(ensurepip.__path__[0]).glob("_bundled/pip-*.whl"), None)
needs_pip = pytest.mark.skipif(PIP is None, reason="this Python has no ensurepip")


def wheel(folder: Path, name: str, version: str, code: str, *, requires: str = "") -> Path:
    """A wheel with one module and a command of the same name that runs its `main`."""
    info, command = f"{name}-{version}.dist-info", name.replace("_", "-")
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    content = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {command}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{command} = {name}:main\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in content.items())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as z:
        for inner, text in {**content, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            z.writestr(inner, text)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def wheels_in(folder: Path) -> list[Path]:
    """pip, a program, and the one dependency of that."""
    assert PIP
    program = wheel(
        folder, "nemotron_ops", "1.2.3", "import greeting\ndef main(): print(greeting.TEXT)\n", requires="greeting>=1"
    )
    return [PIP, program, wheel(folder, "greeting", "1.0", "TEXT = 'hello'\n")]


def install(home: Path, bundle: Path, sha256: str) -> subprocess.CompletedProcess[str]:
    """Run the step `unpack` of a deploy here, with `bundle` in the target's folder of received files."""
    facts = TargetFacts(
        user="me", uid=1000, home=str(home), hostname="gpu1", machine="x86_64", python=sys.executable,
        python_version=sys.version_info[:2], glibc=(2, 36), systemd=252, free_bytes=10**12, cpu_features=frozenset(),
    )  # fmt: skip
    release = Release(version="1.2.3", bundle=Artifact(name="bundle.tar", sha256=sha256))
    site = site_for(Scope.USER, home=str(home))
    request = Request(scope=Scope.USER, recipes=("tiny",))
    plan = deploy_plan(Context(request=request, release=release, facts=facts, site=site, who="ann", now="2026"))
    (step,) = [s for s in plan.before_switch if s.name == "unpack"]
    incoming = Path(site.incoming)
    incoming.mkdir(parents=True, exist_ok=True)
    (incoming / "bundle.tar").write_bytes(bundle.read_bytes())
    words = ["bash", "-euo", "pipefail", "-c", step.script]
    env = {"PATH": os.environ["PATH"], "HOME": str(home)}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=env)


def with_wheel(bundle: Bundle, changed: Path, to: Path) -> Path:
    """The bundle's tar with one wheel exchanged, its `requirements.txt` as it was."""
    with tarfile.open(bundle.path) as old, tarfile.open(to, "w") as new:
        for member in old.getmembers():
            if member.name == changed.name:
                new.add(changed, changed.name)
            else:
                new.addfile(member, old.extractfile(member))
    return to


@needs_pip
def test_a_bundle_is_installed_with_exactly_its_wheels(tmp_path: Path) -> None:
    bundle = pack_wheels(wheels_in(tmp_path / "wheels"), tmp_path)
    done = install(tmp_path / "home", bundle.path, bundle.sha256)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "hello"


@needs_pip
def test_a_bundle_that_was_changed_on_the_target_is_refused_before_any_of_it_runs(tmp_path: Path) -> None:
    bundle = pack_wheels(wheels_in(tmp_path / "wheels"), tmp_path)
    other = wheel(tmp_path / "other", "greeting", "1.0", "TEXT = 'changed'\n")
    done = install(tmp_path / "home", with_wheel(bundle, other, tmp_path / "changed.tar"), bundle.sha256)
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith("cannot install ")
    assert line.endswith("bundle.tar: it is not the bundle that this release was made from")
    assert not list((tmp_path / "home").rglob("pyvenv.cfg"))


@needs_pip
def test_pip_on_the_target_refuses_a_wheel_that_is_not_the_one_in_the_lock(tmp_path: Path) -> None:
    bundle = pack_wheels(wheels_in(tmp_path / "wheels"), tmp_path)
    other = wheel(tmp_path / "other", "greeting", "1.0", "TEXT = 'changed'\n")
    changed = with_wheel(bundle, other, tmp_path / "changed.tar")
    done = install(tmp_path / "home", changed, sha256_of(changed))
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not list((tmp_path / "home").rglob("COMPLETE"))


@needs_pip
def test_a_bundle_that_lacks_a_dependency_is_not_called_complete(tmp_path: Path) -> None:
    bundle = pack_wheels(wheels_in(tmp_path / "wheels")[:2], tmp_path)
    done = install(tmp_path / "home", bundle.path, bundle.sha256)
    assert done.returncode != 0
    assert "nemotron-ops 1.2.3 requires greeting, which is not installed" in done.stdout
    assert not list((tmp_path / "home").rglob("COMPLETE"))


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip downloads from, instead of from a registry."""
    folder = tmp_path / "registry"
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def lock_of(path: Path) -> str:
    return f"greeting==1.0 --hash=sha256:{sha256_of(path)}\n"


def test_a_registry_that_sends_another_file_than_the_locked_one_is_refused(registry: Path, tmp_path: Path) -> None:
    lock = lock_of(wheel(registry, "greeting", "1.0", "TEXT = 'hello'\n"))
    wheel(registry, "greeting", "1.0", "TEXT = 'changed'\n")
    with pytest.raises(DeployError, match="the package registry sent a file that is not the locked one"):
        make_bundle(PLATFORM, cache=tmp_path / "cache", report=silent, lock=lock)


def test_a_newer_version_at_the_registry_is_not_taken(registry: Path, tmp_path: Path) -> None:
    lock = lock_of(wheel(registry, "greeting", "1.0", "TEXT = 'hello'\n"))
    wheel(registry, "greeting", "2.0", "TEXT = 'newer'\n")
    bundle = make_bundle(PLATFORM, cache=tmp_path / "cache", report=silent, lock=lock)
    with tarfile.open(bundle.path) as tar:
        assert [n for n in tar.getnames() if n.startswith("greeting")] == ["greeting-1.0-py3-none-any.whl"]


def test_a_version_that_the_registry_lacks_is_named_as_the_cause(registry: Path, tmp_path: Path) -> None:
    lock = lock_of(wheel(registry, "greeting", "1.0", "TEXT = 'hello'\n")).replace("1.0", "3.0")
    with pytest.raises(DeployError, match="no wheel of a locked version for this target"):
        make_bundle(PLATFORM, cache=tmp_path / "cache", report=silent, lock=lock)


def test_a_wheel_that_was_changed_in_the_cache_is_not_packed(registry: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    lock = lock_of(wheel(registry, "greeting", "1.0", "TEXT = 'hello'\n"))
    make_bundle(PLATFORM, cache=cache, report=silent, lock=lock)
    (cached,) = cache.glob("wheels-*/greeting-*.whl")
    wheel(cached.parent, "greeting", "1.0", "TEXT = 'changed'\n")
    with pytest.raises(DeployError, match=r"greeting-1\.0-py3-none-any\.whl there: not the locked file"):
        make_bundle(PLATFORM, cache=cache, report=silent, lock=lock)
