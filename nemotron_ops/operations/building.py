"""Provides the build of llama.cpp to serve with: the current one, or a new one for this machine. Disk, git, cmake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nemotron_ops.builds.spec import Backend, BuildOptions, BuildRequest
from nemotron_ops.errors import BuildError
from nemotron_ops.installation import Installation
from nemotron_ops.progress import remark

if TYPE_CHECKING:
    from nemotron_ops.builds.store.store import Build

Confirm = Callable[[str], bool]
ZIG_QUESTION = "There is no C++ compiler here. Use zig from a Python wheel (0.1 GB), for the CPU?"


def refuse(question: str) -> bool:
    """Answers no: for callers that cannot ask."""
    return False


@dataclass(frozen=True, kw_only=True)
class FoundBuild:
    """The current build, or the request for a new one; `backend` is the same before and after it is made."""

    backend: str
    build: Build | None = None
    request: BuildRequest = field(default_factory=BuildRequest)


def look_for_build(here: Installation, *, may_build: bool = True, confirm: Confirm = refuse) -> FoundBuild:
    """The current build, or what would be built. Raises BuildError where there is none and none may be made."""
    from nemotron_ops.builds.backends import default_backend
    from nemotron_ops.builds.store import store

    if build := store.current(here.layout):
        return FoundBuild(backend=build.backend, build=build)
    if not may_build:
        raise BuildError("cannot serve: there is no build of llama.cpp", hint="run `nemotron-ops build` first")
    options = with_zig(BuildOptions(), here, confirm)
    backend = options.backend or default_backend(here.facts)
    return FoundBuild(backend=backend.value, request=BuildRequest(options=options))


def have_build(found: FoundBuild, here: Installation) -> Build:
    """The build, made if it does not exist. Raises the errors of building."""
    if found.build:
        return found.build
    from nemotron_ops.builds.run import ensure_build  # loads the toolchains and registries, in 60 ms

    remark(here.report, "there is no build of llama.cpp yet: building one")
    return ensure_build(found.request, here)


def with_zig(options: BuildOptions, here: Installation, confirm: Confirm) -> BuildOptions:
    """`options`, for zig and the CPU if there is no compiler here and `confirm` agrees to that."""
    if options.zig or options.backend not in (None, Backend.CPU):
        return options
    if {"cc", "cxx"} <= set(here.facts.tools):
        return options
    return replace(options, zig=True, backend=Backend.CPU) if confirm(ZIG_QUESTION) else options
