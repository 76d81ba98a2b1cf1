"""Renders the unit files of a service. Pure.

    nemotron-ops.socket           holds the listening socket, so no client is refused while the service restarts
    nemotron-ops.service          `nemotron-ops serve …`
    nemotron-ops-engines.service  does nothing while it runs; when the service is *stopped* it kills what is left
    nemotron-ops-prepare.service  fetches models: the only unit with network access and the hub token (system only)
    nemotron-ops-resume.service   restarts after suspend on machines with GPUs (system only)

How a crash and a stop are distinguished: models take minutes to load, so engines outlive the supervisor. With
`KillMode=process` systemd signals only the supervisor, and the next supervisor adopts its engines. A stop must kill the
engines at any moment, also between a crash and the restart, when no `ExecStop=` of the service would run. The engines
unit does that: `PartOf=` passes every requested stop and restart on to it. If a job for the service is still queued, it
is a restart (systemd itself requests one after a crash), and no engine is killed.
"""

from __future__ import annotations

from nemotron_ops.addresses import is_loopback, is_wildcard
from nemotron_ops.errors import BuildError, FitError, GatewayError, ModelError, RecipeError, UsageError
from nemotron_ops.service.commands import serve_argv
from nemotron_ops.service.hardening import (
    FETCHING,
    SMALL_SANDBOX,
    devices,
    limits,
    socket_access,
    system_sandbox,
    user_sandbox,
)
from nemotron_ops.service.spec import CREDENTIALS, ENGINES, PREPARE, RESUME, SERVICE, SOCKET, USER, ServiceSpec
from nemotron_ops.service.words import address, command, word

GPU_WAIT_S = 30  # > StartLimitIntervalSec / StartLimitBurst: waiting for a driver never exhausts the starts

# Another start cannot help against these; after any other error systemd starts the service again.
PERMANENT_ERRORS = (UsageError, RecipeError, BuildError, ModelError, FitError, GatewayError)
PERMANENT_EXIT_CODES = tuple(error.exit_code for error in PERMANENT_ERRORS)


def unit_files(spec: ServiceSpec) -> dict[str, str]:
    """Every unit of the service: file name -> content."""
    files = {SOCKET: socket_unit(spec), SERVICE: service_unit(spec), ENGINES: engines_unit(spec)}
    if spec.system:
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
{_free_bind(spec.host)}FileDescriptorName=http
NoDelay=yes
# clients that come while the service restarts wait here
Backlog=4096
{socket_access(spec)}
[Install]
WantedBy=sockets.target
"""


def service_unit(spec: ServiceSpec) -> str:
    body = [_unit_section(spec), _service_section(spec), limits(spec)]
    if spec.system:
        body += [devices(spec), system_sandbox(spec)]
    else:
        body += [user_sandbox()]
    wanted_by = "multi-user.target" if spec.system else "default.target"
    return "\n".join([*body, f"[Install]\nWantedBy={wanted_by}\n"])


def engines_unit(spec: ServiceSpec) -> str:
    """The unit that kills what a stop left over; see the module's docstring."""
    systemctl = "systemctl" if spec.system else "systemctl --user"
    kill = f'case "$$({systemctl} show -P Job {SERVICE})" in ""|0) {systemctl} kill --signal=SIGKILL {SERVICE};; esac'
    sandbox = SMALL_SANDBOX if spec.system else "NoNewPrivileges=yes\n"
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
ExecStop=-/bin/sh -c '{kill}'
{sandbox}"""


def prepare_unit(spec: ServiceSpec) -> str:
    """A oneshot that fetches the models as the service's user, with the hub token and network access."""
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
    return "\n".join(lines) + "\n" + FETCHING


def resume_unit() -> str:
    return f"""\
[Unit]
Description=nemotron-ops: restart after suspend, when GPU contexts are lost
After=suspend.target hibernate.target hybrid-sleep.target suspend-then-hibernate.target nvidia-resume.service

[Service]
Type=oneshot
ExecStart=/bin/systemctl --no-block try-restart {SERVICE}
{SMALL_SANDBOX}
[Install]
WantedBy=suspend.target hibernate.target hybrid-sleep.target suspend-then-hibernate.target
"""


def _free_bind(host: str) -> str:
    """Needed for the address of a network interface that comes up after the socket."""
    return "" if is_loopback(host) or is_wildcard(host) else "FreeBind=yes\n"


def _unit_section(spec: ServiceSpec) -> str:
    after = [SOCKET, ENGINES]
    wants = [ENGINES]
    if spec.system and spec.gpu == "cuda":
        # device groups are resolved at the unit's start: without nvidia-uvm, the first start gets CUDA error 999
        wants += ["modprobe@nvidia.service", "modprobe@nvidia_uvm.service"]
        after += ["modprobe@nvidia.service", "modprobe@nvidia_uvm.service", "nvidia-persistenced.service"]
    if spec.system:
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
            "# waits until llama-server sees its GPU, and is retried: never a service that silently runs on the CPU",
            f"ExecStartPre={command((spec.program, 'service', 'check-gpu', spec.gpu, '--within', str(GPU_WAIT_S)))}",
        ]
    lines += [f"ExecStart={command(serve_argv(spec))}", "ExecReload=/bin/kill -HUP $MAINPID"]
    if spec.system:
        lines += _identity()
        if spec.api_keys:
            lines.append(f"LoadCredential=api-keys:{CREDENTIALS}/api-keys")
    lines += [f"Environment={word(f'{k}={v}')}" for k, v in sorted(spec.env.items())]
    return "\n".join([
        *lines,
        "Environment=PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1",
        "",
        "# up means: every model is loaded. A load that advances extends its time; one that stalls is cut.",
        "TimeoutStartSec=5min",
        "WatchdogSec=30s",
        "# draining (30 s) and the stop recipe of each engine (SIGTERM, SIGTERM, SIGKILL) fit in here",
        "TimeoutStopSec=120s",
        "TimeoutAbortSec=10s",
        "Restart=on-failure",
        "RestartSec=1s",
        f"RestartPreventExitStatus={' '.join(map(str, PERMANENT_EXIT_CODES))}",
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
