"""What the suite does where a program is missing, and which programs its set-up script installs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fakes.programs import need

TESTS = Path(__file__).parents[2]


def test_a_test_whose_program_is_missing_is_skipped_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    need("sh")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs no-such-program"):
        need("sh", "no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs no-such-program"):
        need("sh", "no-such-program")


def test_the_set_up_script_installs_every_program_that_a_test_needs() -> None:
    table = (TESTS / "setup.sh").read_text().partition("table='")[2].partition("'")[0]
    installed = {line.split()[0] for line in table.splitlines() if line}
    calls = [c for p in TESTS.rglob("*.py") for c in re.findall(r"^ *need\(([^)]*)\)", p.read_text(), re.MULTILINE)]
    programs = {name for call in calls for name in re.findall(r'"([\w.+-]+)"', call)}
    conftest = (TESTS / "hosts/conftest.py").read_text()
    hosts = re.findall(r'"([\w-]+)"', conftest.partition("PROGRAMS = (")[2].partition(")")[0])
    assert {*programs, *hosts} - {"sh", "no-such-program"} <= installed
    assert "haproxy" in programs
    assert "systemd-nspawn" in hosts
