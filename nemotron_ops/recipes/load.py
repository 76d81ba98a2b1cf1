"""Finds and reads recipe files: the user's own first, then the shipped ones. Disk.

A user recipe in `config/recipes/NAME.toml` replaces the shipped one of that name completely. A model can also be named
without a recipe, by repository (`owner/name:QUANT`) or GGUF file; its recipe then has the defaults.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from nemotron_ops.errors import RecipeError
from nemotron_ops.files import read_plain
from nemotron_ops.hub_names import is_gguf, read_hub_name
from nemotron_ops.paths import Layout
from nemotron_ops.recipes.check import check
from nemotron_ops.recipes.ollama_names import recipe_word
from nemotron_ops.recipes.resolve import Settings
from nemotron_ops.recipes.schema import Adapter, Model, Recipe, Server

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
TEMPLATE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.jinja")
TEMPLATE_BYTES = 1 << 20
PROFILE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
SHA256 = re.compile(r"[0-9a-f]{64}")

ALIAS_LETTERS = 200
ALIAS_STARS = 4  # each multiplies the time that a comparison takes


def shipped_dir() -> Path:
    """The folder of shipped recipes: inside the installed package, or the repository's own."""
    packed = Path(__file__).parent / "shipped"
    return packed if packed.is_dir() else Path(__file__).parents[2] / "recipes"


def recipe_files(layout: Layout) -> dict[str, Path]:
    """Every recipe's file by name; a user's file hides the shipped one."""
    files = {p.stem: p for p in sorted(shipped_dir().glob("*.toml"))}
    files.update({p.stem: p for p in sorted(layout.user_recipes.glob("*.toml"))})
    return files


