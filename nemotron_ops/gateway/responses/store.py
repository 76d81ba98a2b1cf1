"""Keeps responses for later turns: in memory and on disk, within bounds, each private to its key. Disk.

A response is kept with its own input, and names the response that it continues: a conversation of many turns is kept
once, not once for each turn. The bounds drop the responses that were used longest ago; a turn uses all that it
continues. One thread writes, so that a slow disk delays no answer; a reader finds in memory what is not written yet.
Files that another gateway process wrote (an older one that still drains) are found when they are asked for.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from nemotron_ops.files import write_atomic
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.streams.sse import NOT_JSON
from nemotron_ops.gateway.warnings_log import OnceLog

ID = re.compile(r"resp_[0-9a-z]{16,64}")
ITEM = re.compile(r"(?:rs|msg|fc|ctc)_([0-9a-z]{16,64})_[0-9]+")
MOST_RESPONSES = 10_000
LARGEST_SHARE = 4  # a response larger than this part of the bound is not kept
LONGEST = 1000  # turns of one conversation
HALF_WRITTEN_S = 60.0  # age of a temporary file that no process writes any more
WAITING = 256  # files that wait to be written; above it they are kept in memory only


class Kept(msgspec.Struct, kw_only=True):
    """One response: the key that may see it, its turn's input items, and the whole response."""

    key: str
    previous: str = ""
    input: list[Any] = []
    response: dict[str, Any] = {}


_decode = msgspec.json.Decoder(Kept).decode
_encode = msgspec.json.Encoder().encode


class Store:
    """The responses that are kept. `folder` is empty to keep them in memory only; no `most_bytes` keeps none."""

    def __init__(self, folder: str, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._folder = Path(folder) if folder and most_bytes else None
        self._sizes: OrderedDict[str, int] = OrderedDict()  # the least recently used first
        self._memory: dict[str, bytes] = {}
        self._leaving: set[str] = set()  # dropped, their files not yet removed
        self._writer: ThreadPoolExecutor | None = None
        self._waiting = 0
        self._lock = threading.Lock()  # of `_waiting`
        self._failure = OnceLog("keep responses on disk")
        if self._folder is not None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="responses")
            self._find_files(self._folder)

    def keep(self, answer_id: str, kept: Kept) -> None:
        """Keep a response, and drop those that no longer fit."""
        data = _encode(kept)
        if not self.most_bytes or len(data) > self.most_bytes // LARGEST_SHARE or not ID.fullmatch(answer_id):
            return
        self._note(answer_id, len(data))
        self._memory[answer_id] = data
        self._on_disk(write_file, answer_id, data)
        self._drop_oldest()

    def get(self, answer_id: str, key: str) -> Kept | None:
        """The response `answer_id` if it is kept and belongs to `key`."""
        if not ID.fullmatch(answer_id) or answer_id in self._leaving:
            return None
        data = self._memory.get(answer_id) or self._read(answer_id)
        with contextlib.suppress(*NOT_JSON, msgspec.ValidationError):
            kept = _decode(data)
            if kept.key == key:
                self._note(answer_id, len(data))
                return kept
        return None

    def delete(self, answer_id: str, key: str) -> bool:
        """Drop a response of `key`; returns whether it was there."""
        if self.get(answer_id, key) is None:
            return False
        self._forget(answer_id)
        return True

    def conversation(self, answer_id: str, key: str) -> list[Any]:
        """The items of all turns up to the response `answer_id`. Raises Refusal if one of them is not kept."""
        if not self.most_bytes:
            message = "previous_response_id: this gateway keeps no responses; send the whole conversation as input"
            raise Refusal(status=400, code="previous_response_not_found", message=message)
        turns: list[Kept] = []
        while answer_id:
            kept = self.get(answer_id, key) if len(turns) < LONGEST else None
            if kept is None:
                message = (
                    f"previous_response_id: no response {answer_id[:80]!r} is kept for this key (it was not stored, was"
                    " deleted, or made room for newer ones); send the whole conversation as input"
                )
                raise Refusal(status=400, code="previous_response_not_found", message=message)
            turns.append(kept)
            answer_id = kept.previous
        return [item for kept in reversed(turns) for item in (*kept.input, *kept.response.get("output", ()))]

    def item(self, item_id: str, key: str) -> dict[str, Any] | None:
        """An output item of a response that is kept, by its id."""
        found = ITEM.fullmatch(item_id)
        kept = self.get(f"resp_{found[1]}", key) if found else None
        output = kept.response.get("output", ()) if kept is not None else ()
        return next((item for item in output if isinstance(item, dict) and item.get("id") == item_id), None)

    def close(self) -> None:
        """Write what waits."""
        if self._writer is not None:
            self._writer.shutdown()

    # bounds

    def _note(self, answer_id: str, size: int) -> None:
        """`answer_id` was used now, and takes `size` bytes."""
        self.bytes += size - self._sizes.pop(answer_id, 0)
        self._sizes[answer_id] = size

    def _drop_oldest(self) -> None:
        while self.bytes > self.most_bytes or len(self._sizes) > MOST_RESPONSES:
            self._forget(next(iter(self._sizes)))

    def _forget(self, answer_id: str) -> None:
        self.bytes -= self._sizes.pop(answer_id, 0)
        self._memory.pop(answer_id, None)
        if self._folder is not None:
            self._leaving.add(answer_id)
        self._on_disk(self._remove, answer_id)

    # disk

    def _find_files(self, folder: Path) -> None:
        """Learn which responses an earlier process has kept, and remove what it was writing when it died."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = sorted(_files(folder))
        except OSError as exc:
            self._failure.failed(exc)
            return
        for _, answer_id, size in found:
            self._note(answer_id, size)
        self._drop_oldest()

    def _on_disk(self, act: Callable[..., None], answer_id: str, *data: bytes) -> None:
        """Change a file in the writing thread, in the order of the calls; too many at once are not written."""
        if self._folder is None or self._writer is None or (data and self._waiting >= WAITING):
            return
        with self._lock:
            self._waiting += 1
        self._writer.submit(self._act, act, self._folder / f"{answer_id}.json", *data)

    def _remove(self, path: Path) -> None:
        """Remove a response, if it was ever written."""
        path.unlink(missing_ok=True)
        self._leaving.discard(path.stem)

    def _act(self, act: Callable[..., None], path: Path, *data: bytes) -> None:
        try:
            act(path, *data)
        except OSError as exc:
            self._failure.failed(exc)
        else:
            self._failure.recovered()
        finally:
            with self._lock:
                self._waiting -= 1

    def _read(self, answer_id: str) -> bytes:
        """The file of a response, which then stays in memory; empty if there is none."""
        if self._folder is None:
            return b""
        try:
            data = (self._folder / f"{answer_id}.json").read_bytes()
        except OSError:
            return b""
        self._note(answer_id, len(data))
        self._memory[answer_id] = data
        self._drop_oldest()
        return data


def write_file(path: Path, data: bytes) -> None:
    """Write a response, readable for nobody else."""
    write_atomic(path, data, mode=0o600)


def _files(folder: Path) -> Iterator[tuple[float, str, int]]:
    """Time, id and size of each response in `folder`; files that were half written are removed."""
    now = time.time()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".tmp"):
                with contextlib.suppress(OSError):
                    if now - entry.stat().st_mtime > HALF_WRITTEN_S:
                        os.unlink(entry.path)
            elif (answer_id := entry.name.removesuffix(".json")) and ID.fullmatch(answer_id):
                info = entry.stat()
                yield info.st_mtime, answer_id, info.st_size
