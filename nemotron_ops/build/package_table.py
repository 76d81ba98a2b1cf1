"""The table of packages, brought up to date from the registry. httpx.

For each version that the table lacks, the beginning of its archive is read (a few dozen kilobytes): an archive of
llama-cpp-python says there which commit of llama.cpp it holds.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from nemotron_ops.build import fetch, registry
from nemotron_ops.build.pins import Package, Pins
from nemotron_ops.build.simple_index import RemoteFile, pick_sdist, sdist_versions, version_key
from nemotron_ops.progress import Report, Step

if TYPE_CHECKING:
    import httpx

HEAD = re.compile(rb"\.git/modules/vendor/llama\.cpp/HEAD\0[\s\S]{0,1024}?([0-9a-f]{40})\n")
MOST_BYTES = 1 << 20  # read of one archive at most
MOST_VERSIONS = 30  # looked at in one run, newest first


def refreshed(pins: Pins, *, env: Mapping[str, str], report: Report) -> Pins:
    """`pins` with the versions that the registry has and the table lacks. Raises SourceError."""
    name = pins.fallback[0]
    config = registry.pip_config(env)
    with fetch.client(config, env) as http:
        files, _ = registry.files_of(http, config, name)
        todo = missing(pins, name, sdist_versions(files, name))
        found = []
        for i, version in enumerate(todo):
            report(Step(what="packages", done=i, total=len(todo)))
            file = pick_sdist(files, name, version)
            if file and (commit := commit_in(http, file)):
                found.append(Package(name=name, version=version, commit=commit, sha256=file.sha256))
        report(Step(what="packages", done=len(todo), total=len(todo) or 1))
    return replace(pins, packages=(*pins.packages, *found))


def missing(pins: Pins, name: str, versions: tuple[str, ...]) -> tuple[str, ...]:
    """Versions newer than the oldest in the table that it lacks, oldest first; the newest few if there are many."""
    known = {p.version for p in pins.packages if p.name == name}
    oldest = min((version_key(v) for v in known), default=())
    return tuple(v for v in versions if v not in known and version_key(v) > oldest)[-MOST_VERSIONS:]


def commit_in(http: httpx.Client, file: RemoteFile) -> str:
    """The commit of llama.cpp that an archive says it holds; empty if its beginning does not say."""
    unzip, text, read = zlib.decompressobj(wbits=31), b"", 0
    with http.stream("GET", file.url, headers={"Accept-Encoding": "identity"}) as answer:
        for chunk in answer.iter_bytes(16384):
            read += len(chunk)
            text += unzip.decompress(chunk)
            if found := HEAD.search(text):
                return found.group(1).decode()
            if read > MOST_BYTES:
                break
    return ""
