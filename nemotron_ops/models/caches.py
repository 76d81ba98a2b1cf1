"""Files in the caches of the hub's client and of llama.cpp. Disk.

Both name a file by its hash (`models--owner--name/blobs/<sha256>`), so a file of the right name and size is verified
instead of fetched. llama.cpp's older cache is a flat folder of `owner_name_file.gguf`. The order of the environment
variables is llama.cpp's (`common/hf-cache.cpp`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from nemotron_ops.models.ref import RemoteFile, safe_name


def hub_caches(env: Mapping[str, str]) -> list[Path]:
    """Folders of hub caches, each once, in order of preference."""
    found: dict[Path, None] = {}
    for variable, below in (
        ("LLAMA_CACHE", ""),
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
        ("HOME", ".cache/huggingface/hub"),
    ):
        if value := env.get(variable):
            found[Path(value) / below] = None
    return list(found)


def cached_copies(env: Mapping[str, str], repo: str, file: RemoteFile) -> Iterator[Path]:
    """Files of other programs that may be `file`: right name and size, not yet verified."""
    for cache in hub_caches(env):
        folder = cache / f"models--{repo.replace('/', '--')}" / "blobs"
        for name in filter(None, (file.sha256, file.git_sha1)):
            if _has_size(folder / name, file.size_bytes):
                yield folder / name
    flat = f"{repo}/{file.name}".replace("/", "_")
    old = [env.get("LLAMA_CACHE", ""), f"{env['HOME']}/.cache/llama.cpp" if "HOME" in env else ""]
    for folder_name in filter(None, old):
        if _has_size(Path(folder_name) / flat, file.size_bytes):
            yield Path(folder_name) / flat


def cached_listing(env: Mapping[str, str], repo: str, revision: str) -> tuple[str, tuple[RemoteFile, ...]] | None:
    """A repository in the hub's cache: its commit, and the cached files.

    A snapshot's entries are links to blobs named by their hash. None if the revision is not cached.
    """
    for cache in hub_caches(env):
        folder = cache / f"models--{repo.replace('/', '--')}"
        ref = folder / "refs" / revision
        commit = ref.read_text().strip() if safe_name(revision) and ref.is_file() else revision
        snapshot = folder / "snapshots" / commit
        if not safe_name(commit) or not snapshot.is_dir():
            continue
        files = [f for p in sorted(snapshot.rglob("*.gguf")) if (f := _from_link(p, snapshot))]
        if files:
            return commit, tuple(files)
    return None


def _from_link(path: Path, snapshot: Path) -> RemoteFile | None:
    """The file behind a snapshot's link, if its blob's name is a hash."""
    blob = path.resolve()
    name = path.relative_to(snapshot).as_posix()
    digits = len(blob.name) if all(c in "0123456789abcdef" for c in blob.name) else 0
    if digits not in (40, 64) or not blob.is_file():
        return None
    size = blob.stat().st_size
    proof = {"sha256": blob.name} if digits == 64 else {"git_sha1": blob.name}
    return RemoteFile(name=name, size_bytes=size, **proof)


def _has_size(path: Path, size_bytes: int) -> bool:
    try:
        return path.stat().st_size == size_bytes
    except OSError:
        return False
