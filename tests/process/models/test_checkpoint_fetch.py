"""A checkpoint is fetched from a real HTTP hub: proven, resumed, and without its code."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemotron_ops.errors import ModelError
from nemotron_ops.installation import Installation
from nemotron_ops.models.checkpoint.fetch import bytes_to_fetch, fetch_into, look
from nemotron_ops.paths import Layout
from tests.fakes.hub import Fault, Hub
from tests.fakes.machines import LAPTOP
from tests.stages.fetch import TUNING

pytestmark = pytest.mark.process
REPO = "owner/Tiny-BF16"
WEIGHTS = bytes(range(256)) * 4096


@pytest.fixture
def hub() -> Hub:
    hub = Hub()
    hub.add(REPO, "model.safetensors", WEIGHTS)
    hub.add(REPO, "config.json", b'{"model_type": "nemotron_h"}', lfs=False)
    hub.add(REPO, "modeling_nemotron_h.py", b"raise SystemExit", lfs=False)
    hub.add(REPO, "pytorch_model.bin", b"pickle")
    return hub


def test_every_file_is_proven_and_code_is_not_even_asked_for(hub: Hub, layout: Layout, tmp_path: Path) -> None:
    with hub:
        here = Installation(layout=layout, env=hub.env, known=LAPTOP)
        remote = look(REPO, "main", here, tuning=TUNING)
        assert [f.name for f in remote.files] == ["model.safetensors", "config.json"]
        assert bytes_to_fetch(tmp_path / "x", remote, here) == remote.size_bytes
        fetch_into(tmp_path / "x", remote, here, tuning=TUNING)
        assert (tmp_path / "x" / "model.safetensors").read_bytes() == WEIGHTS
        asked = {seen.path.rpartition("/")[2] for seen in hub.file_requests()}
        assert asked == {"model.safetensors", "config.json"}
        fetch_into(tmp_path / "x", remote, here, tuning=TUNING)
        assert {seen.path.rpartition("/")[2] for seen in hub.file_requests()} == asked


def test_an_interrupted_fetch_goes_on_and_wrong_bytes_are_refused(hub: Hub, layout: Layout, tmp_path: Path) -> None:
    with hub:
        here = Installation(layout=layout, env=hub.env, known=LAPTOP)
        remote = look(REPO, "main", here, tuning=TUNING)
        hub.faults = [Fault(close_after=600_000, times=1), Fault(status=503)]
        with pytest.raises(ModelError, match="503"):
            fetch_into(tmp_path / "x", remote, here, tuning=TUNING)
        assert 0 < bytes_to_fetch(tmp_path / "x", remote, here) < remote.size_bytes
        hub.faults = [Fault(flip_at=len(WEIGHTS) - 1)]
        with pytest.raises(ModelError, match=r"cannot prove model\.safetensors"):
            fetch_into(tmp_path / "x", remote, here, tuning=TUNING)
        assert not (tmp_path / "x" / "model.safetensors").exists()


def test_a_repository_of_pickles_alone_is_refused_by_name(layout: Layout) -> None:
    with Hub() as hub:
        hub.add(REPO, "pytorch_model.bin", b"pickle")
        hub.add(REPO, "config.json", b"{}", lfs=False)
        here = Installation(layout=layout, env=hub.env, known=LAPTOP)
        with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle"):
            look(REPO, "main", here, tuning=TUNING)
