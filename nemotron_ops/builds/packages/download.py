"""Downloads files over HTTP or from a local index, and checks their hash. httpx, disk.

A download is written to `NAME.part` and resumed from there after an interruption; it gets its name when its sha256 is
the expected one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from nemotron_ops.builds.packages.pip_config import PipConfig
from nemotron_ops.builds.packages.simple_index import RemoteFile
from nemotron_ops.builds.packages.tls import context
from nemotron_ops.builds.spec import without_secrets
from nemotron_ops.errors import SourceError
from nemotron_ops.files import locked, sha256_of
from nemotron_ops.progress import Report, Step

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
TRIES = 3


@contextmanager
def client(config: PipConfig, env: Mapping[str, str]) -> Iterator[httpx.Client]:
    """An HTTP client with pip's certificates, proxy and passwords."""
    import httpx  # 91 ms

    trust = context(env, cert=config.cert, client_cert=config.client_cert, trusted_hosts=config.trusted_hosts)
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    with httpx.Client(
        verify=trust, timeout=timeout, follow_redirects=True, proxy=config.proxy or None, auth=_netrc(env)
    ) as made:
        yield made


def get_text(http: httpx.Client, url: str, *, accept: str) -> tuple[str, str, str]:
    """(body, content type, final URL) of a page, or of index.html of a `file:` folder. Raises SourceError."""
    import httpx

    if local := local_path(url):
        page = local / "index.html" if local.is_dir() else local
        try:
            return page.read_text(), "text/html", url
        except OSError as exc:
            raise SourceError(f"cannot read index {url}: {exc.strerror or exc}") from exc
    try:
        answer = http.get(url, headers={"Accept": accept})
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise SourceError(f"cannot read index {without_secrets(url)}: {str(exc) or type(exc).__name__}") from exc
    if answer.status_code != 200:
        raise SourceError(f"cannot read index {without_secrets(url)}: HTTP {answer.status_code}")
    return answer.text, answer.headers.get("content-type", ""), str(answer.url)


def fetch_file(http: httpx.Client, file: RemoteFile, to: Path, *, sha256: str, report: Report) -> Path:
    """`file` as `to`, with the hash `sha256`. Raises SourceError if it cannot be fetched or has another hash."""
    with locked(to.with_name(f".{to.name}.lock")):
        if to.exists() and sha256_of(to) == sha256:
            return to
        part = to.with_name(f"{to.name}.part")
        resumed = part.exists()
        found = _get(http, file, part, report)
        if found != sha256 and resumed:  # the partial file may have been of another file
            part.unlink()
            found = _get(http, file, part, report)
        if found != sha256:
            part.unlink()
            raise SourceError(
                f"cannot use {file.name} from {without_secrets(file.url)}: sha256 is {found}, expected {sha256}",
                hint="the file was damaged in transfer or replaced on the server; it was not kept",
            )
        os.replace(part, to)
    return to


def _get(http: httpx.Client, file: RemoteFile, part: Path, report: Report) -> str:
    """Complete `part`, which may hold some bytes already; returns its hash."""
    if local := local_path(file.url):
        _copy(local, part)
    else:
        _download(http, file, part, report)
    return sha256_of(part)


def local_path(url: str) -> Path | None:
    """The path of a `file:` URL; None for any other."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _download(http: httpx.Client, file: RemoteFile, part: Path, report: Report) -> None:
    import httpx

    for attempt in range(TRIES):
        try:
            _continue(http, file, part, report)
            return
        except httpx.HTTPError as exc:
            if attempt == TRIES - 1:
                raise SourceError(
                    f"cannot fetch {file.name}: {str(exc) or type(exc).__name__}",
                    hint="run the command again: it continues where it stopped",
                ) from exc


def _continue(http: httpx.Client, file: RemoteFile, part: Path, report: Report) -> None:
    """Fetch the missing bytes of `part`; starts over if the server does not support ranges."""
    part.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with http.stream("GET", file.url, headers=headers) as answer:
        if answer.status_code == 416:  # it was complete already
            return
        if answer.status_code not in (200, 206):
            raise SourceError(f"cannot fetch {file.name}: HTTP {answer.status_code}")
        have = have if answer.status_code == 206 else 0
        length = answer.headers.get("content-length", "")
        total = have + int(length) if length.isdigit() else file.size
        began, got = time.monotonic(), 0
        with part.open("r+b" if have else "wb") as out:
            out.seek(have)
            for chunk in answer.iter_bytes():
                out.write(chunk)
                got += len(chunk)
                report(_step(file, have + got, total, got / max(time.monotonic() - began, 1e-6)))
            out.truncate()


def _step(file: RemoteFile, done: int, total: int | None, rate: float) -> Step:
    eta_s = (total - done) / rate if total is not None and rate > 0 else None
    return Step(what=f"fetch {file.name}", done=done, total=total, unit="B", rate_per_s=rate, eta_s=eta_s)


def _copy(source: Path, to: Path) -> None:
    import shutil

    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, to)
    except OSError as exc:
        raise SourceError(f"cannot copy {source}: {exc.strerror or exc}") from exc


def _netrc(env: Mapping[str, str]) -> httpx.NetRCAuth | None:
    """Names and passwords of ~/.netrc, as pip uses them."""
    import httpx

    path = Path(env.get("NETRC") or Path(env.get("HOME", "/")) / ".netrc")
    try:
        return httpx.NetRCAuth(str(path)) if path.is_file() else None
    except Exception:  # noqa: BLE001 - a malformed .netrc counts as none; netrc raises errors of its own
        return None
