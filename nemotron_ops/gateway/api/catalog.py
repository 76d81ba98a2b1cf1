"""Indexes a snapshot: names to models, models to instances; which instances may serve. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from nemotron_ops.gateway.api.adapters import adapted, with_adapter
from nemotron_ops.gateway.api.aliases import Pattern, exact, patterns_of
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.supervisor.snapshot import InstanceView, ModelView, Snapshot, State

LISTED_NAMES = 20
NO_MODEL = "no model is served here yet; `nemotron-ops add 30b` on this machine adds one"


@dataclass(frozen=True, kw_only=True)
class Match:
    """The model behind a client's model name. `asked` is the name to show in the answer."""

    model: ModelView
    asked: str
    filled_in: Mapping[str, Any]  # values for fields that a request leaves out, of the profile or the recipe
    ctx_tokens: int = 0  # of a slot; 0 if not known


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """A snapshot, indexed by names and instances."""

    snapshot: Snapshot
    names: Mapping[str, Match]  # by every name, also with `:profile`
    by_json: Mapping[bytes, Match]  # by the name as most clients write it in JSON
    models: Mapping[str, ModelView]
    instances: Mapping[str, tuple[InstanceView, ...]]
    by_name: Mapping[str, InstanceView]
    patterns: tuple[Pattern, ...] = ()  # the most specific first

    def resolve(self, name: str, only: tuple[str, ...] = ()) -> Match:
        """The model called `name`: a recipe's name, an alias, or either with `:profile`.

        Aliases with `*` or `?` come last, the most specific first, then in the order of the models.

        Raises Refusal if there is none; it names the known models, or `only` those.
        """
        asked = name or self.snapshot.default_model or self._only()
        match = self.names.get(asked) or self._by_pattern(asked)
        if match is None:
            raise self._unknown(asked, only)
        if not name and match.model.names:  # the answer names the model as `/v1/models` does
            return replace(match, asked=match.model.names[0])
        return match

    def _by_pattern(self, asked: str) -> Match | None:
        """The model whose aliases have a pattern for `asked`, also with `:profile`."""
        name, _, profile = asked.rpartition(":")
        for pattern in self.patterns:
            if name and (profile in pattern.model.profiles or profile in pattern.model.adapters) and pattern.fits(name):
                return replace(self.names[f"{pattern.model.name}:{profile}"], asked=asked)
            if pattern.fits(asked):
                return replace(self.names[pattern.model.name], asked=asked)
        return None

    def _only(self) -> str:
        return self.snapshot.models[0].name if len(self.snapshot.models) == 1 else ""

    def _unknown(self, asked: str, only: tuple[str, ...]) -> Refusal:
        if not self.snapshot.models:
            return Refusal(status=404, code="model_not_found", message=NO_MODEL)
        views = [view for m in self.snapshot.models for view in (m, *adapted(m))]
        models = [m for m in views if not only or not _own_names(m).isdisjoint(only)]
        known = [n for m in models for n in (*m.names, *(f"{m.name}:{p}" for p in m.profiles))]
        shown = ", ".join(dict.fromkeys(known[:LISTED_NAMES])) or "none yet"
        what = f"the model {asked[:200]!r} does not exist" if asked else "the request names no model"
        return Refusal(status=404, code="model_not_found", message=f"{what}; known models: {shown}")


def _own_names(model: ModelView) -> set[str]:
    return {*model.names} if model.adapter else {model.name, *model.names}


def index(snapshot: Snapshot) -> Catalog:
    """The Catalog of `snapshot`. A name that two models share belongs to the first; an alias yields to a name."""
    models: dict[str, ModelView] = {}
    for model in snapshot.models:
        for name in (model.name, *model.names):
            models.setdefault(name, model)
    for model in snapshot.models:  # last: no alias takes another model's own name
        for name in exact(model.aliases):
            models.setdefault(name, model)
    instances: dict[str, tuple[InstanceView, ...]] = {}
    for instance in snapshot.instances:
        instances[instance.model] = (*instances.get(instance.model, ()), instance)
    by_name = {i.name: i for i in snapshot.instances}
    names = {name: _match(name, m, {}, instances) for name, m in models.items()}
    for name, model in models.items():
        for profile, values in model.profiles.items():
            names.setdefault(asked := f"{name}:{profile}", _match(asked, model, values, instances))
        for adapter in model.adapters:
            names.setdefault(asked := f"{name}:{adapter}", _match(asked, with_adapter(model, adapter), {}, instances))
    by_json = {msgspec.json.encode(name): match for name, match in names.items()}
    return Catalog(
        snapshot=snapshot, names=names, by_json=by_json, models=models, instances=instances, by_name=by_name,
        patterns=patterns_of(snapshot.models),
    )  # fmt: skip


def _match(
    asked: str, model: ModelView, profile: Mapping[str, Any], instances: Mapping[str, tuple[InstanceView, ...]]
) -> Match:  # fmt: skip
    ctx_tokens = max((i.ctx_tokens for i in instances.get(model.name, ())), default=0)
    return Match(model=model, asked=asked, filled_in={**model.defaults, **profile}, ctx_tokens=ctx_tokens)


def may_serve(instance: InstanceView) -> bool:
    """Whether an instance may be given a new request."""
    return instance.state is State.READY and not instance.draining and not instance.cut


def unavailable(model: ModelView, instances: tuple[InstanceView, ...]) -> Refusal | None:
    """Why `model` will not become ready by waiting, or None if it may."""
    alive = (State.READY, State.STARTING, State.BACKOFF, State.STOPPING, State.KILLING)
    if any(i.state in alive for i in instances):
        return None
    failed = [i for i in instances if i.state is State.FAILED]
    if failed:
        why = failed[0].reason or "it failed to start"
        return Refusal(status=503, code="model_failed", message=f"the model {model.name!r} cannot run: {why}")
    if model.on_demand:
        return None
    return Refusal(status=503, code="model_stopped", message=f"the model {model.name!r} is stopped")
