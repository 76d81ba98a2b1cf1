"""Chats and messages in one SQLite file. Disk.

Every write is one transaction in write-ahead mode, so a kill loses none that was made. One connection, one lock: calls
are short, and come from threads. Attachments are files beside it, named by their sha256.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nemotron_ops.errors import HostError
from nemotron_ops.files import write_atomic
from nemotron_ops.studio.threads.tree import Attachment, Message

SCHEMA = """
CREATE TABLE IF NOT EXISTS chats (
    id TEXT PRIMARY KEY, title TEXT NOT NULL, created_s REAL NOT NULL, updated_s REAL NOT NULL,
    pinned INTEGER NOT NULL DEFAULT 0, archived INTEGER NOT NULL DEFAULT 0,
    leaf TEXT NOT NULL DEFAULT '', settings TEXT NOT NULL DEFAULT '{}', draft TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS messages (
    id TEXT PRIMARY KEY, chat TEXT NOT NULL REFERENCES chats(id) ON DELETE CASCADE, parent TEXT NOT NULL,
    role TEXT NOT NULL, content TEXT NOT NULL, thinking TEXT NOT NULL, state TEXT NOT NULL, error TEXT NOT NULL,
    created_s REAL NOT NULL, made_by TEXT NOT NULL, attachments TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS messages_of_chat ON messages(chat, created_s);
CREATE TABLE IF NOT EXISTS presets (name TEXT PRIMARY KEY, settings TEXT NOT NULL);
"""
TITLE_LETTERS = 60
CHANGEABLE = frozenset({"title", "pinned", "archived", "leaf", "draft"})


@dataclass(frozen=True, kw_only=True)
class Chat:
    """One chat. `leaf` is the last message of the branch that is shown."""

    id: str
    title: str
    created_s: float
    updated_s: float
    pinned: bool = False
    archived: bool = False
    leaf: str = ""
    settings: Mapping[str, Any]
    draft: str = ""


def new_id() -> str:
    """An id that cannot be guessed and is safe in an address."""
    return secrets.token_hex(8)


class Store:
    """All chats. Raises HostError where the disk is full or the file is damaged."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder / "chats.sqlite"
        try:
            self._db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=10.0)
            self.path.chmod(0o600)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.executescript(SCHEMA)
        except sqlite3.Error as exc:
            raise HostError(f"cannot open {self.path}: {exc}", hint="move the file away to begin anew") from exc

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _cursor(self, *, write: bool = False) -> Iterator[sqlite3.Cursor]:
        with self._lock:
            cursor = self._db.cursor()
            try:
                if write:
                    cursor.execute("BEGIN IMMEDIATE")
                yield cursor
                if write:
                    cursor.execute("COMMIT")
            except BaseException as exc:
                if write and self._db.in_transaction:
                    cursor.execute("ROLLBACK")
                if isinstance(exc, sqlite3.Error):
                    raise HostError(f"cannot use {self.path}: {exc}", hint="free some space on its disk") from exc
                raise
            finally:
                cursor.close()

    # chats

    def create(self, title: str, settings: Mapping[str, Any]) -> Chat:
        """A new chat."""
        now = self._clock()
        chat = Chat(id=new_id(), title=title_of(title), created_s=now, updated_s=now, settings=dict(settings))
        with self._cursor(write=True) as cursor:
            cursor.execute(
                "INSERT INTO chats (id, title, created_s, updated_s, settings) VALUES (?, ?, ?, ?, ?)",
                (chat.id, chat.title, now, now, json.dumps(settings)),
            )
        return chat

    def chat(self, chat: str) -> Chat | None:
        """The chat, None if there is none."""
        with self._cursor() as cursor:
            row = cursor.execute(f"SELECT {CHAT_COLUMNS} FROM chats WHERE id = ?", (chat,)).fetchone()
        return _chat(row) if row else None

    def chats(self, *, words: str = "", archived: bool = False, most: int = 500) -> list[Chat]:
        """Chats, pinned ones first, then the newest; with `words` those whose title or messages hold them."""
        where, values = ["archived = ?"], [int(archived)]
        parameters: list[Any] = [*values]
        if words:
            like = f"%{words.replace('!', '!!').replace('%', '!%').replace('_', '!_')}%"
            where.append(
                "(title LIKE ? ESCAPE '!' OR id IN (SELECT chat FROM messages WHERE content LIKE ? ESCAPE '!'))"
            )
            parameters += [like, like]
        query = (
            f"SELECT {CHAT_COLUMNS} FROM chats WHERE {' AND '.join(where)} ORDER BY pinned DESC, updated_s DESC LIMIT ?"
        )
        with self._cursor() as cursor:
            rows = cursor.execute(query, (*parameters, most)).fetchall()
        return [_chat(row) for row in rows]

    def change(self, chat: str, **values: Any) -> None:
        """Change title, pinned, archived, leaf or draft of a chat."""
        wrong = values.keys() - CHANGEABLE
        assert not wrong, wrong
        names = ", ".join(f"{name} = ?" for name in values)
        with self._cursor(write=True) as cursor:
            cursor.execute(f"UPDATE chats SET {names} WHERE id = ?", (*values.values(), chat))

    def set_settings(self, chat: str, settings: Mapping[str, Any]) -> None:
        """Replace the settings of a chat."""
        with self._cursor(write=True) as cursor:
            cursor.execute("UPDATE chats SET settings = ? WHERE id = ?", (json.dumps(settings), chat))

    def delete(self, chat: str) -> None:
        """Remove a chat with its messages."""
        with self._cursor(write=True) as cursor:
            cursor.execute("DELETE FROM chats WHERE id = ?", (chat,))

    # messages

    def add(self, message: Message) -> None:
        """Add a message, and show the branch that ends in it."""
        with self._cursor(write=True) as cursor:
            cursor.execute(f"INSERT INTO messages ({MESSAGE_COLUMNS}) VALUES ({', '.join('?' * 11)})", _row(message))
            cursor.execute(
                "UPDATE chats SET leaf = ?, updated_s = ? WHERE id = ?", (message.id, self._clock(), message.chat)
            )

    def update(self, message: Message) -> None:
        """Replace what a message says, its state, error and what it was made by."""
        with self._cursor(write=True) as cursor:
            cursor.execute(
                "UPDATE messages SET content = ?, thinking = ?, state = ?, error = ?, made_by = ? WHERE id = ?",
                (
                    message.content,
                    message.thinking,
                    message.state,
                    message.error,
                    json.dumps(dict(message.made_by)),
                    message.id,
                ),
            )

    def messages(self, chat: str) -> list[Message]:
        """All messages of a chat, oldest first."""
        query = f"SELECT {MESSAGE_COLUMNS} FROM messages WHERE chat = ? ORDER BY created_s, rowid"
        with self._cursor() as cursor:
            rows = cursor.execute(query, (chat,)).fetchall()
        return [_message(row) for row in rows]

    def message(self, message: str) -> Message | None:
        """The message, None if there is none."""
        with self._cursor() as cursor:
            row = cursor.execute(f"SELECT {MESSAGE_COLUMNS} FROM messages WHERE id = ?", (message,)).fetchone()
        return _message(row) if row else None

    def unfinished(self, states: frozenset[str]) -> list[Message]:
        """Messages in one of `states`: what a server that was killed has left."""
        marks = ", ".join("?" * len(states))
        with self._cursor() as cursor:
            query = f"SELECT {MESSAGE_COLUMNS} FROM messages WHERE state IN ({marks})"
            rows = cursor.execute(query, tuple(states)).fetchall()
        return [_message(row) for row in rows]

    # presets

    def presets(self) -> dict[str, dict[str, Any]]:
        """Named settings."""
        with self._cursor() as cursor:
            rows = cursor.execute("SELECT name, settings FROM presets ORDER BY name").fetchall()
        return {name: json.loads(settings) for name, settings in rows}

    def set_preset(self, name: str, settings: Mapping[str, Any] | None) -> None:
        """Keep named settings, or remove them with None."""
        with self._cursor(write=True) as cursor:
            if settings is None:
                cursor.execute("DELETE FROM presets WHERE name = ?", (name,))
            else:
                cursor.execute("INSERT OR REPLACE INTO presets VALUES (?, ?)", (name, json.dumps(settings)))

    # files

    def keep_file(self, data: bytes) -> str:
        """Keep the bytes of an attachment; returns their sha256. Raises HostError on a full disk."""
        name = hashlib.sha256(data).hexdigest()
        path = self.file(name)
        try:
            if not path.exists():
                write_atomic(path, data, mode=0o600)
        except OSError as exc:
            raise HostError(f"cannot keep the file: {exc.strerror or exc}", hint="free some space on its disk") from exc
        return name

    def file(self, sha256: str) -> Path:
        """Where an attachment's bytes are."""
        return self.folder / "files" / sha256


CHAT_COLUMNS = "id, title, created_s, updated_s, pinned, archived, leaf, settings, draft"
MESSAGE_COLUMNS = "id, chat, parent, role, content, thinking, state, error, created_s, made_by, attachments"


def title_of(text: str) -> str:
    """A chat's title: the first line of its first question."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= TITLE_LETTERS else line[: TITLE_LETTERS - 1].rstrip() + "…"


def _chat(row: tuple[Any, ...]) -> Chat:
    names = CHAT_COLUMNS.split(", ")
    value = dict(zip(names, row, strict=True))
    flags = {"pinned": bool(value["pinned"]), "archived": bool(value["archived"])}
    return Chat(**{**value, **flags, "settings": json.loads(value["settings"])})


def _message(row: tuple[Any, ...]) -> Message:
    value = dict(zip(MESSAGE_COLUMNS.split(", "), row, strict=True))
    attachments = tuple(Attachment(**a) for a in json.loads(value["attachments"]))
    return Message(**{**value, "made_by": json.loads(value["made_by"]), "attachments": attachments})


def _row(message: Message) -> tuple[Any, ...]:
    return (
        message.id, message.chat, message.parent, message.role, message.content, message.thinking, message.state,
        message.error, message.created_s, json.dumps(dict(message.made_by)),
        json.dumps([asdict(a) for a in message.attachments]),
    )  # fmt: skip
