"""What is known of a target: the script that asks, and the answer. Pure.

The script only reads. It is POSIX shell, because nothing else can be taken for granted over there, and prints
`key=value` lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from nemotron_ops.errors import DeployError
from nemotron_ops.service.spec import Scope

OLDEST_PYTHON = (3, 11)
PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11", "python3")

ASK_GPU_S = 20  # nvidia-smi hangs where a driver is sick


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
    free_bytes: int = 0  # where releases are kept
    data_free_bytes: int = 0  # where builds and models are kept
    one_disk: bool = True  # whether that is the same file system
    incoming_bytes: int = 0  # of an earlier deploy that was cut off: not sent again
    builds: tuple[str, ...] = ()  # ids of llama.cpp builds that are there
    models: frozenset[tuple[str, int]] = frozenset()  # name and bytes of each GGUF file that is there
    ram_available_bytes: int = 0
    current: str = ""  # release that `current` points to
    previous: str = ""
    releases: tuple[str, ...] = ()
    good: tuple[str, ...] = ()  # releases marked good, oldest first
    bad: tuple[str, ...] = ()
    lock: str = ""  # JSON: who deploys there now, or was cut off doing so
    lock_alive: bool = False  # whether that session is still there
    hold: str = ""  # JSON of a lock that a person put down
    gpus: int = 0  # NVIDIA device nodes
    compute: tuple[int, ...] = ()  # compute capabilities of its NVIDIA GPUs: 90 for 9.0
    driver_cuda: tuple[int, int] = (0, 0)  # newest CUDA that its driver runs
    hip: bool = False  # an AMD GPU, and the compiler for it

    @property
    def backend(self) -> str:
        """What `build` would build for there (builds/backends.py: default_backend)."""
        return "cuda" if self.gpus or self.compute else "hip" if self.hip else "cpu"


def site_for(scope: Scope, *, home: str) -> Site:
    if scope is Scope.SYSTEM:
        return Site(scope=scope, root=PurePosixPath("/opt/nemotron-ops"), data=PurePosixPath("/var/lib/nemotron-ops"))
    base = PurePosixPath(home)
    return Site(scope=scope, root=base / ".local/lib/nemotron-ops", data=base / ".local/share/nemotron-ops")


def facts_script(scope: Scope) -> str:
    """Prints what `parse_facts` reads."""
    system = scope is Scope.SYSTEM
    root = "/opt/nemotron-ops" if system else '"$HOME/.local/lib/nemotron-ops"'
    data = "/var/lib/nemotron-ops" if system else '"$HOME/.local/share/nemotron-ops"'
    return f"""\
root={root}; data={data}
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
there() {{ d="$1"; while [ ! -d "$d" ]; do d=$(dirname "$d"); done; printf '%s' "$d"; }}
disk() {{ df -Pk "$(there "$1")" | tail -n1 | awk "{{print \\$$2}}"; }}
say free_kib "$(disk "$root" 4)"; say data_free_kib "$(disk "$data" 4)"
[ "$(disk "$root" 6)" = "$(disk "$data" 6)" ] && say one_disk yes
say incoming_kib "$(du -sk "$root/incoming" 2>/dev/null | cut -f1)"
for b in "$data"/builds/*/manifest.json; do [ -f "$b" ] && say build "$(basename "$(dirname "$b")")"; done
find "$data/models" -name '*.gguf' -printf 'model=%s %f\\n' 2>/dev/null
say ram_kib "$(awk '/^MemAvailable/ {{print $2}}' /proc/meminfo 2>/dev/null)"
say current "$(readlink "$root/current" 2>/dev/null)"
say previous "$(readlink "$root/previous" 2>/dev/null)"
for r in $(ls -tr "$root/releases" 2>/dev/null); do
  [ -f "$root/releases/$r/RELEASE.json" ] && say release "$r"
  [ -f "$root/releases/$r/GOOD" ] && say good "$r"
  [ -f "$root/releases/$r/BAD" ] && say bad "$r"
done
if [ -f "$root/LOCK.json" ]; then
  say lock "$(tr -d '\\n' < "$root/LOCK.json")"
  number() {{ sed -n "s/.*\\"$1\\": \\([0-9]*\\).*/\\1/p" "$root/LOCK.json"; }}
  now=$(sed 's/.*) //' "/proc/$(number sid)/stat" 2>/dev/null | cut -d' ' -f20)
  [ -n "$now" ] && [ "$now" = "$(number start)" ] && say lock_alive yes
fi
[ -f "$root/HOLD.json" ] && say hold "$(tr -d '\\n' < "$root/HOLD.json")"
say gpus "$(ls /dev 2>/dev/null | grep -c '^nvidia[0-9]')"
if command -v nvidia-smi >/dev/null 2>&1; then
  for c in $(timeout {ASK_GPU_S} nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null); do
    say compute "$c"
  done
  say driver_cuda "$(timeout {ASK_GPU_S} nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\\([0-9.]*\\).*/\\1/p')"
fi
if [ -e /dev/kfd ] && {{ command -v hipcc >/dev/null 2>&1 || [ -x /opt/rocm/bin/hipcc ]; }}; then say hip yes; fi
"""


def parse_facts(text: str) -> TargetFacts:
    """The facts in the script's output. Of several Pythons, the first that is new enough counts."""
    value: dict[str, str] = {}
    lists: dict[str, list[str]] = {key: [] for key in ("release", "good", "bad", "build", "model", "compute")}
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
        cpu_features=frozenset(value.get("cpu", "").split()),
        systemd=number(value.get("systemd", "")),
        sudo=value.get("sudo") == "yes",
        free_bytes=number(value.get("free_kib", "")) * 1024,
        data_free_bytes=number(value.get("data_free_kib", "")) * 1024,
        one_disk=value.get("one_disk") == "yes",
        incoming_bytes=number(value.get("incoming_kib", "")) * 1024,
        builds=tuple(lists["build"]),
        models=frozenset((name, number(size)) for size, _, name in (m.partition(" ") for m in lists["model"])),
        ram_available_bytes=number(value.get("ram_kib", "")) * 1024,
        current=PurePosixPath(value.get("current", "")).name,
        previous=PurePosixPath(value.get("previous", "")).name,
        releases=tuple(lists["release"]),
        good=tuple(lists["good"]),
        bad=tuple(lists["bad"]),
        lock=value.get("lock", ""),
        lock_alive=value.get("lock_alive") == "yes",
        hold=value.get("hold", ""),
        gpus=number(value.get("gpus", "")),
        compute=tuple(sorted({major * 10 + minor for major, minor in map(version, lists["compute"]) if major})),
        driver_cuda=version(value.get("driver_cuda", "")),
        hip=value.get("hip") == "yes",
    )


def check_target(name: str, facts: TargetFacts, scope: Scope) -> None:
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


def version(text: str) -> tuple[int, int]:
    parts = text.strip().split(".")
    return (number(parts[0]), number(parts[1])) if len(parts) > 1 else (0, 0)


def dotted(value: tuple[int, int]) -> str:
    return f"{value[0]}.{value[1]}"


def number(text: str) -> int:
    digits = text.strip().split(".")[0].split("-")[0]
    return int(digits) if digits.isdigit() else 0
