"""Asks a model hub for files, their hashes, and headers by range requests. huggingface_hub, HTTP."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nemotron_ops.errors import ModelError
from nemotron_ops.hub_names import is_gguf
from nemotron_ops.models import gguf
from nemotron_ops.models.ref import RemoteFile, check_shards
from nemotron_ops.models.web import Patience, Stalled, Web, endpoint_of, is_private

YES = {"1", "on", "yes", "true"}
LISTING_TRIES = 2  # an unreachable hub must be detected soon, because a stored model may do


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A repository at one commit."""

    repo: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]


def offline(env: Mapping[str, str]) -> bool:
    """Whether the environment forbids the network."""
    return any(env.get(k, "").lower() in YES for k in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def token_of(env: Mapping[str, str]) -> str:
    """The user's token for the hub, from the environment or where `hf auth login` puts it; "" if there is none."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if value := env.get(name, "").strip():
            return value
    homes = [env.get("HF_HOME", ""), f"{env['HOME']}/.cache/huggingface" if "HOME" in env else ""]
    named = [env.get("HF_TOKEN_PATH", ""), *(f"{home}/token" for home in homes if home)]
    for path in (Path(n) for n in named if n):
        try:
            return path.read_text().strip()
        except OSError:
            continue
    return ""


def list_files(repo: str, *, revision: str, env: Mapping[str, str], patience: Patience | None = None) -> Listing:
    """The GGUF files of a repository at `revision`, with sizes and hashes.

    Raises Stalled if the hub cannot be reached, ModelError if it has no such repository or refuses.
    """
    patience = patience or Patience()
    for attempt in range(1, patience.tries + 1):
        try:
            return _list_files(repo, revision=revision, env=env, timeout_s=patience.connect_s)
        except Stalled:
            if attempt >= min(patience.tries, LISTING_TRIES):
                raise
            time.sleep(min(patience.backoff_max_s, patience.backoff_s * 2 ** (attempt - 1)))
    raise AssertionError("unreachable")


def _list_files(repo: str, *, revision: str, env: Mapping[str, str], timeout_s: float) -> Listing:
    from huggingface_hub import HfApi, errors

    endpoint = endpoint_of(env)
    network: tuple[type[Exception], ...] = (*_network_errors(), OSError)
    if is_private(urlsplit(endpoint).hostname or ""):
        _go_direct()
    api = HfApi(endpoint=endpoint, token=token_of(env) or False)
    try:
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=timeout_s)
    except errors.GatedRepoError as exc:
        hint = f"accept its terms at {endpoint}/{repo}, then set HF_TOKEN"
        raise ModelError(f"cannot read {repo}: its owner grants access on request only", hint=hint) from exc
    except errors.RevisionNotFoundError as exc:
        raise ModelError(f"cannot read {repo}: it has no revision {revision}") from exc
    except errors.RepositoryNotFoundError as exc:
        raise _not_found(repo) from exc
    except errors.HFValidationError as exc:
        raise ModelError(f"cannot read {repo}: {exc}") from exc
    except errors.HfHubHTTPError as exc:
        code = exc.response.status_code
        if code in (401, 403):
            raise _not_found(repo) from exc
        kind = Stalled if code == 429 or code >= 500 else ModelError
        raise kind(f"cannot read {repo} at {endpoint}: the hub answered {code}") from exc
    except network as exc:
        hint = "check the network, or HF_ENDPOINT; with HF_HUB_OFFLINE=1 only local files are used"
        raise Stalled(f"cannot reach {endpoint}: {exc}", hint=hint) from exc
    except (ValueError, TypeError, KeyError) as exc:
        raise ModelError(f"cannot read the answer of {endpoint}: {exc}", hint="check HF_ENDPOINT") from exc
    return _listing(repo, revision, info)


def _not_found(repo: str) -> ModelError:
    """The error for a repository that is missing or private: the hub does not tell which."""
    hint = "check the spelling; for a private repository, set HF_TOKEN to a token that may read it"
    return ModelError(f"cannot read {repo}: it does not exist, or is private", hint=hint)


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


def _listing(repo: str, revision: str, info: Any) -> Listing:
    commit = str(info.sha or "")
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        raise ModelError(f"cannot read {repo}: the hub does not say which commit {revision} is")
    files = []
    for entry in info.siblings or ():
        if not is_gguf(entry.rfilename):
            continue
        if not isinstance(entry.size, int) or entry.size < 0:
            raise ModelError(f"cannot read {repo}: the hub does not say how big {entry.rfilename} is")
        lfs = entry.lfs
        sha256 = str(lfs["sha256"] if isinstance(lfs, dict) else lfs.sha256) if lfs else ""
        git_sha1 = "" if sha256 else str(entry.blob_id or "")
        if not re.fullmatch(r"[0-9a-f]{64}", sha256) and not re.fullmatch(r"[0-9a-f]{40}", git_sha1):
            raise ModelError(f"cannot prove {entry.rfilename}: the hub lists no usable hash for it")
        files.append(RemoteFile(name=entry.rfilename, size_bytes=entry.size, sha256=sha256, git_sha1=git_sha1))
    return Listing(repo=repo, revision=revision, commit=commit, files=tuple(files))


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
        for chunk in response.iter_raw():
            dropped = min(skip, len(chunk))
            skip -= dropped
            kept += chunk[dropped:]
            if len(kept) >= end - start:
                break
    return bytes(kept[: end - start])
