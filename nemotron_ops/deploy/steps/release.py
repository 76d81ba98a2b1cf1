"""What is deployed: the request, the release it comes to, and the steps of a plan. Pure."""

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
    own_recipes: Mapping[str, str] = field(default_factory=dict)  # name -> TOML, of recipes that are not shipped
    service_words: tuple[str, ...] = ()  # further words for `service install`
    serve_options: tuple[str, ...] = ()  # further words for `serve`, at the service and at its trial
    backend: str = ""  # "cuda", "cpu": what is asked for; without it, what the target has
    candidate: bool = True  # try the new release beside the old one
    keep: int = KEEP_RELEASES
    stable_s: int = 3
    ready_s: int = 3600

    @property
    def build_words(self) -> tuple[str, ...]:
        """For a build made there."""
        return (f"--{self.backend}",) if self.backend else ()


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A file to send: what it is here, its sha256, and its name in ROOT/incoming."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """What one target gets: the program's bundle, and the llama.cpp build if one made here fits."""

    version: str
    bundle: Parcel
    build_id: str = ""
    build: Parcel | None = None
    models: Mapping[str, tuple[Parcel, ...]] = field(default_factory=dict)  # recipe -> files of its model
    keys: Parcel | None = None  # API keys (hashed) that clients must show

    def id(self, request: Request) -> str:
        """The release's name: same content and same wishes, same name."""
        what: list[Any] = [self.bundle.sha256, self.build_id, request.recipes, request.profile, request.host]
        what += [request.port, sorted(request.own_recipes.items()), request.service_words, request.build_words]
        what += [request.serve_options]
        what += [self.keys.sha256 if self.keys else ""]
        return f"{self.version}-{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:10]}"


@dataclass(frozen=True, kw_only=True)
class RemoteStep:
    """One step: what it is called, what it is for, its script, and what must be sent before it.

    `done_if` is a script that ends with 0 where there is nothing to send and nothing to do.
    """

    name: str
    about: str
    script: str
    send: tuple[Parcel, ...] = ()
    done_if: str = ""


@dataclass(frozen=True, kw_only=True)
class DeployPlan:
    """All steps for one target. Before `activate`, failing means withdrawing; from then on, going back."""

    release: str
    before: tuple[RemoteStep, ...]
    activate: tuple[RemoteStep, ...]
    finish: RemoteStep
    withdraw: RemoteStep
    back: RemoteStep

    @property
    def steps(self) -> tuple[RemoteStep, ...]:
        return (*self.before, *self.activate, self.finish)
