"""A pod's containers, run here one after another as by Kubernetes, on an initially empty volume."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.builds import carry
from nemotron_ops.builds.store import store
from nemotron_ops.deploy.kubernetes import Workload, manifests
from nemotron_ops.paths import user_layout
from nemotron_ops.progress import silent
from tests.fakes.ports import free_port

pytestmark = [pytest.mark.process, pytest.mark.real]
Eventually = Callable[..., None]


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder with a short path, because it holds unix sockets."""
    with tempfile.TemporaryDirectory(prefix="nops-pod-") as folder:
        yield Path(folder)


def pod(archive: Path, port: int) -> dict[str, Any]:
    workload = Workload(recipes=("tiny",), image="here", gpus=0, build_archive=str(archive), port=port)
    (stateful_set,) = [d for d in manifests(workload) if d["kind"] == "StatefulSet"]
    spec: dict[str, Any] = stateful_set["spec"]["template"]["spec"]
    return spec


def words_of(container: dict[str, Any], volume: Path) -> list[str]:
    """The container's command line, with volume and secret in `volume`."""
    assert container["command"] == ["nemotron-ops"]
    words = [w.replace("/etc/nemotron-ops/keys", str(volume)) for w in container["args"]]
    return [sys.executable, "-m", "nemotron_ops", *words]


def env_of(container: dict[str, Any], volume: Path) -> dict[str, str]:
    env = {e["name"]: e["value"].replace("/data", f"{volume}/data") for e in container["env"]}
    return {"PATH": os.environ["PATH"], **env, "NEMOTRON_OPS_RUNTIME": f"{volume}/run"}


def status_of(port: int, path: str = "/health") -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as c, suppress(OSError):
        c.request("GET", path)
        response = c.getresponse()
        response.read()
        return response.status
    return 0


def test_a_pod_with_an_empty_volume_comes_to_serve_and_ends_in_its_time(
    llama_bin: Path, volume: Path, eventually: Eventually
) -> None:
    layout = user_layout(os.environ, uid=os.getuid())
    build = store.get(layout, llama_bin.parent.name)
    assert build
    archive = carry.export_build(build, volume, silent)
    port = free_port()
    spec = pod(archive, port)
    for _ in range(2):  # a restarted pod finds its volume filled
        for container in spec["initContainers"]:
            done = subprocess.run(
                words_of(container, volume), env=env_of(container, volume), capture_output=True, text=True, timeout=240
            )
            assert done.returncode == 0, (container["name"], done.stderr)
    (server,) = spec["containers"]
    keys = [sys.executable, "-m", "nemotron_ops", "keys", "create", "team", "--file", f"{volume}/api-keys", "--json"]
    key = json.loads(subprocess.run(keys, env=env_of(server, volume), capture_output=True, check=True).stdout)["text"]
    child = subprocess.Popen(words_of(server, volume), env=env_of(server, volume), stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: child.poll() is not None or status_of(port) == 200, within_s=120)
        assert child.poll() is None, child.communicate()[1]
        assert status_of(port, "/v1/models") == 401
        question = {"messages": [{"role": "user", "content": "What is 2 + 2?"}], "max_tokens": 40}
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as c:
            c.request("POST", "/v1/chat/completions", json.dumps(question), {"Authorization": f"Bearer {key}"})
            assert "2 + 2 = 4." in c.getresponse().read().decode()
    finally:
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=spec["terminationGracePeriodSeconds"])
    assert child.returncode == 0
