"""`recipes list|show|validate|new|template`: the recipe of each model, shipped or the user's own. Disk."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option, progress_option
from nemotron_ops.errors import RecipeError, UsageError


@click.group()
def recipes() -> None:
    """List, show, check and start recipes.

    A recipe is one TOML file per model. Your own, in the configuration folder, replace shipped ones of the same name.
    """


@recipes.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List every recipe, with its model and origin."""
    from nemotron_ops.recipes.load import read_recipe, recipe_files, shipped_dir

    with App() as app:
        rows = []
        for name, path in recipe_files(app.layout).items():
            recipe = read_recipe(path)
            origin = "shipped" if path.is_relative_to(shipped_dir()) else str(path)
            model = recipe.model.repo or recipe.model.path or f"made on the spot ({recipe.model.synthetic})"
            rows.append({"name": name, "title": recipe.title, "model": model, "quant": recipe.model.quant,
                         "profiles": list(recipe.profiles), "origin": origin})  # fmt: skip
        if as_json:
            app.ui.json(rows)
        else:
            table = [[r["name"], r["title"], r["model"], r["quant"] or "-", r["origin"]] for r in rows]
            app.ui.table(["RECIPE", "TITLE", "MODEL", "QUANT", "FROM"], table)


@recipes.command()
@click.argument("name")
@click.option("--resolved", is_flag=True, help="Show every value after all layers, and where it came from.")
@click.option("--profile", default="", help="Resolve with this profile.")
@json_option
def show(name: str, resolved: bool, profile: str, as_json: bool) -> None:
    """Show the recipe's file, or with --resolved its values."""
    from nemotron_ops.recipes.load import load_recipe, load_settings
    from nemotron_ops.recipes.resolve import resolve

    with App() as app:
        recipe = load_recipe(name, app.layout)
        if not resolved and not profile:
            app.ui.json(asdict(recipe)) if as_json else app.ui.data(Path(recipe.origin).read_text().rstrip())
            return
        plan = resolve(recipe, profile=profile, settings=load_settings(app.layout), env=app.env)
        if as_json:
            values: dict[str, Any] = {k: asdict(s) for k, s in plan.settings.items()}
            app.ui.json({"name": plan.name, "profile": plan.profile, "alias": plan.alias, "settings": values})
        else:
            rows = [[k, s.value, s.source] for k, s in sorted(plan.settings.items())]
            app.ui.table(["SETTING", "VALUE", "FROM"], [["alias", plan.alias, "recipe"], *rows])


@recipes.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@json_option
def validate(files: tuple[Path, ...], as_json: bool) -> None:
    """Check recipe files (all known recipes if none are named)."""
    from nemotron_ops.recipes.load import read_recipe, recipe_files, template_text

    with App() as app:
        wrong: dict[str, str] = {}
        chosen = files or tuple(recipe_files(app.layout).values())
        for path in chosen:
            try:
                template_text(read_recipe(path))
            except RecipeError as exc:
                wrong[str(path)] = exc.message
        if as_json:
            app.ui.json({"checked": [str(p) for p in chosen], "wrong": wrong})
        else:
            for path in chosen:
                app.ui.data(f"{'wrong' if str(path) in wrong else 'ok   '}  {path}")
        if wrong:
            raise RecipeError("\n".join(wrong.values()))


@recipes.command()
@click.argument("name", metavar="NAME|REPO[:QUANT]|FILE")
@click.option("--from", "source", default="30b", show_default=True, help="Recipe to copy, comments included.")
@click.option("--repo", default="", help="Write it for this model (REPO[:QUANT], address or GGUF file), as NAME.")
@dry_run_option
@json_option
def new(name: str, source: str, repo: str, dry_run: bool, as_json: bool) -> None:
    """Start a recipe of your own, in the configuration folder.

    For a model without a recipe, name it instead: its header and its page on the hub are read for architecture,
    context, sampling, projector and, for embedding and reranking models, their flags.
    """
    from nemotron_ops.files import write_atomic
    from nemotron_ops.recipes.load import load_recipe, parse_recipe, recipe_files, recipe_for

    with App() as app:
        if (not repo and "/" in name) or name.lower().endswith(".gguf"):
            name, repo = recipe_for(name, app.layout, app.env).name, name
            if name in recipe_files(app.layout):
                raise RecipeError(
                    f"cannot make recipe {name}: there is one of that name",
                    hint=f"choose another: nemotron-ops recipes new NAME --repo {repo}",
                )
        path = app.layout.user_recipes / f"{name}.toml"
        if path.exists():
            raise RecipeError(f"cannot make recipe {name}: {path} exists", hint="edit it, or choose another name")
        text = _described(repo, app) if repo else _copied(load_recipe(source, app.layout).origin)
        parse_recipe(text, name=name, origin=str(path))
        if not dry_run:
            write_atomic(path, text)
        if as_json:
            app.ui.json({"path": str(path), "written": not dry_run})
        else:
            app.ui.data(text.rstrip() if dry_run else str(path))


@recipes.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--own", is_flag=True, help="Use the model's own template again.")
@progress_option
@json_option
def template(name: str, file: Path | None, own: bool, as_json: bool) -> None:
    """Serve the recipe NAME with the chat template in FILE (Jinja), or --own: with the model's again.

    Without FILE it prints the template that NAME is served with, to begin with. Your copy of the recipe notes a new
    one. What runs is changed as by `upgrade`: the new instance starts beside the old one, which stays if the engine
    does not take the template.
    """
    from nemotron_ops.operations.own_template import changed_template, served_template
    from nemotron_ops.operations.upgrade import switch

    if own and file is not None:
        raise UsageError("cannot change a template: give a FILE, or --own")
    with App() as app:
        if file is None and not own:
            text, is_own = served_template(name, app.installation)
            app.ui.json({"chat_template": text, "own": is_own}) if as_json else app.ui.data(text)
            return
        change = changed_template(name, file, app.layout)
        answer = switch(change, app.installation, strict=False)
        app.ui.json({"changed": change.what, "reload": answer}) if as_json else app.ui.data(change.what)


def _copied(origin: str) -> str:
    return Path(origin).read_text(encoding="utf-8")


def _described(model: str, app: App) -> str:
    from nemotron_ops.operations.recipe_from_model import describe_model
    from nemotron_ops.recipes.written import recipe_text

    return recipe_text(describe_model(model, app.installation))
