"""Whether a running service got the limits that its unit asks for. Pure.

systemd sets the nearest value that it may, without a word, where the machine allows less: in a container, or for a
user's service (seen with systemd 252). llama-server then goes on without the priority, or without locked memory, and
says so only in its log.
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
    """What the recipe asks for and the process with these `limits` (/proc/PID/limits) has not got, in words."""
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
    """What the service will not get, in words, so that nobody has to find out."""
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
