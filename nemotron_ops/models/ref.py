"""Which files a model's name means. Pure.

A name is `owner/name:QUANT`. The quant is matched against the label in file names: the last word of the form `Q8_0`,
`UD-Q4_K_XL`, `IQ4_NL`, `BF16`, `MXFP4`, in the file's own name or else in its folder's. A shard set
(`…-00001-of-00003.gguf`) is one model: complete, or an error that names the missing shard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from nemotron_ops.errors import ModelError, UsageError

REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
LABEL = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q\d[A-Z0-9_]*|TQ\d_\d|BF16|FP?16|FP?32|MXFP4[A-Z_]*|NVFP4))(?=$|[-.])", re.IGNORECASE
)
SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
PART = re.compile(r"[\w][\w .+=@()-]{0,199}", re.ASCII)
NOT_MODELS = re.compile(r"(^|[-_.])(mmproj|imatrix|mtp|lora)([-_.]|$)", re.IGNORECASE)
PREFERRED = ("Q4_K_M", "UD-Q4_K_XL", "Q8_0")  # without a quant; llama.cpp's -hf also tries Q4_K_M first


@dataclass(frozen=True, kw_only=True)
class Ref:
    """The name of a model. An empty quant means the preferred one."""

    repo: str
    quant: str = ""

    def __str__(self) -> str:
        return f"{self.repo}:{self.quant}" if self.quant else self.repo


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of a repository and its hash: `sha256`, or git's blob id for small files."""

    name: str  # path in the repository
    size_bytes: int
    sha256: str = ""
    git_sha1: str = ""


@dataclass(frozen=True, kw_only=True)
class FileSet:
    """The files of one quant in order of shards, and its multimodal projector."""

    quant: str
    files: tuple[RemoteFile, ...]
    mmproj: RemoteFile | None = None

    @property
    def all_files(self) -> tuple[RemoteFile, ...]:
        return (*self.files, *((self.mmproj,) if self.mmproj else ()))

    @property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.all_files)


def parse(text: str) -> Ref:
    """The Ref that `text` names. Raises UsageError if it is not `owner/name[:QUANT]`."""
    repo, _, quant = text.removeprefix("https://huggingface.co/").partition(":")
    if not REPO.fullmatch(repo) or ".." in repo or (quant and not safe_name(quant)):
        hint = 'write "owner/name" or "owner/name:QUANT", for example unsloth/Nemotron-3-Nano-30B-A3B-GGUF:UD-Q4_K_XL'
        raise UsageError(f"cannot read {text!r} as a model: it names no repository", hint=hint)
    return Ref(repo=repo, quant=quant)


def quant_label(name: str) -> str:
    """The quant in a file's name, upper case, or "" if it has none: `UD-Q4_K_XL/X-UD-Q4_K_XL-00001-of-00003.gguf`."""
    shard = SHARD.fullmatch(name)
    stem = shard["stem"] if shard else re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)
    folder, _, own = stem.rpartition("/")
    for part in (own, folder):
        if labels := LABEL.findall(part):
            return str(labels[-1]).upper()
    return ""


def safe_name(name: str) -> bool:
    """Whether a name from the network may become a path in our folders."""
    return len(name) < 1000 and all(PART.fullmatch(p) and p.strip(". ") for p in name.split("/"))


def file_sets(files: Iterable[RemoteFile]) -> dict[str, tuple[RemoteFile, ...]]:
    """Models among `files` by quant label: single GGUF files, or shards in order. Incomplete sets are included.

    Where one label has several models, those in the repository's top folder count; if several remain, each is keyed by
    its file's name.
    """
    groups: dict[str, list[RemoteFile]] = {}
    for file in files:
        base = file.name.rpartition("/")[2]
        if not base.lower().endswith(".gguf") or NOT_MODELS.search(base) or not safe_name(file.name):
            continue
        shard = SHARD.fullmatch(file.name)
        groups.setdefault(shard["stem"] if shard else file.name.removesuffix(".gguf"), []).append(file)
    by_label: dict[str, list[str]] = {}
    for stem in groups:
        by_label.setdefault(quant_label(stem + ".gguf"), []).append(stem)
    found: dict[str, tuple[RemoteFile, ...]] = {}
    for label, stems in by_label.items():
        shallow = min(stem.count("/") for stem in stems)
        top = [stem for stem in stems if stem.count("/") == shallow]
        for stem in stems:
            key = label if [stem] == top and label else stem
            found[key] = tuple(sorted(groups[stem], key=lambda f: f.name))
    return found


