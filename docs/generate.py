"""Writes every generated page and table of docs/ (`make docs`; a test compares them with the code). Disk."""

from __future__ import annotations

from pathlib import Path

from docs.generators import access_log, api_errors, commands, exit_codes, fields, glossary, metrics, recipes, tables
from nemotron_ops.supervisor.instance import diagram as lifecycle

HERE = Path(__file__).parent
MADE = "<!-- made by `make docs` from the code; change the code, not this page -->\n\n"


def pages() -> dict[str, str]:
    """Every page that is generated or holds a generated table: path below docs/ -> text."""
    whole = {
        "reference/commands.md": commands.page(),
        "reference/recipes.md": recipes.page(),
        "reference/exit-codes.md": exit_codes.page(),
        "reference/lifecycle.md": lifecycle.page(),
        "reference/metrics.md": metrics.page(),
        "reference/api-errors.md": api_errors.page(),
        "reference/fields.md": fields.page(),
        "reference/access-log.md": access_log.page(),
        "explanation/glossary.md": glossary.page(),
    }
    return {**{name: MADE + text for name, text in whole.items()}, **tables.pages()}


def main() -> None:
    for name, text in pages().items():
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
