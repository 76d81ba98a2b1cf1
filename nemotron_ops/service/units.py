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
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from nemotron_ops.addresses import is_loopback, is_wildcard
from nemotron_ops.service.hardening import (
    FETCHING,
    SMALL_SANDBOX,
    devices,
    limits,
    system_sandbox,
    user_sandbox,
    who_may_connect,
)
from nemotron_ops.service.words import address, command, word

NAME = "nemotron-ops"
SERVICE = f"{NAME}.service"
SOCKET = f"{NAME}.socket"
ENGINES = f"{NAME}-engines.service"
PREPARE = f"{NAME}-prepare.service"
RESUME = f"{NAME}-resume.service"
USER = "nemotron"
CREDENTIALS = "/etc/nemotron-ops/credentials"

GPU_WAIT_S = 30  # longer than StartLimitIntervalSec / StartLimitBurst: so waiting for a driver never uses up the starts

# exit codes (errors.py) that another start cannot cure: usage, recipe, no build, model, fit, listening side
HOPELESS = (2, 3, 6, 7, 8, 11)


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
    gpu_asked: str = "auto"  # what `gpu` was found from: an upgrade asks again
    api_keys: bool = False  # CREDENTIALS/api-keys exists
    key_file: str = ""  # keys of a user service, which has no credentials
    hub_token: bool = False  # CREDENTIALS/hub-token exists
    device_policy: bool = True
    allow_from: tuple[str, ...] = ()  # networks that may connect, besides this machine
    memory_max: str = ""  # MemoryMax= of the whole service
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def system(self) -> bool:
        """Whether it is the machine's service, not a user's."""
        return self.scope is Scope.SYSTEM


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
{who_may_connect(spec)}
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
    """The unit that ends what a stop left over; see the module's text."""
    systemctl = "systemctl" if spec.system else "systemctl --user"
    ended = f'case "$$({systemctl} show -P Job {SERVICE})" in ""|0) {systemctl} kill --signal=SIGKILL {SERVICE};; esac'
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
    if spec.api_keys and spec.system:
        words += ["--api-key-file", "${CREDENTIALS_DIRECTORY}/api-keys"]
    elif spec.key_file:
        words += ["--api-key-file", spec.key_file]
    return tuple(words)


def _free_bind(host: str) -> str:
    """An address of one network card may come up after the socket does."""
    return "" if is_loopback(host) or is_wildcard(host) else "FreeBind=yes\n"


def own_argv(spec: ServiceSpec, *words: str) -> tuple[str, ...]:
    """The command that runs the program with `words` as the user whom builds and models belong to."""
    if not spec.system:
        return (spec.program, *words)
    env = ("env", "NEMOTRON_OPS_SYSTEM=1", "HOME=/var/lib/nemotron-ops")
    return ("runuser", "-u", USER, "--", *env, spec.program, *words)


def build_words(spec: ServiceSpec) -> tuple[str, ...]:
    """The command that makes the build this service needs."""
    if spec.gpu:
        return ("build", f"--{spec.gpu}")
    return ("build", "--cpu") if spec.gpu_asked == "none" else ("build",)


def lacks_build(spec: ServiceSpec, backend: str) -> str:
    """Why the current build, which is for `backend` ("" if there is none), will not do; empty if it will."""
    if not backend:
        return "there is no build of llama.cpp"
    return f"the current build is for {backend}, not for {spec.gpu}" if spec.gpu not in ("", backend) else ""


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


def _unit_section(spec: ServiceSpec) -> str:
    after = [SOCKET, ENGINES]
    wants = [ENGINES]
    if spec.system and spec.gpu == "cuda":
        # device groups are resolved when the unit starts: without nvidia-uvm, the first start gets CUDA error 999
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
