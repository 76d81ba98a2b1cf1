"""What a unit may do, and what it gets: limits, devices, the sandbox of each kind of unit. Pure.

Directives that a hardened unit would have and this one has not carry their reason as a comment in the unit.
"""

from __future__ import annotations

from nemotron_ops.addresses import is_loopback
from nemotron_ops.service.spec import ServiceSpec

# llama-server --prio N: nice value, and SCHED_FIFO priority of its CPU threads (llama.cpp common.cpp
# set_process_priority, ggml-cpu ggml_thread_apply_priority). A limit below these grants nothing at all.
PRIO_LIMITS = {1: (-5, 40), 2: (-10, 80), 3: (-20, 90)}

# By kind of GPU, besides DRI nodes. systemd ignores nodes that do not exist.
DEVICE_NODES = {
    "cuda": ("char-nvidia* rw", "/dev/dxg rw"),
    "hip": ("char-kfd rw",),
    "vulkan": ("char-nvidia* rw", "/dev/dxg rw"),
}

# Common to the serving unit and the fetching one.
HARDENED = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
# not set: RootDirectory=. Program, models and driver libraries are in many places; ProtectSystem= makes them read-only
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateIPC=yes
PrivateMounts=yes
ProtectProc=invisible
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
{families}RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
"""

SERVING = (
    HARDENED.format(
        families="""\
# open: AF_INET and AF_INET6, and PrivateNetwork= is not set: it serves over HTTP. AF_NETLINK: the C library and the
# GPU's libraries list network interfaces with it.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
"""
    )
    + """\
# open: all of /proc. CUDA reads /proc/driver, the memory plan /proc/meminfo and /proc/cpuinfo
ProcSubset=all
# open: mincore, which NVIDIA's driver library calls and @system-service has not
SystemCallFilter=@system-service mincore
# open: @resources. llama-server sets the priority and the cores of its threads, GPU drivers the place of their memory
SystemCallFilter=~@privileged
"""
)

FETCHING = (
    HARDENED.format(
        families="""\
# open: AF_INET and AF_INET6, and neither PrivateNetwork= nor IPAddressDeny= is set: it downloads. AF_NETLINK: the C
# library lists network interfaces with it when it looks up a name.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
"""
    )
    + """\
PrivateDevices=yes
PrivateUsers=yes
ProcSubset=pid
RestrictRealtime=yes
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
"""
)

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
    """Files, memory, out-of-memory order, CPU and I/O weight, locked memory, priority."""
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
    """The device nodes that may be opened."""
    if not spec.gpu:
        return "# no GPU is used\nPrivateDevices=yes\n"
    if not spec.device_policy:
        why = "--no-device-policy, or a Jetson, whose nodes have no common name"
        return f"# left open ({why}): DevicePolicy=\nPrivateDevices=no\n"
    nodes = ["char-drm rw", *DEVICE_NODES[spec.gpu]]
    return "\n".join([
        "# PrivateDevices= would hide the GPU: only its device nodes may be opened instead. The group is called",
        "# nvidia-frontend or nvidia, by driver; the pattern matches both, and nvidia-uvm. /dev/dxg is WSL's GPU.",
        "PrivateDevices=no",
        "DevicePolicy=closed",
        *(f"DeviceAllow={n}" for n in nodes),
        "SupplementaryGroups=render video",
        "",
    ])  # fmt: skip


def system_sandbox(spec: ServiceSpec) -> str:
    """The sandbox of a system service."""
    lines = [SERVING.rstrip()]
    lines += [
        "# not set: PrivateUsers=. A restarted supervisor would live in another user namespace than the engines it",
        "# adopts, and the kernel would hide them from it (ptrace access check, ProtectProc=invisible).",
    ]
    if spec.prio in PRIO_LIMITS:
        lines += [f"# open: --prio {spec.prio} makes real-time threads", "RestrictRealtime=no"]
    else:
        lines.append("RestrictRealtime=yes")
    lines += [
        "# no outgoing network. The socket has its own list for clients: this one does not apply to its connections",
        "IPAddressDeny=any",
        "IPAddressAllow=localhost",
    ]
    return "\n".join([*lines, ""])


def socket_access(spec: ServiceSpec) -> str:
    """The access list of the socket. It applies to accepted connections; the list of the service does not."""
    if not spec.system:
        return "# not set: IPAddressDeny=. A user's service manager cannot filter.\n"
    if is_loopback(spec.host):
        return "IPAddressDeny=any\nIPAddressAllow=localhost\n"
    if spec.allow_from:
        return f"IPAddressDeny=any\nIPAddressAllow=localhost {' '.join(spec.allow_from)}\n"
    return "# not set: IPAddressDeny=. The service listens beyond this machine, without --allow-from.\n"


def user_sandbox() -> str:
    """The sandbox of a user's service."""
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
# open: AF_INET and AF_INET6: it serves over HTTP. AF_NETLINK: the C library and the GPU's libraries list network
# interfaces with it.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
# open: mincore, which NVIDIA's driver library calls and @system-service has not
SystemCallFilter=@system-service mincore
SystemCallErrorNumber=EPERM
"""
