"""What is known of a target: the script that asks, and the answer. Pure.

The script only reads. It is POSIX shell, because nothing else can be taken for granted over there, and prints
`key=value` lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from nemotron_ops.errors import DeployError
from nemotron_ops.service.units import Scope

OLDEST_PYTHON = (3, 11)
PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11", "python3")

# CPU features that llama.cpp compiles in when it builds for the machine at hand (ggml/src/ggml-cpu/CMakeLists.txt,
# GGML_NATIVE); a binary with one of them dies with SIGILL on a machine without it
CPU_FEATURES = ("sse4_2", "avx", "f16c", "fma", "bmi2", "avx2", "avx_vnni", "avx512f", "avx512cd", "avx512vl",
                "avx512dq", "avx512bw", "avx512_vnni", "avx512_vbmi", "avx512_bf16", "amx_tile", "amx_int8",
                "amx_bf16", "asimddp", "asimdhp", "i8mm", "sve", "sve2")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where releases live on a target, for one scope."""

    scope: Scope
    root: PurePosixPath  # /opt/nemotron-ops, or ~/.local/lib/nemotron-ops
    data: PurePosixPath  # builds and models

    @property
    def releases(self) -> PurePosixPath:
        return self.root / "releases"

    @property
    def incoming(self) -> PurePosixPath:
        return self.root / "incoming"

    @property
    def current(self) -> PurePosixPath:
        return self.root / "current"

    @property
    def previous(self) -> PurePosixPath:
        return self.root / "previous"

    @property
    def program(self) -> PurePosixPath:
        """The program as units name it: through `current`."""
        return self.current / "venv/bin/nemotron-ops"

    def release(self, release: str) -> PurePosixPath:
        return self.releases / release

    def release_program(self, release: str) -> PurePosixPath:
        return self.release(release) / "venv/bin/nemotron-ops"


@dataclass(frozen=True, kw_only=True)
class TargetFacts:
    """A target as its facts script found it."""

    user: str
    uid: int
    home: str
    hostname: str
    machine: str
    python: str = ""  # path of the newest Python that will do, or of the newest at all
    python_version: tuple[int, int] = (0, 0)
    glibc: tuple[int, int] = (0, 0)
    cpu_features: frozenset[str] = frozenset()
    systemd: int = 0  # version, 0 where systemd does not run the machine
    sudo: bool = False  # sudo without a password
    free_bytes: int = 0
    ram_available_bytes: int = 0
    current: str = ""  # release that `current` points to
    previous: str = ""
    releases: tuple[str, ...] = ()
    good: tuple[str, ...] = ()  # releases marked good, oldest first
    bad: tuple[str, ...] = ()
    lock: str = ""  # JSON: who deploys there now, or was cut off doing so
    hold: str = ""  # JSON of a lock that a person put down
    gpus: int = 0  # NVIDIA device nodes


def site_for(scope: Scope, *, home: str) -> Site:
    if scope is Scope.SYSTEM:
        return Site(scope=scope, root=PurePosixPath("/opt/nemotron-ops"), data=PurePosixPath("/var/lib/nemotron-ops"))
    base = PurePosixPath(home)
    return Site(scope=scope, root=base / ".local/lib/nemotron-ops", data=base / ".local/share/nemotron-ops")


def facts_script(scope: Scope) -> str:
    """Prints what `parse_facts` reads."""
    root = "/opt/nemotron-ops" if scope is Scope.SYSTEM else '"$HOME/.local/lib/nemotron-ops"'
    return f"""\
root={root}
say() {{ printf '%s=%s\\n' "$1" "$2"; }}
say user "$(id -un)"; say uid "$(id -u)"; say home "$HOME"; say hostname "$(uname -n)"; say machine "$(uname -m)"
for p in {" ".join(PYTHONS)}; do
  command -v "$p" >/dev/null 2>&1 || continue
  say python "$(command -v "$p")"
  say python_version "$("$p" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
done
say glibc "$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2)"
say cpu "$(grep -m1 -E '^(flags|Features)' /proc/cpuinfo 2>/dev/null | cut -d: -f2)"
[ -d /run/systemd/system ] && say systemd "$(systemctl --version | head -n1 | cut -d' ' -f2)"
sudo -n true 2>/dev/null && say sudo yes
d="$root"; while [ ! -d "$d" ]; do d=$(dirname "$d"); done
say free_kib "$(df -Pk "$d" | tail -n1 | awk '{{print $4}}')"
say ram_kib "$(awk '/^MemAvailable/ {{print $2}}' /proc/meminfo 2>/dev/null)"
say current "$(readlink "$root/current" 2>/dev/null)"
say previous "$(readlink "$root/previous" 2>/dev/null)"
for r in $(ls -tr "$root/releases" 2>/dev/null); do
  [ -f "$root/releases/$r/RELEASE.json" ] && say release "$r"
  [ -f "$root/releases/$r/GOOD" ] && say good "$r"
  [ -f "$root/releases/$r/BAD" ] && say bad "$r"
done
[ -f "$root/LOCK.json" ] && say lock "$(tr -d '\\n' < "$root/LOCK.json")"
[ -f "$root/HOLD.json" ] && say hold "$(tr -d '\\n' < "$root/HOLD.json")"
say gpus "$(ls /dev 2>/dev/null | grep -c '^nvidia[0-9]')"
"""


