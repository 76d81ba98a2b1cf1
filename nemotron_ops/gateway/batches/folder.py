"""Files and batches on disk, each private to its key. Disk.

    files/ID.json, files/ID.data          a file: what is known of it, its content
    batches/ID.json                       a batch
    batches/ID.output, batches/ID.errors  results of an unfinished batch, a line appended with each answer

Methods whose names begin with `put`, `read` or `drop` use the disk and run in a thread; the tables change on the event
loop only. A batch's files appear by a rename, and have ids that follow from the batch's: a kill at any line repeats it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from nemotron_ops.files import sync_dir, write_atomic
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.batches.batch import ID, OUTPUT, Batch, StoredFile
from nemotron_ops.gateway.batches.lines import NOT_JSON, Line, Place, done_ids, encode, places, read_line

T = TypeVar("T")
PARTS = ("output", "errors")
MOST_FILES = 10_000


class Folder:
    """All files and batches. `path` is None where batches are off."""

    def __init__(self, folder: str, most_bytes: int) -> None:
        self.path = Path(folder) if folder and most_bytes else None
        self.most_bytes = most_bytes
        self.files: dict[str, StoredFile] = {}
        self.batches: dict[str, Batch] = {}
        self._lock_fd = -1
        if self.path is not None:
            self.read_all()

    # tables

    def file(self, name: str, key: str) -> StoredFile:
        """The file of this key. Raises Refusal if there is none."""
        found = self.files.get(name)
        if found is None or found.key != key:
            raise Refusal(status=404, code="file_not_found", message=f"no file {name[:80]!r} is kept for this key")
        return found

    def batch(self, name: str, key: str) -> Batch:
        """The batch of this key. Raises Refusal if there is none."""
        found = self.batches.get(name)
        if found is None or found.key != key:
            raise Refusal(status=404, code="batch_not_found", message=f"no batch {name[:80]!r} is kept for this key")
        return found

    def check_room(self, more: int) -> None:
        """Raises Refusal if `more` bytes are too many."""
        held = sum(f.bytes for f in self.files.values())
        if held + more > self.most_bytes or len(self.files) >= MOST_FILES:
            raise Refusal(
                status=413, code="files_full",
                message=f"{held:,} bytes in {len(self.files)} files are kept; at most {self.most_bytes:,} bytes "
                f"in {MOST_FILES:,} files: delete some",
            )  # fmt: skip

    # disk

    def lock(self) -> bool:
        """Become the process that runs batches; False while another one (that still drains) is."""
        import fcntl  # here: pure parts that know of this module are also imported on Windows

        assert self.path is not None
        self.path.mkdir(parents=True, exist_ok=True)
        if self._lock_fd < 0:
            self._lock_fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def unlock(self) -> None:
        """Let another process run batches."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def read_all(self) -> None:
        """Read both tables; what cannot be read is left out."""
        files = {f.id: f for f in _read(self._at("files"), StoredFile)}
        self.files = {name: f for name, f in files.items() if self.data(name).is_file()}
        self.batches = {b.id: b for b in _read(self._at("batches"), Batch)}

    def put_file(self, file: StoredFile, content: memoryview) -> None:
        """Write a file; its content first."""
        write_atomic(self.data(file.id), bytes(content), mode=0o600)
        write_atomic(self._at("files") / f"{file.id}.json", encode(file), mode=0o600)

    def put_batch(self, batch: Batch) -> None:
        write_atomic(self._at("batches") / f"{batch.id}.json", encode(batch), mode=0o600)

    def put_result(self, batch: Batch, part: str, line: bytes) -> None:
        """Append one line of results."""
        with self._part(batch, part).open("ab") as f:
            f.write(line)

    def put_results_as_files(self, batch: Batch, now: float) -> list[StoredFile]:
        """Make files of the results of `batch`; returns those that there are."""
        made = []
        for part in PARTS:
            source, name = self._part(batch, part), file_id(batch, part)
            if source.is_file():
                with source.open("rb") as f:
                    os.fsync(f.fileno())
                self.data(name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, self.data(name))
                sync_dir(self.data(name).parent)
            if not self.data(name).is_file():
                continue
            file = StoredFile(
                id=name, key=batch.key, filename=f"{batch.id}_{part}.jsonl", purpose=OUTPUT,
                bytes=self.data(name).stat().st_size, made_at=int(now),
            )  # fmt: skip
            write_atomic(self._at("files") / f"{name}.json", encode(file), mode=0o600)
            made.append(file)
        return made

    def read_places(self, batch: Batch) -> tuple[list[Place], list[dict[str, object]]]:
        """Where the requests of `batch` are in its input, and what is wrong with it. Raises OSError."""
        with self.data(batch.input_file_id).open("rb") as lines:
            return places(lines, batch.endpoint)

    def read_done(self, batch: Batch, part: str) -> set[str]:
        """The custom_ids that have results; a last line that a kill has cut is removed."""
        source = self._part(batch, part)
        path = source if source.is_file() else self.data(file_id(batch, part))
        if not path.is_file():
            return set()
        content = path.read_bytes()
        found, whole = done_ids(content)
        if whole < len(content):
            os.truncate(path, whole)
        return set(found)

    def read_request(self, batch: Batch, place: Place) -> Line:
        """One request of the input. Raises OSError, or what `read_line` raises if the file has changed."""
        with self.data(batch.input_file_id).open("rb") as f:
            f.seek(place.start)
            return read_line(f.read(place.size))

    def read_content(self, file: StoredFile) -> bytes:
        return self.data(file.id).read_bytes()

    def drop_file(self, file: StoredFile) -> None:
        (self._at("files") / f"{file.id}.json").unlink(missing_ok=True)
        self.data(file.id).unlink(missing_ok=True)

    def data(self, name: str) -> Path:
        """Where the content of a file is."""
        return self._at("files") / f"{name}.data"

    def _part(self, batch: Batch, part: str) -> Path:
        return self._at("batches") / f"{batch.id}.{part}"

    def _at(self, name: str) -> Path:
        assert self.path is not None
        return self.path / name


def file_id(batch: Batch, part: str) -> str:
    """The id of a file with results."""
    return f"file-{batch.id.removeprefix('batch_')}-{part}"


def _read(folder: Path, kind: type[T]) -> Iterator[T]:
    decode = msgspec.json.Decoder(kind).decode
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        if not ID.fullmatch(path.stem):
            continue
        try:
            yield decode(path.read_bytes())
        except (OSError, *NOT_JSON):
            continue
