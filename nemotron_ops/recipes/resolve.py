"""Recipe + profile + settings + environment + flags -> Plan, with the source of every value. Pure.

Layers, later ones win:

    built in  →  recipe [server]  →  profile  →  settings.toml  →  environment  →  flags

A Plan is for one model. It holds host and port too, although one endpoint serves all models: `serve` takes those of the
first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from nemotron_ops.errors import RecipeError
from nemotron_ops.recipes.schema import Profile, Recipe, Server

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8001  # the how-to guide's
SAMPLING = ("temp", "top_p", "top_k", "min_p")
ENVIRONMENT = {"NEMOTRON_OPS_HOST": "host", "NEMOTRON_OPS_PORT": "port", "NEMOTRON_OPS_API_KEY_FILE": "api_key_file"}

# Caps of host memory that grows later: a checkpoint of the 30B takes 47.6 MiB, and llama-server's own defaults (32 per
# slot, 8 GiB of prompt cache) could take 14 GiB.
BUILT_IN: Mapping[str, Any] = {"ctx_checkpoints": 8, "cache_ram_mib": 2048, "parallel": 4, "kv_unified": True}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value and its source: `recipe 30b [server]`, `profile guide`, `--ctx-size`."""

    value: Any
    source: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`config/settings.toml`: settings for every model on this machine."""

    host: str | None = None  # address to listen on; beyond loopback a key file is needed
    port: int | None = None  # port to listen on
    api_key_file: str | None = None  # file of client API keys
    allowed_hosts: tuple[str, ...] = ()  # further accepted values of the Host header
    allowed_origins: tuple[str, ...] = ()  # web origins whose pages may call the endpoint (CORS)
    tls_cert: str = ""  # certificate chain file (PEM); turns TLS on; watched for changes
    tls_key: str = ""  # private key file of tls_cert
    max_connections: int | None = None  # most client connections at once
    max_receiving_mib: int | None = None  # most MiB of request bodies that are being received
    access_log: bool = False  # one JSON line per request in logs/access.log, without bodies
    native: bool = True  # also serve llama-server's own routes (/completion, /tokenize ...)
    default_model: str = ""  # model of requests without a model name
    keep_builds: int = 3  # newest builds of llama.cpp to keep, besides those in use; -1 keeps all
    server: Server = field(default_factory=Server)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one model will be run. `settings` maps fields of `schema.Server` (and host, api_key_file) to Settings."""

    recipe: Recipe
    profile: str
    alias: str
    settings: Mapping[str, Setting]

    @property
    def name(self) -> str:
        return self.recipe.name

    def value(self, key: str) -> Any:
        """The value of `key`, or None for llama-server's own default."""
        found = self.settings.get(key)
        return None if found is None else found.value

    @property
    def server(self) -> dict[str, Any]:
        """The values that are flags of llama-server, by field name of `schema.Server`."""
        return {f.name: self.value(f.name) for f in fields(Server) if f.name != "port" and f.name in self.settings}

    def with_settings(self, extra: Mapping[str, Setting]) -> Plan:
        """This plan with some settings replaced, such as those of the memory plan."""
        merged = {**self.settings, **extra}
        return Plan(recipe=self.recipe, profile=self.profile, alias=self.alias, settings=merged)


