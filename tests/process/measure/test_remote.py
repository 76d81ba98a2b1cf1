"""What a machine says of itself to `bench --target`: the script in a shell of this machine, and its output as read."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from nemotron_ops.measure.remote import read_origin, script_for

pytestmark = pytest.mark.process
STATUS = {"instances": [{"model": "30b", "build": "cuda-1"}, {"model": "tiny", "build": "cpu-2"}]}
GPUS = "#!/bin/sh\necho '570.1, 143771, NVIDIA H200'\necho '570.1, 143771, NVIDIA H200'\n"


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def said(program: Path, folder: Path) -> str:
    env = {**os.environ, "PATH": f"{folder}:/usr/bin:/bin"}
    argv = ["sh", "-c", script_for(PurePosixPath(program))]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_machine_with_a_release_and_gpus_tells_them(tmp_path: Path) -> None:
    program(tmp_path / "nvidia-smi", GPUS)
    words = f"#!/bin/sh\n[ $1 = status ] && exec echo '{json.dumps(STATUS)}'\necho 'nemotron-ops, version 1.2.3'\n"
    found = read_origin(said(program(tmp_path / "a program", words), tmp_path), "tiny")
    assert found["build"] == {"id": "cpu-2"}
    assert found["versions"] == {"nemotron_ops": "1.2.3"}
    machine = found["machine"]
    assert machine["gpus"] == [{"name": "NVIDIA H200", "kind": "cuda", "memory_bytes": 143771 << 20}] * 2
    assert machine["driver"] == "570.1"
    assert (machine["system"], machine["cores"]) == (platform.system(), os.cpu_count())


def test_a_machine_without_a_release_tells_the_rest(tmp_path: Path) -> None:
    found = read_origin(said(tmp_path / "missing", tmp_path), "tiny")
    assert found.keys() == {"machine"}
    assert found["machine"]["kernel"] == platform.release()


@pytest.mark.parametrize("text", ["", "status={\n", "gpu=broken\nstatus=[]\n", 'status={"instances": [{}]}\n'])
def test_what_is_not_told_is_left_out(text: str) -> None:
    assert read_origin(text, "tiny") == {"machine": {"gpus": [], "driver": ""}}
