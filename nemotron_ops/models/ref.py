"""Which files a model's name means. Pure.

A name is `owner/name:QUANT`, or an address (`hub_names`). The quant is matched against the label in file names: the
last word of the form `Q8_0`, `UD-Q4_K_XL`, `IQ4_NL`, `BF16`, `MXFP4`, in the file's own name or else in its folder's.
A shard set (`…-00001-of-00003.gguf`) is one model: complete, or an error that names the missing shard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from nemotron_ops.errors import ModelError, UsageError
from nemotron_ops.hub_names import is_gguf, read_hub_name, stem_of

LABEL = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q\d[A-Z0-9_]*|TQ\d_\d|BF16|FP?16|FP?32|MXFP4[A-Z_]*|NVFP4))(?=$|[-.])", re.IGNORECASE
)
SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5,9})-of-(?P<count>\d{5,9})\.gguf", re.IGNORECASE)
SHARD_DIGITS = 5  # llama.cpp finds the shards after the first by `-%05d-of-%05d.gguf` only (src/llama.cpp)
PART = re.compile(r"\w[\w .,+=@()\[\]{}'!&~#-]*")
PART_BYTES = 240  # of the 255 that file systems allow
# files beside models, by name: drafts and calibration data have the word first, adapters and projectors anywhere
HELPER = re.compile(r"^(mtp|imatrix)(?=[-_.]|$)|(?:^|[-_.])(mmproj|lora)(?=[-_.]|$)|[-_.](imatrix)$", re.IGNORECASE)
HELPERS = {"mtp": "a draft model", "imatrix": "calibration data", "mmproj": "a projector", "lora": "a LoRA adapter"}
DRAFT = re.compile(r"[-_.]mtp([-_.]|$)", re.IGNORECASE)  # a draft model, or a whole model with MTP layers
DRAFT_PART = 4  # a draft has less than this part of the smallest model
MOST_SHARDS = 1 << 16  # llama.cpp counts them in 16 bits
MOST_NAMED = 6  # files in one message
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

    @property
    def proof(self) -> str:
        """The hash that its bytes must have; "" if the hub tells none."""
        return self.sha256 or self.git_sha1


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


def parse(text: str, env: Mapping[str, str] | None = None) -> Ref:
    """The Ref that `text` names on the hub that `env` tells. Raises UsageError if it names no repository."""
    named = read_hub_name(text, env or {})
    if named is None or ".." in named.repo or (named.quant and not safe_name(named.quant)):
        hint = 'write "owner/name" or "owner/name:QUANT", for example unsloth/Nemotron-3-Nano-30B-A3B-GGUF:UD-Q4_K_XL'
        raise UsageError(f"cannot read {text!r} as a model: it names no repository", hint=hint)
    return Ref(repo=named.repo, quant=named.quant)


def quant_label(name: str) -> str:
    """The quant in a file's name, upper case, or "" if it has none: `UD-Q4_K_XL/X-UD-Q4_K_XL-00001-of-00003.gguf`."""
    shard = SHARD.fullmatch(name)
    stem = shard["stem"] if shard else stem_of(name)
    folder, _, own = stem.rpartition("/")
    for part in (own, folder):
        if labels := LABEL.findall(part):
            return str(labels[-1]).upper()
    return ""


def safe_name(name: str) -> bool:
    """Whether a name from the network may become a path in our folders."""
    parts = name.split("/")
    return len(name) < 1000 and all(
        PART.fullmatch(p) and p.strip(". ") and len(p.encode("utf-8", "replace")) <= PART_BYTES for p in parts
    )


def file_sets(files: Iterable[RemoteFile]) -> dict[str, tuple[RemoteFile, ...]]:
    """Models among `files` by quant label: single GGUF files, or shards in order. Incomplete sets are included.

    Where one label has several models, those in the repository's top folder count; if several remain, each is keyed by
    its file's name.
    """
    listed = list(files)
    apart = left_out(listed)
    groups: dict[str, list[RemoteFile]] = {}
    for file in listed:
        if is_gguf(file.name) and file.name not in apart:
            groups.setdefault(_stem(file.name), []).append(file)
    by_label: dict[str, list[str]] = {}
    for stem in groups:
        by_label.setdefault(quant_label(stem), []).append(stem)
    found: dict[str, tuple[RemoteFile, ...]] = {}
    for label, stems in by_label.items():
        shallow = min(stem.count("/") for stem in stems)
        top = [stem for stem in stems if stem.count("/") == shallow]
        for stem in stems:
            key = label if [stem] == top and label else stem
            found[key] = tuple(sorted(groups[stem], key=lambda f: f.name))
    return found


def left_out(files: Sequence[RemoteFile]) -> dict[str, str]:
    """The GGUF files among `files` that are not taken for models, each with the reason.

    A name with MTP inside is a model with its prediction layers, unless the file is small beside the models.
    """
    found: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for file in files:
        if not is_gguf(file.name):
            continue
        if why := _why_no_model(file.name):
            found[file.name] = why
        else:
            sizes[_stem(file.name)] = sizes.get(_stem(file.name), 0) + max(file.size_bytes, 0)
    smallest = min((n for stem, n in sizes.items() if not _may_be_draft(stem)), default=0)
    drafts = {stem for stem, n in sizes.items() if _may_be_draft(stem) and n * DRAFT_PART < smallest}
    return found | {f.name: HELPERS["mtp"] for f in files if f.name not in found and _stem(f.name) in drafts}


def _may_be_draft(stem: str) -> bool:
    return DRAFT.search(stem.rpartition("/")[2]) is not None


