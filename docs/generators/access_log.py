"""The reference of the access log: the fields of a line, their types and meanings. Pure."""

from __future__ import annotations

import typing

from nemotron_ops.gateway.observe.log_fields import LOG_FIELDS
from nemotron_ops.gateway.observe.log_line import Line

TYPES = {str: "string", int: "integer", float: "number", float | None: "number or null"}
ABOUT = """\
# Access log

`--access-log FILE` writes one line per request, a JSON object, when the request has ended. It never holds prompts,
answers or keys. At `--access-log-mib` (64 MiB) the file becomes `FILE.1` and replaces the one before. With 0 rotation
is left to `logrotate`: the gateway notices that its file was moved, and needs no signal. SIGHUP reopens the file, too.
A full disk costs lines of the log, never an answer.

| field | type | meaning |
| --- | --- | --- |
"""


def page() -> str:
    """One row per field, in the order of a line."""
    kinds = typing.get_type_hints(Line)
    return ABOUT + "".join(f"| `{name}` | {TYPES[kinds[name]]} | {LOG_FIELDS[name]} |\n" for name in kinds)
