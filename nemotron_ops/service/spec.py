"""What a service is: its names, its user, and the specification that its units are rendered from. Pure."""

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


class Scope(StrEnum):
    """Which service manager runs the service: the machine's, or a user's."""

    SYSTEM = "system"
    USER = "user"


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """A service to install. `program` is an absolute path; `options` are further words for `serve`."""

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
    gpu_asked: str = "auto"  # the option that `gpu` was resolved from; an upgrade resolves it again
    api_keys: bool = False  # whether CREDENTIALS/api-keys exists
    key_file: str = ""  # of a user service, which has no credentials
    hub_token: bool = False  # whether CREDENTIALS/hub-token exists
    device_policy: bool = True
    allow_from: tuple[str, ...] = ()  # networks that may connect, besides this machine
    memory_max: str = ""  # MemoryMax= of the whole service
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def system(self) -> bool:
        """Whether it is the machine's service, not a user's."""
        return self.scope is Scope.SYSTEM


def sysusers_conf() -> str:
    """sysusers.d: a static user. The uid of a dynamic one changes, and with it the owner of model files."""
    return f"""\
g render - -
u {USER} - "nemotron-ops service" /var/lib/nemotron-ops /usr/sbin/nologin
m {USER} render
m {USER} video
"""
