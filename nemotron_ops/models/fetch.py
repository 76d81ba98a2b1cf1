"""Fetches a model: looks what is there, says what it would take, brings the rest, proves it. Disk, HTTP.

`prepare` decides and changes nothing; `carry_out` does it. A model is complete or absent: its manifest is written
when all its files are proven. A new revision comes beside the old one, and the manifest switches at the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import filelock

from nemotron_ops.errors import HostError, ModelError
from nemotron_ops.models import caches, proof, store
from nemotron_ops.models.hub import Listing, list_files, offline, token_of
from nemotron_ops.models.local import read_header
from nemotron_ops.models.partial import done_bytes
from nemotron_ops.models.ref import FileSet, Ref, RemoteFile, choose
from nemotron_ops.models.store import StoredFile, StoredModel
from nemotron_ops.models.transfer import Speed, download
from nemotron_ops.models.web import Patience, Stalled, Web, endpoint_of
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Report, Step, silent

SPARE_BYTES = 256 << 20  # left free on the disk
ASIDE = ".nemotron-ops"  # folder for unfinished files in a folder of the user's


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One file of a fetch: where it will be, and what of it is here already."""

    file: RemoteFile
    path: Path
    role: str
    here: str = ""  # "stored", "cached", or "" if it must be fetched
    partial_bytes: int = 0
    copy: Path | None = None  # another program's file with the same bytes, to be proven

    @property
    def fetch_bytes(self) -> int:
        return 0 if self.here else max(self.file.size_bytes - self.partial_bytes, 0)


