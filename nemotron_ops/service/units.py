"""The unit files of a service, complete. Pure.

    nemotron-ops.socket           holds the listening socket: nobody is refused while the service restarts
    nemotron-ops.service          `nemotron-ops serve …`
    nemotron-ops-engines.service  does nothing while it runs; when the service is *stopped* it ends what is left
    nemotron-ops-prepare.service  fetches models: the only unit with a way out and the hub token (system only)
    nemotron-ops-resume.service   restarts after suspend, where there are GPUs (system only)

How a crash and a stop are told apart. Models take minutes to load, so they outlive the supervisor: with
`KillMode=process` systemd signals only the supervisor, and a supervisor that was killed finds its engines again.
A stop must end them all the same, at any moment, also between a crash and the restart, when no `ExecStop=` of the
service would run. The engines unit does that: `PartOf=` hands it every stop and restart that is asked for; where a job
for the service is still queued, it is a restart (systemd itself asks for one after a crash), and nothing is ended.

Directives that a hardened unit would have and this one has not carry their reason as a comment in the unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

NAME = "nemotron-ops"
SERVICE = f"{NAME}.service"
SOCKET = f"{NAME}.socket"
ENGINES = f"{NAME}-engines.service"
PREPARE = f"{NAME}-prepare.service"
RESUME = f"{NAME}-resume.service"
USER = "nemotron"
CREDENTIALS = "/etc/nemotron-ops/credentials"

# llama-server --prio N: nice value, and SCHED_FIFO priority of its CPU threads (llama.cpp common.cpp
# set_process_priority, ggml-cpu ggml_thread_apply_priority). A limit below these grants nothing at all.
PRIO_LIMITS = {1: (-5, 40), 2: (-10, 80), 3: (-20, 90)}

# exit codes (errors.py) that another start cannot cure: usage, recipe, model, fit, listening side
HOPELESS = (2, 3, 7, 8, 11)


class Scope(StrEnum):
    SYSTEM = "system"
    USER = "user"


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """What is to run as a service. `program` is an absolute path; `options` are further words for `serve`."""

    scope: Scope
    program: str
    recipes: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8001
    profile: str = ""
    options: tuple[str, ...] = ()
    prio: int = 0  # llama-server's --prio, as the recipe or profile asks for it
    mlock: bool = False  # whether the recipe locks the model in memory
    gpu: str = ""  # "cuda", "hip", "vulkan" or "" for a CPU-only service
    api_keys: bool = False  # CREDENTIALS/api-keys exists
    hub_token: bool = False  # CREDENTIALS/hub-token exists
    device_policy: bool = True
    allow_from: tuple[str, ...] = ()  # networks that may connect, besides this machine
    memory_max: str = ""  # MemoryMax= of the whole service
    env: Mapping[str, str] = field(default_factory=dict)


def unit_files(spec: ServiceSpec) -> dict[str, str]:
    """Every unit of the service: file name -> content."""
    files = {SOCKET: socket_unit(spec), SERVICE: service_unit(spec), ENGINES: engines_unit(spec)}
    if spec.scope is Scope.SYSTEM:
        files[PREPARE] = prepare_unit(spec)
        if spec.gpu:
            files[RESUME] = resume_unit()
    return files


def socket_unit(spec: ServiceSpec) -> str:
    return f"""\
[Unit]
Description=nemotron-ops: listening socket

[Socket]
ListenStream={address(spec.host, spec.port)}
FileDescriptorName=http
NoDelay=yes
# clients that come while the service restarts wait here
Backlog=4096

[Install]
WantedBy=sockets.target
"""


def service_unit(spec: ServiceSpec) -> str:
    body = [_unit_section(spec), _service_section(spec), _limits(spec)]
    if spec.scope is Scope.SYSTEM:
        body += [_devices(spec), _system_sandbox(spec)]
    else:
        body += [_user_sandbox()]
    wanted_by = "multi-user.target" if spec.scope is Scope.SYSTEM else "default.target"
    return "\n".join([*body, f"[Install]\nWantedBy={wanted_by}\n"])


def engines_unit(spec: ServiceSpec) -> str:
    """The unit that ends what a stop left over; see the module's text."""
    systemctl = "systemctl --user" if spec.scope is Scope.USER else "systemctl"
    ended = f'case "$$({systemctl} show -P Job {SERVICE})" in ""|0) {systemctl} kill --signal=SIGKILL {SERVICE};; esac'
    sandbox = _SMALL_SANDBOX if spec.scope is Scope.SYSTEM else "NoNewPrivileges=yes\n"
    return f"""\
[Unit]
Description=nemotron-ops: ends the engines when the service is stopped
PartOf={SERVICE}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
# Runs after the service has stopped (it is ordered after this unit), so what its control group still holds is left
# over. No job left for the service: it was a stop. SIGKILL, because llama-server may hang on SIGTERM.
ExecStop=-/bin/sh -c '{ended}'
{sandbox}"""


