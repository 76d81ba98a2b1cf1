"""What a unit may do, and what it gets: limits, devices, the sandbox of each kind of unit. Pure.

Directives that a hardened unit would have and this one has not carry their reason as a comment in the unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemotron_ops.service.words import is_loopback

if TYPE_CHECKING:
    from nemotron_ops.service.units import ServiceSpec

# llama-server --prio N: nice value, and SCHED_FIFO priority of its CPU threads (llama.cpp common.cpp
# set_process_priority, ggml-cpu ggml_thread_apply_priority). A limit below these grants nothing at all.
PRIO_LIMITS = {1: (-5, 40), 2: (-10, 80), 3: (-20, 90)}

HARDENED = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateIPC=yes
PrivateMounts=yes
ProtectProc=invisible
# CUDA reads /proc/driver and /proc/cpuinfo
ProcSubset=all
ProtectHostname=yes
ProtectClock=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service mincore
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
"""

SMALL_SANDBOX = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateNetwork=yes
PrivateIPC=yes
ProtectHostname=yes
ProtectClock=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectProc=invisible
ProcSubset=pid
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
UMask=0077
"""


def limits(spec: ServiceSpec) -> str:
    lines = ["LimitNOFILE=65536", "LimitCORE=0", "TasksMax=4096"]
    if spec.memory_max:
        lines.append(f"MemoryMax={spec.memory_max}")
    lines.append("# out of memory: the kernel takes an engine (which raises its own score), not the supervisor")
    lines.append("OOMPolicy=continue")
    if not spec.system:
        return "\n".join([*lines, ""])
    lines += ["OOMScoreAdjust=-100", "CPUWeight=500", "IOWeight=500"]
    if spec.mlock:
        lines += ["# the model is locked in memory", "LimitMEMLOCK=infinity"]
    if spec.prio in PRIO_LIMITS:
        nice, rtprio = PRIO_LIMITS[spec.prio]
        lines += [f"# exactly what --prio {spec.prio} takes", f"LimitNICE={nice}", f"LimitRTPRIO={rtprio}"]
    return "\n".join([*lines, ""])


def devices(spec: ServiceSpec) -> str:
    if not spec.gpu:
        return "# no GPU is used\nPrivateDevices=yes\n"
    if not spec.device_policy:
        return "# left open on request: DevicePolicy=\nPrivateDevices=no\n"
    nodes = ["char-drm rw"]
    nodes += {"cuda": ["char-nvidia* rw"], "hip": ["char-kfd rw"]}.get(spec.gpu, ["char-nvidia* rw"])
    return "\n".join([
        "# PrivateDevices= would hide the GPU: only its device nodes are let through instead. The group is called",
        "# nvidia-frontend or nvidia, by driver; the pattern matches both, and nvidia-uvm.",
        "PrivateDevices=no",
        "DevicePolicy=closed",
        *(f"DeviceAllow={n}" for n in nodes),
        "SupplementaryGroups=render video",
        "",
    ])  # fmt: skip


def system_sandbox(spec: ServiceSpec) -> str:
    lines = [HARDENED.rstrip()]
    lines += [
        "# not set: PrivateUsers=. A restarted supervisor would live in another user namespace than the engines it",
        "# adopts, and the kernel would hide them from it (ptrace access check, ProtectProc=invisible).",
        "RestrictRealtime=" + ("no" if spec.prio in PRIO_LIMITS else "yes"),
    ]
    if is_loopback(spec.host):
        lines += ["IPAddressDeny=any", "IPAddressAllow=localhost"]
    elif spec.allow_from:
        lines += ["IPAddressDeny=any", f"IPAddressAllow=localhost {' '.join(spec.allow_from)}"]
    else:
        lines.append("# not set: IPAddressDeny=. The service listens beyond this machine, and nobody said to whom.")
    return "\n".join([*lines, ""])


def user_sandbox() -> str:
    return """\
# The sandbox that a user's service manager can really give. Not set: everything that needs a mount namespace
# (ProtectSystem=, PrivateTmp= …): without PrivateUsers= it would silently do nothing, and with it a restarted
# supervisor could not see the engines that it adopts.
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service mincore
SystemCallErrorNumber=EPERM
"""
