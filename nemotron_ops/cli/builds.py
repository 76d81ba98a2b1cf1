"""`nemotron-ops builds`: list, choose, compare, move and remove builds. Prints."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option, progress_option
from nemotron_ops.cli.removed import freed, prune_old, removed_json
from nemotron_ops.files import write_atomic


@click.group()
def builds() -> None:
    """List, choose and remove builds."""


@builds.command("list")
@json_option
def list_builds(as_json: bool) -> None:
    """List builds, newest first; the current one is marked."""
    with App() as app:
        from nemotron_ops.builds.store import store
        from nemotron_ops.builds.store.retention import reason_to_stay
        from nemotron_ops.operations.retention import needs
        from nemotron_ops.ui import size

        found = store.listed(app.layout)
        needed = needs(app.layout, [b.id for b in found])
        if as_json:
            app.ui.json([
                {**summary(b, current=b.id == needed.current), "kept": reason_to_stay(b, needed)} for b in found
            ])  # fmt: skip
            return
        rows = [
            (
                "*" if b.id == needed.current else "", b.id, b.version, b.backend,
                time.strftime("%Y-%m-%d %H:%M", time.localtime(b.made_at)), size(b.size_bytes),
                reason_to_stay(b, needed),
            )
            for b in found
        ]  # fmt: skip
        app.ui.table(("", "id", "llama.cpp", "backend", "made", "size", "kept"), rows)
        if not found:
            app.ui.say("no builds yet; make one with: nemotron-ops build")


@builds.command()
@click.argument("build", default="current")
@json_option
def show(build: str, as_json: bool) -> None:
    """Show where a build came from, how it was made and what it proved."""
    with App() as app:
        from nemotron_ops.builds.store import store

        found = store.find(app.layout, build)
        if as_json:
            app.ui.json({**summary(found, current=is_current(app, found.id)), "manifest": found.manifest})
            return
        plan, proof = found.manifest["plan"], found.manifest["selftest"]
        rows = [
            ("id", found.id + (" (current)" if is_current(app, found.id) else "")),
            ("path", str(found.path)),
            ("llama.cpp", found.version),
            ("commit", plan["source"]["commit"] or "unknown"),
            ("build number", f"b{found.source.number}" if found.source.number else "unknown; llama-server says 0"),
            ("source", f"{plan['source']['kind']}: {plan['source']['place']} {plan['source']['ref']}"),
            ("backend", plan["backend"] + (", portable" if plan["portable"] else "")),
            ("architectures", ", ".join(plan["archs"]) or "-"),
            ("compiler", plan["compiler"]),
            (
                "made",
                time.strftime("%Y-%m-%d %H:%M", time.localtime(found.made_at)) + f" in {found.manifest['took_s']} s",
            ),
            (
                "self-test",
                f"{len(proof['passed'])} checks on {proof['on']}" + ("" if found.proven else ", not on its device"),
            ),
            ("tiny model", ", ".join(f"{k} {v:g} tokens/s" for k, v in proof["tokens_per_s"].items())),
            *(("note", note) for note in [*found.manifest["source_notes"], *plan["notes"]]),
        ]
        for name, value in rows:
            app.ui.data(f"{name.ljust(13)}  {value}")


@builds.command()
@click.argument("build")
@dry_run_option
@json_option
def use(build: str, dry_run: bool, as_json: bool) -> None:
    """Make a build current. Running servers keep theirs until they are restarted.

    A build that was never tested on its device is refused.
    """
    with App() as app:
        from nemotron_ops.builds.store import store

        found = store.find(app.layout, build)
        store.refuse_unproven(found)
        if not dry_run:
            store.use(app.layout, found)
        show_outcome(app, as_json, {"current": found.id, "dry_run": dry_run}, f"current: {found.id}")


@builds.command()
@dry_run_option
@json_option
def rollback(dry_run: bool, as_json: bool) -> None:
    """Make the build before the current one current again."""
    with App() as app:
        from nemotron_ops.builds.store import store
        from nemotron_ops.errors import BuildError

        before = store.previous(app.layout)
        if before is None:
            raise BuildError("cannot roll back: there is no previous build", hint="see: nemotron-ops builds list")
        found = before if dry_run else store.rollback(app.layout)
        show_outcome(app, as_json, {"current": found.id, "dry_run": dry_run}, f"current: {found.id}")


@builds.command()
@click.argument("build")
@click.option("--force", is_flag=True, help="Remove it even if it is current.")
@dry_run_option
@json_option
def rm(build: str, force: bool, dry_run: bool, as_json: bool) -> None:
    """Remove a build."""
    with App() as app:
        from nemotron_ops.builds.store import store

        found = store.find(app.layout, build)
        if not dry_run:
            store.remove(app.layout, found, force=force)
        show_outcome(app, as_json, {"removed": found.id, "dry_run": dry_run}, f"removed: {found.id}")


@builds.command()
@click.option(
    "--keep", type=click.IntRange(-1), help="Newest builds to keep; -1 for all. Default: as in settings.toml."
)
@dry_run_option
@json_option
def prune(keep: int | None, dry_run: bool, as_json: bool) -> None:
    """Remove old builds, leftovers of interrupted ones, and private toolchains that are out of date.

    Keeps the current build, the one that `rollback` goes back to, pinned and imported ones, and those in use. `build`
    and `upgrade` remove old builds by themselves once the new build is current.
    """
    with App() as app:
        from nemotron_ops.builds.store import pruning, unfinished
        from nemotron_ops.builds.toolchain import toolchain
        from nemotron_ops.operations.retention import old_builds

        old = old_builds(app.layout, keep=keep)
        left = (*unfinished.leftovers(app.layout), *toolchain.outdated(app.layout.toolchains, app.installation.facts))
        removed = pruning.outlook(old, left) if dry_run else pruning.prune(app.layout, old, left)
        text = f"removed: {len(removed.builds)} builds and {len(removed.leftovers)} leftovers, {freed(removed)}"
        if not as_json:
            for name in (*removed.builds, *removed.leftovers):
                app.ui.say(f"{'would remove' if dry_run else 'removed'} {name}")
        show_outcome(app, as_json, {**removed_json(removed), "dry_run": dry_run}, text)


@builds.command()
@click.argument("build", default="current")
@click.option("--off", is_flag=True, help="Unpin it: it may be removed again when it is old.")
@dry_run_option
@json_option
def pin(build: str, off: bool, dry_run: bool, as_json: bool) -> None:
    """Keep a build for good: no rule removes it, only `builds rm` does."""
    with App() as app:
        from nemotron_ops.builds.store import pruning, store

        found = store.find(app.layout, build)
        if not dry_run:
            pruning.pin(app.layout, found, on=not off)
        word = "unpinned" if off else "pinned"
        show_outcome(app, as_json, {"build": found.id, "pinned": not off, "dry_run": dry_run}, f"{word}: {found.id}")


@builds.command()
@click.argument("a")
@click.argument("b", default="current")
@json_option
def diff(a: str, b: str, as_json: bool) -> None:
    """Show what changes from build A to build B: version, options, flags of llama-server, recipes that would break."""
    with App() as app:
        from nemotron_ops.builds.store import store
        from nemotron_ops.builds.store.diff import compare
        from nemotron_ops.operations.build_flags import recipe_flags, server_flags

        first, second = store.find(app.layout, a), store.find(app.layout, b)
        known = server_flags(second)
        found = compare(
            first.manifest, second.manifest, flags_a=server_flags(first), flags_b=known,
            recipe_flags=recipe_flags(app.layout, known),
        )  # fmt: skip
        if as_json:
            app.ui.json({"a": first.id, "b": second.id, **asdict(found), "breaks": found.breaks})
            return
        for name, (old, new) in {**found.facts, **found.options}.items():
            app.ui.data(f"{name}: {old or '(none)'} -> {new or '(none)'}")
        for flag in found.new_flags:
            app.ui.data(f"+ {flag}")
        for flag in found.vanished_flags:
            using = found.users.get(flag, ())
            app.ui.data(f"- {flag}" + (f"   used by {', '.join(using)}" if using else ""))
        if first.id == second.id:
            app.ui.say("the same build")


@builds.command("export")
@click.argument("build", default="current")
@click.option("--to", type=click.Path(path_type=Path), default=".", help="File, or folder for ID.tar.gz.")
@dry_run_option
@progress_option
@json_option
def export_command(build: str, to: Path, dry_run: bool, as_json: bool) -> None:
    """Write a build as one archive, for another machine of the same kind."""
    with App() as app:
        from nemotron_ops.builds import carry
        from nemotron_ops.builds.store import store

        found = store.find(app.layout, build)
        target = to / f"{found.id}.tar.gz" if to.is_dir() else to
        if not dry_run:
            target = carry.export_build(found, to, app.ui.report)
        needs = carry.needs(found.manifest)
        value = {"id": found.id, "archive": str(target), "needs": needs, "dry_run": dry_run}
        show_outcome(app, as_json, value, f"exported: {target}")
        for need in needs:
            app.ui.say(f"  needs {need}")


@builds.command("import")
@click.argument("archive", type=click.Path(path_type=Path))
@click.option("--no-use", is_flag=True, help="Keep the build that is current.")
@progress_option
@json_option
def import_command(archive: Path, no_use: bool, as_json: bool) -> None:
    """Import an archive that `export` wrote: checked against its manifest, and tested on this machine."""
    with App() as app:
        from nemotron_ops.builds import carry

        here = app.installation
        made = carry.import_build(archive, here, activate=not no_use)
        if not no_use:
            prune_old(app)
        show_outcome(app, as_json, {"id": made.id, "path": str(made.path)}, f"imported: {made.id}")


@builds.command()
@click.option("--refresh", is_flag=True, help="Query the registry, and print the entries that the table lacks.")
@click.option(
    "--table", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A table other than the shipped one; --refresh adds to it.",
)  # fmt: skip
@progress_option
@json_option
def packages(refresh: bool, table: Path | None, as_json: bool) -> None:
    """List published packages that carry llama.cpp, and which llama.cpp each carries."""
    with App() as app:
        from nemotron_ops.builds.packages import pins

        known = pins.parse(table.read_text()) if table else pins.shipped()
        shown = known.packages
        if refresh:
            from nemotron_ops.builds.packages.package_table import new_packages

            shown = new_packages(known, env=app.env, report=app.ui.report)
            if table and shown:
                write_atomic(table, f"{table.read_text().rstrip()}\n\n{pins.packages_toml(shown)}\n")
            if not as_json:
                app.ui.data(pins.packages_toml(shown)) if shown else app.ui.say("the table lacks nothing")
                return
        if as_json:
            app.ui.json([asdict(p) for p in shown])
            return
        rows = [(p.name, p.version, p.commit[:12], p.number or "-", p.about) for p in shown]
        app.ui.table(("package", "version", "commit", "build number", ""), rows)


def summary(build: Any, *, current: bool) -> dict[str, Any]:
    return {
        "id": build.id,
        "current": current,
        "path": str(build.path),
        "version": build.version,
        "backend": build.backend,
        "proven": build.proven,
        "commit": build.source.commit,
        "number": build.source.number or None,
        "made_at": build.made_at,
        "size_bytes": build.size_bytes,
    }


def is_current(app: App, build_id: str) -> bool:
    from nemotron_ops.builds.store import store

    now = store.current(app.layout)
    return now is not None and now.id == build_id


def show_outcome(app: App, as_json: bool, value: dict[str, Any], text: str) -> None:
    """The outcome, as JSON or as a line; a dry run says so."""
    if as_json:
        app.ui.json(value)
    else:
        app.ui.data(f"would be {text}" if value.get("dry_run") else text)
