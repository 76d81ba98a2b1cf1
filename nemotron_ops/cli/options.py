"""Makes click options from the fields of a frozen dataclass, so that each option is spelled once. Pure.

@dataclass(frozen=True, kw_only=True)
class Wanted:
    port: int | None = option("Port to listen on.", type=click.IntRange(1, 65535))

@click.command()
@options_of(Wanted)
def serve(wanted: Wanted) -> None: ...
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields
from functools import wraps
from pathlib import Path
from types import UnionType
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def option(about: str, *flags: str, default: Any = None, **settings: Any) -> Any:
    """A field that is an option with the help `about`.

    Its flag is its name, unless `flags` are given; its type is that of the field, unless `settings`, which are
    click's, have one. A field without a default of its own is None, False, "" or (), as its type has it.
    """
    return field(default=default, metadata={"about": about, "flags": flags, "settings": settings})


def choice(**flags: str) -> Any:
    """A field whose value is the name of the flag that was given, or None; `flags` maps names to help."""
    return field(default=None, metadata={"choice": flags})


def options_of(kind: type) -> Decorator:
    """The fields of `kind` as options of a command, which gets them as one argument, `wanted`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            values = {f.name: given.pop(f.name) for f in fields(kind)}
            return function(*args, wanted=kind(**values), **given)

        command: Callable[..., Any] = call
        hints = typing.get_type_hints(kind)
        for item in reversed(fields(kind)):
            for decorator in reversed(list(_options(item, hints[item.name]))):
                command = decorator(command)
        return command

    return decorate


def _options(item: Field[Any], hint: Any) -> list[Decorator]:
    """One option, or one for each value of a choice."""
    choices: Mapping[str, str] = item.metadata.get("choice", {})
    if choices:
        return [click.option(f"--{v}", item.name, flag_value=v, help=about) for v, about in choices.items()]
    flags = item.metadata["flags"] or (f"--{item.name.replace('_', '-')}",)
    settings = {**_settings(item, hint), "help": item.metadata["about"], **item.metadata["settings"]}
    return [click.option(*flags, item.name, **settings)]


def _settings(item: Field[Any], hint: Any) -> dict[str, Any]:
    """The settings of an option that follow from the type of its field."""
    if typing.get_origin(hint) is tuple:
        return {"multiple": True, "type": _click_type(typing.get_args(hint)[0])}
    optional = isinstance(hint, UnionType)
    kind = typing.get_args(hint)[0] if optional else hint
    if kind is bool:
        return {"is_flag": True, "default": item.default if optional else False}
    default = "" if kind is str and not optional and item.default is None else item.default
    return {"type": _click_type(kind), "default": default}


def _click_type(kind: Any) -> Any:
    return click.Path(path_type=Path) if kind is Path else kind
