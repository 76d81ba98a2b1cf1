"""Fetches a model: plans the download, downloads what is missing, verifies every file. Disk, HTTP.

`prepare` decides and changes nothing; `carry_out` acts. A model is complete or absent: its manifest is written when
all its files are verified. A new revision is stored beside the old one, and the manifest switches at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import filelock

from nemotron_ops.errors import HostError, ModelError
from nemotron_ops.files import check_locks
from nemotron_ops.installation import Installation
from nemotron_ops.models import caches, proof, store
from nemotron_ops.models.hub import Listing, list_files, offline, token_of
from nemotron_ops.models.local import read_header
from nemotron_ops.models.partial import done_bytes
from nemotron_ops.models.ref import FileSet, Ref, RemoteFile, choose
from nemotron_ops.models.refusals import Stalled
from nemotron_ops.models.store import StoredFile, StoredModel
from nemotron_ops.models.transfer import USUAL, Download, Speed, Tuning, download
from nemotron_ops.models.web import Web, endpoint_of
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Report, Step, remark

SPARE_BYTES = 256 << 20  # left free on the disk
ASIDE = ".nemotron-ops"  # folder for unfinished files inside --local-dir


@dataclass(frozen=True, kw_only=True)
class FetchRequest:
    """A model to be fetched. `pinned` maps file names to the sha256 that a recipe requires.

    `unproven`: files for which the hub tells no hash are fetched, too, and their sha256 is recorded.
    """

    ref: Ref
    revision: str = "main"
    local_dir: Path | None = None  # instead of the store
    mmproj: bool = False
    unproven: bool = False
    pinned: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FileToFetch:
    """One file of a fetch: its final path, and how much of it is on this machine already."""

    file: RemoteFile
    path: Path
    role: str
    here: str = ""  # "stored", "cached", or "" if it must be fetched
    partial_bytes: int = 0
    copy: Path | None = None  # another program's file of the same size, to be verified

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
    files: tuple[FileToFetch, ...]
    free_bytes: int
    model: StoredModel | None = None
    old: StoredModel | None = None  # the revision that will be replaced
    note: str = ""

    @property
    def fetch_bytes(self) -> int:
        return sum(f.fetch_bytes for f in self.files)

    @property
    def size_bytes(self) -> int:
        return sum(f.file.size_bytes for f in self.files)


def fetch(request: FetchRequest, installation: Installation, *, tuning: Tuning = USUAL) -> StoredModel:
    """The requested model, fetched unless it is on this machine. Raises ModelError or HostError."""
    plan = prepare(request, installation, tuning=tuning)
    if plan.note:
        remark(installation.report, plan.note, warning=True)
    return carry_out(plan, installation, tuning=tuning)


def prepare(request: FetchRequest, installation: Installation, *, tuning: Tuning = USUAL) -> FetchPlan:
    """What fetching the requested model would do; changes nothing.

    Where the hub cannot be reached, a model on this machine is good enough. Raises ModelError, or HostError if the
    disk is too small.
    """
    ref, layout, local_dir = request.ref, installation.layout, request.local_dir
    old = store.find(layout, ref) if ref.quant else None
    listing, note = _listing(request, installation, old, tuning)
    if listing is None:
        assert old is not None
        return _nothing_to_do(ref, old, note)
    files = choose(listing.files, ref, mmproj=request.mmproj)
    _check_pins(files, request.pinned)
    _check_proofs(files, request)
    old = store.find(layout, Ref(repo=ref.repo, quant=files.quant))
    target = local_dir or store.repo_dir(layout, ref.repo) / listing.commit[:12]
    if old and _is_current(old, listing, files, local_dir):
        return _nothing_to_do(ref, old, note)
    plan = FetchPlan(
        ref=ref,
        revision=request.revision,
        commit=listing.commit,
        quant=files.quant,
        files=tuple(
            file_to_fetch(file, target, installation, repo=ref.repo, old=old, role=_role(file, files))
            for file in files.all_files
        ),
        free_bytes=store.free_bytes(target),
        old=old if old and old.commit != listing.commit else None,
        note=note,
    )
    _check_room(plan, target)
    return plan


def carry_out(plan: FetchPlan, installation: Installation, *, tuning: Tuning = USUAL) -> StoredModel:
    """Do what `plan` says. Raises ModelError; bytes fetched until then are kept for the next run."""
    if plan.model:
        return plan.model
    files, env = [], installation.env
    with Web(env, token=token_of(env), patience=tuning.patience) as web:
        for file in plan.files:
            url = web.file_url(plan.ref.repo, plan.commit, file.file.name)
            files.append(bring(web, url, file, installation, tuning.speed))
    _check_header(files)
    now = store.now()
    model = StoredModel(
        repo=plan.ref.repo,
        quant=plan.quant,
        revision=plan.revision,
        commit=plan.commit,
        files=tuple(files),
        source=endpoint_of(env),
        fetched_at=now,
        used_at=now,
    )
    store.save(installation.layout, model)
    return model


def _listing(
    request: FetchRequest, installation: Installation, old: StoredModel | None, tuning: Tuning
) -> tuple[Listing | None, str]:
    """The hub's listing, or without a network a cache's, or None where the stored model must do; and a note."""
    env, repo, revision = installation.env, request.ref.repo, request.revision
    usable = old is not None and all(store.intact(f) for f in old.files)
    if not offline(env):
        try:
            found = list_files(repo, revision=revision, env=env, patience=tuning.patience)
            return found, found.note
        except Stalled as exc:
            if not usable:
                raise
            return None, f"{exc.message}; using what is here"
    if usable:
        return None, ""
    if cached := caches.cached_listing(env, repo, revision):
        return Listing(repo=repo, revision=revision, commit=cached[0], files=cached[1]), "offline: from a cache"
    raise ModelError(f"cannot fetch {request.ref}: it is not here, and HF_HUB_OFFLINE forbids the network")


def _nothing_to_do(ref: Ref, model: StoredModel, note: str) -> FetchPlan:
    return FetchPlan(
        ref=ref,
        revision=model.revision,
        commit=model.commit,
        quant=model.quant,
        files=(),
        free_bytes=0,
        model=model,
        note=note,
    )


def _is_current(old: StoredModel, listing: Listing, files: FileSet, local_dir: Path | None) -> bool:
    """Whether the stored model is complete, unchanged, of this commit and in the right folder."""
    here = {f.name: f for f in old.files}
    if old.commit != listing.commit or not {f.name for f in files.all_files} <= set(here):
        return False
    if local_dir and any(Path(here[f.name].path) != local_dir / f.name for f in files.all_files):
        return False
    return all(store.intact(f) for f in old.files)


def _role(file: RemoteFile, files: FileSet) -> str:
    return "mmproj" if file is files.mmproj else "weights"


def file_to_fetch(
    file: RemoteFile, folder: Path, installation: Installation, *, repo: str, old: StoredModel | None, role: str
) -> FileToFetch:
    """How much of `file`, which belongs into `folder`, is on this machine; changes nothing."""
    path = folder / file.name
    if not file.proof:
        return FileToFetch(file=file, path=path, role=role)
    same = [f for f in (old.files if old else ()) if f.proof == (file.proof) and store.intact(f)]
    if any(Path(f.path) == path for f in same):
        return FileToFetch(file=file, path=path, role=role, here="stored")
    if path.is_file() and path.stat().st_size == file.size_bytes:  # put there by the user, or before a crash
        return FileToFetch(file=file, path=path, role=role, here="cached", copy=path)
    copies = [Path(f.path) for f in same] or list(caches.cached_copies(installation.env, repo, file))
    if copies:
        return FileToFetch(file=file, path=path, role=role, here="cached", copy=copies[0])
    done = done_bytes(partial_path(path, file, installation.layout))
    return FileToFetch(file=file, path=path, role=role, partial_bytes=done)


def partial_path(final: Path, file: RemoteFile, layout: Layout) -> Path:
    """The path of an unfinished file: on the disk of its final path, named by its hash."""
    inside = final.is_relative_to(layout.models)
    folder = layout.models / ".partial" if inside else final.parent / ASIDE
    return folder / f"{_partial_name(file)}.partial"


def _partial_name(file: RemoteFile) -> str:
    """The hash of a file, or of its name where it has none."""
    return file.proof or f"unproven-{hashlib.sha256(f'{file.name} {file.size_bytes}'.encode()).hexdigest()[:32]}"


def _check_pins(files: FileSet, pinned: Mapping[str, str]) -> None:
    """Raise ModelError if the hub's hashes differ from those that the recipe pins."""
    for file in files.all_files:
        asked = pinned.get(file.name) or pinned.get(file.name.rpartition("/")[2])
        if asked and asked != file.sha256:
            raise ModelError(
                f"cannot use {file.name}: the recipe pins sha256 {asked[:16]}…, the hub has {file.sha256[:16]}…",
                hint="the repository has changed; check why, then pin the new hash or the old revision",
            )


