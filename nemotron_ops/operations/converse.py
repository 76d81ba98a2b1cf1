"""The command line of llama-cli for a conversation without a running endpoint. Disk, network."""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_ops.installation import Installation
from nemotron_ops.operations.building import Confirm, have_build, look_for_build
from nemotron_ops.operations.model_files import expected_files, files_here, have_files
from nemotron_ops.operations.wish import ModelWish, Wish, plans_for


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What `chat` was asked for; without a `prompt` llama-cli asks for lines."""

    target: str
    profile: str = ""
    prompt: str | None = None
    show_special: bool = False


def llama_cli_argv(wanted: Conversation, here: Installation, *, dry_run: bool, confirm: Confirm) -> tuple[str, ...]:
    """llama-cli with the guide's flags, after making sure of build and model; a dry run makes neither."""
    from nemotron_ops.engine.args import cli_argv
    from nemotron_ops.recipes.load import load_settings, recipe_for

    recipe = recipe_for(wanted.target, here.layout, here.env)
    profile = wanted.profile or ("conversation" if "conversation" in recipe.profiles else "")
    flags = {"special": True} if wanted.show_special else {}
    wish = Wish(models=(ModelWish(target=wanted.target, profile=profile, flags=flags),))
    plan = plans_for(wish, here, load_settings(here.layout))[0]
    found = look_for_build(here, confirm=confirm)
    build = found.build if dry_run else have_build(found, here)
    expected = files_here(plan, here) or expected_files(plan, here)
    files = expected if dry_run else have_files(plan, here, may_fetch=True)
    return cli_argv(
        binary=build.binary("llama-cli") if build else "llama-cli",
        model=files.path,
        settings=plan.server,
        prompt=wanted.prompt,
        single_turn=wanted.prompt is not None,
        verbose_prompt=wanted.show_special,
    )