def load_recipe(name: str, layout: Layout) -> Recipe:
    """The recipe called `name`. Raises RecipeError if it is missing or wrong."""
    files = recipe_files(layout)
    if name not in files:
        near = get_close_matches(name, files, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known recipes: {', '.join(files)}"
        raise RecipeError(f"cannot load recipe {name}: there is no such recipe", hint=hint)
    return read_recipe(files[name])


def read_recipe(path: Path) -> Recipe:
    """The recipe in `path`, checked. Raises RecipeError."""
    try:
        text = read_plain(path).decode()
    except OSError as exc:
        raise RecipeError(f"cannot read recipe {path}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise RecipeError(f"cannot read recipe {path}: not UTF-8 text") from exc
    return parse_recipe(text, name=path.stem, origin=str(path))


def parse_recipe(text: str, *, name: str, origin: str) -> Recipe:
    """The recipe in `text`. `name` is the file's stem, `origin` its name in errors."""
    try:
        value = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # also an integer of thousands of digits, and deep nesting
        raise RecipeError(f"{origin}: not valid TOML: {exc}") from exc
    if not NAME.fullmatch(name):
        raise RecipeError(f"{origin}: a recipe's name has letters a-z, digits and . _ - (32 at most), not {name!r}")
    recipe = check(Recipe, value, file=origin, name=name, origin=origin)
    _check_rules(recipe)
    return recipe


def template_text(recipe: Recipe) -> str:
    """The recipe's own chat template; "" if it names none. Raises RecipeError if the file cannot be used."""
    name = recipe.model.chat_template_file
    if not name:
        return ""
    path = Path(recipe.origin).parent / name
    try:
        text = read_plain(path).decode()
    except OSError as exc:
        raise RecipeError(
            f"cannot read the chat template {path}: {exc.strerror or exc}",
            hint=f"`nemotron-ops models show {recipe.name} --template` prints the model's own, to begin with",
        ) from exc
    except UnicodeDecodeError as exc:
        raise RecipeError(f"cannot use the chat template {path}: not UTF-8 text") from exc
    if not text.strip() or len(text) > TEMPLATE_BYTES:
        size = f"{len(text):,} letters, more than {TEMPLATE_BYTES:,}" if text.strip() else "empty"
        raise RecipeError(f"cannot use the chat template {path}: it is {size}")
    return text


def recipe_for(target: str, layout: Layout, env: Mapping[str, str] | None = None) -> Recipe:
    """The recipe for a command line argument: a recipe's name, a model on a hub by name or address, or a GGUF file.

    Names of Ollama's library mean the recipes of the same models. `env` tells which hub is in use.
    Raises RecipeError for anything else, UsageError for an address of another hub.
    """
    target = recipe_word(target)
    path = Path(target).absolute()
    if is_gguf(target) and path.is_file():
        return Recipe(
            name=slug(path.stem), model=Model(path=str(path), alias=path.stem), server=_default_server(), origin=target
        )
    named = None if _is_here(target) else read_hub_name(target, env or {})
    if named is not None:
        alias = named.repo.removesuffix("-GGUF")
        model = Model(repo=named.repo, quant=named.quant, revision=named.revision or "main", alias=alias)
        return Recipe(name=slug(alias.split("/")[1]), model=model, server=_default_server(), origin=target)
    if is_gguf(target):
        raise RecipeError(f"cannot use {target}: there is no such file")
    name, _, quant = target.partition(":")
    recipe = load_recipe(name, layout)
    return replace(recipe, model=replace(recipe.model, quant=quant)) if quant else recipe


def _is_here(target: str) -> bool:
    """Whether a path to a GGUF file starts in a folder of this machine, so that it names no repository."""
    first = target.partition("/")[0]
    return is_gguf(target) and "/" in target and (first in ("", ".", "..", "~") or Path(first).is_dir())


def slug(text: str) -> str:
    """`text` as a recipe name: lower case, safe characters, at most 32."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:32] or "model"


def _default_server() -> Server:
    """The `[server]` table of every shipped recipe: four slots that share one context."""
    return Server(parallel=4, kv_unified=True)


def _check_rules(recipe: Recipe) -> None:
    """Check the rules that types cannot express. Raises RecipeError."""
    model = recipe.model
    sources = [k for k in ("repo", "path", "synthetic") if getattr(model, k)]
    if len(sources) != 1:
        found = " and ".join(sources) or "none of them"
        raise RecipeError(f"{recipe.origin}: model: expected one of repo, path, synthetic, found {found}")
    for alias in model.aliases:
        if not alias or any(map(str.isspace, alias)) or len(alias) > ALIAS_LETTERS or alias.count("*") > ALIAS_STARS:
            rules = f"at most {ALIAS_LETTERS} letters, no space in them, and at most {ALIAS_STARS} times *"
            raise RecipeError(f"{recipe.origin}: model.aliases: an alias has {rules}, not {alias[:80]!r}")
    if model.chat_template_file and not TEMPLATE.fullmatch(model.chat_template_file):
        rules = "expected the name of a .jinja file beside the recipe, with letters a-z, digits and . _ -"
        raise RecipeError(f"{recipe.origin}: model.chat_template_file: {rules}, not {model.chat_template_file!r}")
    for name in recipe.profiles:
        if not PROFILE.fullmatch(name):
            raise RecipeError(f"{recipe.origin}: profiles.{name}: a profile's name has letters a-z, digits, _ and -")
    check_adapters(recipe.adapters, recipe.profiles, recipe.origin)
    if recipe.default_profile and recipe.default_profile not in recipe.profiles:
        known = ", ".join(recipe.profiles) or "none"
        raise RecipeError(f"{recipe.origin}: default_profile: no profile {recipe.default_profile!r} (known: {known})")
    if recipe.context.default_tokens > recipe.context.max_tokens:
        raise RecipeError(f"{recipe.origin}: context: default_tokens exceeds max_tokens")
    replicas = recipe.lifecycle.replicas
    if replicas != "auto" and (isinstance(replicas, str) or replicas < 1):
        raise RecipeError(
            f'{recipe.origin}: lifecycle.replicas: expected a number from 1 or "auto", found {replicas!r}'
        )


def check_adapters(adapters: Sequence[Adapter], profiles: Collection[str], origin: str) -> None:
    """Check names and hashes of adapters. Raises RecipeError."""
    names = [a.name for a in adapters]
    for i, adapter in enumerate(adapters):
        if not PROFILE.fullmatch(adapter.name):
            rules = "an adapter's name has letters a-z, digits, _ and -"
            raise RecipeError(f"{origin}: adapters[{i}].name: {rules}, not {adapter.name!r:.80}")
        if adapter.name in profiles or names.index(adapter.name) < i:
            taken = "profile" if adapter.name in profiles else "adapter"
            raise RecipeError(f"{origin}: adapters[{i}].name: {adapter.name!r} is also the name of another {taken}")
        for wrong in (s for s in adapter.base_sha256 if not SHA256.fullmatch(s)):
            raise RecipeError(
                f"{origin}: adapters[{i}].base_sha256: expected 64 digits of a sha256, found {wrong!r:.80}"
            )


def load_settings(layout: Layout) -> Settings:
    """`config/settings.toml`, or its defaults if there is none. Raises RecipeError if it is wrong."""
    path = layout.config / "settings.toml"
    try:
        value = tomllib.loads(read_plain(path).decode())
    except FileNotFoundError:
        return Settings()
    except OSError as exc:
        raise RecipeError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise RecipeError(f"cannot read {path}: {exc}") from exc
    return check(Settings, value, file=str(path))
