"""The reference of exit codes: one row per kind of error. Pure."""

from __future__ import annotations

from nemotron_ops import errors


def page() -> str:
    """One row per kind of error."""
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.NemotronOpsError)]
    rows = [f"| {k.exit_code} | `{k.__name__}` | {(k.__doc__ or '').strip().splitlines()[0]} |" for k in kinds]
    more = [
        "| 0 | | Done. |",
        "| 130 | | Interrupted (Ctrl-C). |",
        "| 141 | | The reader of the output closed the pipe. |",
    ]
    head = "# Exit codes\n\n| code | kind | meaning |\n| --- | --- | --- |\n"
    return head + "\n".join([more[0], *rows, *more[1:]]) + "\n"
