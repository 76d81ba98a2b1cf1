"""`nemotron-ops models`: list, check, move and remove downloaded models. Prints."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option, progress_option
from nemotron_ops.cli.fetch import model_value

if TYPE_CHECKING:
    from nemotron_ops.models.store import StoredModel

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
SPANS = {"h": 3600, "d": 86400, "w": 7 * 86400}
FRESH_S = 86400.0  # a younger file without a model may belong to a running fetch


@click.group()
def models() -> None:
    """List, check and remove downloaded models."""


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List the models on this machine."""
    with App() as app:
        from nemotron_ops.models import store
        from nemotron_ops.ui import size

        found = store.list_models(app.layout)
        if as_json:
            app.ui.json([model_value(m) for m in found])
            return
        rows = [
            (m.id, size(m.size_bytes), len(m.files), m.commit[:12] or "-", _day(m.used_at), _state(m)) for m in found
        ]
        app.ui.table(("model", "size", "files", "commit", "last used", "state"), rows)
        if not found:
            app.ui.say("no models yet; fetch one with: nemotron-ops fetch 30b")


@models.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True, help="Most repositories shown.")
@click.option("--no-quants", is_flag=True, help="Do not ask each repository for its files: one request in all.")
@click.option("--fit", is_flag=True, help="Also read a header per quant, and show what fits this machine.")
@progress_option
@json_option
def search(words: tuple[str, ...], limit: int, no_quants: bool, fit: bool, as_json: bool) -> None:
    """Search the hub for models: repositories with GGUF files, their quants and sizes.

    The most downloaded come first. `plan REPO` shows what of one repository fits this machine, before the download.
    """
    with App() as app:
        from nemotron_ops.cli import models_found
        from nemotron_ops.models.search import search as search_hub

        found = search_hub(" ".join(words), app.installation, limit=limit, with_quants=not no_quants)
        fits = models_found.fits(found, app) if fit else {}
        if as_json:
            app.ui.json(models_found.value(found, fits))
        else:
            models_found.show(found, fits, app)


@models.command()
@click.argument("model", metavar="RECIPE|REPO[:QUANT]")
@click.option("--template", is_flag=True, help="Print the chat template in the model's header, to change it.")
@json_option
def show(model: str, template: bool, as_json: bool) -> None:
    """Show a model's files, hashes and header."""
    with App() as app:
        from nemotron_ops.models.local import read_header
        from nemotron_ops.ui import size

        if template:
            from nemotron_ops.operations.own_template import header_template

            text = header_template(model, app.installation)
            app.ui.json({"chat_template": text}) if as_json else app.ui.data(text)
            return
        found = _find(app, model)
        header = read_header(found.path)
        value = model_value(found) | {
            "arch": header.arch,
            "tensors": len(header.tensors),
            "weight_bytes": header.weight_bytes,
            "vocabulary": header.n_vocab,
            "context_length": header.number("context_length", 0),
        }
        if as_json:
            app.ui.json(value)
            return
        rows = [(k, value[k]) for k in ("id", "path", "revision", "commit", "source", "arch", "context_length")]
        app.ui.table(("key", "value"), rows)
        app.ui.table(("file", "size", "sha256"), [(f.name, size(f.size_bytes), f.proof) for f in found.files])


@models.command()
@click.argument("names", metavar="[RECIPE|REPO[:QUANT]]...", nargs=-1)
@click.option("--quick", is_flag=True, help="Compare size and time only; do not read the bytes.")
@progress_option
@json_option
def verify(names: tuple[str, ...], quick: bool, as_json: bool) -> None:
    """Check models (all, or those named) against the hashes they were fetched with. Exit code 7 if one is damaged."""
    with App() as app:
        from nemotron_ops.errors import ModelError
        from nemotron_ops.models import store

        found = [_find(app, n) for n in names] or list(store.list_models(app.layout))
        problems = {m.id: store.verify(m, deep=not quick, report=app.ui.report) for m in found}
        if as_json:
            app.ui.json({k: [{"path": p.path, "problem": p.what} for p in v] for k, v in problems.items()})
        else:
            rows = [(k, "; ".join(f"{p.path} {p.what}" for p in v) or "ok") for k, v in problems.items()]
            app.ui.table(("model", "state"), rows)
        if bad := [k for k, v in problems.items() if v]:
            raise ModelError(
                f"cannot trust {', '.join(bad)}: not the bytes that were fetched",
                hint=f"fetch again with: nemotron-ops fetch {bad[0]}",
            )


@models.command()
@click.argument("names", metavar="RECIPE|REPO[:QUANT]...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Remove it even if something is using it.")
@dry_run_option
@json_option
def rm(names: tuple[str, ...], force: bool, dry_run: bool, as_json: bool) -> None:
    """Remove models. Files outside the store (--local-dir) stay where they are."""
    with App() as app:
        from nemotron_ops.errors import ModelError
        from nemotron_ops.models.usage import in_use

        found = [_find(app, n) for n in names]
        if (busy := in_use(found)) and not force:
            raise ModelError(f"cannot remove {', '.join(sorted(busy))}: it is in use", hint="stop it first, or --force")
        _remove(app, found, dry_run=dry_run, as_json=as_json)