def prepare_unit(spec: ServiceSpec) -> str:
    """A oneshot that fetches the models as the service's user, with the hub token and a way out."""
    lines = [
        "[Unit]",
        "Description=nemotron-ops: fetch models",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=oneshot",
        *_identity(),
        "TimeoutStartSec=infinity",
    ]
    if spec.hub_token:
        lines += [
            f"LoadCredential=hub-token:{CREDENTIALS}/hub-token",
            "# huggingface_hub reads the token from this file: it is in no environment and no command line",
            f"Environment=HF_TOKEN_PATH=/run/credentials/{PREPARE}/hub-token",
        ]
    lines += [f"ExecStart={command((spec.program, 'fetch', recipe))}" for recipe in spec.recipes]
    return "\n".join(lines) + "\n" + _HARDENED + "PrivateDevices=yes\nPrivateUsers=yes\n"


def resume_unit() -> str:
    return f"""\
[Unit]
Description=nemotron-ops: restart after suspend, when GPU contexts are lost
After=suspend.target hibernate.target hybrid-sleep.target suspend-then-hibernate.target nvidia-resume.service

[Service]
Type=oneshot
ExecStart=/bin/systemctl --no-block try-restart {SERVICE}
{_SMALL_SANDBOX}
[Install]
WantedBy=suspend.target hibernate.target hybrid-sleep.target suspend-then-hibernate.target
"""


def sysusers_conf() -> str:
    """sysusers.d: a static user, because a dynamic one's uid changes and shared model files suffer."""
    return f"""\
g render - -
u {USER} - "nemotron-ops service" /var/lib/nemotron-ops /usr/sbin/nologin
m {USER} render
m {USER} video
"""


def serve_argv(spec: ServiceSpec) -> tuple[str, ...]:
    """The command line of the service. It builds and fetches nothing: that is done before it starts."""
    words = [spec.program, "serve", *spec.recipes, "--host", spec.host, "--port", str(spec.port)]
    if spec.profile:
        words += ["--profile", spec.profile]
    words += ["--no-build", "--offline", *spec.options]
    if spec.api_keys and spec.scope is Scope.SYSTEM:
        words += ["--api-key-file", "${CREDENTIALS_DIRECTORY}/api-keys"]
    return tuple(words)


def notes(spec: ServiceSpec) -> tuple[str, ...]:
    """What the service will not get, in words, so that nobody has to find out."""
    found = []
    if spec.scope is Scope.USER:
        if spec.prio > 0:
            found.append(
                f"--prio {spec.prio} will have no effect: a user service cannot raise its priority; use --system"
            )
        if spec.mlock:
            found.append("locking the model in memory works only up to `ulimit -l` of this user; use --system")
        if spec.gpu:
            found.append("a user service starts without waiting for the GPU driver; it is retried until a GPU is there")
    elif spec.prio >= 2:
        found.append(f"--prio {spec.prio}: real-time threads of the CPU backend can starve a small machine")
    if not is_loopback(spec.host) and not spec.allow_from and spec.scope is Scope.SYSTEM:
        found.append(f"any network that reaches {address(spec.host, spec.port)} may connect; --allow-from narrows it")
    return tuple(found)


