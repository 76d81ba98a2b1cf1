"""web.toml: which provider searches, its key, what is allowed. Disk.

provider = "searxng"            # or brave, tavily, exa, serper, kagi, ddgs
url = "http://127.0.0.1:8080"   # needed for searxng; replaces another provider's own address
key_file = "/etc/nemotron-ops/web.key"
allow = ["wiki.lan", "10.0.0.7:8080"]   # inner hosts whose pages may be read
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nemotron_ops.errors import RecipeError, conceal
from nemotron_ops.recipes.check import check
from nemotron_ops.web.providers import PROVIDERS

KEY_VARIABLE = "NEMOTRON_OPS_WEB_API_KEY"
WITHOUT_KEY = "ddgs"
MOST_KEY_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """The keys of web.toml. Times in seconds."""

    provider: str = ""
    url: str = ""
    key_file: str = ""
    allow: tuple[str, ...] = ()
    language: str = ""
    searches_per_minute: int = 20
    proxies_of_environment: bool = False


@dataclass(frozen=True, kw_only=True)
class Web:
    """Checked settings with the provider's key."""

    settings: WebSettings
    key: str = ""

    @property
    def refusal(self) -> str:
        """Why nothing can be searched, or an empty text."""
        name = self.settings.provider
        if not name:
            return "no provider is configured"
        if name in PROVIDERS and PROVIDERS[name].needs_key and not self.key:
            return f"{name} needs a key: {PROVIDERS[name].terms}"
        return ""


def settings_path(config: Path) -> Path:
    """The settings file below the configuration folder."""
    return config / "web.toml"


def load(config: Path, env: Mapping[str, str]) -> Web:
    """The settings in `config`/web.toml, with their key; defaults without that file. Raises RecipeError."""
    path = settings_path(config)
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        value = {}
    except (OSError, ValueError, RecursionError) as exc:
        raise RecipeError(f"cannot read {path}: {exc}") from exc
    settings = check(WebSettings, value, file=str(path))
    _check(settings, path)
    key = _key(settings, path, env)
    if key:
        conceal(key)
    return Web(settings=settings, key=key)


def _check(settings: WebSettings, path: Path) -> None:
    known = [*PROVIDERS, WITHOUT_KEY]
    if settings.provider and settings.provider not in known:
        raise RecipeError(f"{path}: provider: no provider {settings.provider!r}", hint=f"known: {', '.join(known)}")
    if settings.provider == "searxng" and not settings.url:
        raise RecipeError(f"{path}: url: searxng needs the address of your instance", hint=PROVIDERS["searxng"].terms)
    if settings.url and urlsplit(settings.url).scheme not in ("http", "https"):
        raise RecipeError(f"{path}: url: expected an http or https address, found {settings.url!r}")
    if settings.searches_per_minute < 1:
        raise RecipeError(f"{path}: searches_per_minute: expected a number from 1")


def _key(settings: WebSettings, path: Path, env: Mapping[str, str]) -> str:
    if not settings.key_file:
        return env.get(KEY_VARIABLE, "").strip()
    file = path.parent / settings.key_file
    try:
        if not file.is_file():
            raise RecipeError(f"{path}: key_file: {file} is not a file")
        with file.open("rb") as f:
            text = f.read(MOST_KEY_BYTES).decode("ascii").strip()
    except (OSError, UnicodeError) as exc:
        raise RecipeError(f"{path}: cannot read key_file {file}: {exc}") from exc
    if not text or not text.isprintable() or " " in text:
        raise RecipeError(f"{path}: key_file: {file} holds no key", hint="one line with the key and nothing else")
    return text
