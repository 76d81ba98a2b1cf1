"""Resolves what `serve` is asked for into one plan per model and an endpoint. Disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nemotron_ops import addresses
from nemotron_ops.addresses import is_loopback
from nemotron_ops.errors import GatewayError, UsageError
from nemotron_ops.hub_names import names_quant
from nemotron_ops.installation import Installation
from nemotron_ops.operations.adapters import with_adapters
from nemotron_ops.paths import Layout
from nemotron_ops.recipes.load import recipe_for
from nemotron_ops.recipes.ollama_names import recipe_word
from nemotron_ops.recipes.resolve import Plan, Setting, Settings, disputed_alias, resolve, resolve_endpoint
from nemotron_ops.supervisor.spec import Config


@dataclass(frozen=True, kw_only=True)
class ModelWish:
    """One model that is to be served. `flags` are fields of `schema.Server`, or alias; `extra` goes to llama-server.

    `adapters` are LoRA adapters besides the recipe's: `NAME`, or `NAME=FILE.gguf` with its whole path.
    `name` is the recipe's name, "" until the recipe was read; `quant` was given by hand, or decided when it was added.
    """

    target: str
    name: str = ""
    quant: str = ""
    profile: str = ""
    flags: Mapping[str, Any] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be served: the models, and what holds for all of them.

    `flags` are host, port and api_key_file; `gateway` holds fields of `Settings` that were given by hand. `quants` maps
    a recipe's name, or "" for all, to the quant given by hand; `decided` a name to the one that memory planning chose.
    `found` are quants that were served before: they take the place of a quant that is not here, where nothing may be
    fetched. `empty`: a wish without models is no mistake.
    """

    models: tuple[ModelWish, ...]
    quants: Mapping[str, str] = field(default_factory=dict)
    decided: Mapping[str, str] = field(default_factory=dict)
    found: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    gateway: Mapping[str, Any] = field(default_factory=dict)
    may_build: bool = True
    may_fetch: bool = True
    empty: bool = False
    fresh: bool = False
    studio: bool = False
    studio_port: int = 8888

    def quant_of(self, model: ModelWish, name: str) -> str:
        """The quant given by hand or decided for `model`, whose recipe is called `name`; "" if there is none."""
        return model.quant or self.quants.get(name) or self.quants.get("") or self.decided.get(name, "")

    def settings(self, of_machine: Settings) -> Settings:
        """The machine's settings with those given by hand in their place."""
        return replace(of_machine, **self.gateway)

    def quant_is_open(self, model: ModelWish, name: str) -> bool:
        """Whether another quant may be served where the recipe's own does not fit: none was given by hand."""
        return not names_quant(recipe_word(model.target)) and not self.quant_of(model, name)


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
    """One Plan per model. Raises UsageError where two would have the same name."""
    plans = tuple(_plan(model, wish, here, settings) for model in wish.models)
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


def endpoint_for(wish: Wish, plans: Sequence[Plan], here: Installation, settings: Settings) -> Endpoint:
    """Where to listen: as the first plan says; without a plan, as settings, environment and flags say."""
    values = plans[0].settings if plans else resolve_endpoint(settings=settings, env=here.env, flags=wish.flags)
    return endpoint_at(values, settings, here.layout)


def endpoint_of(plan: Plan, settings: Settings, layout: Layout) -> Endpoint:
    """Where `plan` says to listen; see `endpoint_at`."""
    return endpoint_at(plan.settings, settings, layout)


def endpoint_at(values: Mapping[str, Setting], settings: Settings, layout: Layout) -> Endpoint:
    """Where to listen, and which keys clients must show: those named, else the ones that `keys create` made.

    Raises GatewayError for an address beyond loopback without keys, or for files that do not exist.
    """
    own = layout.config / "keys.json"
    named = values.get("api_key_file")
    host, port, key_file = values["host"].value, values["port"].value, named.value if named else None
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


def _plan(model: ModelWish, wish: Wish, here: Installation, settings: Settings) -> Plan:
    recipe = recipe_for(model.target, here.layout, here.env)
    if quant := wish.quant_of(model, recipe.name):
        recipe = replace(recipe, model=replace(recipe.model, quant=quant))
    recipe = with_adapters(recipe, model.adapters)
    flags = {**wish.flags, **model.flags}
    return resolve(recipe, profile=model.profile, settings=settings, env=here.env, flags=flags)
