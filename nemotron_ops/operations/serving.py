"""Serves a composed configuration: the supervisor's options and run, the gateway's command line. Processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from nemotron_ops import addresses
from nemotron_ops.installation import Installation
from nemotron_ops.operations.page import studio_companion
from nemotron_ops.operations.service_manager import service_manager_hooks
from nemotron_ops.operations.unclean_shutdown import noted_while_serving
from nemotron_ops.operations.wish import Composed, Endpoint, Wish
from nemotron_ops.operations.wish_file import WishFile, continued
from nemotron_ops.paths import Layout
from nemotron_ops.proc import python_argv
from nemotron_ops.supervisor.on_demand import OnDemandSpec, socket_path
from nemotron_ops.supervisor.snapshot import Snapshot, State
from nemotron_ops.supervisor.spec import Config

AGENT = "agent"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says, `words`, and what is served: with the changes since an earlier start."""

    words: Wish
    wish: Wish


def asked_for(words: Wish, here: Installation) -> Asked:
    """`words` with the changes that `add`, `change` and `remove` have made since the same words were served."""
    return Asked(words=words, wish=continued(words, here))


def serve(asked: Asked, composed: Composed, here: Installation, *, on_snapshot: Callable[[Snapshot], None]) -> int:
    """Become the supervisor until stopped; returns its exit code. `on_snapshot` is called with each change."""
    from nemotron_ops.supervisor.run import supervise
    from nemotron_ops.supervisor.supervisor import Hooks, Options

    endpoint, wish = composed.endpoint, asked.wish
    first = [composed.config]
    kept = WishFile(asked.words, wish, composed, here)

    def load_config() -> Config:
        """What was composed already the first time, then what wish, recipes and settings say at each reload."""
        return first.pop() if first else kept.reload()

    manager = service_manager_hooks(here.env, on_snapshot, lazy=lazy_models(composed))
    options = Options(
        host=endpoint.host, port=endpoint.port, scheme=endpoint.scheme,
        gateway_argv=gateway_argv(endpoint, here.layout), exit_on_failed=bool(wish.models) and not wish.studio,
        on_demand=(agent_process(endpoint),),
        companions=(studio_companion(wish, endpoint, here),) if wish.studio else (),
    )  # fmt: skip
    hooks = Hooks(
        on_snapshot=manager.on_snapshot,
        on_tick=manager.on_tick,
        on_progress=manager.on_progress,
        on_reload=manager.on_reload,
        free_bytes=free_bytes(here.env),
        socket_stays=manager.socket_stays,
        wishes=kept,
    )
    with noted_while_serving(composed.plans, here, on_proof=manager.on_proof):
        return supervise(options, layout=here.layout, load_config=load_config, env=here.env, hooks=hooks)


def agent_process(endpoint: Endpoint) -> OnDemandSpec:
    """The process that runs hosted tools; it asks the gateway as clients do."""
    url = addresses.url(endpoint.scheme, addresses.near(endpoint.host), endpoint.port)
    ca = ("--ca", endpoint.settings.tls_cert) if endpoint.settings.tls_cert else ()
    return OnDemandSpec(id=AGENT, argv=(*python_argv("nemotron_ops.agent"), "--endpoint", url, *ca))


def gateway_argv(endpoint: Endpoint, layout: Layout) -> tuple[str, ...]:
    """The gateway's command line; the supervisor adds the listening socket and its control socket."""
    settings = endpoint.settings
    values = [
        ("--api-keys-file", endpoint.api_key_file or str(layout.config / "keys.json")),
        ("--usage-file", str(layout.state / "usage.json")),
        ("--responses-folder", str(layout.state / "responses")),
        ("--batches-folder", str(layout.state / "batches")),
        ("--agent-socket", str(socket_path(layout, AGENT))),
        ("--access-log", str(layout.logs / "access.log") if settings.access_log else ""),
        ("--tls-cert", settings.tls_cert),
        ("--tls-key", settings.tls_key),
        ("--max-connections", str(settings.max_connections or "")),
        ("--max-receiving-mib", str(settings.max_receiving_mib or "")),
        *(("--allowed-host", host) for host in settings.allowed_hosts),
        *(("--allowed-origin", origin) for origin in settings.allowed_origins),
    ]
    argv = [*python_argv("nemotron_ops.gateway"), *(w for flag, v in values if v for w in (flag, v))]
    argv += [] if endpoint.api_key_file else ["--keys-optional"]
    return tuple(argv if settings.native else [*argv, "--no-native"])


def all_ready(snapshot: Snapshot, *, lazy: Collection[str] = ()) -> bool:
    """Whether every instance is ready, also where there is none; `lazy` models may wait for their first request."""
    expected = [i for i in snapshot.instances if i.model not in lazy or i.state is not State.STOPPED]
    return snapshot.serial > 0 and not snapshot.stopping and all(i.state is State.READY for i in expected)


def lazy_models(composed: Composed) -> frozenset[str]:
    """The models that are started by their first request."""
    return frozenset(p.name for p in composed.plans if p.recipe.lifecycle.on_demand)


def free_bytes(env: Mapping[str, str]) -> Callable[[], Mapping[str, int]]:
    """A function that returns what each device has free at its call."""

    def look() -> Mapping[str, int]:
        from nemotron_ops import host
        from nemotron_ops.memory.machine import machine

        pools = machine(host.probe(env, tools=False))
        return {d.name: d.room_bytes for d in (pools.host, *pools.gpus)}

    return look
