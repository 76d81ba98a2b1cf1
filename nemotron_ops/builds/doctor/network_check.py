"""Checks disk, store and network: repository, package registry, model hub. Sockets, httpx, disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nemotron_ops.builds.doctor.diagnosis import Surroundings
from nemotron_ops.builds.packages import download, pins, registry
from nemotron_ops.builds.source.git import check_reachable
from nemotron_ops.builds.store import store
from nemotron_ops.errors import HostError, NemotronOpsError
from nemotron_ops.files import check_locks
from nemotron_ops.installation import Installation

PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
PROXY_S = 10.0
DEFAULT_HUB = "https://huggingface.co"


def surroundings(installation: Installation, *, offline: bool = False) -> Surroundings:
    """Looks at disk, network and store; takes a few seconds at most."""
    layout = installation.layout
    current = store.current(layout)
    trees = layout.sources / "trees"
    return Surroundings(
        disk_free_bytes=shutil.disk_usage(existing_parent(layout.data)).free,
        network={} if offline else reachable(installation.env),
        built=current.id if current else "",
        manifest=current.manifest if current else {},
        pinned=pins.shipped().number,
        folders={str(f): unusable(existing_parent(f)) for f in (layout.data, layout.state)},
        source_cached=trees.is_dir() and any(not p.name.startswith(".") for p in trees.iterdir()),
    )


def reachable(env: Mapping[str, str]) -> dict[str, str]:
    """Place -> why it cannot be reached, or "". All are tried at once, each within its own timeout."""
    hub, source = env.get("HF_ENDPOINT") or DEFAULT_HUB, pins.shipped().url
    tries: dict[str, Callable[[], object]] = {
        "source": lambda: _asked(source, env, "/info/refs?service=git-upload-pack", "git-upload-pack"),
        "registry": lambda: _index_page(env),
        "hub": lambda: _asked(hub, env, "/api/models?limit=1", "json"),
    }
    with ThreadPoolExecutor(max_workers=len(tries)) as pool:
        return dict(zip(tries, pool.map(_reason, tries.values()), strict=True))


def unusable(folder: Path) -> str:
    """Why `folder` cannot be written or locked; empty if it can."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".nemotron-ops-doctor-") as probe:
            check_locks(Path(probe.name))
    except HostError as exc:
        return exc.message.replace(probe.name, str(folder))
    except OSError as exc:
        return f"cannot write into {folder}: {exc.strerror}"
    return ""


def existing_parent(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    return next(p for p in (path, *path.parents) if p.exists())


def _index_page(env: Mapping[str, str]) -> None:
    """Read one small page of the first index that answers. Raises SourceError if none does."""
    config = registry.pip_config(env)
    package = pins.shipped().fallback[0]
    with download.client(config, env) as http:
        files, problems = registry.files_of(http, config, package)
    if not files:
        raise NemotronOpsError("; ".join(problems) or f"no index offers {package}")


def _asked(url: str, env: Mapping[str, str], page: str, kind: str) -> None:
    """Connect to the host of `url`; behind a proxy, ask for a page of it whose content type has `kind` in it.

    A proxy accepts every connection, and some answer for hosts that they do not reach. Raises NemotronOpsError.
    """
    import httpx

    check_reachable(url, env)
    if not any(name.lower() in PROXIES and value for name, value in env.items()):
        return
    try:
        with httpx.Client(timeout=httpx.Timeout(PROXY_S), follow_redirects=True) as http:
            answer = http.get(url.rstrip("/") + page)
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as exc:
        raise NemotronOpsError(f"cannot reach {url} through the proxy: {str(exc) or type(exc).__name__}") from exc
    if answer.status_code >= 400 or kind not in answer.headers.get("content-type", ""):
        told = f"{answer.status_code}, {answer.headers.get('content-type', 'no content type')}"
        raise NemotronOpsError(f"what answers for {url} through the proxy is something else: {told}")


def _reason(attempt: Callable[[], object]) -> str:
    import httpx

    try:
        attempt()
    except NemotronOpsError as exc:
        return exc.message
    except (ImportError, ValueError, httpx.InvalidURL) as exc:  # a proxy that httpx cannot use
        return f"cannot go through the proxy: {exc}"
    return ""
