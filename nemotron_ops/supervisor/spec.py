"""What the supervisor runs: one frozen spec per instance, complete and serialisable. Pure.

The spec is complete: the supervisor resolves nothing. It is composed from a Plan, a build and a model. Two specs with
the same `fingerprint` run the same process, so a reload leaves it alone.
"""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from nemotron_ops.policy import Health, Lifecycle, Restart, RestartPolicy
from nemotron_ops.supervisor.snapshot import ModelView

UNIFIED = frozenset({"--kv-unified", "-kvu"})
DIVIDED = frozenset({"--no-kv-unified", "-no-kvu"})


@dataclass(frozen=True, kw_only=True)
class InstanceSpec:
    """One llama-server to keep running.

    `argv` is the complete command line, but for the words `{socket}`, `{api_key_file}` and `{slots_dir}`: the
    supervisor replaces them by each process's own unix socket, key file and folder for slot files.
    `env` is added to a scrubbed environment. `model` names the ModelView it serves.
    """

    name: str  # "30b-0": model and replica number; file-name safe
    model: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    slots: int = 1
    ctx_tokens: int = 0
    memory_bytes: Mapping[str, int] = field(default_factory=dict)  # device name -> bytes it will take
    may_shrink: bool = False  # the context is a default: after a death for lack of memory it may be halved
    build: str = ""  # build id
    files: tuple[str, ...] = ()  # model files it reads
    restart: Restart = field(default_factory=Restart)
    health: Health = field(default_factory=Health)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that defines the process: argv, env, build, files."""
        what = [list(self.argv), dict(self.env), self.build, list(self.files)]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def kv_unified(self) -> bool:
        """Whether the slots share one context: read from the command line, which records of any version have."""
        said = [word for word in self.argv if word in UNIFIED or word in DIVIDED]
        return bool(said) and said[-1] in UNIFIED


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything one supervisor runs.

    `capacity_bytes` is the budget of all instances together, by device name as in `InstanceSpec.memory_bytes`; other
    devices have no limit.
    """

    models: tuple[ModelView, ...]
    instances: tuple[InstanceSpec, ...]
    default_model: str = ""
    capacity_bytes: Mapping[str, int] = field(default_factory=dict)


def to_json(spec: InstanceSpec) -> dict[str, Any]:
    """`spec` as plain JSON values."""
    return asdict(spec)


def from_json(value: Mapping[str, Any]) -> InstanceSpec:
    """The spec in `value`, as `to_json` made it.

    Keys of another version are ignored: an unreadable record would orphan a running process.
    """
    restart = _known(Restart, value["restart"])
    lifecycle = _known(Lifecycle, value["lifecycle"])
    return InstanceSpec(
        **{
            **_known(InstanceSpec, value),
            "argv": tuple(value["argv"]),
            "files": tuple(value["files"]),
            "restart": Restart(**{**restart, "policy": RestartPolicy(restart["policy"])}),
            "health": Health(**_known(Health, value["health"])),
            "lifecycle": Lifecycle(**{**lifecycle, "devices": tuple(lifecycle["devices"])}),
        }
    )


def check_types(value: object) -> None:
    """Raises TypeError unless each field of a dataclass, at any depth, has a value of the field's type."""
    for name, hint in get_type_hints(type(value)).items():
        found = getattr(value, name)
        if not _is(found, hint):
            raise TypeError(f"{type(value).__name__}.{name} is {found!r}")
        if is_dataclass(found):
            check_types(found)


def _is(found: object, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_is(found, option) for option in get_args(hint))
    kind = get_origin(hint) or hint
    if kind is Any:
        return True
    if kind in (int, float):
        return isinstance(found, int if kind is int else (int, float)) and not isinstance(found, bool)
    if kind is tuple:
        return isinstance(found, tuple) and all(_is(one, get_args(hint)[0]) for one in found)
    if kind is Mapping:
        inner = get_args(hint)
        return isinstance(found, Mapping) and all(_is(k, inner[0]) and _is(v, inner[1]) for k, v in found.items())
    return isinstance(found, kind)


def _known(kind: type[Any], value: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in value.items() if k in kind.__dataclass_fields__}
