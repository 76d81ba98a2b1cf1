"""The quants of a repository with their headers, before any download. HTTP, threads."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from nemotron_ops.errors import ModelError
from nemotron_ops.installation import Installation
from nemotron_ops.models import gguf
from nemotron_ops.models.hub import Listing, list_files, remote_header, token_of
from nemotron_ops.models.ref import Ref, RemoteFile, choose, file_sets, no_models
from nemotron_ops.models.web import Web
from nemotron_ops.progress import Step, remark

READERS = 6


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One quant that could be fetched. `header` is None where it cannot be read; `why` then gives the reason."""

    quant: str
    files: tuple[RemoteFile, ...]
    header: gguf.Header | None
    why: str = ""

    @property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.files)


def offers(
    ref: Ref, installation: Installation, *, revision: str = "main", quants: Collection[str] = ()
) -> tuple[Offer, ...]:
    """The quants that a repository offers (or those in `quants`), smallest first, each with its header.

    Headers are read by range requests: the first completely (megabytes of vocabulary), a few hundred kB of each other.
    Raises ModelError if the hub cannot be read or has none of them.
    """
    listing = list_files(ref.repo, revision=revision, env=installation.env)
    if listing.note:
        remark(installation.report, listing.note, warning=True)
    if quants:
        wanted = [choose(listing.files, Ref(repo=ref.repo, quant=q)) for q in quants]
        sets = {s.quant: s.files for s in wanted}
    else:
        sets = file_sets(listing.files)
    if not sets:
        raise no_models(ref.repo, listing.files)
    ordered = sorted(sets.items(), key=lambda kv: sum(f.size_bytes for f in kv[1]))
    with Web(installation.env, token=token_of(installation.env)) as web:
        first = _offer(web, listing, *ordered[0], like=None)
        found = [first]
        with ThreadPoolExecutor(READERS) as pool:
            rest = pool.map(lambda kv: _offer(web, listing, *kv, like=first.header), ordered[1:])
            for offer in rest:
                found.append(offer)
                installation.report(Step(what="read headers", done=len(found), total=len(ordered)))
    return tuple(found)


def _offer(web: Web, listing: Listing, quant: str, files: tuple[RemoteFile, ...], *, like: gguf.Header | None) -> Offer:
    try:
        return Offer(quant=quant, files=files, header=remote_header(web, listing, files, like=like))
    except ModelError as exc:
        return Offer(quant=quant, files=files, header=None, why=exc.message)
