"""Asks a model hub for files, their hashes, and headers by range requests. huggingface_hub, HTTP."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from nemotron_ops.errors import ModelError, conceal
from nemotron_ops.files import read_plain
from nemotron_ops.hub_names import is_gguf
from nemotron_ops.models import gguf
from nemotron_ops.models.pace import Pace
from nemotron_ops.models.ref import RemoteFile, check_shards, shown
from nemotron_ops.models.refusals import Refusal, Stalled, refused
from nemotron_ops.models.web import Patience, Web, endpoint_of, is_private

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")
YES = {"1", "on", "yes", "true"}
READERS = 6
LISTING_TRIES = 2  # an unreachable hub must be detected soon, because a stored model may do


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A repository at one commit. `note` is a remark for people."""

    repo: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]
    note: str = ""


def offline(env: Mapping[str, str]) -> bool:
    """Whether the environment forbids the network."""
    return any(env.get(k, "").lower() in YES for k in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def token_of(env: Mapping[str, str]) -> str:
    """The user's token for the hub, from the environment or where `hf auth login` puts it; "" if there is none.

    Raises ModelError, without its value, for a token that no header can carry.
    """
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if value := env.get(name, "").strip():
            return _usable(value, name)
    homes = [env.get("HF_HOME", ""), f"{env['HOME']}/.cache/huggingface" if "HOME" in env else ""]
    named = [env.get("HF_TOKEN_PATH", ""), *(f"{home}/token" for home in homes if home)]
    for path in (Path(n) for n in named if n):
        try:
            raw = read_plain(path)
        except (OSError, ValueError):
            continue
        return _usable(raw.decode("utf-8-sig", "replace").strip(), str(path))
    return ""


def _usable(token: str, where: str) -> str:
    if not re.fullmatch(r"[!-~]*", token):
        raise ModelError(
            f"cannot use the token in {where}: it has a line break, blank or letter that is not ASCII",
            hint=f"write the token alone, as plain ASCII text, into {where}",
        )
    conceal(token)
    return token


def list_files(
    repo: str,
    *,
    revision: str,
    env: Mapping[str, str],
    patience: Patience | None = None,
    wanted: Callable[[str], bool] = is_gguf,
) -> Listing:
    """The files of a repository at `revision` whose names are `wanted`, with sizes and hashes; by default GGUF files.

    Raises Stalled if the hub cannot be reached, ModelError if it has no such repository or refuses.
    """
    patience = patience or Patience()
    for attempt in range(1, patience.tries + 1):
        try:
            return _list_files(repo, revision, env, patience, wanted)
        except Stalled:
            if attempt >= min(patience.tries, LISTING_TRIES):
                raise
            time.sleep(min(patience.backoff_max_s, patience.backoff_s * 2 ** (attempt - 1)))
    raise AssertionError("unreachable")


def _list_files(
    repo: str, revision: str, env: Mapping[str, str], patience: Patience, wanted: Callable[[str], bool]
) -> Listing:
    def ask(token: str) -> Listing:
        with hub_api(env, token, what=repo, revision=revision) as api:
            info = api.model_info(repo, revision=revision, files_metadata=True, timeout=patience.connect_s)
        with Web(env, token=token, patience=patience) as web:
            return _listing(repo, revision, info, web, wanted)

    found, note = refused_token_dropped(ask, token_of(env))
    return replace(found, note="; ".join(filter(None, (note, found.note)))) if note else found


def refused_token_dropped(ask: Callable[[str], T], token: str) -> tuple[T, str]:
    """What `ask(token)` finds; where the hub refuses the token, what it finds without one, and a remark about it."""
    try:
        return ask(token), ""
    except HubRefused as exc:
        if not exc.refusal.may_be_the_token:
            raise exc.error from exc
        try:
            found = ask("")
        except HubRefused:
            raise exc.error from exc
        why = exc.refusal.said or exc.refusal.status
        return found, f'the hub refuses the token in use ("{why}"): going on without it'


class HubRefused(Exception):
    """The hub answered, but with an error."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal, self.error = refusal, refused(refusal, datetime.now(UTC))


@contextmanager
def hub_api(env: Mapping[str, str], token: str, *, what: str, revision: str = "") -> Iterator[HfApi]:
    """The hub's client, to ask for `what`. Raises HubRefused, Stalled if it cannot be reached, ModelError."""
    from huggingface_hub import HfApi, errors

    endpoint = endpoint_of(env)
    network: tuple[type[Exception], ...] = (*_network_errors(), OSError)
    if is_private(urlsplit(endpoint).hostname or ""):
        _go_direct()
    try:
        yield HfApi(endpoint=endpoint, token=token or False)
    except errors.HFValidationError as exc:
        raise ModelError(f"cannot read {what}: {exc}") from exc
    except errors.HfHubHTTPError as exc:
        refusal = Refusal(
            status=exc.response.status_code, headers=exc.response.headers, what=what, page=f"{endpoint}/{what}",
            revision=revision, with_token=bool(token),
        )  # fmt: skip
        raise HubRefused(refusal) from exc
    except network as exc:
        hint = "check the network, or HF_ENDPOINT; with HF_HUB_OFFLINE=1 only local files are used"
        raise Stalled(f"cannot reach {endpoint}: {exc}", hint=hint) from exc
    except (ValueError, TypeError, KeyError) as exc:
        raise ModelError(f"cannot read the answer of {endpoint}: {exc}", hint="check HF_ENDPOINT") from exc


@cache
def _go_direct() -> None:
    """Make huggingface_hub ignore proxies, which cannot reach a private network; once per process."""
    from huggingface_hub import get_session, set_client_factory

    client = type(get_session())  # httpx's, or from huggingface_hub 2 on httpx2's
    set_client_factory(lambda: client(trust_env=False, follow_redirects=True, timeout=None))


def _network_errors() -> tuple[type[Exception], ...]:
    """Network errors that huggingface_hub passes on: those of httpx, or from version 2 on of httpx2."""
    from huggingface_hub.errors import HfHubHTTPError

    return tuple(c for c in HfHubHTTPError.__mro__ if c.__name__ == "HTTPError" and issubclass(c, Exception))


def _listing(repo: str, revision: str, info: Any, web: Web, wanted: Callable[[str], bool]) -> Listing:
    commit = str(info.sha or "")
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        raise ModelError(f"cannot read {repo}: the hub does not say which commit {revision} is")
    entries = [e for e in info.siblings or () if wanted(e.rfilename)]
    with ThreadPoolExecutor(READERS) as pool:
        files = tuple(pool.map(lambda e: _file(e, web.file_url(repo, commit, e.rfilename), web), entries))
    renamed = f"{repo} is {shown(str(info.id))} now" if info.id and str(info.id).lower() != repo.lower() else ""
    return Listing(repo=repo, revision=revision, commit=commit, files=files, note=renamed)


def _file(entry: Any, url: str, web: Web) -> RemoteFile:
    """A file of a listing; what a mirror's listing leaves out, the file's own headers tell."""
    size, lfs = entry.size, entry.lfs
    sha256 = str(lfs["sha256"] if isinstance(lfs, dict) else lfs.sha256) if lfs else ""
    git_sha1 = "" if sha256 else str(entry.blob_id or "")
    if not isinstance(size, int):
        size, tag = web.size_and_tag(url)
        if not sha256 and not git_sha1:
            sha256, git_sha1 = (tag if len(tag) == 64 else ""), (tag if len(tag) == 40 else "")
            sha256, git_sha1 = (h if re.fullmatch("[0-9a-f]+", h) else "" for h in (sha256, git_sha1))
    if not isinstance(size, int) or size < 0:
        raise ModelError(f"cannot read {shown(entry.rfilename)}: neither the hub's list nor the file tells its size")
    if sha256 + git_sha1 and not re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", sha256 + git_sha1):
        raise ModelError(f"cannot prove {shown(entry.rfilename)}: the hub lists no usable hash for it")
    return RemoteFile(name=entry.rfilename, size_bytes=size, sha256=sha256, git_sha1=git_sha1)


def remote_header(
    web: Web, listing: Listing, files: Sequence[RemoteFile], *, like: gguf.Header | None = None
) -> gguf.Header:
    """The header of a model (all its shards) on the hub, by range requests; no weights are read.

    `like` is the header of another quant of the same model; its vocabulary is then not read again.
    """
    names = [f.name for f in files]
    check_shards(names)
    headers = []
    for file in files:
        read = _reader(web, web.file_url(listing.repo, listing.commit, file.name), file.size_bytes)
        header = gguf.parse(read, size=file.size_bytes, like=like)
        gguf.check_size(header, file.size_bytes, file.name)
        headers.append(header)
    return gguf.combine(headers, names)


def _reader(web: Web, url: str, size: int) -> gguf.Read:
    def read(offset: int, n: int) -> bytes:
        end = min(offset + n, size)
        for attempt in range(1, web.patience.tries + 1):
            try:
                return _read_once(web, url, offset, end)
            except Stalled as exc:
                if attempt == web.patience.tries:
                    raise
                time.sleep(min(web.patience.backoff_max_s, exc.retry_after_s or web.patience.backoff_s))
        raise AssertionError("unreachable")

    return read


def _read_once(web: Web, url: str, start: int, end: int) -> bytes:
    """Bytes `start` to `end`; from a server that ignores Range, the other bytes are dropped."""
    with web.get(url, start=start, end=end) as response:
        skip = start if response.status_code == 200 else 0
        if skip > gguf.MAX_HEADER_BYTES:
            raise ModelError(f"cannot read {url}: the server does not support range requests")
        kept = bytearray()
        pace = Pace(stall_s=web.patience.stall_s, name=url)
        for chunk in response.iter_raw():
            pace.check(chunk)
            dropped = min(skip, len(chunk))
            skip -= dropped
            kept += chunk[dropped:]
            if len(kept) >= end - start:
                break
    return bytes(kept[: end - start])
