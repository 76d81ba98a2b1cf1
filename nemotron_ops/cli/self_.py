"""`nemotron-ops self`: completion, man pages, whether this installation is whole, a newer version. Prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from nemotron_ops import __version__
from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.cli.completion import SHELLS


@click.group("self")
def self_() -> None:
    """Look after nemotron-ops itself."""


@self_.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what a shell needs to complete commands, options, models and builds.

    For bash, in ~/.bashrc: eval "$(nemotron-ops self completion bash)". For zsh the same in ~/.zshrc. For fish: write
    it to ~/.config/fish/completions/nemotron-ops.fish.
    """
    from nemotron_ops.cli.completion import script

    with App() as app:
        app.ui.data(script(shell, click.get_current_context().find_root().command))


@self_.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@json_option
def man(folder: Path, as_json: bool) -> None:
    """Write man pages of all commands to FOLDER, such as ~/.local/share/man/man1."""
    from nemotron_ops.cli.man_pages import pages

    root = click.get_current_context().find_root().command
    assert isinstance(root, click.Group)
    with App() as app:
        folder.mkdir(parents=True, exist_ok=True)
        count = 0
        for name, text in pages(root, "nemotron-ops", __version__):
            (folder / name).write_text(text, encoding="utf-8")
            count += 1
        app.ui.json({"pages": count, "folder": str(folder)}) if as_json else app.ui.say(
            f"wrote {count} pages to {folder}"
        )


@self_.command()
@json_option
def check(as_json: bool) -> int:
    """Check that this installation is whole: its files as they were packed, and the packages that it needs.

    Ends with 4 if something is missing or changed.
    """
    with App() as app:
        from nemotron_ops.operations.own_installation import look

        found = look()
        if as_json:
            app.ui.json({**asdict(found), "whole": found.whole})
        else:
            app.ui.data(f"nemotron-ops {found.version}, installed by {found.how}, in {found.place}")
            for fault in found.faults:
                app.ui.data(f"  {fault}")
            if found.whole:
                app.ui.data(f"  {found.files} files are as they were packed; all {found.packages} packages are here")
        return 0 if found.whole else 4


@self_.command()
@click.argument("source", default="nemotron-ops", metavar="[NAME|WHEEL]")
@dry_run_option
@json_option
def upgrade(source: str, dry_run: bool, as_json: bool) -> int:
    """Install a newer nemotron-ops, with the program that installed this one: pip, pipx or uv.

    NAME is found in the package index that this machine trusts; a wheel may be given instead. A running supervisor and
    its models stay; `nemotron-ops service restart` or `reload` brings the new version into use.
    """
    with App() as app:
        from nemotron_ops.operations.own_installation import look, upgrade_argv
        from nemotron_ops.proc import run_lines

        argv = upgrade_argv(look(), source)
        if dry_run:
            app.ui.json({"argv": argv}) if as_json else app.ui.data(" ".join(argv))
            return 0
        done = run_lines(argv, on_line=app.ui.say)
        if as_json:
            app.ui.json({"argv": argv, "exit_code": done.returncode})
        return done.returncode
