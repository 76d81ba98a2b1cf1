"""`activate.sh` of a release, run here: which recipes the target's configuration has afterwards."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from nemotron_ops.deploy.steps.context import Context
from nemotron_ops.deploy.steps.facts import TargetFacts, site_for
from nemotron_ops.deploy.steps.plan import deploy_plan
from nemotron_ops.deploy.steps.release import Artifact, Release, Request
from nemotron_ops.service.spec import Scope

pytestmark = pytest.mark.process
RELEASE = Release(version="1.2.3", bundle=Artifact(name="bundle.tar", sha256="a" * 64))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def activate(home: Path, own_recipes: Mapping[str, str]) -> dict[str, str]:
    """Switch to a release with these recipes; the recipes that its program finds in the configuration."""
    facts = TargetFacts(
        user="me", uid=1000, home=str(home), hostname="gpu1", machine="x86_64", python="/usr/bin/python3",
        python_version=(3, 11), glibc=(2, 36), systemd=252, free_bytes=10**12, cpu_features=frozenset(),
    )  # fmt: skip
    request = Request(scope=Scope.USER, recipes=("tiny",), own_recipes=own_recipes)
    site = site_for(Scope.USER, home=str(home))
    plan = deploy_plan(Context(request=request, release=RELEASE, facts=facts, site=site, who="ann", now="2026"))
    (unpack,) = [s.script for s in plan.before_switch if s.name == "unpack"]
    release = Path(site.release(plan.release))
    (release / "venv/bin").mkdir(parents=True, exist_ok=True)
    program = release / "venv/bin/nemotron-ops"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (release / "recipes").mkdir(exist_ok=True)
    for name, text in own_recipes.items():
        (release / "recipes" / name).write_text(text)
    script = unpack.partition("<<'ACTIVATE'\n")[2].partition("ACTIVATE\n")[0]
    subprocess.run(["sh", "-s"], input=script, text=True, check=True, env={"PATH": "/usr/bin:/bin", "HOME": str(home)})
    return {p.name: p.read_text() for p in (home / ".config/nemotron-ops/recipes").iterdir()}


def test_a_recipe_that_came_with_a_release_hides_the_shipped_one_only_while_that_release_serves(home: Path) -> None:
    mine = {"tiny.toml": "title = 'mine'", "tiny.jinja": "{{ messages }}"}
    newer = {"tiny.toml": "title = 'newer'"}
    assert activate(home, mine) == mine
    assert activate(home, {}) == {}
    assert activate(home, mine) == mine
    assert activate(home, newer) == newer
    assert activate(home, {}) == {}


def test_a_recipe_that_somebody_wrote_over_there_stays(home: Path) -> None:
    activate(home, {"tiny.toml": "title = 'mine'"})
    (home / ".config/nemotron-ops/recipes/theirs.toml").write_text("title = 'theirs'")
    assert activate(home, {}) == {"theirs.toml": "title = 'theirs'"}