def choose(files: Sequence[RemoteFile], ref: Ref, *, mmproj: bool = False) -> FileSet:
    """The files that `ref` means. Raises ModelError if there are none or several models, or a shard is missing."""
    found = file_sets(files)
    if not found:
        raise ModelError(
            f"cannot use {ref.repo}: it has no GGUF files", hint="repositories with GGUF files usually end in -GGUF"
        )
    quant = _wanted(found, ref)
    chosen = found[quant]
    check_shards([f.name for f in chosen])
    label = quant_label(chosen[0].name)
    return FileSet(quant=label or quant, files=chosen, mmproj=_projector(files, ref) if mmproj else None)


def check_shards(names: Sequence[str]) -> None:
    """Raise ModelError unless `names` is one plain file or a whole shard set in order, all from one model."""
    shards = [SHARD.fullmatch(name) for name in names]
    if len(names) == 1 and shards[0] is None:
        return
    first = next(m for m in shards if m)
    stem, count = first["stem"], int(first["count"])
    for name, match in zip(names, shards, strict=True):
        if match is None or match["stem"] != stem or int(match["count"]) != count:
            raise ModelError(f"cannot use {stem}: {name} is not part of this set of {count} shards")
    there = {int(m["index"]) for m in shards if m}
    if missing := [i for i in range(1, count + 1) if i not in there]:
        name = f"{stem}-{missing[0]:05d}-of-{count:05d}.gguf"
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"cannot use {stem}: shard {name} is missing{more}")
    if len(names) != count:
        raise ModelError(f"cannot use {stem}: {len(names)} shards instead of {count}")


def shard_names(first: str) -> list[str]:
    """The names of all shards of the set whose first one is `first`; just `first` if it is no shard."""
    match = SHARD.fullmatch(first)
    if match is None:
        return [first]
    return [f"{match['stem']}-{i:05d}-of-{match['count']}.gguf" for i in range(1, int(match["count"]) + 1)]


def _wanted(found: Mapping[str, tuple[RemoteFile, ...]], ref: Ref) -> str:
    """The key of `found` that `ref` names."""
    labels = {key.upper(): key for key in found}
    if not ref.quant:
        for usual in PREFERRED:
            if usual in labels:
                return labels[usual]
        if len(found) == 1:
            return next(iter(found))
        raise ModelError(f"cannot choose a quant of {ref.repo}: none was named", hint=_offer(found))
    asked = ref.quant.upper().removesuffix(".GGUF")
    if asked in labels:
        return labels[asked]
    names = [key for key in found if key.upper() == asked or key.upper().rpartition("/")[2] == asked]
    same = names or [key for key in found if quant_label(key + ".gguf") == asked]
    if len(same) == 1:
        return same[0]
    if same:
        raise ModelError(
            f"cannot choose {ref}: several files match", hint=f"name one of them as the quant: {', '.join(same)}"
        )
    near = get_close_matches(asked, labels, n=1, cutoff=0.5)
    hint = (f"did you mean {labels[near[0]]}? " if near else "") + _offer(found)
    raise ModelError(f"cannot find {ref.quant} in {ref.repo}: there is no such quant", hint=hint)


def _offer(found: Iterable[str]) -> str:
    return f"there are {', '.join(sorted(found))}"


def _projector(files: Iterable[RemoteFile], ref: Ref) -> RemoteFile:
    """The multimodal projector: F16 or BF16 if there are several."""
    found = [f for f in files if "mmproj" in f.name.rpartition("/")[2].lower() and f.name.lower().endswith(".gguf")]
    found = sorted((f for f in found if safe_name(f.name)), key=lambda f: f.name)
    if not found:
        raise ModelError(f"cannot fetch the projector of {ref.repo}: it has no mmproj file")
    for label in ("F16", "BF16"):
        for f in found:
            if quant_label(f.name) == label:
                return f
    return found[0]
