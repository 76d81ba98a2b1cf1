"""A change that was undone is shown in `status` until a change succeeds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stages.supervisor import Stage, staged

pytestmark = pytest.mark.process


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def test_a_change_at_start_that_fails_its_canary_is_told_until_a_change_succeeds(stage: Stage) -> None:
    stage.configure(stage.fake("a-0"), stage.fake("b-0"))
    stage.up()
    before = stage.ready("a-0", "b-0")
    stage.kill()
    stage.configure(stage.fake("a-0", "--mute"), stage.fake("b-0"))
    stage.up()
    stage.until(lambda: not stage.ask("status")["changing"])
    assert list(stage.ask("status")["refused"]) == ["a-0"]
    assert stage.ready("a-0", "b-0") == before
    stage.configure(stage.fake("a-0"), stage.fake("b-0"))
    assert stage.ask("reload")["ok"]
    assert stage.ask("status")["refused"] == {}
