"""How an instance is kept: restart, health and lifecycle rules, as recipes name them. Pure.

`recipes` reads them, `supervisor` applies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

GIB = 1 << 30
HOST = "host"  # the name of the host's memory, beside the names of GPUs


class RestartPolicy(StrEnum):
    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NO = "no"


@dataclass(frozen=True, kw_only=True)
class Restart:
    """`[restart]`: what happens after a death."""

    policy: RestartPolicy = RestartPolicy.ALWAYS  # after which deaths it is started again
    max_restarts: int = 5  # more starts than this that fail within window_s, and it is failed; 0: so does any death
    window_s: float = 600.0  # time over which deaths are counted
    backoff_initial_s: float = 1.0  # wait after the second death in a row (first: 0.05 s); doubles
    backoff_max_s: float = 60.0  # longest wait
    stable_s: float = 120.0  # ready and alive this long: restarts are forgotten


@dataclass(frozen=True, kw_only=True)
class Health:
    """`[health]`: when an instance counts as stuck."""

    probe_period_s: float = 5.0  # between deep probes
    probe_timeout_s: float = 5.0  # of one deep probe
    wedge_s: float = 120.0  # busy slots without a token or prompt progress
    load_stall_s: float = 300.0  # loading without any sign of progress
    drain_s: float = 30.0  # time that requests in flight get at a stop
    stop_s: float = 5.0  # between SIGTERM, second SIGTERM and SIGKILL


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """`[lifecycle]`: how many instances, where, and how long."""

    replicas: int | str = 1  # number or "auto": one per GPU
    devices: tuple[str, ...] = ()  # llama-server device names, one per replica ("CUDA0")
    pinned: bool = False  # never unloaded to make room
    on_demand: bool = False  # started by its first request
    ttl_s: float | None = None  # unloaded after this long without a request
    start_order: int = 0  # lower starts first and stops last
