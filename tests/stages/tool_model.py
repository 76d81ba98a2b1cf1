"""A tiny model with more scripts than the product's: it calls hosted tools, and cites the first source. Disk.

What the last user message asks for, by its last keyword: search, browse (reads one page), fetch, compute, execute,
shell, note; after any result the model says "It says so [1]."
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nemotron_ops.models.synthetic.scripts import END, END_THINK, SCRIPTS, Script
from nemotron_ops.models.synthetic.shape import shape_of
from nemotron_ops.models.synthetic.write import write_tiny

QUERY = "longest fjord"
CODE = "print(6 * 7)"
THINK = ("Use", " it", ".\n", END_THINK)
SAID = "It says so [1]."


def calling(keyword: str, function: str, argument: str, value: str) -> Script:
    """A script that calls one function with one argument."""
    call = (
        "<tool_call>", f"\n<function={function}>\n", f"<parameter={argument}>\n", value, "\n</parameter>\n",
        "</function>\n", "</tool_call>", END,
    )  # fmt: skip
    return Script(keywords=(keyword,), think=THINK, answer=call)


def scripts(page: str) -> Mapping[str, Script]:
    """The product's scripts, and those that use hosted tools; `page` is the address that is read."""
    more = {
        "tool_result": Script(
            keywords=("</tool_response>",), think=THINK, answer=("It", " says", " so", " [1]", ".", END)
        ),
        "search": calling("search", "web_search", "query", QUERY),
        "browse": calling("browse", "read_page", "url", page),
        "fetch": calling("fetch", "web_fetch", "url", page),
        "compute": calling("compute", "code_interpreter", "code", CODE),
        "execute": calling("execute", "code_execution", "code", CODE),
        "note": calling("note", "notes__add", "text", "milk"),
        "shell": calling("shell", "bash_code_execution", "command", "echo $((6 * 7))"),
    }
    return {**SCRIPTS, **more}


def tool_model(folder: Path, page: str) -> Path:
    """The model in `folder`."""
    path = folder / "tools.gguf"
    write_tiny(shape_of("moe"), path, scripts=scripts(page))
    return path
