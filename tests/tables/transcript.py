"""The how-tos' transcripts: console blocks whose commands are run, and whose output must match.

A block stands in a page between `<!-- transcript: NAME -->` and `<!-- /transcript -->`. Its `$ ` lines are commands,
its `# ` lines are events that the test makes happen, and the rest is output, without what differs from run to run. To
write the output of a run into the page:

    NEMOTRON_OPS_WRITE_TRANSCRIPTS=1 python -m pytest tests/hosts -k how_to
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

WRITE = "NEMOTRON_OPS_WRITE_TRANSCRIPTS"
HOW_TO_WRITE = f"{WRITE}=1 python -m pytest tests/hosts -k how_to"
FENCE = "```"

# progress, which depends on timing; the plan, which the steps repeat; output of programs on a target
PASSING = re.compile(
    r"send |bundle|fetching wheels|  \w+: |nemotron-ops\.service: |[\w-]+:   (?!ready|nothing)|\s*$|made "
    r"|.* is here: nothing to fetch|.* requests in flight$"
)
WORDS = (
    (re.compile(r"\bpid(\s+)\d+"), r"pid\1PID"),
    (re.compile(r"\b\d+\.\d+\.\d+-[0-9a-f]{10}\b"), "RELEASE         "),  # as wide as a release, for tables
    (re.compile(r"\bRELEASE +->"), "RELEASE ->"),
    (re.compile(r"\bnemotron-ops \d+\.\d+\.\d+\S*"), "nemotron-ops VERSION"),
    (re.compile(r"\[\d+ tokens, [^]]*\]"), "[… tokens, … tokens/s]"),
    (re.compile(r"\bnok-[\w-]+"), "nok-…"),
    (re.compile(r"\(id \w+\)"), "(id …)"),
    (re.compile(r"\bbuild testbuild-cpu\b"), "build BUILD"),
    (re.compile(r"/home/deploy\b"), "/home/me"),
    (re.compile(r" +$"), ""),
)
MACHINE = re.compile(r"[\w-]+(?=: )")
COUNTED = re.compile(r"served|UP|DOWN|DRAIN|MAINT")


def stable(output: str) -> list[str]:
    """The lines of `output` that are the same in each run, those of parallel machines sorted by machine."""
    lines = [line for line in output.splitlines() if not PASSING.match(line)]
    for pattern, words in WORDS:
        lines = [pattern.sub(words, line) for line in lines]
    runs = itertools.groupby(lines, key=lambda line: MACHINE.match(line) is not None)
    return [line for named, run in runs for line in (sorted(run, key=machine) if named else run)]


def machine(line: str) -> str:
    """`gpu1` of `gpu1: build: …`, or ""."""
    found = MACHINE.match(line)
    return found.group() if found else ""


def compared(text: str) -> str:
    """`text` without the counts of one run, which are shown but not compared, and without the width of columns."""
    lines = [re.sub(r"\d+", "N", x) if COUNTED.search(x) else x for x in text.splitlines()]
    return "\n".join(re.sub(r" +", " ", line) for line in lines)


def block(page: Path, name: str) -> str:
    """The lines of one block."""
    begin = f"<!-- transcript: {name} -->\n{FENCE}console\n"
    text = page.read_text()
    assert text.count(begin) == 1, f"{page.name} has no transcript {name!r}"
    return text.partition(begin)[2].partition(f"\n{FENCE}\n<!-- /transcript -->")[0]


def tell(
    page: Path, name: str, run: Callable[[str], str], *, events: Mapping[str, Callable[[], str]] | None = None
) -> None:
    """Run a block's commands, and compare their output with the page; with WRITE set, update the page.

    `run` takes a command line and returns its output; `events` maps the text of a `# ` line to a function that makes it
    happen and returns further lines to show.
    """
    before = block(page, name)
    lines: list[str] = []
    for line in before.splitlines():
        if line.startswith("$ "):
            lines += [line, *stable(run(line[2:]))]
        elif line.startswith("# "):
            lines += [line, *stable((events or {})[line[2:]]())]
    now = "\n".join(lines)
    if os.environ.get(WRITE):
        page.write_text(page.read_text().replace(before, now))
    else:
        assert compared(now) == compared(before), f"{page.name}, {name}: to write the new output: {HOW_TO_WRITE}"