def _why_no_model(name: str) -> str:
    """Why a GGUF file's name is not a model's; "" if it may be."""
    if helper := HELPER.search(stem_of(name).rpartition("/")[2]):
        return HELPERS[next(g for g in helper.groups() if g).lower()]
    if safe_name(name):
        return ""
    odd = sorted({c for c in name if not PART.fullmatch("a" + c) and c != "/"})
    return f"its name has {', '.join(map(ascii, odd))}" if odd else "its name is no plain path"


def _stem(name: str) -> str:
    """What the shards of one model have in common, or a single file's name without its ending."""
    shard = SHARD.fullmatch(name)
    return shard["stem"] if shard else stem_of(name)


def choose(files: Sequence[RemoteFile], ref: Ref, *, mmproj: bool = False) -> FileSet:
    """The files that `ref` means. Raises ModelError if there are none or several models, or a shard is missing."""
    found = file_sets(files)
    if not found:
        raise no_models(ref.repo, files)
    quant = _wanted(found, ref, files)
    chosen = found[quant]
    check_shards([f.name for f in chosen])
    label = quant_label(chosen[0].name)
    return FileSet(quant=label or quant, files=chosen, mmproj=_projector(files, ref) if mmproj else None)


def no_models(repo: str, files: Sequence[RemoteFile]) -> ModelError:
    """The error for a repository without a model that can be used: what was left out, and why."""
    apart = left_out(files)
    if not apart:
        hint = "repositories with GGUF files usually end in -GGUF"
        return ModelError(f"cannot use {repo}: it has no GGUF files", hint=hint)
    some = [f"{shown(name)} ({why})" for name, why in sorted(apart.items())[:MOST_NAMED]]
    more = f" and {len(apart) - MOST_NAMED} more" if len(apart) > MOST_NAMED else ""
    return ModelError(f"cannot use {repo}: none of its GGUF files is a model: {', '.join(some)}{more}")


def shown(name: str) -> str:
    """A name from the network for a message: what cannot be printed is escaped."""
    return name if name.isprintable() else ascii(name)


def check_shards(names: Sequence[str]) -> None:
    """Raise ModelError unless `names` is one plain file or a whole shard set in order, all from one model."""
    shards = [SHARD.fullmatch(name) for name in names]
    if len(names) == 1 and shards[0] is None:
        return
    first = next(m for m in shards if m)
    stem, count = first["stem"], int(first["count"])
    _check_numbering(first)
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
    _check_numbering(match)
    return [f"{match['stem']}-{i:05d}-of-{match['count']}.gguf" for i in range(1, int(match["count"]) + 1)]


def _check_numbering(shard: re.Match[str]) -> None:
    """Raise ModelError for shards whose names llama-server does not understand."""
    digits = {len(shard["index"]), len(shard["count"])}
    if digits != {SHARD_DIGITS} or not shard[0].endswith(".gguf"):
        raise ModelError(
            f"cannot use {shard[0]}: llama-server finds the other shards only by names like "
            f"{shard['stem']}-00001-of-{int(shard['count']):05d}.gguf",
            hint="download the files, give them such names, and run `nemotron-ops models import`",
        )
    if not 0 < int(shard["count"]) <= MOST_SHARDS:
        raise ModelError(f"cannot use {shard[0]}: it claims to be one of {int(shard['count'])} shards")


def _wanted(found: Mapping[str, tuple[RemoteFile, ...]], ref: Ref, files: Sequence[RemoteFile]) -> str:
    """The key of `found` that `ref` names."""
    labels = {key.upper(): key for key in found}
    if not ref.quant:
        for usual in PREFERRED:
            if usual in labels:
                return labels[usual]
        if len(found) == 1:
            return next(iter(found))
        raise ModelError(f"cannot choose a quant of {ref.repo}: none was named", hint=_offer(found))
    asked = stem_of(ref.quant).upper()
    if asked in labels:
        return labels[asked]
    same = [k for k, fs in found.items() if asked in _names(fs)] or [k for k in found if quant_label(k) == asked]
    if len(same) == 1:
        return same[0]
    if same:
        raise ModelError(
            f"cannot choose {ref}: several files match", hint=f"name one of them as the quant: {', '.join(same)}"
        )
    near = get_close_matches(asked, labels, n=1, cutoff=0.5)
    hint = (f"did you mean {labels[near[0]]}? " if near else "") + _offer(found)
    apart = {stem_of(n).upper(): why for n, why in left_out(files).items()}
    why = next((w for n, w in apart.items() if asked in (n, n.rpartition("/")[2], quant_label(n))), "")
    cause = f"the file of that name is not taken for a model: {why}" if why else "there is no such quant"
    raise ModelError(f"cannot find {ref.quant} in {ref.repo}: {cause}", hint=hint)


def _names(files: Iterable[RemoteFile]) -> set[str]:
    """What may be written for a model instead of its quant: a file, with or without folder or shard's number."""
    paths = {n.upper() for f in files for n in (stem_of(f.name), _stem(f.name))}
    return paths | {p.rpartition("/")[2] for p in paths}


def _offer(found: Iterable[str]) -> str:
    return f"there are {', '.join(sorted(found))}"


def _projector(files: Iterable[RemoteFile], ref: Ref) -> RemoteFile:
    """The multimodal projector: F16 or BF16 if there are several."""
    found = [f for f in files if "mmproj" in f.name.rpartition("/")[2].lower() and is_gguf(f.name)]
    found = sorted((f for f in found if safe_name(f.name)), key=lambda f: f.name)
    if not found:
        raise ModelError(f"cannot fetch the projector of {ref.repo}: it has no mmproj file")
    for label in ("F16", "BF16"):
        for f in found:
            if quant_label(f.name) == label:
                return f
    return found[0]
