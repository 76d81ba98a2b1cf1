"""Writes tiny models, and models of true size without weights. Disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TypeVar

import gguf
import numpy as np
from gguf import GGMLQuantizationType

from nemotron_ops.errors import UsageError
from nemotron_ops.models.synthetic.container import TensorInfo, Value, header, padded, tensor_type
from nemotron_ops.models.synthetic.metadata import metadata, split_pairs
from nemotron_ops.models.synthetic.network import weights
from nemotron_ops.models.synthetic.residual import Array
from nemotron_ops.models.synthetic.scripts import SCRIPTS, Script, script_vocabulary
from nemotron_ops.models.synthetic.shape import Shape, tensors
from nemotron_ops.models.synthetic.vocabulary import Vocabulary, vocabulary

T = TypeVar("T")

QUANTS = ("F32", "F16", "BF16", "Q8_0", "Q4_0")


def write_tiny(
    shape: Shape,
    path: Path,
    *,
    quant: str = "Q8_0",
    seed: int = 3,
    shards: int = 1,
    metadata_first: bool = False,
    keep: Iterable[str] | None = None,
    scripts: Mapping[str, Script] = SCRIPTS,
) -> list[Path]:
    """Write a scripted model to `path`, or as `shards` files beside it; returns the files written.

    `metadata_first` keeps tensors out of the first shard, as large repositories do. `keep` lists the name prefixes
    of the tensors to be written (for a file with only an MTP head). `scripts` are the
    product's, or those of a test.
    """
    if quant not in QUANTS:
        raise UsageError(f"cannot make a tiny model in {quant!r}: there are {', '.join(QUANTS)}")
    vocab = script_vocabulary(scripts)
    pairs = metadata(shape, vocab, name=f"Nemotron 3 Tiny {quant}", quant=quant, template=chat_template())
    arrays = weights(shape, vocab, seed, scripts)
    if keep is not None:
        wanted = tuple(keep)
        arrays = {name: array for name, array in arrays.items() if name.startswith(wanted)}
    if shards == 1:
        write_arrays(path, pairs, arrays, quant)
        return [path]
    return _write_shards(path, pairs, arrays, quant, shards=shards, metadata_first=metadata_first)


def write_sparse(
    shape: Shape, path: Path, *, quant: str, n_vocab: int = 131072, name: str = "true size", shards: int = 1
) -> list[Path]:
    """Write a model of true size without weights: headers, then a hole. llama.cpp can measure it, not run it.

    `quant` may be any of ggml's types ("Q4_K", "BF16"). The file takes a few MB on disk at any apparent
    size. With `shards`, the first one holds the metadata only.
    """
    vocab = _padded_vocabulary(n_vocab)
    pairs = metadata(shape, vocab, name=name, quant=quant, template=chat_template())
    kind = GGMLQuantizationType[quant]
    infos = [TensorInfo(name=n, size=size, type=tensor_type(n, size, kind)) for n, size in tensors(shape, n_vocab)]
    if shards == 1:
        _write_hole(path, header(pairs, infos), infos)
        return [path]
    paths = shard_paths(path, shards)
    groups: list[list[TensorInfo]] = [[], *_chunks(infos, shards - 1)]
    for i, (shard, group) in enumerate(zip(paths, groups, strict=True)):
        own = split_pairs(i, shards, len(infos))
        _write_hole(shard, header({**pairs, **own} if i == 0 else own, group), group)
    return paths


def shard_paths(path: Path, count: int) -> list[Path]:
    """llama.cpp's names for the shards of `path` (src/llama.cpp: llama_split_path)."""
    return [path.with_name(f"{path.stem}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)]


@cache
def chat_template() -> str:
    """A chat template of Nemotron 3's structure, shipped with the package."""
    return resources.files(__package__).joinpath("template.jinja").read_text()


def write_arrays(path: Path, pairs: Mapping[str, Value], arrays: Mapping[str, Array], quant: str) -> None:
    """Write metadata and float32 tensors to `path`, quantised as llama-quantize would."""
    kind = GGMLQuantizationType[quant]
    infos = [TensorInfo(name=n, size=a.shape, type=tensor_type(n, a.shape, kind)) for n, a in arrays.items()]
    with path.open("wb") as f:
        f.write(header(pairs, infos))
        for info in infos:
            data = gguf.quants.quantize(np.ascontiguousarray(arrays[info.name]), info.type).tobytes()
            f.write(data + bytes(padded(len(data)) - len(data)))
        f.flush()
        os.fsync(f.fileno())


def _write_shards(
    path: Path,
    pairs: Mapping[str, Value],
    arrays: Mapping[str, Array],
    quant: str,
    *,
    shards: int,
    metadata_first: bool,
) -> list[Path]:
    groups = list(_chunks(list(arrays), shards - metadata_first))
    if metadata_first:
        groups.insert(0, [])
    paths = shard_paths(path, shards)
    for i, (shard, names) in enumerate(zip(paths, groups, strict=True)):
        own = split_pairs(i, shards, len(arrays))
        write_arrays(shard, {**pairs, **own} if i == 0 else own, {n: arrays[n] for n in names}, quant)
    return paths


def _write_hole(path: Path, head: bytes, infos: Iterable[TensorInfo]) -> None:
    with path.open("wb") as f:
        f.write(head)
        f.truncate(len(head) + sum(padded(info.n_bytes) for info in infos))


def _chunks(items: list[T], count: int) -> Iterator[list[T]]:
    size = -(-len(items) // count)
    return (items[i * size : (i + 1) * size] for i in range(count))


def _padded_vocabulary(n_vocab: int) -> Vocabulary:
    return vocabulary([], [], multiple=n_vocab)
