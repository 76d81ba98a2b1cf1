"""Resolves what `serve` is asked for into one plan per model and an endpoint. Disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nemotron_ops import addresses
from nemotron_ops.addresses import is_loopback
from nemotron_ops.errors import GatewayError, UsageError
from nemotron_ops.hub_names import names_quant
from nemotron_ops.installation import Installation
from nemotron_ops.paths import Layout
from nemotron_ops.recipes.load import recipe_for
from nemotron_ops.recipes.resolve import Plan, Settings, disputed_alias, resolve
from nemotron_ops.recipes.schema import Recipe
from nemotron_ops.supervisor.spec import Config


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What `serve` was asked for. `flags` are fields of `schema.Server`, or host, port, api_key_file, alias.

    `gateway` holds fields of `Settings` that were given by hand, for the gateway.
    `quants` maps a recipe's name, or "" for all, to the quant to serve.
    """

    targets: tuple[str, ...]
    quants: Mapping[str, str] = field(default_factory=dict)
    profile: str = ""
    flags: Mapping[str, Any] = field(default_factory=dict)
    gateway: Mapping[str, Any] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    may_build: bool = True
    may_fetch: bool = True
    studio: bool = False
    studio_port: int = 8888

    def quant_of(self, name: str) -> str:
        """The quant given by hand for the recipe `name`, or ""."""
        return self.quants.get(name) or self.quants.get("", "")

    def settings(self, of_machine: Settings) -> Settings:
        """The machine's settings with those given by hand in their place."""
        return replace(of_machine, **self.gateway)

    def quant_is_open(self, target: str, name: str) -> bool:
        """Whether another quant may be served where the recipe's own does not fit: none was given by hand."""
        return not names_quant(target) and not self.quant_of(name)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where clients connect. `settings` holds the gateway's other settings."""

    host: str
    port: int
    api_key_file: str = ""
    settings: Settings = field(default_factory=Settings)

    @property
    def scheme(self) -> str:
        return "https" if self.settings.tls_cert else "http"

    @property
    def url(self) -> str:
        """The base URL that clients take, ending in /v1."""
        return addresses.url(self.scheme, self.host, self.port)


@dataclass(frozen=True, kw_only=True)
class Composed:
    """Everything `serve` needs to start, and what `--dry-run` shows."""

    endpoint: Endpoint
    plans: tuple[Plan, ...]
    config: Config
    notes: tuple[str, ...] = ()


def plans_for(wish: Wish, here: Installation, settings: Settings) -> tuple[Plan, ...]:
    """One Plan per target. Raises UsageError where two would have the same name."""
    if len(wish.targets) > 1 and wish.flags.get("alias"):
        raise UsageError("cannot use --alias with several models: which one is meant is unclear")
    recipes = [_with_quant(recipe_for(target, here.layout, here.env), wish) for target in wish.targets]
    plans = tuple(
        resolve(recipe, profile=wish.profile, settings=settings, env=here.env, flags=wish.flags) for recipe in recipes
    )
    names = [p.name for p in plans]
    if twice := {n for n in names if names.count(n) > 1}:
        raise UsageError(f"cannot serve {sorted(twice)[0]} twice", hint="set lifecycle.replicas in a recipe instead")
    if (disputed := disputed_alias(plans)) is not None:
        alias, one, other = disputed
        raise UsageError(
            f"cannot serve {one} and {other} together: both want the name {alias!r}",
            hint="take it out of model.aliases of one recipe",
        )
    return plans


def endpoint_of(plan: Plan, settings: Settings, layout: Layout) -> Endpoint:
    """Where to listen, and which keys clients must show: those named, else the ones that `keys create` made.

    Raises GatewayError for an address beyond loopback without keys, or for files that do not exist.
    """
    own = layout.config / "keys.json"
    host, port, key_file = plan.value("host"), plan.value("port"), plan.value("api_key_file")
    if not key_file and os.path.lexists(own):  # a dangling link, too: not the same as no keys
        key_file = str(own)
    if not is_loopback(host) and not key_file:
        raise GatewayError(
            f"cannot listen on {host}: anybody who reaches this address could use the models",
            hint="make a key with `nemotron-ops keys create NAME`, or listen on 127.0.0.1",
        )
    for file in filter(None, (key_file, settings.tls_cert, settings.tls_key)):
        if not Path(file).is_file():
            raise GatewayError(f"cannot read {file}: there is no such file")
    return Endpoint(host=host, port=port, api_key_file=key_file or "", settings=settings)


def _with_quant(recipe: Recipe, wish: Wish) -> Recipe:
    quant = wish.quant_of(recipe.name)
    return replace(recipe, model=replace(recipe.model, quant=quant)) if quant else recipe
