"""What a service does not get of what its recipe asks for: known from its scope, or read from its limits. Pure.

Where the machine allows less than a unit asks for (in a container, or for a user's service), systemd silently sets the
nearest allowed value (seen with systemd 252). llama-server then runs without the priority or without locked memory, and
only its log says so.
"""

from __future__ import annotations

from math import inf

from nemotron_ops.addresses import is_loopback
from nemotron_ops.service.hardening import PRIO_LIMITS
from nemotron_ops.service.spec import ServiceSpec
from nemotron_ops.service.words import address

NICE, REALTIME, LOCKED = "Max nice priority", "Max realtime priority", "Max locked memory"


def hard_limits(text: str) -> dict[str, float]:
    """The hard limits in /proc/PID/limits by their names there."""
    found = {}
    for line in text.splitlines()[1:]:
        words = line[26:].split()
        if len(words) > 1:
            found[line[:26].strip()] = inf if words[1] == "unlimited" else float(words[1])
    return found


def withheld(spec: ServiceSpec, limits: str) -> tuple[str, ...]:
    """What the recipe asks for and a process with these `limits` (/proc/PID/limits) did not get, in words."""
    have = hard_limits(limits)
    found = []
    if spec.prio in PRIO_LIMITS:
        nice, realtime = PRIO_LIMITS[spec.prio]
        ceiling = 20 - have.get(NICE, 0)  # the kernel counts from 20 down to -19 as 0 up to 40 (getrlimit(2))
        if ceiling > nice:
            found.append(f"--prio {spec.prio} wants nice {nice}; this machine grants {min(0, ceiling):.0f}")
        if have.get(REALTIME, 0) < realtime:
            granted = f"{have.get(REALTIME, 0):.0f}"
            found.append(f"--prio {spec.prio} wants real-time priority {realtime}; this machine grants {granted}")
    if spec.mlock and have.get(LOCKED, 0) < inf:
        most = f"{have.get(LOCKED, 0) / (1 << 20):.0f} MiB"
        found.append(f"locked memory is limited to {most} here: what a larger model has beyond that stays unlocked")
    return tuple(found)


def notes(spec: ServiceSpec) -> tuple[str, ...]:
    """What a service of this specification will not get, and what it exposes, in words."""
    found = []
    if not spec.system:
        if spec.prio > 0:
            found.append(
                f"--prio {spec.prio} will have no effect: a user service cannot raise its priority; use --system"
            )
        if spec.mlock:
            found.append("locking the model in memory works only up to `ulimit -l` of this user; use --system")
        if spec.gpu:
            found.append("a user service starts without waiting for the GPU driver; it is retried until a GPU is there")
            found.append(
                "a user service is not restarted after suspend, when what the GPU held may be lost; then: "
                "nemotron-ops service restart --reload-models, or use --system"
            )
    elif spec.prio >= 2:
        found.append(f"--prio {spec.prio}: real-time threads of the CPU backend can starve a small machine")
    if not is_loopback(spec.host) and not spec.allow_from and spec.system:
        found.append(f"any network that reaches {address(spec.host, spec.port)} may connect; --allow-from narrows it")
    return tuple(found)