def _check_proofs(files: FileSet, request: FetchRequest) -> None:
    """Raise ModelError for a file that nothing proves, unless that was asked for."""
    bare = [f.name for f in files.all_files if not f.proof]
    if bare and not request.unproven:
        raise ModelError(
            f"cannot prove {bare[0]}: the hub tells no hash for it",
            hint="`nemotron-ops fetch --unproven` takes it by its size alone",
        )


def _check_room(plan: FetchPlan, target: Path) -> None:
    needed = plan.fetch_bytes + SPARE_BYTES
    if plan.fetch_bytes and needed > plan.free_bytes:
        raise HostError(
            f"cannot fetch {plan.ref}: it takes {plan.fetch_bytes / 1e9:.1f} GB, "
            f"{plan.free_bytes / 1e9:.1f} GB are free at {target}",
            hint="make room (see `nemotron-ops models gc --dry-run`), or use another disk with --local-dir",
        )


def bring(web: Web, url: str, wanted: FileToFetch, installation: Installation, speed: Speed) -> StoredFile:
    """Bring one file to its path and verify it; processes that want the same file share one download."""
    file, report = wanted.file, installation.report
    partial = partial_path(wanted.path, file, installation.layout)
    found = file.sha256
    if wanted.here != "stored":
        with _sole_fetcher(file, installation):
            if not _is_proven(wanted.path, file, report) and not _use_copy(wanted, report):
                item = Download(
                    url=url,
                    name=file.name,
                    size_bytes=file.size_bytes,
                    proof=file.proof,
                    partial=partial,
                    final=wanted.path,
                )
                found = download(web, item, report=report, speed=speed)
    if partial.parent.name == ASIDE:
        with suppress(OSError):  # another file of the set may be half done there
            partial.parent.rmdir()
    sha256 = "" if file.git_sha1 else found
    return store.record(file.name, wanted.path, sha256=sha256, role=wanted.role, git_sha1=file.git_sha1)


