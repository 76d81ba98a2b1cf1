"""A bounded chaos run in CI: nothing wrong, nothing left behind. `python -m tests.chaos.supervisor` runs it longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemotron_ops.models.synthetic import ensure
from tests.chaos.supervisor import run
from tests.stages.serving import Serving

SECONDS = 40
pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(600)]


def test_nothing_is_lost_in_the_chaos(tmp_path: Path, llama_bin: Path) -> None:
    serving = Serving(tmp_path, llama_bin / "llama-server", ensure("moe", tmp_path / "models"))
    try:
        report = run(serving, seconds=SECONDS, seed=7)
    finally:
        serving.clear()
    print(report.text())
    assert report.good, report.text()
