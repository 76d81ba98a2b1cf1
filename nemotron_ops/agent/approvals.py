"""Which calls a person has approved: a file in the state, one list of open requests and one of what is allowed. Disk.

An approval is exact: one tool by its name, for one key. `once` is asked a key's first time and then kept; `always` is
asked for each call. The agent writes requests and reads answers; `nemotron-ops tools approvals` shows and answers them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nemotron_ops import files
from nemotron_ops.errors import HostError, UsageError

FILE = "approvals.json"
MOST_OPEN = 100  # requests kept; the oldest is dropped first
SHOWN = 2000  # letters of a call's arguments
YES, NO, WAITS = "yes", "no", ""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A call that waits to be approved. `key` is the id of the client's key, or empty without keys."""

    id: str
    key: str
    tool: str
    arguments: str
    at: float  # Unix time in seconds
    answer: str = WAITS


@dataclass(frozen=True, kw_only=True)
class Book:
    """The whole file. `allowed` are pairs of key and tool."""

    requests: tuple[Request, ...] = ()
    allowed: tuple[tuple[str, str], ...] = ()


class Approvals:
    """The file below the state folder. Times are Unix seconds from `clock`."""

    def __init__(self, state: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = state / "agent" / FILE
        self._clock = clock

    def book(self) -> Book:
        """What is open and allowed. Raises HostError if the file is wrong."""
        value = files.read_json(self.path)
        if value is None:
            return Book()
        try:
            return Book(
                requests=tuple(Request(**one) for one in value["requests"]),
                allowed=tuple((str(key), str(tool)) for key, tool in value["allowed"]),
            )
        except (TypeError, KeyError, ValueError) as exc:
            raise HostError(f"cannot read {self.path}: {exc}", hint=f"remove it: rm {self.path}") from exc

    def is_allowed(self, key: str, tool: str) -> bool:
        """Whether `key` may use `tool` without being asked again."""
        return (key, tool) in self.book().allowed

    def allow(self, key: str, tool: str) -> None:
        """Keep that `key` may use `tool`."""
        self._change(lambda book: replace(book, allowed=(*_without(book, key, tool), (key, tool))))

    def revoke(self, tool: str) -> int:
        """Forget what was allowed for `tool`, for all keys; returns how many keys had it."""
        had = sum(1 for _, name in self.book().allowed if name == tool)
        self._change(lambda book: replace(book, allowed=tuple(p for p in book.allowed if p[1] != tool)))
        return had

    def ask(self, key: str, tool: str, arguments: str) -> str:
        """Write a request; returns its id."""
        made = Request(
            id=secrets.token_hex(4), key=key, tool=tool, arguments=arguments[:SHOWN], at=self._clock()
        )  # fmt: skip
        self._change(lambda book: replace(book, requests=(*book.requests, made)[-MOST_OPEN:]))
        return made.id

    def answer_to(self, request_id: str) -> str:
        """The answer to a request: yes, no, or empty while there is none; one that is gone was refused."""
        found = next((r for r in self.book().requests if r.id == request_id), None)
        return found.answer if found else NO

    def answer(self, request_id: str, *, yes: bool, keep: bool) -> Request:
        """Answer a request; `keep` allows the tool for its key from now on. Raises UsageError if there is none."""
        found: list[Request] = []

        def change(book: Book) -> Book:
            for one in book.requests:
                if one.id == request_id and one.answer == WAITS:
                    found.append(replace(one, answer=YES if yes else NO))
            if not found:
                raise UsageError(
                    f"cannot answer {request_id!r}: no such call waits", hint="nemotron-ops tools approvals lists them"
                )
            answered = tuple(found[0] if one.id == request_id else one for one in book.requests)
            pair = (found[0].key, found[0].tool)
            allowed = (*_without(book, *pair), pair) if yes and keep else book.allowed
            return Book(requests=answered, allowed=allowed)

        self._change(change)
        return found[0]

    def drop(self, request_id: str) -> None:
        """Forget a request: its call was run or given up."""
        self._change(lambda book: replace(book, requests=tuple(r for r in book.requests if r.id != request_id)))

    def _change(self, change: Callable[[Book], Book]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with files.locked(self.path.parent / f".{FILE}.lock"):
            book = change(self.book())
            value: dict[str, Any] = {"requests": [asdict(r) for r in book.requests], "allowed": list(book.allowed)}
            files.write_json(self.path, value, mode=0o600)


def _without(book: Book, key: str, tool: str) -> list[tuple[str, str]]:
    return [pair for pair in book.allowed if pair != (key, tool)]
