"""Reads the words of --serve-option as `serve` will read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from nemotron_ops.errors import UsageError

# options of `serve` that the service itself decides: the socket, and how it is started
DECIDED = {"host": "--host", "port": "--port", "profile": "--profile"}
MEANINGLESS = {"detach": "--detach", "dry_run": "--dry-run", "as_json": "--json"}


def serve_flags(recipes: tuple[str, ...], options: tuple[str, ...]) -> Mapping[str, Any]:
    """The values that `serve` will find in the words given with --serve-option, by name.

    Raises UsageError for words that it would refuse, or that belong to the service itself.
    """
    from nemotron_ops.cli.serve import serve

    check_serve_options(options)
    try:
        read = serve.make_context("serve", [*recipes, *options])
    except click.ClickException as exc:
        raise UsageError(f"cannot use --serve-option: {exc.format_message()}") from exc
    given = {k: v for k, v in read.params.items() if v not in (None, "", (), False)}
    for name, flag in {**DECIDED, **MEANINGLESS}.items():
        if name in given:
            hint = f"say {flag} to `service install` itself" if name in DECIDED else None
            raise UsageError(f"cannot use --serve-option {flag}: the service decides that", hint=hint)
    if given.get("targets") != recipes:
        raise UsageError("cannot use --serve-option: a word of it would be taken for a recipe", hint="one option each")
    return given


def check_serve_options(options: tuple[str, ...]) -> None:
    """Raise UsageError for words with control characters, which no unit file or script may get."""
    for option in options:
        if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in option):
            raise UsageError(f"cannot use --serve-option {option!a}: it has a control character")
