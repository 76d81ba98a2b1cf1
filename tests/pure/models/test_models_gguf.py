"""GGUF headers: read from local and remote files, and refused with a clear error when damaged."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import gguf as gguf_py
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.errors import ModelError
from nemotron_ops.models import gguf
from nemotron_ops.models.local import read_header
from nemotron_ops.models.synthetic.container import TensorInfo, header
from nemotron_ops.models.synthetic.metadata import metadata
from nemotron_ops.models.synthetic.scripts import script_vocabulary
from nemotron_ops.models.synthetic.shape import MOE, SUPER, tensors
from nemotron_ops.models.synthetic.write import shard_paths, write_sparse, write_tiny
from nemotron_ops.models.tensor_types import TYPES, row_bytes


@cache
def tiny_header() -> bytes:
    """The header of the tiny model, without its weights."""
    vocab = script_vocabulary()
    pairs = metadata(MOE, vocab, name="x", quant="Q8_0", template="{{ messages }}")
    infos = [TensorInfo(name=n, size=s, type=gguf_py.GGMLQuantizationType.F32) for n, s in tensors(MOE, len(vocab))]
    return header(pairs, infos)


def parse(data: bytes, size: int | None = None) -> gguf.Header:
    return gguf.parse(lambda offset, n: data[offset : offset + n], size=len(data) if size is None else size)


def outcome(call: Callable[[], gguf.Header]) -> gguf.Header | str:
    """The header, or the message of its refusal; other errors are raised."""
    try:
        return call()
    except ModelError as exc:
        return exc.message


def test_our_type_table_is_gguf_pys() -> None:
    for kind, sizes in gguf_py.GGML_QUANT_SIZES.items():
        if int(kind) in TYPES:
            assert TYPES[int(kind)] == (kind.name, *sizes)
    assert {int(k) for k in gguf_py.GGML_QUANT_SIZES} <= set(TYPES)


def test_a_row_of_odd_length_has_no_size() -> None:
    assert row_bytes("q8_0", 64) == 68
    with pytest.raises(ValueError, match="multiple of 32"):
        row_bytes("q8_0", 33)


@pytest.mark.parametrize("quant", ["F16", "Q8_0", "Q4_0"])
def test_our_reading_equals_gguf_pys(tmp_path: Path, quant: str) -> None:
    path = write_tiny(SUPER, tmp_path / "m.gguf", quant=quant)[0]
    ours, theirs = read_header(path), gguf_py.GGUFReader(path)
    assert [(t.name, t.n_bytes, t.dims) for t in ours.tensors] == [
        (t.name, int(t.n_bytes), tuple(int(d) for d in t.shape)) for t in theirs.tensors
    ]
    assert ours.data_offset == theirs.data_offset
    assert ours.data_end == path.stat().st_size
    assert (ours.arch, ours.number("moe_latent_size"), ours.n_vocab) == ("nemotron_h_moe", 64, 608)
    assert ours.by_layer("attention.head_count_kv") == (0, 0, 0, 0, 0, 2, 0, 2)


def test_a_sibling_spares_the_vocabulary(tmp_path: Path) -> None:
    one = write_sparse(MOE, tmp_path / "a.gguf", quant="Q8_0")[0]
    two = write_sparse(MOE, tmp_path / "b.gguf", quant="BF16")[0]
    asked: list[int] = []

    def read(offset: int, n: int) -> bytes:
        asked.append(n)
        with two.open("rb") as f:
            f.seek(offset)
            return f.read(n)

    header = gguf.parse(read, size=two.stat().st_size, like=read_header(one))
    assert header == read_header(two)
    assert sum(asked) < header.data_offset / 4


def test_a_sibling_with_other_words_is_read_whole(tmp_path: Path) -> None:
    one = write_sparse(MOE, tmp_path / "a.gguf", quant="Q8_0", n_vocab=4096)[0]
    two = tiny_header()
    assert gguf.parse(lambda o, n: two[o : o + n], size=len(two), like=read_header(one)) == parse(two)


def test_shards_read_as_one_model(tmp_path: Path) -> None:
    whole = read_header(write_tiny(MOE, tmp_path / "w.gguf", quant="F16")[0])
    parts = write_tiny(MOE, tmp_path / "s.gguf", quant="F16", shards=3, metadata_first=True)
    found = read_header(parts[0])
    assert found.shards == 3
    assert {(t.name, t.n_bytes) for t in found.tensors} == {(t.name, t.n_bytes) for t in whole.tensors}


def test_a_missing_shard_is_an_error(tmp_path: Path) -> None:
    parts = write_tiny(MOE, tmp_path / "s.gguf", quant="F16", shards=3)
    parts[1].unlink()
    with pytest.raises(ModelError, match=r"00002-of-00003\.gguf: No such file"):
        read_header(parts[0])


def test_a_swapped_shard_is_named(tmp_path: Path) -> None:
    parts = write_tiny(MOE, tmp_path / "s.gguf", quant="F16", shards=3)
    parts[2].write_bytes(parts[1].read_bytes())
    with pytest.raises(ModelError, match=r"00003-of-00003\.gguf: it is not shard 3 of 3"):
        read_header(parts[0])


def test_a_shard_of_another_set_is_refused(tmp_path: Path) -> None:
    write_tiny(MOE, tmp_path / "s.gguf", quant="F16", shards=3)
    other = write_tiny(MOE, tmp_path / "o.gguf", quant="F16", shards=2)
    first = shard_paths(tmp_path / "s.gguf", 3)[0]
    first.write_bytes(other[0].read_bytes())
    with pytest.raises(ModelError, match="it is one of 2 shards, not of 3"):
        read_header(first)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = write_tiny(MOE, tmp_path / "m.gguf", quant="Q8_0")[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ModelError, match="bytes where its header needs"):
        read_header(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "only 0 bytes"),
        (b"<!doctype html><title>404</title>", "starts with b'<!do'"),
        (b"version https://git-lfs.github.com/spec/v1", "starts with b'vers'"),
        (b"GGUF" + struct.pack("<IQQ", 99, 0, 0), "version 99 is not known"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "it is big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1), "it claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 62) + bytes(5), "a text of"),
    ],
)
def test_what_is_no_gguf_is_refused_in_words(data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse(data)


@pytest.mark.parametrize("count", [1 << 20, 1 << 40, (1 << 64) - 1])
def test_an_array_that_cannot_be_there_is_refused_before_it_is_read(count: int) -> None:
    key = b"a"
    for kind in (8, 4, 10):
        data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(key)) + key
        data += struct.pack("<IIQ", 9, kind, count) + bytes(64)
        with pytest.raises(ModelError, match=r"cut off|damaged"):
            parse(data)


def test_a_server_that_sends_less_than_asked_is_no_endless_loop() -> None:
    data = tiny_header()
    with pytest.raises(ModelError, match="cut off"):
        gguf.parse(lambda offset, n: data[offset : offset + min(n, 100)][:50], size=len(data))


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(min_value=0, max_value=30_000))
def test_a_truncated_header_is_an_error_never_a_crash(cut: int) -> None:
    data = tiny_header()[:-cut] if cut else tiny_header()
    if len(data) == len(tiny_header()):
        assert len(parse(data).tensors) == 56
        return
    found = outcome(lambda: parse(data))
    assert found == parse(tiny_header()) or "cannot read" in str(found)  # the former where only padding was cut


@settings(max_examples=200, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 26_000), st.binary(min_size=1, max_size=9)), min_size=1, max_size=4))
def test_a_mutated_header_is_read_or_refused_never_a_crash_or_a_huge_read(edits: list[tuple[int, bytes]]) -> None:
    data = bytearray(tiny_header())
    for at, patch in edits:
        at %= len(data)
        data[at : at + len(patch)] = patch
    asked = 0

    def read(offset: int, n: int) -> bytes:
        nonlocal asked
        asked += n
        return bytes(data[offset : offset + n])

    def use() -> gguf.Header:
        header = gguf.parse(read, size=len(data))
        header.by_layer("feed_forward_length", 0)
        header.number("context_length", 0)
        return header

    found = outcome(use)
    assert isinstance(found, gguf.Header) or "cannot read" in found
    assert asked <= 4 * len(data) + (4 << 20)


# ---- the cause of a refusal


def made(
    pairs: list[tuple[str, int, bytes]], infos: Sequence[tuple[str, tuple[int, ...]]], *, tensors: int = -1
) -> bytes:
    """A GGUF file of f32 tensors; `tensors` is the count that its header claims."""
    text = [struct.pack("<Q", len(k)) + k.encode() + struct.pack("<I", t) + v for k, t, v in pairs]
    offset, rows = 0, []
    for name, dims in infos:
        head = struct.pack("<Q", len(name)) + name.encode() + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        rows.append(head + struct.pack("<IQ", 0, offset))
        offset += 128
    claimed = len(infos) if tensors < 0 else tensors
    body = b"GGUF" + struct.pack("<IQQ", 3, claimed, len(pairs)) + b"".join([*text, *rows])
    return body + bytes(-len(body) % 32) + bytes(128 * len(infos))


ONE = [("blk.0.weight", (32,))]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (made([], ONE, tensors=0), "its header claims 0 tensors"),
        (made([], ONE, tensors=2), "tensor 2 of the 2 it claims"),
        (made([], ONE, tensors=1 << 40), "it claims 1,099,511,627,776 tensors, more than it can hold"),
        (made([], ONE, tensors=100), "it claims 100 tensors, more than it can hold"),
        (made([("general.alignment", 10, struct.pack("<Q", 32))], ONE), "general.alignment has value type 10, not 4"),
        (made([("general.alignment", 7, b"\1")], ONE), "general.alignment has value type 7, not 4"),
        (made([("general.alignment", 4, struct.pack("<I", 48))], ONE), "general.alignment is 48"),
        (made([], [("a", (32, 0))]), "tensor 1 of the 1 it claims: tensor 'a' has a dimension of 0: (32, 0)"),
        (made([], ONE)[:-1], "it is cut off: it has"),
        (made([], ONE)[:40], "more than it can hold"),
    ],
)
def test_a_refusal_names_its_cause(tmp_path: Path, data: bytes, cause: str) -> None:
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(ModelError) as caught:
        read_header(tmp_path / "x.gguf")
    assert cause in caught.value.message
    assert "x.gguf" in caught.value.message


def test_shards_without_their_keys_are_named(tmp_path: Path) -> None:
    for path in shard_paths(tmp_path / "x.gguf", 2):
        path.write_bytes(made([], ONE))
    with pytest.raises(ModelError, match=r"its name says shard 1 of 2, its header has no split\.count"):
        read_header(shard_paths(tmp_path / "x.gguf", 2)[0])


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.gguf")
    with pytest.raises(ModelError, match="it is no ordinary file"):
        read_header(tmp_path / "x.gguf")


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 4000), new=st.binary(min_size=1, max_size=12), cut=st.integers(0, 40))
def test_no_header_causes_another_error_than_a_refusal(at: int, new: bytes, cut: int) -> None:
    data = tiny_header()
    at %= len(data)
    outcome(lambda: gguf.combine([parse(data[:at] + new + data[at + len(new) : len(data) - cut])], ["x.gguf"]))


def test_a_vocabulary_is_skipped_in_few_steps(tmp_path: Path) -> None:
    """Counts Python's steps, not time: one loop over lengths, no call for each of 60,000 tokens."""
    path = write_sparse(MOE, tmp_path / "v.gguf", quant="Q8_0", n_vocab=60_000)[0]
    calls = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        found = read_header(path)
    finally:
        sys.setprofile(None)
    assert found.n_vocab == 60_000
    assert calls < 20_000