def address(host: str, port: int) -> str:
    """`host:port`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{'127.0.0.1' if host == 'localhost' else host}:{port}"


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def command(argv: tuple[str, ...]) -> str:
    """`argv` as the value of ExecStart=."""
    return " ".join(word(w) for w in argv)


def word(text: str) -> str:
    """One word of a command line, quoted as systemd.syntax(7) wants it; `${NAME}` alone is left to systemd."""
    if any(ord(c) < 32 for c in text):
        raise ValueError(f"control character in {text!r}")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if not escaped.startswith("${CREDENTIALS_DIRECTORY}"):
        escaped = escaped.replace("$", "$$")
    plain = escaped and all(c.isalnum() or c in "-_=./:,@+%${}" for c in escaped)
    return escaped if plain else f'"{escaped}"'


def _unit_section(spec: ServiceSpec) -> str:
    system = spec.scope is Scope.SYSTEM
    after = [SOCKET, ENGINES]
    wants = [ENGINES]
    if system and spec.gpu == "cuda":
        # device groups are resolved when the unit starts: without nvidia-uvm, the first start gets CUDA error 999
        wants += ["modprobe@nvidia.service", "modprobe@nvidia_uvm.service"]
        after += ["modprobe@nvidia.service", "modprobe@nvidia_uvm.service", "nvidia-persistenced.service"]
    if system:
        after += ["network.target", "systemd-modules-load.service"]
    return "\n".join([
        "[Unit]",
        "Description=nemotron-ops: Nemotron models behind one OpenAI-compatible endpoint",
        f"Requires={SOCKET}",
        f"Wants={' '.join(wants)}",
        f"After={' '.join(after)}",
        "# a crashed supervisor is back in a second and finds its engines; many crashes in a row are worth an operator",
        "StartLimitIntervalSec=10min",
        "StartLimitBurst=30",
        "",
    ])  # fmt: skip


def _service_section(spec: ServiceSpec) -> str:
    lines = ["[Service]", "Type=notify", "NotifyAccess=main"]
    if spec.gpu:
        lines += [
            "# fails, and is retried, until the GPU is there: never a service that silently runs on the CPU",
            f"ExecStartPre={command((spec.program, 'service', 'check-gpu', spec.gpu))}",
        ]
    lines += [f"ExecStart={command(serve_argv(spec))}", "ExecReload=/bin/kill -HUP $MAINPID"]
    if spec.scope is Scope.SYSTEM:
        lines += _identity()
        if spec.api_keys:
            lines.append(f"LoadCredential=api-keys:{CREDENTIALS}/api-keys")
    lines += [f"Environment={word(f'{k}={v}')}" for k, v in sorted(spec.env.items())]
    return "\n".join([
        *lines,
        "Environment=PYTHONUNBUFFERED=1",
        "",
        "# up means: every model is loaded. A load that advances extends its time; one that stalls is cut.",
        "TimeoutStartSec=5min",
        "WatchdogSec=30s",
        "# draining (30 s) and the stop recipe of each engine (SIGTERM, SIGTERM, SIGKILL) fit in here",
        "TimeoutStopSec=120s",
        "TimeoutAbortSec=10s",
        "Restart=on-failure",
        "RestartSec=1s",
        f"RestartPreventExitStatus={' '.join(map(str, HOPELESS))}",
        "# engines and open streams outlive a crashed supervisor; nemotron-ops-engines.service ends them at a stop",
        "KillMode=process",
        "",
    ])  # fmt: skip


def _identity() -> list[str]:
    return [
        f"User={USER}",
        f"Group={USER}",
        "Environment=NEMOTRON_OPS_SYSTEM=1 HOME=/var/lib/nemotron-ops",
        "WorkingDirectory=/var/lib/nemotron-ops",
        "StateDirectory=nemotron-ops",
        "CacheDirectory=nemotron-ops",
        "LogsDirectory=nemotron-ops",
        "RuntimeDirectory=nemotron-ops",
        "RuntimeDirectoryMode=0700",
        "# sockets of engines that outlive the supervisor",
        "RuntimeDirectoryPreserve=yes",
        "UMask=0077",
    ]


def _limits(spec: ServiceSpec) -> str:
    lines = ["LimitNOFILE=65536", "LimitCORE=0", "TasksMax=4096"]
    if spec.memory_max:
        lines.append(f"MemoryMax={spec.memory_max}")
    lines.append("# out of memory: the kernel takes an engine (which raises its own score), not the supervisor")
    lines.append("OOMPolicy=continue")
    if spec.scope is Scope.USER:
        return "\n".join([*lines, ""])
    lines += ["OOMScoreAdjust=-100", "CPUWeight=500", "IOWeight=500"]
    if spec.mlock:
        lines += ["# the model is locked in memory", "LimitMEMLOCK=infinity"]
    if spec.prio in PRIO_LIMITS:
        nice, rtprio = PRIO_LIMITS[spec.prio]
        lines += [f"# exactly what --prio {spec.prio} takes", f"LimitNICE={nice}", f"LimitRTPRIO={rtprio}"]
    return "\n".join([*lines, ""])


def _devices(spec: ServiceSpec) -> str:
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


def _system_sandbox(spec: ServiceSpec) -> str:
    lines = [_HARDENED.rstrip()]
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


def _user_sandbox() -> str:
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


_HARDENED = """\
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

_SMALL_SANDBOX = """\
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
