"""What people write for a model on a hub: names, and the addresses of its pages and files. Pure.

owner/name[:QUANT]              owner/name:FILE.gguf             owner/name/folder/FILE.gguf
hf.co/owner/name[:QUANT|:latest] hf://owner/name[@REVISION][/FILE.gguf]
https://HUB/owner/name          …/tree/REVISION[/folder]         …/blob|resolve/REVISION/FILE.gguf
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from nemotron_ops.errors import UsageError

HUB = "https://huggingface.co"
PUBLIC_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})  # one hub: pages, and short addresses
REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
VIEWS = frozenset({"tree", "blob", "resolve", "raw", "blame", "commits"})  # pages that name a revision
NO_MODELS = frozenset({"datasets", "spaces", "collections", "papers", "docs", "blog", "learn"})
ENDING = re.compile(r"\.gguf$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class HubName:
    """A model on a hub. `quant` is a quant's label, or the path of one file without `.gguf`."""

    repo: str
    quant: str = ""
    revision: str = ""


def read_hub_name(text: str, env: Mapping[str, str]) -> HubName | None:
    """The model that `text` names on the hub in use, or None if it is no name of this kind.

    Raises UsageError for an address that is on another host, or that names no model.
    """
    text = text.strip().strip("<>\"'")
    if text.startswith(("http://", "https://")):
        return _from_page(_split(text), env)
    if text.startswith("hf://"):
        return _named(text, text.removeprefix("hf://").removeprefix("models/"))
    if text.partition("/")[0].lower() in PUBLIC_HOSTS | {_endpoint(env).netloc}:
        return _from_page(_split(f"https://{text}"), env)
    return _short(text)


def names_quant(text: str) -> bool:
    """Whether a command line argument (a recipe's name, or a model's on a hub) names its quant or file, too."""
    if "/" not in text:
        return ":" in text
    try:
        own_hub = re.match(r"https?://[^/]*", text.strip(" <"))
        name = read_hub_name(text, {"HF_ENDPOINT": own_hub[0] if own_hub else ""})
    except UsageError:
        return True
    return name is None or bool(name.quant)


def is_gguf(name: str) -> bool:
    """Whether a file is a GGUF file by its name."""
    return ENDING.search(name) is not None


def stem_of(name: str) -> str:
    """A file's name without `.gguf`."""
    return ENDING.sub("", name)


def _quant(text: str) -> str:
    """A quant or file after a colon; `latest` is the tag of Ollama's names that chooses none."""
    return "" if text.lower() == "latest" else stem_of(text)


def _short(text: str) -> HubName | None:
    """`owner/name`, with a quant or file after a colon, or a file's path after a slash."""
    repo, _, quant = text.partition(":")
    if REPO.fullmatch(repo) and not (is_gguf(repo) and not quant):
        return HubName(repo=repo, quant=_quant(quant))
    owner, _, rest = text.partition("/")
    name, _, path = rest.partition("/")
    if is_gguf(path) and REPO.fullmatch(f"{owner}/{name}"):
        return HubName(repo=f"{owner}/{name}", quant=stem_of(path))
    return None


def _named(text: str, rest: str) -> HubName:
    """`owner/name[@revision]` with `:QUANT` or `/path`, as in hf:// addresses."""
    match = re.fullmatch(r"([^/@:]+/[^/@:]+)(?:@([^/:]+))?(?:[/:](.*))?", rest)
    if match is None or not REPO.fullmatch(match[1]):
        raise UsageError(f"cannot read {text} as a model: it names no repository", hint="write hf://owner/name")
    return HubName(repo=match[1], quant=_quant(match[3] or ""), revision=unquote(match[2] or ""))


def _from_page(url: SplitResult, env: Mapping[str, str]) -> HubName:
    """The model of a page, or of a file's address, on the hub in use."""
    shown, ours = f"{url.hostname or ''}{url.path}", _endpoint(env)
    if url.netloc.rpartition("@")[2].lower() not in PUBLIC_HOSTS | {ours.netloc.rpartition("@")[2].lower()}:
        raise UsageError(
            f"cannot read {shown} as a model: {url.hostname} is not the hub in use, {ours.hostname}",
            hint="to use another hub, set HF_ENDPOINT to its address",
        )
    below = ours.path.rstrip("/") + "/"
    path = url.path.removeprefix(below) if url.path.startswith(below) else url.path.lstrip("/")
    parts = [p for p in path.removeprefix("api/").removeprefix("models/").split("/") if p]
    repo, colon, quant = "/".join(parts[:2]).partition(":")
    if not REPO.fullmatch(repo) or parts[0] in NO_MODELS:
        raise UsageError(
            f"cannot read {shown} as a model: it is not the page of a model or of one of its files",
            hint="the address of a model ends in /owner/name",
        )
    if colon or len(parts) == 2:
        shown_file = parse_qs(url.query).get("show_file_info", [""])[0]
        return HubName(repo=repo, quant=_quant(quant or shown_file))
    if parts[2] not in VIEWS:
        return HubName(repo=repo, quant=stem_of(unquote("/".join(parts[2:]))) if is_gguf(path) else "")
    revision, file = unquote(parts[3]) if len(parts) > 3 else "", unquote("/".join(parts[4:]))
    return HubName(repo=repo, quant=stem_of(file), revision=revision)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as exc:
        raise UsageError(f"cannot read the address of a model: {exc}") from exc


def _endpoint(env: Mapping[str, str]) -> SplitResult:
    return _split(env.get("HF_ENDPOINT", "").rstrip("/") or HUB)
