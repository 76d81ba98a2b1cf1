"""Shell completion: click's scripts, with the names of models and builds as arguments. Disk; prints nothing.

A command knows nothing of this. While a shell asks, and only then, the arguments that name models or builds get a type
that lists them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.paths import Layout

PROGRAM = "nemotron-ops"
VARIABLE = "_NEMOTRON_OPS_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
MODEL_WORDS = ("RECIPE", "MODEL", "INSTANCE", "REPO")
MODEL_NAMES = frozenset({"model", "recipe", "recipes", "targets"})
BUILD_NAMES = frozenset({"a", "b", "build"})


class Listed(click.types.StringParamType):
    """A text that is one of those that `names` finds, or another."""

    def __init__(self, names: Callable[[Layout], Iterable[str]]) -> None:
        self.names = names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin as the word does; none where they cannot be read."""
        from nemotron_ops.cli.app import App

        try:
            found = sorted(set(self.names(App(quiet=True).layout)))
        except (NemotronOpsError, OSError):
            return []
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def is_asked() -> bool:
    """Whether a shell asks for completions."""
    return VARIABLE in os.environ


def with_names(command: click.Command) -> click.Command:
    """`command`, whose arguments list models and builds."""
    for param in command.params:
        if isinstance(param, click.Argument) and isinstance(param.type, click.types.StringParamType):
            param.type = _type_of(param) or param.type
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            if (inner := command.get_command(click.Context(command), name)) is not None:
                with_names(inner)
    return command


def script(shell: str, root: click.Command) -> str:
    """What a shell reads to complete the words of `root`."""
    kind = get_completion_class(shell)
    assert kind is not None
    return kind(root, {}, PROGRAM, VARIABLE).source()


def _type_of(param: click.Argument) -> Listed | None:
    words = param.metavar or ""
    if param.name in BUILD_NAMES:
        return Listed(build_names)
    if param.name in MODEL_NAMES or any(word in words for word in MODEL_WORDS):
        return Listed(model_names)
    return None


def model_names(layout: Layout) -> list[str]:
    """Recipes, and the models of the store."""
    from nemotron_ops.models import store
    from nemotron_ops.recipes.load import recipe_files

    return [*recipe_files(layout), *(model.id for model in store.list_models(layout))]


def build_names(layout: Layout) -> list[str]:
    """The builds of the store."""
    return [p.parent.name for p in layout.builds.glob("*/manifest.json")]
