"""The gateway's benchmark runs: every plane that can be had here answers every load, and the numbers are numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.fakes.programs import need

pytestmark = [pytest.mark.real, pytest.mark.serial, pytest.mark.timeout(460)]
PLANES = ("direct", "gateway", "haproxy", "router")


def engines() -> set[int]:
    """The benchmark's stub engines that are running."""
    return {p.pid for p in psutil.process_iter(["cmdline"]) if "--close-streams" in (p.info["cmdline"] or ())}


def test_every_plane_answers_and_the_gateway_cancels_what_its_clients_leave(llama_bin: Path, tmp_path: Path) -> None:
    need("haproxy")
    kept, drawn = tmp_path / "numbers.json", tmp_path / "plot.svg"
    argv = [sys.executable, "-m", "benchmarks.gateway", "--quick", "--llama-server", str(llama_bin / "llama-server")]
    argv += ["--json", str(kept), "--plot", str(drawn)]
    root, before = Path(__file__).parents[3], engines()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=400, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert engines() <= before
    numbers = json.loads(kept.read_text())
    assert all(set(PLANES) <= by_plane.keys() for by_plane in numbers.values())
    assert all(n["tokens_per_s"] > 0 for n in numbers["streams at 100/s, 32"]["gateway"])
    assert all(0 < n["cancelled_max_ms"] < float("inf") for n in numbers["client leaves a stream"]["gateway"])
    assert all(f">{name}</text>" in drawn.read_text() for name in PLANES[1:])
