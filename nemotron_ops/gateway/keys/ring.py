"""API keys: hashed, with scopes, models and limits; authentication against them. Pure.

A key reads `nok-<id>-<secret>`: the id finds the record, the secret's hash must match it. Secrets have 256 random
bits, so one round of SHA-256 is all the hashing they need. A keys file may also be plain text, one key per line as
in llama-server's `--api-key-file`; such keys may use every model and read metrics, without limits.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import msgspec

from nemotron_ops.errors import UsageError
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Scope

PREFIX = "nok"
FILE_VERSION: Literal[1] = 1
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key. Zero means: no limit. `models` empty means: every model. Times are seconds since 1970."""

    id: str
    sha256: str
    name: str = ""
    scopes: tuple[Scope, ...] = (Scope.INFERENCE,)
    models: tuple[str, ...] = ()
    weight: float = 1.0
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    tokens_per_day: int = 0
    concurrent: int = 0
    created_at: float = 0.0
    expires_at: float = 0.0
    revoked_at: float = 0.0

    def __repr__(self) -> str:
        return f"Key(id={self.id!r}, name={self.name!r})"


ANYONE = Key(id="anyone", sha256="", name="no keys configured", scopes=tuple(Scope))


@dataclass(frozen=True, kw_only=True)
class KeyRing:
    """All keys of a file. `plain` ones have no id in their text."""

    keys: Mapping[str, Key]
    plain: tuple[Key, ...] = ()

    def holds(self, key: Key) -> bool:
        """Whether `key`, found earlier, is still in the file and not revoked."""
        now = self.keys.get(key.id) or next((k for k in self.plain if k.id == key.id), None)
        return now is not None and now.sha256 == key.sha256 and not now.revoked_at

    def find(self, text: str) -> Key | None:
        """The key with this text, or None. Compares in constant time."""
        digest = hash_key(text)
        parts = text.split("-", 2)
        if len(parts) == 3 and parts[0] == PREFIX:
            key = self.keys.get(parts[1])
            if key is not None and hmac.compare_digest(key.sha256, digest):
                return key
        found = None
        for key in self.plain:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def hash_key(text: str) -> str:
    """The hash that is stored of a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def key_text(key_id: str, secret: str) -> str:
    """The text of a key, shown once when it is made."""
    return f"{PREFIX}-{key_id}-{secret}"


def admit(ring: KeyRing | None, text: str, scope: Scope, *, now: float) -> Key:
    """The key with this `text`, if it has `scope`. Raises Refusal if not. Without a ring, everything is allowed."""
    if ring is None:
        return ANYONE
    key = ring.find(text) if text else None
    if key is None:
        if scope is Scope.PUBLIC:
            return Key(id="", sha256="", scopes=(Scope.PUBLIC,))
        what = "Invalid API Key" if text else "an API key is required: send it as 'Authorization: Bearer ...'"
        raise Refusal(status=401, code="invalid_api_key", message=what)
    if key.revoked_at or (key.expires_at and now >= key.expires_at):
        why = "revoked" if key.revoked_at else "expired"
        raise Refusal(
            status=401, code=f"key_{why}", message=f"this API key has {why.replace('revoked', 'been revoked')}"
        )
    if scope not in (Scope.PUBLIC, *key.scopes) and Scope.ADMIN not in key.scopes:
        raise Refusal(status=403, code="scope", message=f"this API key lacks the scope {scope.value!r}")
    return key


def may_use(key: Key, names: tuple[str, ...]) -> bool:
    """Whether `key` may use the model with these names."""
    return not key.models or any(n in key.models for n in names)


def parse(content: bytes) -> KeyRing:
    """The keys in a file's content: our JSON, or plain lines. Raises UsageError if it is neither."""
    if not content.lstrip().startswith(b"{"):
        lines = [line.strip() for line in content.decode("utf-8", "surrogateescape").splitlines()]
        texts = [line for line in lines if line and not line.startswith("#")]
        return KeyRing(keys={}, plain=tuple(_plain(t) for t in texts))
    try:
        found = msgspec.convert(msgspec.json.decode(content), _File)
        records = [_record(i, r) for i, r in enumerate(found.keys)]
        if len(keys := {k.id: k for k in records}) < len(records):
            raise ValueError("an id occurs twice")
    except (msgspec.MsgspecError, ValueError) as exc:
        raise UsageError(f"cannot read the keys file: {exc}", hint="make keys with `nemotron-ops keys create`") from exc
    return KeyRing(keys=keys)


def dump(ring: KeyRing) -> dict[str, Any]:
    """`ring` as the JSON value of a keys file."""
    return {"version": FILE_VERSION, "keys": [asdict(k) for k in ring.keys.values()]}


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[dict[str, Any]]
    version: Literal[1] = FILE_VERSION


def _record(index: int, value: dict[str, Any]) -> Key:
    """One key, with the field types of Key. Raises ValueError or a msgspec error."""
    known = {f.name for f in fields(Key)}
    if unknown := set(value) - known:
        raise ValueError(f"keys[{index}]: unknown key {sorted(unknown)[0]!r}; known: {', '.join(sorted(known))}")
    try:
        key = msgspec.convert(value, Key)
    except msgspec.ValidationError as exc:
        raise ValueError(f"keys[{index}]: {exc}") from exc
    limits = {f: getattr(key, f) for f in ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "concurrent")}
    if low := next((name for name, limit in limits.items() if limit < 0), ""):
        raise ValueError(f"keys[{index}]: {low}: expected 0 or more, found {limits[low]}")
    if not key.weight > 0:
        raise ValueError(f"keys[{index}]: weight: expected more than 0, found {key.weight}")
    if not key.id or not SHA256.fullmatch(key.sha256):
        raise ValueError(f"keys[{index}]: expected an id, and a sha256 of 64 hexadecimal digits")
    return key


def _plain(text: str) -> Key:
    digest = hash_key(text)
    return Key(id=digest[:8], sha256=digest, name="plain", scopes=(Scope.INFERENCE, Scope.METRICS))
