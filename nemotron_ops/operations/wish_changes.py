"""Changes of a wish: models are added, changed and removed; a wish as JSON. Pure.

    {"op": "add", "model": {"target": "4b", "quant": "UD-Q4_K_XL", "flags": {"ctx_size": 8192}}}
    {"op": "change", "name": "4b", "model": {"flags": {"parallel": 2}}}
    {"op": "remove", "name": "30b"}

A model as JSON has the fields of `ModelWish`; those that are empty are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from nemotron_ops.errors import UsageError
from nemotron_ops.operations.wish import ModelWish
from nemotron_ops.recipes.schema import Server

OPS = ("add", "change", "remove")
KEYS: dict[str, type] = {**{f.name: str for f in fields(ModelWish)}, "flags": dict, "extra": list, "adapters": list}
FLAGS = frozenset(f.name for f in fields(Server)) - {"port", "extra_args"} | {"alias"}
MOST_MODELS = 64
Models = tuple[ModelWish, ...]


def changed(models: Models, change: Mapping[str, Any]) -> Models:
    """`models` after `change`. Raises UsageError for a change that is malformed or makes no sense."""
    match change.get("op"):
        case "add":
            return _added(models, model_from(change.get("model"), "model"))
        case "change":
            i = _index(models, change.get("name"))
            return (*models[:i], _merged(models[i], change.get("model")), *models[i + 1 :])
        case "remove":
            i = _index(models, change.get("name"))
            return (*models[:i], *models[i + 1 :])
        case other:
            known = ", ".join(OPS)
            raise UsageError(f"cannot change what is served: no such change: {other!r:.80}", hint=f"known: {known}")


def to_json(models: Models) -> list[dict[str, Any]]:
    """The models as plain JSON values."""
    return [_one_json(m) for m in models]


def from_json(value: object) -> Models:
    """The models in `value`, as `to_json` made it. Raises UsageError that names the first wrong key."""
    if not isinstance(value, list) or len(value) > MOST_MODELS:
        raise UsageError(f"models: expected a list of at most {MOST_MODELS}")
    models = tuple(model_from(one, f"models[{i}]") for i, one in enumerate(value))
    names = [m.name for m in models if m.name]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise UsageError(f"models: {twice[0]!r} is there twice")
    return models


def model_from(value: object, where: str) -> ModelWish:
    """One model out of JSON. Raises UsageError that names the wrong key."""
    known = _checked(value, where)
    if not known.get("target"):
        raise UsageError(f"{where}.target: a recipe, repository or file is needed")
    return ModelWish(**known)


def find(models: Models, name: str) -> ModelWish | None:
    """The model called `name`: by its recipe's name, else as it was asked for, else by its alias."""
    by_name = [m for m in models if m.name == name]
    by_target = [m for m in models if m.target == name]
    by_alias = [m for m in models if m.flags.get("alias") == name]
    return next(iter([*by_name, *by_target, *by_alias]), None)


def same_request(one: ModelWish, other: ModelWish) -> bool:
    """Whether both ask for the same model in the same way; a name or quant that one leaves open is no difference."""
    quants_agree = one.quant == other.quant or not (one.quant and other.quant)
    return quants_agree and replace(one, name="", quant="") == replace(other, name="", quant="")


def _added(models: Models, new: ModelWish) -> Models:
    old = find(models, new.name or new.target)
    if old is not None and same_request(old, new):
        return models
    if old is not None:
        name = old.name or old.target
        raise UsageError(
            f"cannot add {name}: it is served already",
            hint=f"`nemotron-ops change {name}` takes other options for it",
        )
    if len(models) >= MOST_MODELS:
        raise UsageError(f"cannot add {new.target}: {MOST_MODELS} models are the most")
    return (*models, new)


def _merged(old: ModelWish, value: object) -> ModelWish:
    """`old` with the fields in `value`; its flags with those in `value`, of which null takes one away."""
    given = _checked(value, "model")
    flags = {k: v for k, v in {**old.flags, **given.pop("flags", {})}.items() if v is not None}
    kept = {k: v for k, v in given.items() if k not in ("target", "name")}
    return replace(old, **kept, flags=flags)


def _index(models: Models, name: object) -> int:
    found = find(models, name) if isinstance(name, str) and name else None
    if found is None:
        known = [m.name or m.target for m in models]
        near = get_close_matches(str(name), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"served: {', '.join(known) or 'none'}"
        raise UsageError(f"cannot find {str(name)[:200]!r} among the models that are served", hint=hint)
    return models.index(found)


def _checked(value: object, where: str) -> dict[str, Any]:
    """The fields in `value`, each of the right type."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: expected an object")
    for key, one in value.items():
        if key not in KEYS:
            raise UsageError(f"{where}.{key}: unknown key (known: {', '.join(KEYS)})")
        if not isinstance(one, KEYS[key]):
            raise UsageError(f"{where}.{key}: expected {_kind(KEYS[key])}, found {one!r:.80}")
    known = dict(value)
    _check_flags(known.get("flags", {}), where)
    for key in ("extra", "adapters"):
        words: Sequence[object] = known.get(key, [])
        if not all(isinstance(word, str) for word in words):
            raise UsageError(f"{where}.{key}: expected a list of strings")
        known |= {key: tuple(words)} if key in known else {}
    return known


def _check_flags(flags: Mapping[str, Any], where: str) -> None:
    for key, one in flags.items():
        if key not in FLAGS:
            raise UsageError(f"{where}.flags.{key}: unknown key")
        if one is not None and not isinstance(one, (str, int, float, bool)):
            raise UsageError(f"{where}.flags.{key}: expected a number, string, true or false, found {one!r:.80}")


def _kind(kind: type) -> str:
    names: dict[type, str] = {str: "a string", dict: "an object", list: "a list"}
    return names[kind]


def _one_json(model: ModelWish) -> dict[str, Any]:
    values = {f.name: getattr(model, f.name) for f in fields(ModelWish)}
    plain = {k: dict(v) if k == "flags" else list(v) if k == "extra" else v for k, v in values.items()}
    return {k: v for k, v in plain.items() if v}