def resolve(
    recipe: Recipe,
    *,
    profile: str = "",
    settings: Settings | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Plan:
    """The Plan for `recipe`. `flags` maps field names to command line values (None: not given).

    Raises RecipeError for an unknown profile or a context beyond the recipe's maximum.
    """
    name = profile or recipe.default_profile
    chosen = _profile(recipe, name)
    layers: dict[str, Setting] = {k: Setting(value=v, source="built in") for k, v in BUILT_IN.items()}
    layers["ctx_size"] = Setting(value=recipe.context.default_tokens, source=f"recipe {recipe.name} [context]")
    layers["host"] = Setting(value=DEFAULT_HOST, source="built in")
    layers["port"] = Setting(value=DEFAULT_PORT, source="built in")
    _add_layer(layers, _given(recipe.server), f"recipe {recipe.name} [server]")
    if chosen:
        sampling = {k: getattr(chosen, k) for k in SAMPLING if getattr(chosen, k) is not None}
        _add_layer(layers, sampling | _given(chosen.server), f"profile {name}")
    if settings:
        _add_layer(layers, _given(settings.server), "settings.toml [server]")
        _add_layer(layers, _endpoint_settings(settings), "settings.toml")
    _add_layers_of_run(layers, env or {}, flags or {})
    _check_context(recipe, layers["ctx_size"])
    alias = layers.pop("alias", None)
    return Plan(recipe=recipe, profile=name, alias=alias.value if alias else default_alias(recipe), settings=layers)


def resolve_endpoint(
    *, settings: Settings, env: Mapping[str, str], flags: Mapping[str, Any]
) -> Mapping[str, Setting]:  # fmt: skip
    """Host, port and api_key_file where no model is served: the layers of `resolve` without a recipe."""
    layers = {k: Setting(value=v, source="built in") for k, v in (("host", DEFAULT_HOST), ("port", DEFAULT_PORT))}
    _add_layer(layers, _endpoint_settings(settings), "settings.toml")
    _add_layers_of_run(layers, env, {k: v for k, v in flags.items() if k in ENVIRONMENT.values()})
    return layers


def default_alias(recipe: Recipe) -> str:
    """The public name of a recipe's model where none is given."""
    return recipe.model.alias or recipe.model.repo.removesuffix("-GGUF") or recipe.name


def public_names(plan: Plan) -> tuple[str, ...]:
    """All names of this model for clients; first the alias, which the how-to guide's clients use."""
    names = [plan.alias, plan.recipe.name, default_alias(plan.recipe), plan.recipe.model.repo]
    return tuple(dict.fromkeys(n for n in names if n))


def disputed_alias(plans: Sequence[Plan]) -> tuple[str, str, str] | None:
    """An alias that is also another model's alias or name, and the names of both recipes; None if there is none.

    Patterns may overlap: the gateway prefers the most specific one, then the model that was named first.
    """
    owners: dict[str, str] = {name: plan.name for plan in reversed(plans) for name in public_names(plan)}
    for plan in plans:
        for alias in plan.recipe.model.aliases:
            if "*" in alias or "?" in alias:
                continue
            owner = owners.setdefault(alias, plan.name)
            if owner != plan.name:
                return alias, owner, plan.name
    return None


def request_fields(profile: Profile) -> dict[str, Any]:
    """Defaults of a profile for request fields, under OpenAI's and llama-server's names."""
    named = {
        "temperature": profile.temp,
        "top_p": profile.top_p,
        "top_k": profile.top_k,
        "min_p": profile.min_p,
        "max_tokens": profile.max_tokens,
        "reasoning_budget_tokens": profile.reasoning_budget_tokens,
    }
    if profile.reasoning is not None:
        named["chat_template_kwargs"] = {"enable_thinking": profile.reasoning}  # type: ignore[assignment]
    return {k: v for k, v in named.items() if v is not None}


def _profile(recipe: Recipe, name: str) -> Profile | None:
    if not name:
        return None
    if name not in recipe.profiles:
        known = ", ".join(recipe.profiles) or "none"
        raise RecipeError(
            f"cannot use profile {name}: recipe {recipe.name} has no such profile", hint=f"known: {known}"
        )
    return recipe.profiles[name]


def _given(server: Server) -> dict[str, Any]:
    """The fields of a `[server]` table that were set."""
    return {f.name: v for f in fields(server) if (v := getattr(server, f.name)) is not None and v != ()}


def _add_layer(layers: dict[str, Setting], values: Mapping[str, Any], source: str) -> None:
    layers.update({k: Setting(value=v, source=source) for k, v in values.items()})


def _endpoint_settings(settings: Settings) -> dict[str, Any]:
    return {k: v for k in ENVIRONMENT.values() if (v := getattr(settings, k)) is not None}


def _add_layers_of_run(layers: dict[str, Setting], env: Mapping[str, str], flags: Mapping[str, Any]) -> None:
    """The environment's values, and over them those of flags."""
    for variable, key in ENVIRONMENT.items():
        if value := env.get(variable):
            layers[key] = Setting(value=_port(variable, value) if key == "port" else value, source=variable)
    for key, value in flags.items():
        if value is not None and value != ():
            layers[key] = Setting(value=value, source=f"--{key.replace('_', '-')}")


def _port(variable: str, value: str) -> int:
    if not value.isdigit() or not 0 < int(value) < 65536:
        raise RecipeError(f"cannot use {variable}={value}: expected a port from 1 to 65535")
    return int(value)


def _check_context(recipe: Recipe, ctx: Setting) -> None:
    if ctx.value > recipe.context.max_tokens:
        raise RecipeError(
            f"cannot use a context of {ctx.value:,} tokens ({ctx.source}): "
            f"{recipe.name} allows {recipe.context.max_tokens:,}",
            hint=f"pass --ctx-size {recipe.context.max_tokens} or less",
        )
