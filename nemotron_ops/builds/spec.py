"""Build requests, and sources of llama.cpp. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from nemotron_ops.errors import UsageError

TARGETS = (
    "llama-cli",
    "llama-mtmd-cli",
    "llama-server",
    "llama-gguf-split",
    "llama-bench",
    "llama-batched-bench",
    "llama-quantize",
    "llama-fit-params",
)


class Backend(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"
    METAL = "metal"
    VULKAN = "vulkan"
    HIP = "hip"


class Fix(StrEnum):
    """A known miscompile and the flags against it; `backends.py` holds the flags."""

    NO_AMX = "no-amx"


class SourceKind(StrEnum):
    GIT = "git"
    REGISTRY = "registry"
    DIRECTORY = "directory"
    ARCHIVE = "archive"
    BUNDLE = "bundle"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where source code is to come from: a repository, a package, or a place on this machine."""

    kind: SourceKind
    place: str  # URL, package name or path
    ref: str = ""  # git: tag, branch, commit; registry: version


@dataclass(frozen=True, kw_only=True)
class Source:
    """An exactly known llama.cpp: by its commit, or by a hash of its content where no commit is proven.

    A commit is proven by git itself, or by the hash of an archive that nemotron-ops knows. What any other archive or
    folder `says` is an unverified claim: a modified tree would still carry it.
    """

    origin: Origin
    label: str  # for people: "v0.5.0", "llama-cpp-python 0.3.36"
    commit: str = ""
    number: int = 0  # upstream's build number; 0 if unknown
    sha256: str = ""  # of the archive or folder that it came from
    says: str = ""  # the commit that it claims, where none is proven

    @property
    def identity(self) -> str:
        """What a build's id is made from."""
        return self.commit or f"sha256:{self.sha256}"

    @property
    def short(self) -> str:
        return self.commit[:8] if self.commit else f"x{self.sha256[:8]}"

    @property
    def commit_text(self) -> str:
        """The commit, for people."""
        return self.commit or (f"unproven: it says {self.says}" if self.says else "(unknown)")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of a build, before machine and source are known."""

    backend: Backend | None = None  # None: what the machine has
    portable: bool = False  # for other machines
    cuda_archs: tuple[str, ...] = ()  # of another machine; empty: this one's GPUs
    hip_archs: tuple[str, ...] = ()
    cmake_args: tuple[str, ...] = ()
    jobs: int | None = None
    zig: bool = False  # compile with the zig wheel instead of a system compiler
    fixes: frozenset[Fix] = frozenset()  # workarounds that a self-test requested


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """A request for `builds.run.ensure_build`."""

    options: BuildOptions = field(default_factory=BuildOptions)
    ref: str = ""  # tag, build number, commit or branch; empty: the pinned release
    source: str = ""  # as `parse_origin` reads it; empty: the order of preference
    mirror: str = ""  # git URL to use instead of GitHub's
    force: bool = False  # build again even if the store has it
    activate: bool = True  # make it current
    offline: bool = False  # use only what is on this machine


def parse_origin(text: str, ref: str, default_package: str) -> Origin:
    """The origin that `--source` names. Raises UsageError if it names none.

    `registry`, `registry:PACKAGE`, `registry:PACKAGE==VERSION`; a git URL; a path ending in .bundle, in an
    archive's suffix, or else a folder.
    """
    if text == "registry" or text.startswith("registry:"):
        package, _, version = text.removeprefix("registry").removeprefix(":").partition("==")
        package = package or default_package
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", package):
            raise UsageError(f"cannot read --source {text}: {package!r} is not a package name", hint=SOURCE_HINT)
        return Origin(kind=SourceKind.REGISTRY, place=package, ref=version or ref)
    if is_git_url(text):
        return Origin(kind=SourceKind.GIT, place=text, ref=ref)
    if text.startswith(("http:", "https:", "-")) or not text:
        raise UsageError(f"cannot read --source {text or '(empty)'}: it names no source", hint=SOURCE_HINT)
    if text.endswith(".bundle"):
        return Origin(kind=SourceKind.BUNDLE, place=text, ref=ref)
    if text.endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar", ".zip")):
        return Origin(kind=SourceKind.ARCHIVE, place=text)
    return Origin(kind=SourceKind.DIRECTORY, place=text)


SOURCE_HINT = "give a git URL, a folder, an archive, a git bundle, `registry` or `registry:PACKAGE==VERSION`"


def is_git_url(text: str) -> bool:
    if text.startswith(("ssh://", "git://", "git+", "file://")):
        return True
    if re.fullmatch(r"[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:.+", text):  # scp style
        return True
    archive = text.endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar", ".zip", ".bundle"))
    return text.startswith(("https://", "http://")) and not archive


def check_ref(ref: str) -> str:
    """`ref`, if it can be a git ref and not an option of git. Raises UsageError."""
    if ref.startswith("-") or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/@+-]*", ref) or ".." in ref:
        raise UsageError(f"cannot use ref {ref!r}: not a tag, build number, branch or commit")
    return ref


def build_number(ref: str) -> int:
    """11434 for the tag `b11434`, else 0."""
    found = re.fullmatch(r"b(\d+)", ref)
    return int(found.group(1)) if found else 0


def is_commit(ref: str) -> bool:
    return bool(re.fullmatch(r"[0-9a-f]{40}", ref))


def without_secrets(url: str) -> str:
    """`url` without user name and password, for manifests, messages and logs."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    if not parts.hostname or "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def source_json(source: Source) -> dict[str, Any]:
    """`source` as plain values for a manifest."""
    return {
        "kind": str(source.origin.kind),
        "place": without_secrets(source.origin.place),
        "ref": source.origin.ref,
        "label": source.label,
        "commit": source.commit,
        "number": source.number,
        "sha256": source.sha256,
        "says": source.says,
    }


def source_from_json(value: dict[str, Any]) -> Source:
    """The source in a manifest, as `source_json` made it."""
    origin = Origin(kind=SourceKind(value["kind"]), place=value["place"], ref=value["ref"])
    return Source(
        origin=origin,
        label=value["label"],
        commit=value["commit"],
        number=value["number"],
        sha256=value["sha256"],
        says=value.get("says", ""),
    )


def name_of(path: str) -> str:
    return PurePath(path).name
