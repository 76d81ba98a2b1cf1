"""What is deployed: the request, the release made from it, and the steps of a plan. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nemotron_ops.service.spec import Scope

KEEP_RELEASES = 5


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be deployed, the same for every target."""

    scope: Scope
    recipes: tuple[str, ...]
    profile: str = ""
    host: str = "127.0.0.1"
    port: int = 8001
    own_recipes: Mapping[str, str] = field(default_factory=dict)  # file -> text, with their templates
    service_words: tuple[str, ...] = ()  # further words for `service install`
    serve_options: tuple[str, ...] = ()  # further words for `serve`, of the service and of its trial
    backend: str = ""  # as requested: "cuda", "cpu" …; by default what the target has
    candidate: bool = True  # try the new release beside the old one
    keep: int = KEEP_RELEASES
    stable_s: int = 3
    ready_s: int = 3600

    @property
    def build_words(self) -> tuple[str, ...]:
        """The words of `build` on the target."""
        return (f"--{self.backend}",) if self.backend else ()


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file to send: its name in ROOT/incoming, and its sha256."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """What one target gets: the program's bundle; a llama.cpp build, models and keys if they are sent."""

    version: str
    bundle: Artifact
    build_id: str = ""
    build: Artifact | None = None
    models: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)  # recipe -> files of its model
    keys: Artifact | None = None  # API keys (hashed) that clients must show

    def id(self, request: Request) -> str:
        """The release's name, the same for the same content and the same request."""
        content: list[Any] = [self.bundle.sha256, self.build_id, request.recipes, request.profile, request.host]
        content += [request.port, sorted(request.own_recipes.items()), request.service_words, request.build_words]
        content += [request.serve_options]
        content += [self.keys.sha256 if self.keys else ""]
        return f"{self.version}-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:10]}"


@dataclass(frozen=True, kw_only=True)
class RemoteStep:
    """One step: its name, its purpose, its script, and the files to send before it.

    `done_if` is a script; if it exits with 0, there is nothing to send and nothing to do.
    """

    name: str
    about: str
    script: str
    send: tuple[Artifact, ...] = ()
    done_if: str = ""


@dataclass(frozen=True, kw_only=True)
class DeployPlan:
    """All steps for one target. A failure before the switch leads to `withdraw`, from then on to `back`."""

    release: str
    before_switch: tuple[RemoteStep, ...]
    switch: tuple[RemoteStep, ...]
    finish: RemoteStep
    withdraw: RemoteStep
    back: RemoteStep

    @property
    def steps(self) -> tuple[RemoteStep, ...]:
        return (*self.before_switch, *self.switch, self.finish)