@dataclass(frozen=True, kw_only=True)
class FetchPlan:
    """What a fetch will do. `model` is the result if there is nothing to do."""

    ref: Ref
    revision: str
    commit: str
    quant: str
    wanted: tuple[Wanted, ...]
    free_bytes: int
    model: StoredModel | None = None
    old: StoredModel | None = None  # the revision that will be replaced
    note: str = ""

    @property
    def fetch_bytes(self) -> int:
        return sum(w.fetch_bytes for w in self.wanted)

    @property
    def size_bytes(self) -> int:
        return sum(w.file.size_bytes for w in self.wanted)


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a fetch works with. `now` is the wall clock, for the manifest."""

    layout: Layout
    env: Mapping[str, str]
    report: Report = silent
    now: float = 0.0
    patience: Patience = field(default_factory=Patience)
    speed: Speed = field(default_factory=Speed)


def fetch(
    ref: Ref,
    means: Means,
    *,
    revision: str = "main",
    local_dir: Path | None = None,
    mmproj: bool = False,
    pinned: Mapping[str, str] | None = None,
) -> StoredModel:
    """Bring the model that `ref` names, or find that it is here. Raises ModelError or HostError."""
    plan = prepare(ref, means, revision=revision, local_dir=local_dir, mmproj=mmproj, pinned=pinned)
    return carry_out(plan, means)


def prepare(
    ref: Ref,
    means: Means,
    *,
    revision: str = "main",
    local_dir: Path | None = None,
    mmproj: bool = False,
    pinned: Mapping[str, str] | None = None,
) -> FetchPlan:
    """What fetching `ref` would do. `pinned` maps file names to the sha256 that a recipe insists on.

    Where the hub cannot be reached, a model that is here is good enough. Raises ModelError, or HostError if the
    disk is too small.
    """
    old = store.find(means.layout, ref) if ref.quant else None
    listing, note = _listing(ref, means, revision, old)
    if listing is None:
        assert old is not None
        return _nothing_to_do(ref, old, note)
    files = choose(listing.files, ref, mmproj=mmproj)
    _check_pins(files, pinned or {})
    old = store.find(means.layout, Ref(repo=ref.repo, quant=files.quant))
    target = local_dir or store.repo_dir(means.layout, ref.repo) / listing.commit[:12]
    if old and _is_current(old, listing, files, local_dir):
        return _nothing_to_do(ref, old, note)
    wanted = tuple(_wanted(means, ref.repo, files, file, target, old) for file in files.all_files)
    plan = FetchPlan(
        ref=ref,
        revision=revision,
        commit=listing.commit,
        quant=files.quant,
        wanted=wanted,
        free_bytes=store.free_bytes(target),
        old=old if old and old.commit != listing.commit else None,
        note=note,
    )
    _check_room(plan, target)
    return plan


def carry_out(plan: FetchPlan, means: Means) -> StoredModel:
    """Do what `plan` says. Raises ModelError; whatever was fetched until then is kept for the next time."""
    if plan.model:
        return plan.model
    files = []
    with Web(means.env, token=token_of(means.env), patience=means.patience) as web:
        for wanted in plan.wanted:
            url = web.file_url(plan.ref.repo, plan.commit, wanted.file.name)
            files.append(_bring(web, url, wanted, means))
    _check_header(files)
    model = StoredModel(
        repo=plan.ref.repo,
        quant=plan.quant,
        revision=plan.revision,
        commit=plan.commit,
        files=tuple(files),
        source=endpoint_of(means.env),
        fetched_at=means.now,
        used_at=means.now,
    )
    store.save(means.layout, model)
    return model


def _listing(ref: Ref, means: Means, revision: str, old: StoredModel | None) -> tuple[Listing | None, str]:
    """The hub's listing, or the caches' without the network, or None where the model here must do; and a note."""
    usable = old is not None and all(store.intact(f) for f in old.files)
    if not offline(means.env):
        try:
            return list_files(ref.repo, revision=revision, env=means.env, patience=means.patience), ""
        except Stalled as exc:
            if not usable:
                raise
            return None, f"{exc.message}; using what is here"
    if usable:
        return None, ""
    if cached := caches.cached_listing(means.env, ref.repo, revision):
        return Listing(repo=ref.repo, revision=revision, commit=cached[0], files=cached[1]), "offline: from a cache"
    raise ModelError(f"cannot fetch {ref}: it is not here, and HF_HUB_OFFLINE forbids the network")


def _nothing_to_do(ref: Ref, model: StoredModel, note: str) -> FetchPlan:
    return FetchPlan(
        ref=ref,
        revision=model.revision,
        commit=model.commit,
        quant=model.quant,
        wanted=(),
        free_bytes=0,
        model=model,
        note=note,
    )


def _is_current(old: StoredModel, listing: Listing, files: FileSet, local_dir: Path | None) -> bool:
    """Whether the model here is complete, untouched, of this commit and in the right place."""
    here = {f.name: f for f in old.files}
    if old.commit != listing.commit or not {f.name for f in files.all_files} <= set(here):
        return False
    if local_dir and any(Path(here[f.name].path) != local_dir / f.name for f in files.all_files):
        return False
    return all(store.intact(f) for f in old.files)


def _wanted(means: Means, repo: str, files: FileSet, file: RemoteFile, target: Path, old: StoredModel | None) -> Wanted:
    path = target / file.name
    role = "mmproj" if file is files.mmproj else "weights"
    same = [f for f in (old.files if old else ()) if f.proof == (file.sha256 or file.git_sha1) and store.intact(f)]
    if any(Path(f.path) == path for f in same):
        return Wanted(file=file, path=path, role=role, here="stored")
    if path.is_file() and path.stat().st_size == file.size_bytes:  # put there by hand, or before a crash
        return Wanted(file=file, path=path, role=role, here="cached", copy=path)
    copies = [Path(f.path) for f in same] or list(caches.cached_copies(means.env, repo, file))
    if copies:
        return Wanted(file=file, path=path, role=role, here="cached", copy=copies[0])
    done = done_bytes(partial_path(path, file, means.layout))
    return Wanted(file=file, path=path, role=role, partial_bytes=done)


def partial_path(final: Path, file: RemoteFile, layout: Layout) -> Path:
    """Where an unfinished file is kept: on the disk of its final place, under the name of its hash."""
    inside = final.is_relative_to(layout.models)
    folder = layout.models / ".partial" if inside else final.parent / ASIDE
    return folder / f"{file.sha256 or file.git_sha1}.partial"


def _check_pins(files: FileSet, pinned: Mapping[str, str]) -> None:
    """Raise ModelError if the hub's hashes are not those that the recipe insists on."""
    for file in files.all_files:
        asked = pinned.get(file.name) or pinned.get(file.name.rpartition("/")[2])
        if asked and asked != file.sha256:
            raise ModelError(
                f"cannot use {file.name}: the recipe pins sha256 {asked[:16]}…, the hub has {file.sha256[:16]}…",
                hint="the repository has changed; check why, then pin the new hash or the old revision",
            )


