"""Flags of llama-server: those that a build knows, and those that recipes would pass. llama-server, disk."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotron_ops.errors import EngineError
from nemotron_ops.files import write_atomic

if TYPE_CHECKING:
    from nemotron_ops.builds.store.store import Build
    from nemotron_ops.engine.flags import Flags
    from nemotron_ops.paths import Layout
    from nemotron_ops.recipes.schema import Recipe

FLAG = re.compile(r"--?[A-Za-z]")  # not a value such as -1


def server_flags(build: Build) -> frozenset[str]:
    """Every spelling of every flag of the build's llama-server: kept from its self-test, else asked now.

    Raises EngineError if it has to be asked and cannot run here.
    """
    if recorded := build.manifest.get("selftest", {}).get("flags"):
        return frozenset(recorded)
    return frozenset(asked_flags(build).spellings)


def known_flags(build: Build, layout: Layout) -> Flags:
    """The flags of the build, from its last answer if its llama-server is still the same file, else asked now.

    Raises EngineError if it has to be asked and cannot run here.
    """
    from nemotron_ops.engine.flags import parse_help

    try:
        kept = _kept_help(build, layout)
    except OSError:  # no such program: the question names the cause
        return asked_flags(build)
    with suppress(OSError, UnicodeError):
        if text := kept.read_text(encoding="utf-8"):
            return parse_help(text)
    text = _help(build)
    with suppress(OSError):  # a full disk: it is asked again the next time
        for old in kept.parent.glob(f"{build.id}@*"):
            old.unlink(missing_ok=True)
        write_atomic(kept, text)
    return parse_help(text)


def asked_flags(build: Build) -> Flags:
    """The flags in `llama-server --help` of the build. Raises EngineError if it cannot run here."""
    from nemotron_ops.engine.flags import parse_help

    return parse_help(_help(build))


def _kept_help(build: Build, layout: Layout) -> Path:
    """Where the answer of this very llama-server is kept: its name has the file's size and time."""
    status = build.binary("llama-server").stat()
    return layout.cache / "flags" / f"{build.id}@{status.st_size}-{status.st_mtime_ns}.txt"


def _help(build: Build) -> str:
    """What `llama-server --help` of the build prints.

    Raises EngineError, not BuildError: that ends a service for good, and a machine that is too busy to answer now may
    answer later.
    """
    from nemotron_ops import proc

    done = proc.run([build.binary("llama-server"), "--help"], timeout_s=60)
    if not done.ok:
        raise EngineError(
            f"cannot tell the flags of build {build.id}: llama-server --help ended with {done.returncode}",
            hint="does this machine have the driver that the build needs? `nemotron-ops doctor` checks",
            log_tail=tuple((done.stderr or done.stdout).splitlines()[-10:]),
        )
    return done.stdout


def recipe_flags(layout: Layout, known: frozenset[str]) -> dict[str, frozenset[str]]:
    """Flags that each recipe would pass to a llama-server that knows `known`, with all its profiles."""
    from nemotron_ops.recipes.load import load_recipe, recipe_files

    return {name: passed(load_recipe(name, layout), known) for name in recipe_files(layout)}


def passed(recipe: Recipe, known: frozenset[str]) -> frozenset[str]:
    """Flags of the command lines of `recipe` and its profiles, those that every command line has included."""
    from nemotron_ops.engine.args import FLAGS, server_argv, setting_words
    from nemotron_ops.engine.flags import Flag, Flags, normal

    flags = Flags(flags=tuple(Flag(spellings=(spelling,)) for spelling in known))
    words: list[str] = list(
        server_argv(
            binary="llama-server", model="m", socket="s", api_key_file="k", alias="a", settings={}, flags=flags,
            mmproj="p" if recipe.model.mmproj else None, device=" ".join(recipe.lifecycle.devices),
            slot_save_path="d",
        )
    )  # fmt: skip
    for server in (recipe.server, *(profile.server for profile in recipe.profiles.values())):
        words += [*setting_words(server_settings(server), FLAGS, None), *server.extra_args]
    return frozenset(normal(word) for word in words if FLAG.match(word))


def server_settings(server: Any) -> dict[str, Any]:
    return {key: value for key, value in asdict(server).items() if key not in ("extra_args", "port")}
