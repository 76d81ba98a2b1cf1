"""Fetches a checkpoint from a hub into a folder: listed at one commit, every file proven by its hash. Disk, HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.errors import ModelError
from nemotron_ops.installation import Installation
from nemotron_ops.models.checkpoint import choice
from nemotron_ops.models.fetch import bring, file_to_fetch
from nemotron_ops.models.hub import list_files, offline, token_of
from nemotron_ops.models.ref import RemoteFile
from nemotron_ops.models.transfer import USUAL, Tuning
from nemotron_ops.models.web import Web, endpoint_of
from nemotron_ops.progress import remark


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A checkpoint on a hub at one commit, and its files to take."""

    repo: str
    revision: str
    commit: str
    hub: str
    files: tuple[RemoteFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.files)


def look(repo: str, revision: str, here: Installation, *, tuning: Tuning = USUAL) -> Remote:
    """What the hub has of `repo`; nothing is fetched. Raises ModelError if it is no checkpoint or cannot be proven."""
    if offline(here.env):
        raise ModelError(f"cannot fetch {repo}: HF_HUB_OFFLINE forbids the network")
    every = list_files(repo, revision=revision, env=here.env, patience=tuning.patience, wanted=_looked_at)
    if every.note:
        remark(here.report, every.note, warning=True)
    names = set(choice.chosen([f.name for f in every.files], repo))
    files = tuple(f for f in every.files if f.name in names)
    if bare := next((f.name for f in files if not f.proof), ""):
        raise ModelError(f"cannot prove {bare}: the hub tells no hash for it")
    return Remote(repo=repo, revision=revision, commit=every.commit, hub=endpoint_of(here.env), files=files)


def fetch_into(folder: Path, remote: Remote, here: Installation, *, tuning: Tuning = USUAL) -> None:
    """Bring all files into `folder`; what an earlier run left there is used. Raises ModelError."""
    with Web(here.env, token=token_of(here.env), patience=tuning.patience) as web:
        for file in remote.files:
            wanted = file_to_fetch(file, folder, here, repo=remote.repo, old=None, role="weights")
            bring(web, web.file_url(remote.repo, remote.commit, file.name), wanted, here, tuning.speed)


def bytes_to_fetch(folder: Path, remote: Remote, here: Installation) -> int:
    """Bytes that `fetch_into` has yet to download."""
    return sum(
        file_to_fetch(f, folder, here, repo=remote.repo, old=None, role="weights").fetch_bytes for f in remote.files
    )


def _looked_at(name: str) -> bool:
    """Whether a file is listed: also pickles, to be named where nothing else is there."""
    return choice.is_wanted(name) or choice.PICKLED.fullmatch(name) is not None
