"""Compiles a further program of a stored build's llama.cpp, such as llama-perplexity, when it is first wanted.

Same source, options and compiler as the build; kept in the cache, below `programs/BUILD/`. cmake, ninja, disk.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from nemotron_ops.builds.compile import compiling
from nemotron_ops.builds.disk_errors import disk_errors_translated
from nemotron_ops.builds.make import workplace
from nemotron_ops.builds.plan import BuildPlan
from nemotron_ops.builds.prepared import Prepared, planned
from nemotron_ops.builds.source import source
from nemotron_ops.builds.source.source import Sources
from nemotron_ops.builds.store import build_lock, store
from nemotron_ops.builds.store.options_json import options_from
from nemotron_ops.builds.store.store import Build
from nemotron_ops.errors import BuildError
from nemotron_ops.files import sync_dir
from nemotron_ops.installation import Installation
from nemotron_ops.progress import remark


def have_program(build: Build, name: str, here: Installation) -> Path:
    """The program `name` of the build's llama.cpp: the build's own, the kept one, or compiled now.

    An interrupted compilation continues with the next call. Raises the errors of every step.
    """
    kept = here.layout.cache / "programs" / build.id / name
    for path in (build.path / "bin" / name, kept):
        if os.access(path, os.X_OK):
            return path
    with disk_errors_translated():
        remark(here.report, f"compiling {name} of llama.cpp {build.source.label}, once")
        source.tree(build.source, Sources(installation=here))
        plan = replace(planned(options_from(build.manifest), build.source, here), targets=(name,))
        with build_lock.building(here.layout, build.id) as lock:
            if not os.access(kept, os.X_OK):
                _compile(replace(plan, id=build.id), here, lock, kept)
    return kept


def _compile(plan: BuildPlan, here: Installation, lock: int, kept: Path) -> None:
    place = workplace(Prepared(plan=plan, installation=here), lock)
    compiling.configure(plan, place, here.report)
    compiling.compile_targets(plan, place, here.report)
    made = next((p for p in (place.folder / "bin").rglob(kept.name) if p.is_file()), None)
    if made is None:
        raise BuildError(f"cannot find {kept.name} after its compilation in {place.folder}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    half = kept.with_name(f".{kept.name}.part")
    shutil.copy2(made, half)
    with half.open("rb") as f:
        os.fsync(f.fileno())
    half.rename(kept)
    sync_dir(kept.parent)
    shutil.rmtree(store.work_dir(here.layout, plan.id), ignore_errors=True)
