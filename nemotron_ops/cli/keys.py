"""`nemotron-ops keys`: make, list and revoke the keys that clients show to the gateway. Prints."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.cli.options import option, options_of
from nemotron_ops.errors import UsageError

if TYPE_CHECKING:
    from nemotron_ops.gateway.keys.key_usage import Usage
    from nemotron_ops.gateway.keys.ring import Key

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
file_option = click.option(
    "--file",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keys file; default: keys.json in the config folder.",
)


@click.group()
def keys() -> None:
    """Make, list and revoke the keys that clients need."""


@dataclass(frozen=True, kw_only=True)
class KeyOptions:
    """What a key may do."""

    scopes: tuple[str, ...] = option(
        "What the key may do (repeatable); default: inference. admin includes the others.", "--scope",
        type=click.Choice(["inference", "metrics", "tools", "admin"]),
    )  # fmt: skip
    models: tuple[str, ...] = option("Recipe name or alias that the key may use (repeatable); default: all.", "--model")
    expires: str | None = option("Time until the key ends: 12h, 30d, 8w.", metavar="TIME")
    requests_per_minute: int | None = option("Requests per minute.", type=click.IntRange(min=1))
    tokens_per_minute: int | None = option("Tokens (in and out) per minute.", type=click.IntRange(min=1))
    tokens_per_day: int | None = option("Tokens (in and out) per day, UTC.", type=click.IntRange(min=1))
    concurrent: int | None = option("Requests at the same time.", type=click.IntRange(min=1))
    weight: float = option(
        "Share of the slots beside other keys when requests have to wait.", default=1.0,
        type=click.FloatRange(min=0.01), show_default=True,
    )  # fmt: skip
    replace_old: bool = option("Revoke the active key of this name first.", "--replace")

    def key(self, name: str, now: float) -> Key:
        """The key to be made; its id and hash come with its text."""
        from nemotron_ops.gateway.api.routes import Scope
        from nemotron_ops.gateway.keys.ring import Key

        return Key(
            id="",
            sha256="",
            name=name,
            models=self.models,
            weight=self.weight,
            created_at=now,
            scopes=tuple(Scope(s) for s in self.scopes or ("inference",)),
            expires_at=now + seconds(self.expires) if self.expires else 0.0,
            requests_per_minute=self.requests_per_minute or 0,
            tokens_per_minute=self.tokens_per_minute or 0,
            tokens_per_day=self.tokens_per_day or 0,
            concurrent=self.concurrent or 0,
        )


@keys.command()
@click.argument("name")
@options_of(KeyOptions)
@file_option
@dry_run_option
@json_option
def create(name: str, wanted: KeyOptions, file: Path | None, dry_run: bool, as_json: bool) -> None:
    """Make a key called NAME and print it, once.

    Only its hash is kept. A running gateway accepts the new key within a second or two.
    """
    with App() as app:
        from nemotron_ops.gateway.keys import keystore

        path = file or app.layout.config / "keys.json"
        new = wanted.key(name, time.time())
        if dry_run:
            app.ui.say(f"would add the key {name!r} to {path}")
            if as_json:
                app.ui.json({"dry_run": True, "file": str(path), "key": shown(new)})
            return
        key, text = keystore.create(path, new, replace_old=wanted.replace_old)
        if as_json:
            app.ui.json({"file": str(path), "text": text, "key": shown(key)})
            return
        app.ui.data(text)
        app.ui.say(f"This is the only time that the key {name!r} (id {key.id}) is shown. Its hash is in {path}.")


@keys.command("list")
@click.option("--all", "show_all", is_flag=True, help="Also revoked and expired keys.")
@file_option
@json_option
def list_keys(show_all: bool, file: Path | None, as_json: bool) -> None:
    """List keys, their scopes and limits, and their usage."""
    with App() as app:
        from nemotron_ops.gateway.keys import keystore
        from nemotron_ops.gateway.keys.key_usage import Usage
        from nemotron_ops.gateway.keys.ring import KeyRing

        path = file or app.layout.config / "keys.json"
        ring = keystore.read_ring(path) if path.exists() else KeyRing(keys={})
        used = keystore.read_usage(str(app.layout.state / "usage.json"))
        now = time.time()
        found = [k for k in (*ring.keys.values(), *ring.plain) if show_all or state_of(k, now) == "active"]
        if as_json:
            app.ui.json([shown(k, used.get(k.id), now=now) for k in found])
            return
        rows = [row(k, used.get(k.id, Usage()), now) for k in found]
        app.ui.table(("id", "name", "state", "scopes", "models", "limits", "requests", "tokens", "today"), rows)
        if not found:
            app.ui.say("no keys; make one with: nemotron-ops keys create NAME")


@keys.command()
@click.argument("key")
@file_option
@dry_run_option
@json_option
def revoke(key: str, file: Path | None, dry_run: bool, as_json: bool) -> None:
    """Revoke a key by id or name. A running gateway refuses it within a second or two."""
    with App() as app:
        from nemotron_ops.gateway.keys import keystore

        path = file or app.layout.config / "keys.json"
        if not path.exists():
            raise UsageError(f"cannot revoke {key!r}: there is no keys file {path}")
        if dry_run:
            found, active = keystore.find(keystore.read_ring(path), key), False
            app.ui.say(f"would revoke the key {found.name!r} (id {found.id})")
        else:
            found, active = keystore.revoke(path, key, now=time.time())
            what = "revoked" if active else "was revoked already:"
            app.ui.say(f"{what} the key {found.name!r} (id {found.id})")
        if as_json:
            app.ui.json({"key": found.id, "name": found.name, "changed": active, "dry_run": dry_run})


def seconds(text: str) -> float:
    """`12h` as seconds. Raises UsageError."""
    match = re.fullmatch(r"(\d+)\s*([smhdw])", text.strip().lower())
    if match is None:
        raise UsageError(
            f"cannot read the time {text!r}: expected a number and s, m, h, d or w", hint="for example 30d"
        )
    return float(int(match[1]) * UNITS_S[match[2]])


def state_of(key: Key, now: float) -> str:
    """active, revoked or expired."""
    if key.revoked_at:
        return "revoked"
    return "expired" if key.expires_at and now >= key.expires_at else "active"


def shown(key: Key, used: Usage | None = None, *, now: float = 0.0) -> dict[str, Any]:
    """A key as JSON, without its hash."""
    from dataclasses import asdict

    value = {k: v for k, v in asdict(key).items() if k != "sha256"}
    value["state"] = state_of(key, now)
    if used is not None:
        value["used"] = asdict(used)
    return value


def row(key: Key, used: Usage, now: float) -> tuple[object, ...]:
    """A key as a line of the table."""
    limits = [
        f"{value:g} {word}"
        for value, word in (
            (key.requests_per_minute, "requests/min"),
            (key.tokens_per_minute, "tokens/min"),
            (key.tokens_per_day, "tokens/day"),
            (key.concurrent, "at once"),
        )
        if value
    ]
    today = used.day_tokens if used.day == int(now // 86400) else 0
    return (
        key.id,
        key.name,
        state_of(key, now),
        ",".join(key.scopes),
        ",".join(key.models) or "all",
        ", ".join(limits) or "none",
        used.requests,
        used.prompt_tokens + used.completion_tokens,
        today,
    )
