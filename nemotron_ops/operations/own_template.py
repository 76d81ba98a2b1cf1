"""Gives a recipe a chat template of one's own, and takes it away again. Disk.

The template lies beside the user's copy of the recipe, which names it. The template is written first: a kill between
both leaves the recipe as it was.
"""

from __future__ import annotations

import re
from pathlib import Path

from nemotron_ops.errors import ModelError, RecipeError
from nemotron_ops.files import read_plain, write_atomic
from nemotron_ops.installation import Installation
from nemotron_ops.operations.upgrade import Change
from nemotron_ops.paths import Layout
from nemotron_ops.recipes.load import load_recipe, parse_recipe, recipe_for, shipped_dir, template_text

LINE = re.compile(r"^[ \t]*chat_template_file[ \t]*=.*\n?", re.MULTILINE)
MODEL = re.compile(r"^\[model\][^\n]*\n", re.MULTILINE)


def changed_template(name: str, file: Path | None, layout: Layout) -> Change:
    """Give the recipe `name` the template in `file`; without a file, the model's again. Raises RecipeError."""
    if file is None:
        return own_template(name, layout)
    try:
        return new_template(name, read_plain(file).decode(), layout)
    except UnicodeDecodeError as exc:
        raise RecipeError(f"cannot use the chat template {file}: not UTF-8 text") from exc


def new_template(name: str, text: str, layout: Layout) -> Change:
    """Write `text` as the chat template of the recipe `name`. Raises RecipeError if it cannot be used."""
    file = f"{name}.jinja"
    recipe, template = layout.user_recipes / f"{name}.toml", layout.user_recipes / file
    source = Path(load_recipe(name, layout).origin).read_text(encoding="utf-8")
    made = with_template(source, file, origin=name)
    check_syntax(name, text)
    before = {path: _text(path) for path in (template, recipe)}
    write_atomic(template, text)
    try:
        template_text(parse_recipe(made, name=name, origin=str(recipe)))
    except RecipeError:
        _restore(before)
        raise
    write_atomic(recipe, made)
    return Change(what=f"recipe {name} with the chat template {template}", undo=lambda: _restore(before))


def own_template(name: str, layout: Layout) -> Change:
    """Let the recipe `name` use the model's own template again; a copy that then says nothing new is removed.

    Raises RecipeError where it has none of its own.
    """
    recipe = load_recipe(name, layout)
    path = layout.user_recipes / f"{name}.toml"
    if not recipe.model.chat_template_file or Path(recipe.origin) != path:
        raise RecipeError(f"cannot take the chat template of {name} away: its recipe names none")
    template = path.parent / recipe.model.chat_template_file
    before = {p: _text(p) for p in (template, path)}
    text, shipped = LINE.sub("", before[path] or ""), shipped_dir() / f"{name}.toml"
    if shipped.is_file() and text == shipped.read_text(encoding="utf-8"):
        path.unlink()
    else:
        write_atomic(path, text)
    if template.name == f"{name}.jinja":
        template.unlink(missing_ok=True)
    return Change(what=f"recipe {name} with the model's own chat template", undo=lambda: _restore(before))


def served_template(name: str, here: Installation) -> tuple[str, bool]:
    """The chat template that the recipe or model `name` is served with, and whether its recipe has one of its own."""
    own = template_text(recipe_for(name, here.layout, here.env))
    return own or header_template(name, here), bool(own)


def header_template(name: str, here: Installation) -> str:
    """The chat template in a model's header. Raises ModelError if the model is not here, or has none."""
    from nemotron_ops.models import store
    from nemotron_ops.models.local import read_header
    from nemotron_ops.models.ref import Ref
    from nemotron_ops.operations.fetching import made_here

    model = recipe_for(name, here.layout, here.env).model
    if model.synthetic:
        path = made_here(here, model.synthetic, model.quant)
    elif model.path:
        path = Path(model.path)
    else:
        path = store.need(here.layout, Ref(repo=model.repo, quant=model.quant)).path
    text = read_header(path).values.get("tokenizer.chat_template")
    if not isinstance(text, str) or not text:
        raise ModelError(f"cannot show the chat template of {name}: its header has none")
    return text


def with_template(text: str, file: str, *, origin: str) -> str:
    """The recipe's text, its `[model]` table naming `file`; everything else stays, comments included. Pure."""
    text = LINE.sub("", text)
    if not (found := MODEL.search(text)):
        raise RecipeError(f"cannot note the chat template in {origin}: it has no [model] table of its own")
    return f'{text[: found.end()]}chat_template_file = "{file}"\n{text[found.end() :]}'


def check_syntax(name: str, text: str) -> None:
    """Raises RecipeError, with the line, unless `text` is a Jinja template. Pure."""
    from jinja2 import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    words = re.sub(
        r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}", "", text
    )  # marks of transformers, which mean nothing here
    try:
        ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(words)
    except TemplateSyntaxError as exc:
        raise RecipeError(f"cannot use the chat template for {name}: line {exc.lineno}: {exc.message}") from exc
    except RecursionError as exc:
        raise RecipeError(f"cannot use the chat template for {name}: it is nested too deeply") from exc


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _restore(before: dict[Path, str | None]) -> None:
    for path, text in before.items():
        if text is None:
            path.unlink(missing_ok=True)
        else:
            write_atomic(path, text)