def _is_proven(path: Path, file: RemoteFile, report: Report) -> bool:
    """Whether the right bytes are at `path` already, by their hash."""
    expected = file.proof
    try:
        return path.stat().st_size == file.size_bytes and proof.file_hash(path, expected, report=report) == expected
    except OSError:
        return False


def _use_copy(wanted: FileToFetch, report: Report) -> bool:
    """Use another program's copy, if there is one and its hash is right."""
    if wanted.copy is None or wanted.copy == wanted.path:
        return False
    if not _is_proven(wanted.copy, wanted.file, report):
        note = f"{wanted.copy} is damaged: fetching {wanted.file.name} instead"
        report(Step(what=f"fetch {wanted.file.name}", note=note))
        return False
    how = store.bring(wanted.copy, wanted.path)
    report(Step(what=f"fetch {wanted.file.name}", note=f"{wanted.file.name}: {how} of {wanted.copy}"))
    return True


@contextmanager
def _sole_fetcher(file: RemoteFile, installation: Installation) -> Iterator[None]:
    """Hold the lock of one file's download; while another process has it, report that one's progress."""
    report = installation.report
    partial = installation.layout.models / ".partial" / f"{_partial_name(file)}.partial"
    partial.parent.mkdir(parents=True, exist_ok=True)
    check_locks(partial.with_suffix(".lock"))
    lock = filelock.FileLock(partial.with_suffix(".lock"))
    announced = False
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except filelock.Timeout:
            if not announced:
                announced = True
                report(Step(what=f"fetch {file.name}", note=f"{file.name} is being fetched already: waiting for it"))
            done = done_bytes(partial)
            report(Step(what=f"fetch {file.name}", done=done, total=file.size_bytes, unit="B"))
    try:
        yield
    finally:
        lock.release()


def _check_header(files: list[StoredFile]) -> None:
    """Raise ModelError if the verified files are no usable model, before llama-server finds out."""
    first = next(f for f in files if f.role == "weights")
    read_header(Path(first.path))