@models.command("import")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--as", "name", metavar="REPO[:QUANT]", help="Name in the store. Default: its own name, or local/FILE.")
@progress_option
@json_option
def import_(path: Path, name: str | None, as_json: bool) -> None:
    """Import a GGUF file, or a folder that `export` wrote, into the store."""
    with App() as app:
        from nemotron_ops.models.carry import import_path
        from nemotron_ops.models.ref import parse

        found = import_path(path.absolute(), app.installation, name=parse(name, app.env) if name else None)
        app.ui.json(model_value(found)) if as_json else app.ui.data(found.id)


@models.command()
@click.argument("model", metavar="RECIPE|REPO[:QUANT]")
@click.argument("folder", type=click.Path(path_type=Path))
@progress_option
@json_option
def export(model: str, folder: Path, as_json: bool) -> None:
    """Copy a model and its manifest into FOLDER, to carry it to a machine without network."""
    with App() as app:
        from nemotron_ops.models import carry

        written = carry.export(_find(app, model), folder.absolute(), app.installation)
        app.ui.json([str(p) for p in written]) if as_json else app.ui.data("\n".join(str(p) for p in written))


@models.command()
@click.option("--older-than", metavar="AGE", help="Remove models unused for this long: 30d, 2w, 12h.")
@click.option("--keep", metavar="SIZE", help="Remove the least recently used until at most this is left: 200G.")
@dry_run_option
@json_option
def gc(older_than: str | None, keep: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove leftovers of updates and stopped fetches, and models by age or space, except those in use."""
    with App() as app:
        from nemotron_ops.models import store
        from nemotron_ops.models.garbage import garbage
        from nemotron_ops.models.usage import in_use
        from nemotron_ops.ui import size

        found, now = store.list_models(app.layout), time.time()
        chosen = garbage(
            found, now=now, older_than_s=_span_s(older_than), keep_bytes=_bytes(keep), in_use=in_use(found)
        )
        for item in chosen:
            app.ui.say(f"{item.model.id}: {item.why}")
        left_over = [p for p in store.orphans(app.layout) if now - p.lstat().st_mtime > FRESH_S]
        for path in left_over:
            app.ui.say(f"{path}: no model uses it ({size(path.lstat().st_size)})")
            if not dry_run:
                path.unlink(missing_ok=True)
        _remove(app, [c.model for c in chosen], dry_run=dry_run, as_json=as_json, more=left_over)


def _remove(
    app: App, found: list[StoredModel], *, dry_run: bool, as_json: bool, more: list[Path] | None = None
) -> None:
    from nemotron_ops.models import store
    from nemotron_ops.ui import size

    removed = [str(p) for p in more or ()]
    for model in found:
        removed += [f.path for f in model.files] if dry_run else [str(p) for p in store.remove(app.layout, model)]
    if as_json:
        app.ui.json(
            {"models": [m.id for m in found], "files": removed, "size_bytes": sum(m.size_bytes for m in found)}
            | {"dry_run": dry_run}
        )
        return
    verb = "would remove" if dry_run else "removed"
    for model in found:
        app.ui.data(f"{verb} {model.id} ({size(model.size_bytes)})")
    if not found and not removed:
        app.ui.say("nothing to remove")


def _find(app: App, name: str) -> StoredModel:
    """The stored model that a recipe or `owner/name[:QUANT]` means. Raises ModelError if it is not here."""
    from nemotron_ops.models import store
    from nemotron_ops.models.ref import Ref, parse

    if "/" in name:
        return store.need(app.layout, parse(name, app.env))
    from nemotron_ops.errors import ModelError
    from nemotron_ops.recipes.load import recipe_for

    model = recipe_for(name, app.layout, app.env).model
    if not model.repo:
        raise ModelError(f"cannot find {name}: its model is not fetched from a hub")
    return store.need(app.layout, Ref(repo=model.repo, quant=model.quant))


def _state(model: StoredModel) -> str:
    from nemotron_ops.models import store

    return "ok" if all(store.intact(f) for f in model.files) else "changed or missing: run `models verify`"


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds)) if seconds else "-"


def _span_s(text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hdw])", text.lower())
    if not match:
        raise click.BadParameter(f"expected a time like 30d, 2w or 12h, found {text!r}", param_hint="--older-than")
    return float(match[1]) * SPANS[match[2]]


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.lower())
    if not match:
        raise click.BadParameter(f"expected a size like 200G, found {text!r}", param_hint="--keep")
    return int(float(match[1]) * UNITS[match[2]])