def _check_room(plan: FetchPlan, target: Path) -> None:
    needed = plan.fetch_bytes + SPARE_BYTES
    if plan.fetch_bytes and needed > plan.free_bytes:
        raise HostError(
            f"cannot fetch {plan.ref}: it takes {plan.fetch_bytes / 1e9:.1f} GB, "
            f"{plan.free_bytes / 1e9:.1f} GB are free at {target}",
            hint="make room (see `nemotron-ops models gc --dry-run`), or take another disk with --local-dir",
        )


def _bring(web: Web, url: str, wanted: Wanted, means: Means) -> StoredFile:
    """Bring one file to its place and prove it; several processes that want the same one share the work."""
    file, expected = wanted.file, wanted.file.sha256 or wanted.file.git_sha1
    partial = partial_path(wanted.path, file, means.layout)
    if wanted.here != "stored":
        with _only_one(file, means):
            if not _is_proven(wanted.path, file, means.report) and not _take_copy(wanted, means):
                download(
                    web, url, name=file.name, size_bytes=file.size_bytes, expected=expected, partial=partial,
                    final=wanted.path, report=means.report, speed=means.speed,
                )  # fmt: skip
    if partial.parent.name == ASIDE:
        with suppress(OSError):  # another file of the set may be half done there
            partial.parent.rmdir()
    return store.record(file.name, wanted.path, sha256=file.sha256, role=wanted.role, git_sha1=file.git_sha1)


def _is_proven(path: Path, file: RemoteFile, report: Report) -> bool:
    """Whether the right bytes are at `path` already, by their hash."""
    expected = file.sha256 or file.git_sha1
    try:
        return path.stat().st_size == file.size_bytes and proof.file_hash(path, expected, report=report) == expected
    except OSError:
        return False


def _take_copy(wanted: Wanted, means: Means) -> bool:
    """Use another program's copy, if there is one and its bytes prove right."""
    if wanted.copy is None or wanted.copy == wanted.path:
        return False
    if not _is_proven(wanted.copy, wanted.file, means.report):
        note = f"{wanted.copy} is damaged: fetching {wanted.file.name} instead"
        means.report(Step(what=f"fetch {wanted.file.name}", note=note))
        return False
    how = store.bring(wanted.copy, wanted.path)
    means.report(Step(what=f"fetch {wanted.file.name}", note=f"{wanted.file.name}: {how} of {wanted.copy}"))
    return True


@contextmanager
def _only_one(file: RemoteFile, means: Means) -> Iterator[None]:
    """Hold the right to fetch a file; while another process has it, show how far that one is."""
    report, partial = means.report, means.layout.models / ".partial" / f"{file.sha256 or file.git_sha1}.partial"
    partial.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(partial.with_suffix(".lock"))
    told = False
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except filelock.Timeout:
            if not told:
                told = True
                report(Step(what=f"fetch {file.name}", note=f"{file.name} is being fetched already: waiting for it"))
            done = done_bytes(partial)
            report(Step(what=f"fetch {file.name}", done=done, total=file.size_bytes, unit="B"))
    try:
        yield
    finally:
        lock.release()


def _check_header(files: list[StoredFile]) -> None:
    """Raise ModelError if the proven files are no usable model: better now than when llama-server says so."""
    first = next(f for f in files if f.role == "weights")
    read_header(Path(first.path))


def clock() -> float:
    """The wall clock, for `Means.now`."""
    return time.time()
