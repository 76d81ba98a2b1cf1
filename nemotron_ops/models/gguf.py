"""Reads the header of an untrusted GGUF file, local or remote. Pure.

Planning needs the header only: hyper-parameters, and name, size and type of every tensor. It is read through a callable
`read(offset, n)`, so the same code reads a local file and, by HTTP ranges, a remote one. The format is
ggml's `docs/gguf.md`: magic, version, two counts, key-value pairs, tensor infos, padding, data.

The file may be broken or hostile, so every count and length is checked against a bound and against the rest of the file
before anything is read or allocated for it. Arrays of strings (megabytes of vocabulary) are skipped and only counted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from nemotron_ops.errors import ModelError
from nemotron_ops.models.tensor_types import TYPES, row_bytes

__all__ = ["Counted", "Header", "Read", "Tensor", "Value", "check_size", "combine", "parse", "row_bytes"]

Read = Callable[[int, int], bytes]  # read(offset, n): n bytes from the offset, fewer only at the end

MAX_HEADER_BYTES = 256 << 20
MAX_PAIRS = 65_536
MAX_TENSORS = 1 << 17
MAX_STRINGS = 2 << 20  # in one array; the largest vocabularies and merge lists have half a million
MAX_TEXT_BYTES = 16 << 20
MAX_KEPT = 65_536  # elements of a number array; longer arrays are only counted
MAX_DIM = 1 << 40
WINDOWS = (128 << 10, 2 << 20)  # first and largest size of one read

# value type -> struct code; 8 is a string, 9 an array
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
UINT32, STRING, ARRAY = 4, 8, 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """A skipped array: its number of elements, and its bytes in the file."""

    count: int
    n_bytes: int
    next_key: str = ""


Value = int | float | bool | str | tuple[int | float | bool, ...] | Counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """One tensor's description. `dims` in ggml's order (the row length first), `offset` from the start of data."""

    name: str
    dims: tuple[int, ...]
    type: str
    offset: int
    n_bytes: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """The header of a GGUF file, or the combined header of a shard set."""

    version: int
    values: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int
    shards: int = 1

    @property
    def arch(self) -> str:
        value = self.values.get("general.architecture", "")
        return value if isinstance(value, str) else ""

    @property
    def n_vocab(self) -> int:
        """Tokens in the vocabulary; 0 if unknown."""
        tokens = self.values.get("tokenizer.ggml.tokens")
        if isinstance(tokens, Counted):
            return tokens.count
        return self.number("vocab_size", 0)

    @property
    def weight_bytes(self) -> int:
        return sum(t.n_bytes for t in self.tensors)

    @property
    def data_end(self) -> int:
        """The least size of the file."""
        return self.data_offset + max((t.offset + t.n_bytes for t in self.tensors), default=0)

    def number(self, key: str, default: int | None = None) -> int:
        """A whole number of this architecture; the greatest one if it is given by layer.

        Raises ModelError if it is missing and there is no default, or is no whole number.
        """
        value = self.values.get(f"{self.arch}.{key}", default)
        if isinstance(value, tuple) and value and all(isinstance(v, int) for v in value):
            value = max(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_DIM:
            raise ModelError(f"cannot read {self.arch}.{key} in the model's header: it is {value!r}")
        return value

    def by_layer(self, key: str, default: int | None = None) -> tuple[int, ...]:
        """A whole number for every block; a single value is repeated. Raises ModelError as `number` does."""
        n = self.number("block_count")
        if not 0 < n <= MAX_TENSORS:
            raise ModelError(f"cannot read the model's header: it has {n} blocks")
        value = self.values.get(f"{self.arch}.{key}", default)
        if isinstance(value, tuple):
            whole = tuple(v for v in value if isinstance(v, int) and v >= 0)
            if len(whole) < n or len(whole) != len(value):
                raise ModelError(
                    f"cannot read {self.arch}.{key} in the model's header: {len(whole)} values, {n} blocks"
                )
            return whole[:n]
        return (self.number(key, default),) * n


def parse(read: Read, *, size: int | None = None, like: Header | None = None) -> Header:
    """The header of the file behind `read`; `size` is the file's, if known.

    `like` is the header of another quant of the same model: an array of strings with the same key and count is then
    skipped unread, provided that the same key follows it.
    Raises ModelError if the file is no GGUF file, truncated or inconsistent.
    """
    try:
        return _parse(_Cursor(read, size), like)
    except (struct.error, UnicodeDecodeError) as exc:
        raise ModelError(f"cannot read the GGUF header: {exc}") from exc


def check_size(header: Header, size: int, name: str) -> None:
    """Raise ModelError if a file of `size` bytes is too short for its tensors."""
    if size < header.data_end:
        raise ModelError(
            f"cannot use {name}: it is cut off: it has {size:,} bytes where its header needs {header.data_end:,}",
            hint="download it again",
        )


def combine(headers: Sequence[Header], names: Sequence[str]) -> Header:
    """The header of a whole shard set, from those of its files in order.

    Raises ModelError if a file is not the shard of its position.
    """
    first = headers[0]
    if lacking := [k for k in ("split.count", "split.no") if len(headers) > 1 and k not in first.values]:
        raise ModelError(
            f"cannot use {names[0]}: its name says shard 1 of {len(headers)}, its header has no {lacking[0]}"
        )
    count = _split(first, "split.count", 1)
    if count != len(headers):
        raise ModelError(f"cannot use {names[0]}: it is one of {count} shards, not of {len(headers)}")
    for i, (header, name) in enumerate(zip(headers, names, strict=True)):
        if _split(header, "split.count", 1) != count or _split(header, "split.no", 0) != i:
            raise ModelError(f"cannot use {name}: it is not shard {i + 1} of {count} (renamed, or from another set)")
    tensors = tuple(t for header in headers for t in header.tensors)
    if not tensors:
        raise ModelError(f"cannot use {names[0]}: its header claims 0 tensors, so it has no weights")
    claimed = _split(first, "split.tensors.count", len(tensors))
    if claimed != len(tensors) or len({t.name for t in tensors}) != len(tensors):
        raise ModelError(f"cannot use {names[0]}: its shards hold {len(tensors)} tensors where {claimed} belong")
    return replace(first, tensors=tensors, shards=count)


def _split(header: Header, key: str, default: int) -> int:
    value = header.values.get(key, default)
    return value if isinstance(value, int) else -1


class _Cursor:
    """A position in the header, with a window of bytes around it."""

    def __init__(self, read: Read, size: int | None) -> None:
        self._read = read
        self.limit = MAX_HEADER_BYTES if size is None else min(size, MAX_HEADER_BYTES)
        self.at = 0
        self._window, self._start, self._next_bytes = b"", 0, WINDOWS[0]

    def take(self, n: int) -> bytes:
        """The next `n` bytes. Raises ModelError if the file has fewer."""
        self.need(n)
        if not (self._start <= self.at and self.at + n <= self._start + len(self._window)):
            self._fill(n)
        begin = self.at - self._start
        self.at += n
        return self._window[begin : begin + n]

    def need(self, n: int) -> None:
        """Raise ModelError unless `n` more bytes are within the limit."""
        if n < 0 or self.at + n > self.limit:
            raise ModelError(f"cannot read the GGUF header: it is cut off at {self.limit:,} bytes, or damaged")

    def skip(self, n: int) -> None:
        self.need(n)
        self.at += n

    def skip_texts(self, count: int) -> None:
        """Skip texts, each with its length before it; a vocabulary has hundreds of thousands."""
        length = struct.Struct("<Q").unpack_from
        while count:
            self.need(8)
            if not self._start <= self.at <= self._start + len(self._window) - 8:
                self._fill(8)
            window, at = self._window, self.at - self._start
            last = len(window) - 8
            while count and at <= last:
                at += 8 + length(window, at)[0]
                count -= 1
            self.at = self._start + at
            self.need(0)

    def jump(self, at: int) -> None:
        """Go to `at`; the next read is small again."""
        self.at = at
        self._next_bytes = WINDOWS[0]

    def unpack(self, code: str) -> int | float | bool:
        value: int | float | bool = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]
        return value

    def whole(self, code: str) -> int:
        return int(self.unpack(code))

    def text(self, limit: int = MAX_TEXT_BYTES) -> str:
        n = self.whole("Q")
        if n > limit:
            raise ModelError(f"cannot read the GGUF header: a text of {n:,} bytes in it, so it is damaged")
        return self.take(n).decode("utf-8", errors="replace")

    def _fill(self, n: int) -> None:
        wanted = min(max(n, self._next_bytes), self.limit - self.at)
        self._window, self._start = self._read(self.at, wanted), self.at
        self._next_bytes = min(self._next_bytes * 2, WINDOWS[1])
        if len(self._window) < n:
            raise ModelError(f"cannot read the GGUF header: it is cut off at {self.at + len(self._window):,} bytes")


def _parse(cursor: _Cursor, like: Header | None) -> Header:
    if cursor.limit < 24:
        raise ModelError(f"cannot read the GGUF header: the file has only {cursor.limit} bytes")
    magic = cursor.take(4)
    if magic != b"GGUF":
        raise ModelError(f"cannot read the file as GGUF: it starts with {magic!r}", hint=_guess(magic))
    version = cursor.whole("I")
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        why = "it is big-endian" if swapped in (2, 3) else f"version {version} is not known"
        raise ModelError(f"cannot read the GGUF header: {why}")
    n_tensors, n_pairs = cursor.whole("Q"), cursor.whole("Q")
    for n, most, what, least in ((n_pairs, MAX_PAIRS, "values", 13), (n_tensors, MAX_TENSORS, "tensors", 32)):
        if n > most or n * least > cursor.limit - cursor.at:  # by the shortest value and the shortest tensor
            raise ModelError(f"cannot read the GGUF header: it claims {n:,} {what}, more than it can hold")
    values = _pairs(cursor, n_pairs, like)
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise ModelError(f"cannot read the GGUF header: general.alignment is {alignment!r}")
    tensors = _tensors(cursor, n_tensors, alignment)
    if len({t.name for t in tensors}) != len(tensors):
        raise ModelError("cannot read the GGUF header: a tensor is in it twice")
    offset = -(-cursor.at // alignment) * alignment
    return Header(version=version, values=values, tensors=tensors, data_offset=offset)


def _pairs(cursor: _Cursor, n: int, like: Header | None) -> dict[str, Value]:
    values: dict[str, Value] = {}
    last = ""
    for _ in range(n):
        key = cursor.text(65_535)
        if key in values:
            raise ModelError(f"cannot read the GGUF header: {key} is in it twice")
        before = values.get(last)
        if isinstance(before, Counted):
            values[last] = replace(before, next_key=key)
        kind = cursor.whole("I")
        if key == "general.alignment" and kind != UINT32:
            raise ModelError(f"cannot read the GGUF header: {key} has value type {kind}, not {UINT32} (uint32)")
        known = like.values.get(key) if like else None
        values[key] = _array(cursor, known) if kind == ARRAY else _scalar(cursor, kind)
        last = key
    return values


def _scalar(cursor: _Cursor, kind: int) -> int | float | bool | str:
    if kind == STRING:
        return cursor.text()
    if kind not in SCALARS:
        raise ModelError(f"cannot read the GGUF header: value type {kind} is not known")
    return cursor.unpack(SCALARS[kind])


def _array(cursor: _Cursor, known: Value | None) -> Value:
    kind, count = cursor.whole("I"), cursor.whole("Q")
    if kind == STRING:
        return _strings(cursor, count, known if isinstance(known, Counted) else None)
    if kind not in SCALARS:
        raise ModelError(f"cannot read the GGUF header: an array of type {kind} is not known")
    width = struct.calcsize("<" + SCALARS[kind])
    cursor.need(count * width)
    if count > MAX_KEPT:
        cursor.skip(count * width)
        return Counted(count=count, n_bytes=count * width)
    return struct.unpack(f"<{count}{SCALARS[kind]}", cursor.take(count * width))


def _strings(cursor: _Cursor, count: int, known: Counted | None) -> Counted:
    cursor.need(count * 8)
    if count > MAX_STRINGS:
        raise ModelError(f"cannot read the GGUF header: an array of {count:,} texts in it, so it is damaged")
    start = cursor.at
    if known and known.count == count and _followed_by(cursor, start + known.n_bytes, known.next_key):
        return Counted(count=count, n_bytes=known.n_bytes)
    cursor.skip_texts(count)
    return Counted(count=count, n_bytes=cursor.at - start)


def _followed_by(cursor: _Cursor, at: int, key: str) -> bool:
    """Whether `key` is at `at`; moves the cursor there if so."""
    start = cursor.at
    raw = key.encode()
    if key and at + 8 + len(raw) <= cursor.limit:
        cursor.jump(at)
        found = cursor.take(8 + len(raw))
        cursor.jump(at)
        if found == struct.pack("<Q", len(raw)) + raw:
            return True
    cursor.jump(start)
    return False


def _tensors(cursor: _Cursor, count: int, alignment: int) -> tuple[Tensor, ...]:
    """All tensors. An error names the count: a wrong one makes the reading go on into what follows."""
    found: list[Tensor] = []
    try:
        for _ in range(count):
            found.append(_tensor(cursor, alignment))
    except ModelError as exc:
        cause = exc.message.partition(": ")[2]
        raise ModelError(
            f"cannot read the GGUF header: tensor {len(found) + 1} of the {count:,} it claims: {cause}", hint=exc.hint
        ) from exc
    return tuple(found)


def _tensor(cursor: _Cursor, alignment: int) -> Tensor:
    name = cursor.text(1024)
    n_dims = cursor.whole("I")
    if not 1 <= n_dims <= 4:
        raise ModelError(f"cannot read the GGUF header: tensor {name!r} has {n_dims} dimensions")
    dims = tuple(cursor.whole("Q") for _ in range(n_dims))
    kind, offset = cursor.whole("I"), cursor.whole("Q")
    if kind not in TYPES:
        raise ModelError(
            f"cannot read the GGUF header: tensor {name!r} has type {kind}, which is not known",
            hint="a newer nemotron-ops may know it",
        )
    type_name, block, block_bytes = TYPES[kind]
    elements = 1
    for dim in dims:
        elements *= dim
        if dim == 0:
            raise ModelError(f"cannot read the GGUF header: tensor {name!r} has a dimension of 0: {dims}")
        if not 0 < dim <= MAX_DIM or elements > 1 << 50:
            raise ModelError(f"cannot read the GGUF header: tensor {name!r} has dimensions {dims}")
    if dims[0] % block or offset % alignment or offset > 1 << 60:
        raise ModelError(f"cannot read the GGUF header: tensor {name!r} has rows of {dims[0]} at offset {offset}")
    return Tensor(name=name, dims=dims, type=type_name, offset=offset, n_bytes=elements // block * block_bytes)


def _guess(magic: bytes) -> str | None:
    """What a file with this start probably is."""
    if magic[:1] == b"<" or magic[:2] == b"\n<":
        return "this is a web page: the download failed, or the address needs a login"
    if magic == b"vers":
        return "this is a git-lfs pointer, not the file itself"
    return None
