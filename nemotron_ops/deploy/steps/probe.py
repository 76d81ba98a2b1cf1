"""Asks a target for its facts: the script that prints them, and the parser of its output. Pure.

The script only reads. It is POSIX shell, the one thing that every target has, and prints `key=value` lines.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from nemotron_ops.deploy.steps.facts import (
    OLDEST_PYTHON,
    DiskFacts,
    GpuFacts,
    LockFacts,
    MachineFacts,
    PythonFacts,
    ReleaseFacts,
    TargetFacts,
)
from nemotron_ops.errors import DeployError
from nemotron_ops.service.spec import Scope

PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11", "python3")
ASK_GPU_S = 20  # nvidia-smi hangs with a broken driver


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
    """The facts in the script's output. Raises DeployError if it is something else."""
    answers = _Answers(text)
    if not (answers.has("user") and answers.has("home")):
        raise DeployError(
            "cannot read the target's facts: its shell printed something else",
            log_tail=tuple(printable(line) for line in text.splitlines()[-5:]),
        )
    return TargetFacts(
        **vars(_machine(answers)),
        **vars(_python(answers)),
        **vars(_disk(answers)),
        **vars(_gpus(answers)),
        **vars(_releases(answers)),
        **vars(_locks(answers)),
    )


class _Answers:
    """The `key=value` lines of the facts script."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[str]] = {}
        for line in text.splitlines():
            key, _, value = line.partition("=")
            self._values.setdefault(key, []).append(printable(value))

    def has(self, key: str) -> bool:
        return key in self._values

    def all(self, key: str) -> tuple[str, ...]:
        return tuple(self._values.get(key, ()))

    def text(self, key: str) -> str:
        """The last value of `key`, or ""."""
        return self._values.get(key, [""])[-1].strip()

    def yes(self, key: str) -> bool:
        return self.text(key) == "yes"

    def kib(self, key: str) -> int:
        """A value in KiB, as bytes."""
        return number(self.text(key)) * 1024


def _machine(answers: _Answers) -> MachineFacts:
    return MachineFacts(
        user=answers.text("user"),
        uid=int(answers.text("uid") or "-1"),
        home=answers.text("home"),
        hostname=answers.text("hostname"),
        machine=answers.text("machine"),
        glibc=version(answers.text("glibc")),
        cpu_features=frozenset(answers.text("cpu").split()),
        ram_available_bytes=answers.kib("ram_kib"),
        systemd=number(answers.text("systemd")),
        sudo=answers.yes("sudo"),
    )


def _python(answers: _Answers) -> PythonFacts:
    """The first Python that is new enough; without one, the newest."""
    found = list(zip(map(version, answers.all("python_version")), answers.all("python"), strict=False))
    new_enough = [p for p in found if p[0] >= OLDEST_PYTHON]
    best, path = new_enough[0] if new_enough else max(found, key=lambda p: p[0], default=((0, 0), ""))
    return PythonFacts(python=path, python_version=best)


def _disk(answers: _Answers) -> DiskFacts:
    models = (line.partition(" ") for line in answers.all("model"))
    return DiskFacts(
        free_bytes=answers.kib("free_kib"),
        data_free_bytes=answers.kib("data_free_kib"),
        one_disk=answers.yes("one_disk"),
        incoming_bytes=answers.kib("incoming_kib"),
        builds=answers.all("build"),
        models=frozenset((name, number(size)) for size, _, name in models),
    )


def _gpus(answers: _Answers) -> GpuFacts:
    compute = {major * 10 + minor for major, minor in map(version, answers.all("compute")) if major}
    return GpuFacts(
        gpus=number(answers.text("gpus")),
        compute=tuple(sorted(compute)),
        driver_cuda=version(answers.text("driver_cuda")),
        hip=answers.yes("hip"),
    )


def _releases(answers: _Answers) -> ReleaseFacts:
    return ReleaseFacts(
        current=PurePosixPath(answers.text("current")).name,
        previous=PurePosixPath(answers.text("previous")).name,
        releases=answers.all("release"),
        good=answers.all("good"),
        bad=answers.all("bad"),
    )


def _locks(answers: _Answers) -> LockFacts:
    return LockFacts(lock=answers.text("lock"), lock_alive=answers.yes("lock_alive"), hold=answers.text("hold"))


def printable(text: str) -> str:
    """`text` with its control characters escaped: what a target answers must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)


def version(text: str) -> tuple[int, int]:
    parts = text.strip().split(".")
    return (number(parts[0]), number(parts[1])) if len(parts) > 1 else (0, 0)


def number(text: str) -> int:
    digits = text.strip().split(".")[0].split("-")[0]
    return int(digits) if digits.isdigit() else 0
