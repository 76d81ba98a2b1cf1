"""What is installed of nemotron-ops: how, whether it is whole, and the command that upgrades it. Disk."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from nemotron_ops.errors import HostError

NAME = "nemotron-ops"
MOST_FAULTS = 20


@dataclass(frozen=True, kw_only=True)
class OwnInstallation:
    """This installation. `how` is pip, pipx, uv, source (a checkout), or deploy (a release on a target)."""

    version: str
    how: str
    place: str
    files: int = 0
    packages: int = 0
    faults: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        return not self.faults


def look() -> OwnInstallation:
    """This installation, with what is wrong with it. Raises HostError if it is none."""
    try:
        found = metadata.distribution(NAME)
    except metadata.PackageNotFoundError as exc:
        raise HostError(
            f"cannot find the installation of {NAME}: it runs from {Path(__file__).parents[2]}",
            hint="install it with pip, pipx or uv",
        ) from exc
    how = how_installed(Path(sys.prefix), editable=_is_editable(found))
    count, changed = (0, []) if how == "source" else _changed_files(found)
    needed, missing = _missing_packages(found.requires or ())
    faults = tuple([*changed, *missing][:MOST_FAULTS])
    return OwnInstallation(
        version=found.version, how=how, place=sys.prefix, files=count, packages=needed, faults=faults
    )  # fmt: skip


def how_installed(prefix: Path, *, editable: bool) -> str:
    """Which program installed what is in `prefix`, by the folders that each uses."""
    if editable:
        return "source"
    parts = prefix.parts
    if "pipx" in parts and "venvs" in parts:
        return "pipx"
    if (prefix / "uv-receipt.toml").is_file():
        return "uv"
    return "deploy" if "releases" in parts and (prefix.parent / "facts.json").is_file() else "pip"


def upgrade_argv(found: OwnInstallation, source: str) -> list[str]:
    """The command that installs a newer version. Raises HostError where another program has to do it."""
    wheel = source != NAME
    match found.how:
        case "source":
            raise HostError(
                f"cannot upgrade {found.place}: it runs from a checkout", hint="in the checkout: git pull, make setup"
            )
        case "deploy":
            raise HostError(
                "cannot upgrade a release on a target: its files belong to the deploy",
                hint="from the machine that deployed it: nemotron-ops deploy run TARGET",
            )
        case "pipx":
            return ["pipx", "install", "--force", source] if wheel else ["pipx", "upgrade", NAME]
        case "uv":
            return ["uv", "tool", "install", "--force", source] if wheel else ["uv", "tool", "upgrade", NAME]
        case _:
            return [sys.executable, "-m", "pip", "install", "--upgrade", source]


def _is_editable(found: metadata.Distribution) -> bool:
    text = found.read_text("direct_url.json")
    try:
        return bool(text and json.loads(text).get("dir_info", {}).get("editable"))
    except (ValueError, AttributeError):
        return False


def _changed_files(found: metadata.Distribution) -> tuple[int, list[str]]:
    """How many files were packed, and which of them are missing or changed since."""
    faults, count = [], 0
    for file in found.files or ():
        if file.hash is None or file.hash.mode != "sha256":
            continue
        count += 1
        path = Path(str(found.locate_file(file)))
        try:
            digest = hashlib.sha256(path.read_bytes()).digest()
        except OSError as exc:
            faults.append(f"{path}: {exc.strerror or exc}")
            continue
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            faults.append(f"{path}: has changed since it was installed")
    return count, faults


def _missing_packages(requirements: Sequence[str]) -> tuple[int, list[str]]:
    """How many packages are needed here, and which are missing or of the wrong version."""
    from packaging.requirements import Requirement

    faults, count = [], 0
    for text in requirements:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            faults.append(f"{needed.name}: is not installed")
            continue
        if not needed.specifier.contains(version, prereleases=True):
            faults.append(f"{needed.name}: is {version}, needed is {needed.specifier}")
    return count, faults
