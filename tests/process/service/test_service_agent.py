"""A Mac's agent: every command, in order, with a launchctl in sh that records its arguments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemotron_ops.cli.app import App
from nemotron_ops.errors import ServiceError
from nemotron_ops.operations.launchd_agent import Agent
from nemotron_ops.service.place import installed_spec, place_for
from nemotron_ops.service.spec import Scope, ServiceSpec

pytestmark = pytest.mark.process
SPEC = ServiceSpec(scope=Scope.USER, program="/Users/me/.venv/bin/nemotron-ops", recipes=("tiny",))
LAUNCHCTL = """#!/bin/sh
echo "$*" >> {told}
case "$1" in
  bootstrap) touch {loaded};;
  bootout) rm -f {loaded};;
  print) [ -e {loaded} ] && printf 'agent = {{\\n\\tpid = 4711\\n}}\\n';;
esac
"""


class Mac:
    """A home, and the launchctl commands since the last look."""

    def __init__(self, folder: Path) -> None:
        self._told = folder / "told"
        (folder / "bin").mkdir()
        script = folder / "bin/launchctl"
        script.write_text(LAUNCHCTL.format(told=self._told, loaded=folder / "loaded"))
        script.chmod(0o755)
        self.app = App(env={"NEMOTRON_OPS_HOME": str(folder / "home"), "HOME": str(folder)})
        self.agent = Agent(self.app.installation)
        self.place = place_for(Scope.USER, self.app.layout, env=self.app.env)

    def commands(self) -> list[str]:
        """The first words of the launchctl commands so far; clears them."""
        lines = self._told.read_text().splitlines() if self._told.exists() else []
        self._told.write_text("")
        return [line.split()[0] for line in lines]

    def install(self, *, start: bool) -> bool:
        return self.agent.install(SPEC, self.place, start=start, ready_s=0.0)


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mac:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return Mac(tmp_path)


def test_an_agent_is_written_loaded_and_waited_for(mac: Mac) -> None:
    with pytest.raises(ServiceError, match="not ready after 0 s"):  # no server runs here
        mac.install(start=True)
    assert mac.commands() == ["bootout", "bootstrap"]
    assert mac.agent.path.exists()
    assert installed_spec(mac.place) == SPEC
    assert json.loads(mac.place.record.read_text())["spec"]["recipes"] == ["tiny"]


def test_installing_twice_writes_once(mac: Mac) -> None:
    assert [mac.install(start=False), mac.install(start=False)] == [True, False]
    assert mac.commands() == []


def test_a_restart_keeps_the_models_unless_they_are_to_be_reloaded(mac: Mac) -> None:
    mac.install(start=False)
    for reload_models, expected in (
        (False, ["print", "bootstrap"]),  # not loaded yet
        (False, ["print", "kill"]),
        (True, ["print", "bootout", "bootstrap"]),
    ):
        with pytest.raises(ServiceError, match="not ready"):
            mac.agent.restart(reload_models=reload_models, ready_s=0.0)
        assert mac.commands() == expected


def test_status_stop_and_uninstall_are_launchds(mac: Mac) -> None:
    with pytest.raises(ServiceError, match="none is installed"):
        mac.agent.stop()
    mac.install(start=False)
    assert (mac.agent.status()["installed"], mac.agent.status()["loaded"], mac.agent.status()["up"]) == (
        True, False, False,
    )  # fmt: skip
    mac.commands()
    mac.agent.stop()
    assert mac.commands() == ["bootout"]
    assert mac.agent.uninstall() == (str(mac.agent.path),)
    assert mac.commands() == ["bootout"]
    assert not mac.agent.path.exists()
    assert mac.agent.uninstall() == ()