def parse_facts(text: str) -> TargetFacts:
    """The facts in the script's output. Of several Pythons, the first that is new enough counts."""
    value: dict[str, str] = {}
    lists: dict[str, list[str]] = {"release": [], "good": [], "bad": []}
    pythons: list[tuple[str, tuple[int, int]]] = []
    for line in text.splitlines():
        key, _, rest = line.partition("=")
        if key in lists:
            lists[key].append(rest)
        elif key == "python_version":
            pythons.append((value.get("python", ""), version(rest)))
        else:
            value[key] = rest.strip()
    if "user" not in value or "home" not in value:
        raise DeployError(
            "cannot read the target's facts: its shell answered something else", log_tail=tuple(text.splitlines()[-5:])
        )
    fit = [p for p in pythons if p[1] >= OLDEST_PYTHON] or sorted(pythons, key=lambda p: p[1], reverse=True)
    python, python_version = fit[0] if fit else ("", (0, 0))
    return TargetFacts(
        user=value["user"],
        uid=int(value.get("uid", "-1")),
        home=value["home"],
        hostname=value.get("hostname", ""),
        machine=value.get("machine", ""),
        python=python,
        python_version=python_version,
        glibc=version(value.get("glibc", "")),
        cpu_features=frozenset(value.get("cpu", "").split()) & frozenset(CPU_FEATURES),
        systemd=number(value.get("systemd", "")),
        sudo=value.get("sudo") == "yes",
        free_bytes=number(value.get("free_kib", "")) * 1024,
        ram_available_bytes=number(value.get("ram_kib", "")) * 1024,
        current=PurePosixPath(value.get("current", "")).name,
        previous=PurePosixPath(value.get("previous", "")).name,
        releases=tuple(lists["release"]),
        good=tuple(lists["good"]),
        bad=tuple(lists["bad"]),
        lock=value.get("lock", ""),
        hold=value.get("hold", ""),
        gpus=number(value.get("gpus", "")),
    )


def check_target(name: str, facts: TargetFacts, scope: Scope, *, need_bytes: int) -> None:
    """Raise DeployError where a release cannot live on this target, with what would help."""
    if facts.python_version < OLDEST_PYTHON:
        found = f"{facts.python} is {dotted(facts.python_version)}" if facts.python else "there is none"
        raise DeployError(
            f"cannot deploy to {name}: Python {dotted(OLDEST_PYTHON)} or newer is needed there, and {found}",
            hint="install a newer one beside it: python3.11 on Debian 12 and RHEL 9, `uv python install` without root",
        )
    if not facts.systemd:
        raise DeployError(f"cannot deploy to {name}: systemd does not run that machine")
    if scope is Scope.SYSTEM and facts.uid != 0 and not facts.sudo:
        raise DeployError(
            f"cannot deploy to {name}: a system service takes root, and {facts.user} has no sudo without a password",
            hint=f"deploy a user service (leave out --system), or deploy to root@{name}",
        )
    if facts.free_bytes < need_bytes:
        raise DeployError(
            f"cannot deploy to {name}: {need_bytes >> 20} MiB are needed there, {facts.free_bytes >> 20} MiB are free",
            hint=f"remove old releases or models: nemotron-ops deploy exec {name} builds prune",
        )


def build_fits(*, machine: str, glibc: tuple[int, int], cpu_features: frozenset[str], facts: TargetFacts) -> str:
    """Why a build from a machine like the first three cannot run on the target; "" if it can."""
    if machine != facts.machine:
        return f"it is for {machine}, the target is {facts.machine}"
    if glibc > facts.glibc:
        return f"it needs glibc {dotted(glibc)}, the target has {dotted(facts.glibc)}"
    lacking = sorted((cpu_features & frozenset(CPU_FEATURES)) - facts.cpu_features)
    return f"the target's CPU lacks {', '.join(lacking)}" if lacking else ""


def version(text: str) -> tuple[int, int]:
    parts = text.strip().split(".")
    return (number(parts[0]), number(parts[1])) if len(parts) > 1 else (0, 0)


def dotted(value: tuple[int, int]) -> str:
    return f"{value[0]}.{value[1]}"


def number(text: str) -> int:
    digits = text.strip().split(".")[0].split("-")[0]
    return int(digits) if digits.isdigit() else 0
