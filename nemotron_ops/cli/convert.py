"""`nemotron-ops convert`: safetensors become GGUF models of the store. Prints."""

from __future__ import annotations

from dataclasses import dataclass

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option, progress_option
from nemotron_ops.cli.options import option, options_of


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What `convert` was asked for, besides the model."""

    quant: str = option("Quants to make, with commas between them.", default="Q8_0", metavar="Q,…")
    imatrix: str = option("Importance matrix: a GGUF file, or auto to make one.", metavar="FILE|auto")
    revision: str = option("Branch, tag or commit of the repository.", metavar="R")
    name: str = option("Name in the store. Default: the repository's, or local/FOLDER.", metavar="NAME")
    pre: str = option("Pre-tokenizer, where the converter does not know the tokenizer (pixtral).", metavar="P")
    keep: bool = option("Keep the checkpoint and the unquantised file, for further quants.")


@click.command()
@click.argument("model", metavar="REPO|FOLDER")
@options_of(ConvertOptions)
@dry_run_option
@progress_option
@json_option
def convert(model: str, wanted: ConvertOptions, dry_run: bool, as_json: bool) -> None:
    """Convert a model in safetensors to GGUF, and store it.

    The converter is that of the build's own llama.cpp, in an environment of its own, made at the first conversion. Code
    and pickles of the repository are not fetched. Continues with the step where an earlier run was killed. Each quant
    is stored when its header and size are as planned, and llama-server has answered with it.
    """
    with App() as app:
        from nemotron_ops.operations.convert import ConvertRequest, look
        from nemotron_ops.operations.convert import convert as make
        from nemotron_ops.ui import size

        request = ConvertRequest(
            target=model, quants=wanted.quant, imatrix=wanted.imatrix, revision=wanted.revision, name=wanted.name,
            pre=wanted.pre, keep=wanted.keep,
        )  # fmt: skip
        if dry_run:
            found, to_fetch = look(request, app.installation)
            value = {"model": found.repo, "commit": found.commit, "files": list(found.names), "fetch_bytes": to_fetch}
            if as_json:
                app.ui.json(value)
                return
            app.ui.say(f"{found.what} becomes {found.repo}: {', '.join(found.names)}; {size(to_fetch)} to fetch")
            return
        made = make(request, app.installation)
        app.ui.end_bars()
        if as_json:
            app.ui.json([one.value for one in made])
            return
        for one in made:
            app.ui.data(str(one.model.path))
            said = f'; it answered "{one.answer.text}"' if one.answer.checked else ""
            app.ui.say(f"{one.model.id} {'is stored' if one.new else 'is here and unchanged'}{said}")
        app.ui.say(f"serve it: nemotron-ops serve {made[0].model.id}")
