"""Turns parsed TOML into a frozen dataclass, or names the key that is wrong. Pure.

The dataclasses of `schema.py` are the grammar: a table may only hold the class's fields, and a value must have the
field's type. Every error names the file, the path of the key, the expected and the found value:

    recipes/30b.toml: server.ctx_size: expected an integer, found "8k"
    recipes/30b.toml: server.ctx_sise: unknown key (did you mean ctx_size?)
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nemotron_ops.errors import RecipeError

T = TypeVar("T")

NAMES = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}

DAY_S = 86_400.0
# inclusive bounds, by the last two parts of the key's path; sources: llama.cpp common/arg.cpp (prio), sampling docs
BOUNDS: Mapping[str, tuple[float, float]] = {
    "prio": (-1, 3),
    "parallel": (1, 1024),
    "ctx_size": (256, 16_777_216),
    "default_tokens": (256, 16_777_216),
    "max_tokens": (1, 16_777_216),
    "port": (1, 65535),
    "temp": (0, 10),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "top_k": (0, 1_000_000),
    "max_restarts": (0, 1_000_000),
    "queue_length": (0, 1_000_000),
    "ctx_checkpoints": (0, 1024),
    "n_cpu_moe": (0, 10_000),
    "probe_period_s": (0.1, DAY_S),
    "probe_timeout_s": (0.1, DAY_S),
    "wedge_s": (1, DAY_S),
    "load_stall_s": (1, DAY_S),
    "drain_s": (0, DAY_S),
    "stop_s": (0.1, DAY_S),
    "window_s": (1, 365 * DAY_S),
    "backoff_initial_s": (0.01, DAY_S),
    "backoff_max_s": (0.01, DAY_S),
    "stable_s": (1, 365 * DAY_S),
    "ttl_s": (1, 365 * DAY_S),
    "queue_wait_s": (0, DAY_S),
    "start_order": (-1_000_000, 1_000_000),
    "scale": (-16, 16),
    "rank": (1, 1024),
    "learning_rate": (0, 1),
    "steps": (0, 10_000_000),
    "batch": (1, 4096),
    "max_length": (16, 1_048_576),
}

CONTROL = frozenset(map(chr, (*range(32), 127)))  # a NUL ends a command's word; none belongs into a name or a path


def check(cls: type[T], value: Mapping[str, Any], *, file: str, path: str = "", **given: Any) -> T:
    """`value` as an instance of `cls`; `given` are fields that the file may not set.

    Raises RecipeError that names `file` and the key.
    """
    hints = get_type_hints(cls)
    allowed = {f.name: f for f in fields(cls) if f.name not in given}  # type: ignore[arg-type]
    made: dict[str, Any] = dict(given)
    for key, found in value.items():
        where = f"{path}{key}"
        if key not in allowed:
            raise _unknown(file, where, key, tuple(allowed))
        made[key] = _value(hints[key], found, file=file, path=where)
    for name, f in allowed.items():
        if name not in made and f.default is MISSING and f.default_factory is MISSING:
            raise RecipeError(f"{file}: {path}{name}: missing")
    return cls(**made)


def _value(hint: Any, found: Any, *, file: str, path: str) -> Any:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        made = _one(option, found, file=file, path=path)
        if made is not None:
            _bounds(made, file=file, path=path)
            return made
    expected = " or ".join(_describe(o) for o in options if o is not type(None))
    raise RecipeError(f"{file}: {path}: expected {expected}, found {_show(found)}")


def _one(option: Any, found: Any, *, file: str, path: str) -> Any:
    """`found` as `option`, or None if it has another type. Nested tables raise their own errors."""
    if option is type(None):
        return None
    if is_dataclass(option) and isinstance(option, type):
        return check(option, found, file=file, path=f"{path}.") if isinstance(found, dict) else None
    origin = get_origin(option)
    if origin is tuple:
        return _items(get_args(option)[0], found, file=file, path=path)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(found, dict):
            return None
        inner = get_args(option)[1]
        return {k: _value(inner, v, file=file, path=f"{path}.{k}") for k, v in found.items()}
    return _scalar(option, found)


def _items(inner: Any, found: Any, *, file: str, path: str) -> tuple[Any, ...] | None:
    if not isinstance(found, list):
        return None
    return tuple(_value(inner, v, file=file, path=f"{path}[{i}]") for i, v in enumerate(found))


def _scalar(option: Any, found: Any) -> Any:
    if isinstance(option, type) and issubclass(option, StrEnum):
        return option(found) if found in set(option) else None
    if option is bool:
        return found if isinstance(found, bool) else None
    if isinstance(found, bool):
        return None
    if option is float and isinstance(found, int | float):
        return float(found)
    return found if option in (int, str) and isinstance(found, option) else None


def _bounds(made: Any, *, file: str, path: str) -> None:
    if isinstance(made, str) and (wrong := next((c for c in made if c in CONTROL), "")):
        raise RecipeError(f"{file}: {path}: expected no control character, found U+{ord(wrong):04X}")
    bounds = BOUNDS.get(path.rsplit(".", 1)[-1])
    if bounds and isinstance(made, int | float) and not bounds[0] <= made <= bounds[1]:
        raise RecipeError(f"{file}: {path}: expected {bounds[0]:g} to {bounds[1]:g}, found {made}")


def _describe(option: Any) -> str:
    if isinstance(option, type) and issubclass(option, StrEnum):
        return "one of " + ", ".join(option)
    if is_dataclass(option) or (get_origin(option) is not None and get_origin(option) is not tuple):
        return "a table"
    if get_origin(option) is tuple:
        return "a list"
    return NAMES.get(option, str(option))


def _show(found: Any) -> str:
    return f'"{found}"' if isinstance(found, str) else str(found).lower() if isinstance(found, bool) else repr(found)


def _unknown(file: str, where: str, key: str, allowed: tuple[str, ...]) -> RecipeError:
    near = get_close_matches(key.replace("-", "_"), allowed, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]}?)" if near else f" (known here: {', '.join(allowed)})"
    return RecipeError(f"{file}: {where}: unknown key{hint}")
