"""The command line of llama-cli for a conversation without a running endpoint. Disk, network."""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_ops.installation import Installation
from nemotron_ops.operations.adapters import adapter_words, look_for_adapters, published
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

    target, adapter = split_adapter(wanted.target, here)
    recipe = recipe_for(target, here.layout, here.env)
    profile = wanted.profile or ("conversation" if "conversation" in recipe.profiles else "")
    flags = {"special": True} if wanted.show_special else {}
    wish = Wish(models=(ModelWish(target=target, profile=profile, flags=flags, adapters=adapter),))
    plan = plans_for(wish, here, load_settings(here.layout))[0]
    found = look_for_build(here, confirm=confirm)
    build = found.build if dry_run else have_build(found, here)
    expected = files_here(plan, here) or expected_files(plan, here)
    files = expected if dry_run else have_files(plan, here, may_fetch=True)
    argv = cli_argv(
        binary=build.binary("llama-cli") if build else "llama-cli",
        model=files.path,
        settings=plan.server,
        prompt=wanted.prompt,
        single_turn=wanted.prompt is not None,
        verbose_prompt=wanted.show_special,
    )
    named = [one for one in look_for_adapters(plan.recipe, here.layout) if one.adapter.name in adapter]
    return (*argv, *adapter_words(named, files, here, scale=1.0, dry_run=dry_run))


def split_adapter(target: str, here: Installation) -> tuple[str, tuple[str, ...]]:
    """`RECIPE:NAME` as recipe and adapter, where NAME is an adapter of the recipe or published for it.

    Raises ModelError where NAME is neither that nor looks like a quant.
    """
    from nemotron_ops.errors import ModelError, NemotronOpsError
    from nemotron_ops.models.ref import quant_label
    from nemotron_ops.recipes.load import recipe_for

    base, _, name = target.rpartition(":")
    if not base or "/" in name:
        return target, ()
    try:
        recipe = recipe_for(base, here.layout, here.env)
    except NemotronOpsError:  # the whole is told by its own reader
        return target, ()
    known = {*published(here.layout, recipe.name), *(a.name for a in recipe.adapters)}
    if name in known:
        return base, (name,)
    if not quant_label(f"x-{name}.gguf") and not recipe.model.repo:
        hint = f"adapters: {', '.join(sorted(known)) or 'none'}"
        raise ModelError(f"cannot chat with {target}: {base} has no adapter and no quant {name}", hint=hint)
    return target, ()
