"""Every option of the gateway process: one frozen dataclass, read from flags or a JSON file. Pure.

Each field is a flag of `python -m nemotron_ops.gateway`, with `-` for `_`, and a key of the JSON object in
`--options FILE`. A flag overrides the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from nemotron_ops.errors import UsageError


def _option(default: Any, about: str) -> Any:
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True, kw_only=True)
class Options:
    """All options, with their defaults."""

    control: str = _option("", "control socket of the supervisor to follow")
    listen_fd: tuple[int, ...] = _option((), "descriptor of a listening socket (repeatable)")
    listen: tuple[str, ...] = _option((), "HOST:PORT to listen on instead; port 0 takes any (repeatable)")
    api_keys_file: str = _option("", "file with the API keys of clients; without it no key is required")
    keys_optional: bool = _option(
        False, "serve without keys until --api-keys-file exists; from then on a key is required"
    )
    usage_file: str = _option("", "file that keeps the usage per key across restarts")
    responses_folder: str = _option("", "folder that keeps stored responses across restarts; else they are in memory")
    responses_mib: int = _option(64, "most MiB of stored responses (`store`, `previous_response_id`); 0: store none")
    batches_folder: str = _option("", "folder for files and batches; without it both are refused")
    batches_mib: int = _option(4096, "most MiB of files for batches and their results; 0: no batches")
    agent_socket: str = _option("", "unix socket of the agent, which runs hosted tools; without it they are refused")
    allowed_host: tuple[str, ...] = _option((), "further host name that clients may use (repeatable)")
    allowed_origin: tuple[str, ...] = _option((), "web origin whose pages may call the gateway; enables CORS for it")
    native: bool = _option(True, "also serve llama-server's own routes (/completion, /tokenize ...)")
    tls_cert: str = _option("", "certificate chain file (PEM); enables TLS; watched for changes")
    tls_key: str = _option("", "private key file of --tls-cert; watched for changes")
    access_log: str = _option("", "file for one JSON line per request, without bodies; - is stderr")
    access_log_mib: int = _option(64, "size at which the access log becomes FILE.1 and a new file begins; 0: never")
    drain_s: float = _option(30.0, "time for running requests to finish after SIGTERM")
    keep_alive_s: float = _option(10.0, "silence after which a stream gets a keep-alive comment")
    max_connections: int = _option(4096, "most client connections at once")
    max_body_mib: int = _option(100, "largest request body, in MiB")
    max_receiving_mib: int = _option(256, "most MiB of request bodies that are being received")
    max_queued_mib: int = _option(256, "most MiB of queued request bodies, per model")
    write_stall_s: float = _option(60.0, "time after which a client that reads nothing is disconnected")
    silence_s: float = _option(300.0, "time that an engine may take for its first event, beyond that for its prompt")
    retries: int = _option(3, "how often a request is sent again after its instance was lost")


FLAGS = {f.name: str(f.metadata["about"]) for f in fields(Options)}


def from_mapping(values: Mapping[str, Any]) -> Options:
    """Options from parsed JSON. Raises UsageError for an unknown key or a value of the wrong type."""
    known = {f.name: f for f in fields(Options)}
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"cannot read gateway options: unknown key {name!r}", hint=f"known: {', '.join(known)}")
        checked[name] = _checked(name, value, known[name].default)
    return Options(**checked)


def _checked(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if type(value) is type(default):
        return value
    raise UsageError(f"cannot read gateway options: {name}: expected {type(default).__name__}, found {value!r}")
