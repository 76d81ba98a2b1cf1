"""LoRA adapters of a model: found, bound to their base, and as words of llama-server's command line. Disk.

An adapter is read from a copy under the hash of its content, so it is part of the instance's command line: a changed
one makes another instance, which a reload rolls out. Each is loaded at scale 0; the gateway turns one on by request.
`--lora-init-without-apply` would have no effect on that (llama.cpp v0.5.0).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from nemotron_ops.errors import HostError, ModelError, NemotronOpsError, UsageError
from nemotron_ops.files import read_json, sha256_of, sync_dir, write_json
from nemotron_ops.hub_names import is_gguf
from nemotron_ops.installation import Installation
from nemotron_ops.models.gguf import Header
from nemotron_ops.models.local import read_header
from nemotron_ops.operations.model_files import ModelFiles
from nemotron_ops.paths import Layout
from nemotron_ops.recipes.load import check_adapters, slug
from nemotron_ops.recipes.schema import Adapter, Recipe
from nemotron_ops.tune.adapter_check import bases_of, check_base, check_kind, check_shapes


@dataclass(frozen=True, kw_only=True)
class FoundAdapter:
    """An adapter whose file is here. `bound` are the hashes of the bases that it may be served on."""

    adapter: Adapter
    path: Path
    header: Header
    bound: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        return self.header.weight_bytes


def published_path(layout: Layout, recipe: str, name: str) -> Path:
    """Where the published adapter `name` of a recipe's model is kept."""
    return layout.data / "adapters" / recipe / f"{name}.gguf"


def published(layout: Layout, recipe: str) -> list[str]:
    """The names of a recipe's published adapters."""
    return sorted(p.stem for p in (layout.data / "adapters" / recipe).glob("*.gguf"))


def with_adapters(recipe: Recipe, words: Sequence[str]) -> Recipe:
    """`recipe` with the adapters that `--adapter` named too: `NAME`, `FILE.gguf` or `NAME=FILE.gguf`.

    Raises UsageError for a name that is taken, or that cannot be one.
    """
    if not words:
        return recipe
    own = {a.name for a in recipe.adapters}
    named = [a for a in map(_named, words) if a.file or a.name not in own]
    adapters = (*recipe.adapters, *named)
    check_adapters(adapters, recipe.profiles, "--adapter")
    return replace(recipe, adapters=adapters)


def look_for_adapters(recipe: Recipe, layout: Layout) -> tuple[FoundAdapter, ...]:
    """The recipe's adapters, in its order. Raises ModelError for one that is not here or is no adapter."""
    return tuple(_look(adapter, recipe, layout) for adapter in recipe.adapters)


def adapter_words(
    found: Sequence[FoundAdapter], files: ModelFiles, here: Installation, *, scale: float = 0.0, dry_run: bool = False
) -> tuple[str, ...]:
    """The words of llama-server's command line for the adapters, each bound to the base in `files`, at `scale`.

    Raises ModelError for an adapter that was made for another base, HostError if one cannot be kept.
    """
    if not found:
        return ()
    if files.path.exists():
        base, header = base_sha256(files, here), read_header(files.path)
        for one in found:
            check_base(one.adapter.name, one.bound, base)
            check_shapes(one.header, header, one.adapter.name)
    return tuple(word for one in found for word in ("--lora-scaled", f"{_kept(one, here.layout, dry_run)}:{scale}"))


def base_sha256(files: ModelFiles, here: Installation) -> str:
    """The hash that binds adapters to a base: its file's sha256; of several shards, that of all their hashes.

    A hash is computed once for each file: it is kept with the file's size and time.
    """
    weights = [Path(f) for f in files.all if Path(f) != files.mmproj] or [files.path]
    hashes = [_sha256(path, here.layout) for path in weights]
    return hashes[0] if len(hashes) == 1 else sha256("\n".join(hashes).encode()).hexdigest()


def _named(word: str) -> Adapter:
    name, _, file = word.rpartition("=")
    if not is_gguf(file):
        return Adapter(name=word)
    return Adapter(name=name or slug(Path(file).stem).replace(".", "-"), file=file)


def _look(adapter: Adapter, recipe: Recipe, layout: Layout) -> FoundAdapter:
    path = published_path(layout, recipe.name, adapter.name)
    if adapter.file:
        path = Path(recipe.origin).absolute().parent / Path(adapter.file).expanduser()
    elif not path.is_file():
        known = ", ".join(published(layout, recipe.name)) or "none"
        raise ModelError(
            f"cannot find adapter {adapter.name} of {recipe.name}: none of that name is published",
            hint=f"published: {known}; a file is named as NAME=FILE.gguf",
        )
    header = read_header(path)
    check_kind(header, str(path))
    return FoundAdapter(adapter=adapter, path=path, header=header, bound=adapter.base_sha256 or bases_of(header))


def _kept(found: FoundAdapter, layout: Layout, dry_run: bool) -> Path:
    """The copy of the adapter under its hash."""
    folder = layout.state / "adapters"
    try:
        kept = folder / f"{sha256_of(found.path)[:32]}.gguf"
        if any(mark in str(kept) for mark in ":,"):  # llama-server splits the word there
            raise UsageError(f"cannot serve adapters from {folder}: its path has a colon or comma in it")
        if not dry_run and not kept.exists():
            folder.mkdir(parents=True, exist_ok=True)
            half = kept.with_suffix(".half")
            shutil.copyfile(found.path, half)
            half.replace(kept)
            sync_dir(folder)
    except OSError as exc:
        raise HostError(f"cannot keep a copy of {found.path}: {exc.strerror or exc}") from exc
    return kept


def _sha256(path: Path, layout: Layout) -> str:
    """The sha256 of a file: of the store's manifest or an earlier call, where size and time agree."""
    from nemotron_ops.models import store

    stat = path.stat()
    for model in store.list_models(layout):
        for file in model.files:
            if Path(file.path) == path and file.sha256 and store.intact(file):
                return file.sha256
    memo = layout.cache / "hashes" / f"{sha256(str(path).encode()).hexdigest()[:32]}.json"
    about = {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    try:
        known = read_json(memo)
    except NemotronOpsError:
        known = None
    if isinstance(known, dict) and {k: known.get(k) for k in about} == about:
        return str(known.get("sha256"))
    found = sha256_of(path)
    write_json(memo, {**about, "sha256": found})
    return found
