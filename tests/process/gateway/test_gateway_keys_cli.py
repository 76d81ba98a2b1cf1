"""`nemotron-ops keys` as a command: what it prints, what it keeps, and that it can be run twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nemotron_ops.cli import cli
from nemotron_ops.errors import UsageError
from nemotron_ops.gateway.api.routes import Scope
from nemotron_ops.gateway.keys.keystore import read_ring
from nemotron_ops.gateway.keys.ring import admit

pytestmark = pytest.mark.process


@pytest.fixture
def run(home: Path) -> Any:
    def call(*words: str) -> Result:
        return CliRunner().invoke(cli, ["keys", *words], env={"NEMOTRON_OPS_HOME": str(home)}, catch_exceptions=True)

    return call


def test_a_key_is_printed_alone_on_stdout_and_opens(run: Any, home: Path) -> None:
    text = run("create", "bob", "--expires", "30d").stdout.strip()
    key = admit(read_ring(home / "config" / "keys.json"), text, Scope.INFERENCE, now=0.0)
    assert key.name == "bob"
    assert 29 * 86400 < key.expires_at - key.created_at < 31 * 86400


def test_a_second_key_of_the_same_name_needs_replace(run: Any) -> None:
    assert run("create", "bob").exit_code == 0
    assert isinstance(run("create", "bob").exception, UsageError)
    made = json.loads(run("create", "bob", "--replace", "--json").stdout)
    assert [k["id"] for k in json.loads(run("list", "--json").stdout)] == [made["key"]["id"]]
    assert len(json.loads(run("list", "--all", "--json").stdout)) == 2


def test_a_dry_run_changes_nothing(run: Any, home: Path) -> None:
    assert run("create", "bob", "--dry-run").exit_code == 0
    assert not (home / "config" / "keys.json").exists()
    run("create", "bob")
    before = (home / "config" / "keys.json").read_bytes()
    assert run("revoke", "bob", "--dry-run").exit_code == 0
    assert (home / "config" / "keys.json").read_bytes() == before


def test_revoking_can_be_done_twice(run: Any) -> None:
    run("create", "bob")
    assert json.loads(run("revoke", "bob", "--json").stdout)["changed"] is True
    assert json.loads(run("revoke", "bob", "--json").stdout)["changed"] is False


def test_no_list_shows_a_hash(run: Any, home: Path) -> None:
    run("create", "bob")
    (key,) = read_ring(home / "config" / "keys.json").keys.values()
    assert key.sha256 not in run("list").stdout + run("list", "--json").stdout


@pytest.mark.parametrize("words", [("create", "b", "--expires", "soon"), ("revoke", "nobody")])
def test_mistakes_are_errors_with_a_hint(run: Any, words: tuple[str, ...]) -> None:
    run("create", "bob")
    error = run(*words).exception
    assert isinstance(error, UsageError)
    assert error.hint
