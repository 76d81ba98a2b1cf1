"""Tells whether a place in Markdown text is quoted: in code, in a quotation, in a tag that shows other text. Pure.

Markup of calls in such a place is shown to a reader, and never meant. The text comes in pieces; what is kept of it is
the line that has not ended, the open fence and the open tags.
"""

from __future__ import annotations

import re

LINE_LETTERS = 4096  # kept of a line that has not ended
QUOTES = frozenset("`\"'“‘«„‹")
SENTENCE_ENDS = frozenset(".!?:;…)]}*_。！？：")
TAG = re.compile(r"<(/?)([A-Za-z][\w:.-]{0,60})[^<>]{0,200}>")
SHOWING = frozenset(  # tags whose text is not the model's own, wherever they stand
    {
        *("tool_response", "tool_result", "tool_results", "function_results", "result", "output", "document"),
        *("documents", "attachment", "file", "file_content", "example", "examples", "quote", "blockquote", "code"),
        *("pre", "cite", "system", "user", "log", "xml", "snippet"),
    }
)
UNPAIRED = frozenset({"br", "hr", "img", "input", "p", "li", "think", "tool_call", "tool_calls", "toolcall"})
CALLING = frozenset({"function", "parameter", "invoke", "function_call", "function_calls"})


class Context:
    """What is known of the text before a place."""

    def __init__(self) -> None:
        self._line = ""
        self._fence = ""  # the run of letters that opened it
        self._tags: dict[str, int] = {}
        self._blank = True  # only white space so far
        self._last = ""  # the last line with words

    def advance(self, text: str) -> None:
        """Read on."""
        if not text:
            return
        *lines, rest = (self._line + text).split("\n")
        for line in lines:
            self._end_line(line)
        self._line = rest[-LINE_LETTERS:]

    def is_quoted(self) -> bool:
        """Whether what stands here is shown rather than said."""
        line = self._line
        if self._fence or any(count > 0 for count in self._with_line().values()):
            return True
        bare = line.strip()
        if not bare:
            if not self._blank and (line.startswith("    ") or "\t" in line):
                return True  # Markdown's indented code
            return self._last.endswith('"') and self._last.count('"') % 2 == 1
        if bare.startswith((">", "```", "~~~", "|")) or bare.count("`") % 2 == 1 or bare[-1] in QUOTES:
            return True
        return bare[-1] not in SENTENCE_ENDS and not bare.endswith("</think>")

    def _end_line(self, line: str) -> None:
        bare = line.lstrip(" \t>")
        if not bare.strip():
            return
        self._blank, self._last = False, bare[-LINE_LETTERS:].rstrip()
        run = _fence_of(bare)
        if self._fence:
            if run and run[0] == self._fence[0] and len(run) >= len(self._fence) and not bare.strip().strip(run[0]):
                self._fence = ""
        elif run:
            self._fence = run
        else:
            _count_tags(line, self._tags)

    def _with_line(self) -> dict[str, int]:
        if "<" not in self._line:
            return self._tags
        tags = dict(self._tags)
        _count_tags(self._line, tags)
        return tags


def _fence_of(line: str) -> str:
    """The run of letters that opens or closes a fence; empty if the line does neither."""
    for letter in "`~":
        if line.startswith(letter * 3):
            return letter * (len(line) - len(line.lstrip(letter)))
    return ""


def _count_tags(line: str, tags: dict[str, int]) -> None:
    """Count the tags that a line opens and closes: those that show text, and any that begins the line."""
    begins = len(line) - len(line.lstrip())
    for found in TAG.finditer(line):
        name = found[2].lower()
        if name in UNPAIRED or name in CALLING or found[0].endswith("/>"):
            continue
        if found[1]:
            if tags.get(name, 0) > 0:
                tags[name] -= 1
        elif (name in SHOWING or found.start() == begins) and len(tags) < 100:
            tags[name] = tags.get(name, 0) + 1
