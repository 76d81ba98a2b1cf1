"""The lock of our dependencies: one version of each, and the sha256 of its files. Pure.

`data/requirements.lock` is made by `make lock`, in pip's own format, for all platforms; the versions are those that the
tests ran with. Only files with these hashes are packed, and pip on the target installs only these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.requirements import Requirement

from nemotron_ops.errors import DeployError

CONTINUED = "\\\n"
HASH = "--hash=sha256:"


@dataclass(frozen=True, kw_only=True)
class Locked:
    """One dependency: its requirement (`name==version`, without its marker), and the sha256 of each of its files."""

    requirement: str
    sha256s: frozenset[str]

    @property
    def line(self) -> str:
        """The dependency as a line that `pip --require-hashes` reads."""
        return " ".join((self.requirement, *(f"{HASH}{digest}" for digest in sorted(self.sha256s))))


def locked_for(text: str, environment: Mapping[str, str]) -> tuple[Locked, ...]:
    """The dependencies of a lock whose markers hold in `environment`, the target's.

    pip itself would evaluate the markers for the Python that it runs with.
    """
    found = []
    for line in text.replace(CONTINUED, " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words, _, hashes = line.partition(HASH)
        requirement = Requirement(words.strip())
        if not requirement.marker or requirement.marker.evaluate(dict(environment)):
            digests = frozenset(h.strip() for h in hashes.split(HASH) if h.strip())
            found.append(Locked(requirement=f"{requirement.name}{requirement.specifier}", sha256s=digests))
    return tuple(found)


def requirements_text(locked: Iterable[Locked]) -> str:
    """A requirements file with one line for each dependency."""
    return "".join(f"{one.line}\n" for one in locked)


def check_files(hashes: Mapping[str, str], locked: Iterable[Locked], *, where: str) -> None:
    """Raise DeployError where a file (name -> sha256) is not a locked one, or one of the locked is missing."""
    wanted = tuple(locked)
    every = frozenset[str]().union(*(one.sha256s for one in wanted))
    changed = sorted(name for name, digest in hashes.items() if digest not in every)
    missing = [one.requirement for one in wanted if one.sha256s.isdisjoint(hashes.values())]
    if changed or missing:
        why = f"{', '.join(changed)} there: not the locked file" if changed else f"{', '.join(missing)} missing there"
        raise DeployError(f"cannot make the bundle from {where}: {why}", hint=f"have it fetched again: rm -r {where}")
