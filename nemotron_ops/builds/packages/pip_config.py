"""Reads pip's configuration: the package registries of this machine. Pure.

pip merges, later ones winning: the global, user and site files, the file in PIP_CONFIG_FILE, then PIP_*
variables (pip's documentation, "Configuration"; `pip config list` prints the same). Options may stand under
`[global]` or under a command; downloading is `[download]`, and people write `[install]`, so both are read.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

SECTIONS = ("global", "install", "download")
DEFAULT_INDEX = "https://pypi.org/simple"


@dataclass(frozen=True, kw_only=True)
class PipConfig:
    """Package indexes, and TLS settings for them."""

    index_url: str = DEFAULT_INDEX
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    cert: str = ""
    client_cert: str = ""
    proxy: str = ""
    trusted_hosts: tuple[str, ...] = ()

    @property
    def indexes(self) -> tuple[str, ...]:
        """The simple indexes in order of preference: file: URLs first, because they are local."""
        if self.no_index:
            return ()
        urls = dict.fromkeys((self.index_url, *self.extra_index_urls))
        return tuple(sorted(urls, key=lambda url: not url.startswith("file:")))


def config_files(env: Mapping[str, str], *, system: str, prefix: str) -> tuple[PurePosixPath, ...]:
    """Files that pip reads, weakest first. `PIP_CONFIG_FILE=/dev/null` switches all of them off."""
    own = env.get("PIP_CONFIG_FILE", "")
    if own == "/dev/null":
        return ()
    home = PurePosixPath(env.get("HOME", "/"))
    if system == "Darwin":
        wide = [PurePosixPath("/Library/Application Support/pip/pip.conf")]
        user = [home / "Library/Application Support/pip/pip.conf", home / ".config/pip/pip.conf"]
    else:
        dirs = env.get("XDG_CONFIG_DIRS") or "/etc/xdg"
        wide = [PurePosixPath(d) / "pip/pip.conf" for d in reversed(dirs.split(":")) if d]
        wide.append(PurePosixPath("/etc/pip.conf"))
        user = [PurePosixPath(env.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf"]
    files = [*wide, home / ".pip/pip.conf", *user, PurePosixPath(prefix) / "pip.conf"]
    return (*files, PurePosixPath(own)) if own else tuple(files)


def merge(texts: Iterable[str], env: Mapping[str, str]) -> PipConfig:
    """The configuration from files with `texts` (weakest first) and the variables in `env`."""
    values: dict[str, str] = {}
    for text in texts:
        values |= _options(text)
    for key, value in env.items():
        if key.startswith("PIP_") and value:
            values[key.removeprefix("PIP_").lower().replace("_", "-")] = value
    return PipConfig(
        index_url=values.get("index-url") or values.get("pypi-url") or DEFAULT_INDEX,
        extra_index_urls=_words(values.get("extra-index-url", "")),
        find_links=_words(values.get("find-links", "")),
        no_index=values.get("no-index", "").lower() in ("1", "true", "yes", "on", "y", "t"),
        cert=values.get("cert", ""),
        client_cert=values.get("client-cert", ""),
        proxy=values.get("proxy", ""),
        trusted_hosts=_words(values.get("trusted-host", "")),
    )


def normal_name(package: str) -> str:
    """PEP 503's name of a package: `Llama_CPP.python` -> `llama-cpp-python`."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _options(text: str) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}  # pip itself refuses such a file
    found: dict[str, str] = {}
    for section in SECTIONS:
        if parser.has_section(section):
            found |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    return found


def _words(value: str) -> tuple[str, ...]:
    return tuple(value.split())
