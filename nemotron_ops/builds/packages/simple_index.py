"""Reads pages of a package index: PEP 691 (JSON) and PEP 503 (HTML). Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from nemotron_ops.builds.packages.pip_config import normal_name

ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
SDIST_SUFFIXES = (".tar.gz", ".tgz", ".zip")


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file that an index offers. `sha256` is empty where the index gives none."""

    name: str
    url: str
    sha256: str = ""
    size: int | None = None
    yanked: bool = False


def parse_page(body: str, *, content_type: str, url: str) -> tuple[RemoteFile, ...]:
    """All files on the index page at `url`. Raises ValueError if it cannot be parsed."""
    if "json" in content_type or body.lstrip().startswith("{"):
        return _parse_json(body, url)
    links = _Links()
    links.feed(body)
    return tuple(_from_link(attributes, url) for attributes in links.found)


def pick_sdist(files: tuple[RemoteFile, ...], package: str, version: str) -> RemoteFile | None:
    """The source archive of exactly this version. Yanked ones count, because the version is named exactly (PEP 592)."""
    stem = f"{normal_name(package)}-{version}"
    for file in files:
        for suffix in SDIST_SUFFIXES:
            name, sep, number = file.name.removesuffix(suffix).rpartition("-")
            if file.name.endswith(suffix) and sep and f"{normal_name(name)}-{number}" == stem:
                return file
    return None


def sdist_versions(files: tuple[RemoteFile, ...], package: str) -> tuple[str, ...]:
    """Versions with a source archive, oldest first."""
    found = set()
    for file in files:
        for suffix in SDIST_SUFFIXES:
            name, sep, number = file.name.removesuffix(suffix).rpartition("-")
            if file.name.endswith(suffix) and sep and normal_name(name) == normal_name(package):
                found.add(number)
    return tuple(sorted(found, key=version_key))


def version_key(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version))


def parse_wheel_name(name: str) -> tuple[str, str, str] | None:
    """(package, version, platform tag) of a wheel's file name."""
    parts = name.removesuffix(".whl").split("-")
    if not name.endswith(".whl") or len(parts) not in (5, 6):
        return None
    return normal_name(parts[0]), parts[1], parts[-1]


class _Links(HTMLParser):
    """Collects the attributes of every anchor."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append({key: value or "" for key, value in attrs})


def _from_link(attributes: dict[str, str], base: str) -> RemoteFile:
    url, fragment = urldefrag(urljoin(base, attributes.get("href", "")))
    algorithm, _, digest = fragment.partition("=")
    return RemoteFile(
        name=unquote(urlsplit(url).path.rpartition("/")[2]),
        url=url,
        sha256=digest.lower() if algorithm == "sha256" else "",
        yanked="data-yanked" in attributes,
    )


def _parse_json(body: str, base: str) -> tuple[RemoteFile, ...]:
    page: Any = json.loads(body)
    if not isinstance(page, dict) or not isinstance(page.get("files"), list):
        raise ValueError("no list of files in the index page")
    return tuple(
        RemoteFile(
            name=str(entry["filename"]),
            url=urljoin(base, str(entry["url"])),
            sha256=str((entry.get("hashes") or {}).get("sha256", "")).lower(),
            size=entry.get("size"),
            yanked=bool(entry.get("yanked")),
        )
        for entry in page["files"]
    )
