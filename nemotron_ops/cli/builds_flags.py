"""Flags of llama-server that builds know and that recipes would pass. llama-server, disk."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nemotron_ops.cli.app import App

if TYPE_CHECKING:
    from nemotron_ops.build.store import Build


def server_flags(build: Build) -> frozenset[str]:
    """Every spelling of every flag that the build's llama-server knows."""
    from nemotron_ops import proc
    from nemotron_ops.engine.flags import parse_help

    done = proc.run([build.binary("llama-server"), "--help"], timeout_s=60)
    return frozenset(parse_help(done.stdout).spellings)


def recipe_flags(app: App) -> dict[str, frozenset[str]]:
    """Flags that each recipe would pass to llama-server, with all its profiles."""
    from nemotron_ops.engine.args import FLAGS, setting_words
    from nemotron_ops.recipes.load import load_recipe, recipe_files

    found = {}
    for name in recipe_files(app.layout):
        recipe = load_recipe(name, app.layout)
        servers = [recipe.server, *(profile.server for profile in recipe.profiles.values())]
        words = [word for s in servers for word in (*setting_words(server_settings(s), FLAGS, None), *s.extra_args)]
        found[name] = frozenset(word for word in words if word.startswith("--"))
    return found


def server_settings(server: Any) -> dict[str, Any]:
    return {key: value for key, value in asdict(server).items() if key not in ("extra_args", "port")}
