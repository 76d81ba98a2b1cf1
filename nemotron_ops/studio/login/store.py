"""The password's hash, sessions and the setup code, on disk (mode 0600).

The setup code is made by the command that starts the page, shown in the terminal, and kept as a hash; with it, and only
with it, the first password can be set. It ends after use, or after an hour.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nemotron_ops.files import locked, read_json, write_json
from nemotron_ops.studio.login.passwords import fits, hashed
from nemotron_ops.studio.login.sessions import SEEN_EVERY_S, Session, id_of, new_token, same

CODE_S = 3600.0
MOST_SESSIONS = 50


class LoginStore:
    """`login.json` of the page's folder. Commands and the page's process may both write it."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = folder / "login.json"
        self._clock = clock

    # the setup code

    def new_code(self) -> str:
        """A fresh setup code, which replaces an earlier one; empty if a password is set already."""
        with self._changing() as value:
            if value.get("password"):
                return ""
            code = secrets.token_urlsafe(16)
            value["setup"] = {"code": id_of(code), "until_s": self._clock() + CODE_S}
            return code

    def code_fits(self, code: str) -> bool:
        """Whether `code` may set the first password now."""
        kept = self._value().get("setup") or {}
        fresh = self._clock() < float(kept.get("until_s", 0))
        return same(id_of(code), str(kept.get("code", ""))) and fresh

    # the password

    @property
    def has_password(self) -> bool:
        """Whether the first password has been set."""
        return bool(self._value().get("password"))

    def set_password(self, password: str) -> None:
        """Set the password; ends the setup code and all sessions."""
        made = hashed(password)
        with self._changing() as value:
            value.clear()
            value["password"] = made

    def password_fits(self, password: str) -> bool:
        """Whether this is the password."""
        return fits(password, str(self._value().get("password") or NOBODY))

    # sessions

    def begin(self, agent: str) -> str:
        """The token of a new session."""
        token, now = new_token(), self._clock()
        made = Session(id=id_of(token), begun_s=now, seen_s=now, agent=agent[:200])
        with self._changing() as value:
            kept = [s for s in _sessions(value) if not s.over(now)]
            value["sessions"] = [asdict(s) for s in [*kept, made][-MOST_SESSIONS:]]
        return token

    def session(self, token: str) -> Session | None:
        """The session of a token, None if there is none or it has ended."""
        now, wanted = self._clock(), id_of(token)
        found = next((s for s in _sessions(self._value()) if same(s.id, wanted)), None)
        if found is None or found.over(now):
            return None
        if now - found.seen_s > SEEN_EVERY_S:
            with self._changing() as value:
                kept = [replace(s, seen_s=now) if s.id == found.id else s for s in _sessions(value)]
                value["sessions"] = [asdict(s) for s in kept]
        return found

    def sessions(self) -> list[Session]:
        """The sessions that have not ended."""
        now = self._clock()
        return [s for s in _sessions(self._value()) if not s.over(now)]

    def end(self, id: str = "", *, but: str = "") -> None:
        """End the session with this id, or all but `but`."""
        with self._changing() as value:
            kept = [s for s in _sessions(value) if (s.id != id if id else s.id == but)]
            value["sessions"] = [asdict(s) for s in kept]

    def _value(self) -> Mapping[str, Any]:
        value = read_json(self.path)
        return value if isinstance(value, dict) else {}

    def _changing(self) -> _Change:
        return _Change(self.path)


class _Change:
    """Reads the file under its lock, and writes what became of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = locked(path.with_suffix(".lock"))
        self._value: dict[str, Any] = {}

    def __enter__(self) -> dict[str, Any]:
        self._lock.__enter__()
        value = read_json(self._path)
        self._value = value if isinstance(value, dict) else {}
        return self._value

    def __exit__(self, kind: Any, exc: Any, tb: Any) -> None:
        try:
            if exc is None:
                write_json(self._path, self._value, mode=0o600)
        finally:
            self._lock.__exit__(kind, exc, tb)


def _sessions(value: Mapping[str, Any]) -> list[Session]:
    return [Session(**s) for s in value.get("sessions") or []]


NOBODY = "scrypt$32768$8$1$" + "30" * 16 + "$" + "00" * 64  # compared with where none is set, so that it takes as long
