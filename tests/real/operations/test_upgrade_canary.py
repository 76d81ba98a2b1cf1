"""`upgrade --canary`: a new build or quant is measured beside the old one before it takes over. Costs 60 s."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.stages.installation import Installation

pytestmark = [pytest.mark.real, pytest.mark.long]


def a_copy(of: Path, to: Path, *, flags: str = "") -> None:
    """A copy of a build, whose llama-server gets further flags."""
    shutil.copytree(of.resolve(), to, copy_function=shutil.copy2)
    manifest = json.loads((to / "manifest.json").read_text())
    (to / "manifest.json").write_text(json.dumps({**manifest, "id": to.name}))
    if flags:
        server, good = to / "bin" / "llama-server", of.resolve() / "bin" / "llama-server"
        server.unlink()
        words = f'case "$*" in *--model*) exec {good} "$@" {flags};; esac'
        server.write_text(f'#!/bin/sh\n{words}\nexec {good} "$@"\n')
        server.chmod(0o755)


def offered(installation: Installation, *, flags: str) -> tuple[str, str]:
    """A current build, and the one that `upgrade` offers: this machine's, with further flags. Returns both ids."""
    builds = installation.home / "data" / "builds"
    (good,) = (p for p in builds.iterdir() if p.is_symlink())
    of_machine = good.resolve()
    a_copy(of_machine, builds / "cpu-old")
    installation.run("builds", "use", "cpu-old")
    good.unlink()
    a_copy(of_machine, good, flags=flags)
    return "cpu-old", good.name


def current(installation: Installation) -> str:
    return str(next(b["id"] for b in installation.json("builds", "list") if b["current"]))


@pytest.mark.serial
def test_a_slower_build_is_refused_and_a_good_one_taken(installation: Installation) -> None:
    old, new = offered(installation, flags="--batch-size 4 --ubatch-size 4")  # prompts are read in small bites
    refused = installation.run("upgrade", "tiny", "--canary", "bench", "--repeat", "10", code=9)
    assert "cannot upgrade tiny: bench: ttft_s +" in refused.stderr
    assert f"builds use {new}" in refused.stderr
    assert current(installation) == old
    assert len(installation.json("bench", "list")) == 2  # what was measured is kept
    builds = installation.home / "data" / "builds"
    shutil.rmtree(builds / new)
    a_copy(builds / old, builds / new)
    taken = installation.json("upgrade", "tiny", "--canary", "bench", "--repeat", "2")  # too few to refuse anything
    assert (taken["canary"][0]["kind"], taken["canary"][0]["failures"]) == ("bench", [])
    assert "too few" in taken["canary"][0]["finding"]
    assert current(installation) == new


def test_a_build_that_answers_worse_is_refused(installation: Installation) -> None:
    old, _ = offered(installation, flags="--logit-bias 11+100")  # answers end before they begin
    refused = installation.run("upgrade", "tiny", "--canary", "eval", "--items", "40", code=9)
    assert "cannot upgrade tiny: eval: tool-use, raw: -" in refused.stderr
    assert current(installation) == old


def test_another_quant_is_measured_before_it_is_noted(installation: Installation) -> None:
    words = ("--canary", "bench", "--canary", "eval", "--repeat", "1", "--items", "5")
    done = installation.json("upgrade", "tiny", "--quant", "F16", *words)
    assert [(j["kind"], j["recipe"]) for j in done["canary"]] == [("bench", "tiny:F16"), ("eval", "tiny:F16")]
    assert 'quant = "F16"' in (installation.home / "config" / "recipes" / "tiny.toml").read_text()


def test_what_would_be_measured_is_told(installation: Installation) -> None:
    assert "nothing is served" in installation.run("upgrade", "--canary", "bench", code=2).stderr
    steps = installation.json("upgrade", "tiny", "--canary", "bench", "--dry-run")
    assert "canary: bench" in steps
