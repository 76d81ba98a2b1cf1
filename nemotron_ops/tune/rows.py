"""Reads rows of JSON, JSONL and CSV files, one by one. Disk.

A row that cannot be read is yielded as `Unreadable`, so that the others are still read. Parquet is read where pyarrow
is installed.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from nemotron_ops.errors import UsageError

KINDS = {".jsonl": "JSON lines", ".ndjson": "JSON lines", ".json": "JSON", ".csv": "CSV", ".parquet": "parquet"}
MOST_JSON_BYTES = 4 << 30  # a JSON file is read whole; JSON lines are not
MOST_CELL = 16 << 20  # letters of a CSV cell


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A row that is no object; `why` is the reader's own words."""

    why: str


Row = tuple[int, dict[str, Any] | Unreadable]  # number of the row from 1, as an editor counts lines of JSON lines


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a file, in order. Raises UsageError where the file cannot be read at all."""
    kind = path.suffixes[-2:][0] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    if kind.lower() not in KINDS:
        known = ", ".join(KINDS)
        raise UsageError(f"cannot read {path}: no kind of data ends in {kind or 'nothing'!r}", hint=f"known: {known}")
    if not path.is_file():
        why = "it is not a file" if path.exists() else "there is no such file"
        raise UsageError(f"cannot read {path}: {why}")
    try:
        yield from _READERS[kind.lower()](path)
    except (OSError, EOFError, csv.Error, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read {path}: {exc}") from exc


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _json_lines(path: Path) -> Iterator[Row]:
    decode = msgspec.json.Decoder().decode
    with _open(path) as f:
        for number, line in enumerate(f, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.isspace():
                continue
            try:
                row = decode(line)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
                yield number, Unreadable(why=_why(exc, line))
                continue
            yield number, row if isinstance(row, dict) else Unreadable(why="the row is no object")


def _why(exc: Exception, line: bytes) -> str:
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "the file is UTF-16: save it as UTF-8"
    return str(exc)


def _json(path: Path) -> Iterator[Row]:
    if path.stat().st_size > MOST_JSON_BYTES:
        raise UsageError(f"cannot read {path}: a JSON file is read whole, and this one is over 4 GiB", hint="use JSONL")
    with _open(path) as f:
        data = f.read().removeprefix(b"\xef\xbb\xbf")
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as exc:
        if data.lstrip().startswith(b"{") and b"}\n{" in data:
            yield from _json_lines(path)  # JSON lines under the ending of JSON
            return
        raise UsageError(f"cannot read {path}: {_why(exc, data)}", hint="one object a line is JSONL: *.jsonl") from exc
    if isinstance(value, dict):
        inner = [v for k in ("data", "train", "rows", "examples") if isinstance(v := value.get(k), list)]
        value = inner[0] if inner else [value]
    if not isinstance(value, list):
        raise UsageError(f"cannot read {path}: it holds no list of rows")
    for number, row in enumerate(value, 1):
        yield number, row if isinstance(row, dict) else Unreadable(why="the row is no object")


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(min(MOST_CELL, sys.maxsize))
    with _open(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as f:
        reader = csv.DictReader(f)
        for number, row in enumerate(reader, 1):
            if None in row or None in row.values():
                yield number, Unreadable(why="the row has more or fewer cells than the head")
            else:
                yield number, dict(row)


def _parquet(path: Path) -> Iterator[Row]:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as exc:
        hint = "pip install pyarrow, or save the data as JSONL"
        raise UsageError(f"cannot read {path}: parquet needs the package pyarrow", hint=hint) from exc
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except arrow.ArrowException as exc:
        raise UsageError(f"cannot read {path}: {exc}") from exc


_READERS = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
