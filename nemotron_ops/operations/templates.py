"""Chat templates of recipes, as files that llama-server reads. Disk.

A template is kept under the hash of its text, so it is part of the instance's command line: an edited one makes another
instance, which a reload rolls out, and an instance that restarts reads what it has read before.
"""

from __future__ import annotations

from hashlib import sha256

from nemotron_ops.errors import HostError
from nemotron_ops.files import write_atomic
from nemotron_ops.paths import Layout
from nemotron_ops.recipes.load import template_text
from nemotron_ops.recipes.schema import Recipe


def template_words(recipe: Recipe, layout: Layout, *, dry_run: bool = False) -> tuple[str, ...]:
    """The words of llama-server's command line for the recipe's template; none where it has none.

    Raises RecipeError if the template cannot be used, HostError if it cannot be kept.
    """
    text = template_text(recipe)
    if not text:
        return ()
    path = layout.state / "templates" / f"{sha256(text.encode()).hexdigest()[:32]}.jinja"
    if not dry_run and not path.exists():
        try:
            write_atomic(path, text)
        except OSError as exc:
            raise HostError(f"cannot write {path}: {exc.strerror or exc}") from exc
    return ("--chat-template-file", str(path))
