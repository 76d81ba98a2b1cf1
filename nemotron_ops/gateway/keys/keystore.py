"""The keys file and the usage file. Disk.

The gateway reads the keys file when it changes; `nemotron-ops keys` writes it under a lock. Secrets are never
written: a key's text exists only where `create` returns it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from nemotron_ops.errors import GatewayError, NemotronOpsError, UsageError
from nemotron_ops.gateway.keys.key_usage import Table, Usage, from_json, to_json, together
from nemotron_ops.gateway.keys.ring import Key, KeyRing, dump, hash_key, key_text, parse

LOCK_S = 10.0
Stamp = tuple[int, int, int]


def stamp(path: str) -> Stamp | None:
    """A value that changes whenever a file is rewritten; None if there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_ring(path: Path) -> KeyRing:
    """The keys in a file. Raises GatewayError or UsageError."""
    if path.exists() and not path.is_file():  # opening a named pipe would wait for its writer for ever
        raise GatewayError(f"cannot read keys file {path}: it is not a file")
    try:
        return parse(path.read_bytes())
    except OSError as exc:
        raise GatewayError(
            f"cannot read keys file {path}: {exc.strerror}", hint="make a key with `nemotron-ops keys create`"
        ) from exc


def read_usage(path: str) -> dict[str, Usage]:
    """The usage in a file; empty if it is missing or damaged."""
    try:
        return from_json(msgspec.json.decode(Path(path).read_bytes())) if path else {}
    except (OSError, ValueError):
        return {}


def add_usage(path: str, part: Table, *, known: Table) -> dict[str, Usage]:
    """Add `part` to the usage in a file, and return the sum. Raises OSError.

    `known` is the content of the file when last read, used instead if the file is missing or damaged.
    """
    from nemotron_ops.files import locked, write_json

    with locked(Path(path).with_suffix(".lock"), timeout_s=LOCK_S):
        now = together(read_usage(path) or known, part)
        write_json(Path(path), to_json(now), mode=0o600)
    return now


def create(path: Path, key: Key, *, replace_old: bool = False) -> tuple[Key, str]:
    """Add a key with the settings of `key`, and a new id and secret; returns it and its text.

    Raises UsageError if an active key has that name, unless `replace_old`: then that one is revoked.
    """
    import secrets

    secret = secrets.token_urlsafe(32)
    made = replace(key, id=secrets.token_hex(4), sha256="")
    text = key_text(made.id, secret)
    made = replace(made, sha256=hash_key(text))

    def change(ring: KeyRing) -> KeyRing:
        old = [k for k in ring.keys.values() if k.name == key.name and not k.revoked_at]
        if old and not replace_old:
            raise UsageError(
                f"cannot create key {key.name!r}: there is one already (id {old[0].id})",
                hint="choose another name, or replace it with --replace",
            )
        gone = {k.id: replace(k, revoked_at=key.created_at) for k in old}
        return KeyRing(keys={**ring.keys, **gone, made.id: made})

    _change(path, change)
    return made, text


def revoke(path: Path, wanted: str, *, now: float) -> tuple[Key, bool]:
    """Revoke the key with this id or name; returns it and whether it was active. Raises UsageError if none is."""
    found: list[tuple[Key, bool]] = []

    def change(ring: KeyRing) -> KeyRing:
        key = find(ring, wanted)
        found.append((key, not key.revoked_at))
        return KeyRing(keys={**ring.keys, key.id: key if key.revoked_at else replace(key, revoked_at=now)})

    _change(path, change)
    return found[0]


def find(ring: KeyRing, wanted: str) -> Key:
    """The key with this id, or the active (else latest) one with this name. Raises UsageError if there is none."""
    named = [k for k in ring.keys.values() if k.name == wanted]
    key = ring.keys.get(wanted) or next((k for k in named if not k.revoked_at), named[-1] if named else None)
    if key is None:
        raise UsageError(f"cannot find key {wanted!r}: no key has this id or name", hint="see `nemotron-ops keys list`")
    return key


def _change(path: Path, change: Callable[[KeyRing], KeyRing]) -> None:
    from nemotron_ops.files import locked, write_json

    try:
        with locked(path.with_suffix(".lock"), timeout_s=LOCK_S):
            ring = read_ring(path) if os.path.lexists(path) else KeyRing(keys={})
            if ring.plain:
                raise UsageError(
                    f"cannot change {path}: it is a plain list of keys",
                    hint="edit it by hand, or choose another --file",
                )
            write_json(path, dump(change(ring)), mode=0o600)
    except OSError as exc:
        raise NemotronOpsError(f"cannot write {path}: {exc.strerror or exc}") from exc
