"""The page as a companion of the supervisor: its command line, its key, the code of its first launch. Disk."""

from __future__ import annotations

from pathlib import Path
from time import time

from nemotron_ops import addresses
from nemotron_ops.errors import GatewayError
from nemotron_ops.files import write_atomic
from nemotron_ops.gateway.api.routes import Scope
from nemotron_ops.gateway.keys import keystore
from nemotron_ops.gateway.keys.ring import Key
from nemotron_ops.installation import Installation
from nemotron_ops.operations.wish import Endpoint, Wish
from nemotron_ops.paths import Layout
from nemotron_ops.policy import Health, Restart
from nemotron_ops.proc import python_argv
from nemotron_ops.processes.sockets import Address
from nemotron_ops.studio.login.store import LoginStore
from nemotron_ops.supervisor.companion import CompanionSpec
from nemotron_ops.supervisor.instance.state import Rules

KEY_NAME = "studio"
RULES = Rules(
    restart=Restart(max_restarts=1 << 30, window_s=60.0, backoff_initial_s=0.05, backoff_max_s=5.0, stable_s=30.0),
    health=Health(drain_s=5.0, stop_s=5.0),
    cut_s=0.0,
    second_term_s=0.0,
)


def folder(layout: Layout) -> Path:
    """Where the page keeps chats, files and its login."""
    return layout.state / "studio"


def studio_companion(wish: Wish, endpoint: Endpoint, here: Installation) -> CompanionSpec:
    """The page beside this endpoint. Raises GatewayError where it would be open to others without TLS."""
    layout, settings, host = here.layout, endpoint.settings, endpoint.host
    if not addresses.is_loopback(host) and not settings.tls_cert:
        host = addresses.LOOPBACK  # a password must not cross a network in the clear
    values = [
        ("--folder", str(folder(layout))),
        ("--endpoint", addresses.url(endpoint.scheme, addresses.near(endpoint.host), endpoint.port)),
        ("--key-file", _key_file(endpoint, layout)),
        ("--keys-file", endpoint.api_key_file or str(layout.config / "keys.json")),
        ("--ca", settings.tls_cert),
        ("--tls-cert", settings.tls_cert),
        ("--tls-key", settings.tls_key),
        *(("--allowed-host", name) for name in settings.allowed_hosts),
    ]
    argv = (*python_argv("nemotron_ops.studio"), *(w for flag, v in values if v for w in (flag, v)))
    if wish.studio_port == endpoint.port:
        raise GatewayError(f"cannot serve the page at port {endpoint.port}: the endpoint has it", hint="--studio-port")
    return CompanionSpec(id="studio", argv=argv, at=Address(host=host, port=wish.studio_port), rules=RULES)


def page_url(wish: Wish, endpoint: Endpoint, layout: Layout) -> str:
    """The address to open; before the first password it carries the one-time code, which is made anew here."""
    scheme = "https" if endpoint.settings.tls_cert else "http"
    base = f"{scheme}://{addresses.bracketed(addresses.near(endpoint.host))}:{wish.studio_port}"
    code = LoginStore(folder(layout)).new_code()
    return f"{base}/setup#{code}" if code else f"{base}/"


def _key_file(endpoint: Endpoint, layout: Layout) -> str:
    """The file of the page's own key, made anew where the endpoint asks for keys; else there is none yet."""
    path = folder(layout) / "gateway.key"
    if not endpoint.api_key_file:
        return str(path)
    scopes = (Scope.INFERENCE, Scope.METRICS)
    key = Key(id="", sha256="", name=KEY_NAME, created_at=time(), scopes=scopes)
    _, text = keystore.create(Path(endpoint.api_key_file), key, replace_old=True)
    write_atomic(path, text + "\n", mode=0o600)
    return str(path)
