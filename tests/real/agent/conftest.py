"""One stage for all tests of this folder: a start costs about 3 s."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stages.agent import Served, agent_stage


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Served]:
    with agent_stage(tmp_path_factory.mktemp("agent"), llama_bin) as found:
        yield found
