"""Splits growing text into what may go out at once and what may be the markup of calls. Pure.

    flowing   until a letter that can begin a marker; white space at the end waits for what follows it
    head      a marker has come: the name that it calls, or JSON, is next
    body      up to a closing tag
    after     only closing tags, white space and further calls may follow

What turns out to be no call goes out unchanged, and so does all that outgrows `MOST_LETTERS`. A block that other text
follows is shown, not said; after it nothing in this text is taken for a call any more. The result does not depend on
how the text is cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum

from nemotron_ops.gateway.toolcalls.leaks import (
    CALL_HEAD,
    CLOSER,
    FUNCTION,
    OPENER,
    PARAMETER,
    Find,
    Leak,
    calls_in_json,
    name_in,
    read_block,
)
from nemotron_ops.gateway.toolcalls.quoted import Context

MOST_LETTERS = 65536
HEAD_LETTERS = 300
PIECE_LETTERS = 256  # judged at once, so that no letter is judged often
SPACE_LETTERS = 1024  # of white space that waits
LONGEST_CLOSER = 24
HEADS = (
    *("<tool_call", "<toolcall", "<function_call", "<functioncall", "<|tool_call", "<|toolcall", "<|function_call"),
    *("<function=", "<function =", "<function name", "<invoke name", "[tool_calls]"),
)
AFTER_HEADS = (*HEADS, "<parameter", "</", "<|im_end|>", "[/tool_calls]")
CLOSING = re.compile(CLOSER.pattern.replace("parameter|", ""), re.IGNORECASE)
OPENING = re.compile(f"{OPENER.pattern}|{FUNCTION.pattern}", re.IGNORECASE)
MOST_MARKERS = 64  # that came to nothing; a text with more of them is about calls
FENCE_LETTERS = 16
FENCED = re.compile(r"\s*(?:```[a-z]{0,10}\s*)?[\[{]")


def _beginnings(heads: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern for one of `heads`, or for the beginning of one at the end of the text: a tree of their letters."""
    return re.compile(_branches({head.lower() for head in heads}), re.IGNORECASE)


def _branches(rests: set[str]) -> str:
    firsts = sorted({rest[0] for rest in rests})
    return "|".join(re.escape(first) + _after_letter({r[1:] for r in rests if r[0] == first}) for first in firsts)


def _after_letter(rests: set[str]) -> str:
    return "" if "" in rests else rf"(?:{_branches(rests)}|\Z)"


BEGINNING = _beginnings(HEADS)
AFTER_BEGINNING = _beginnings(AFTER_HEADS)
MARKER = re.compile("|".join(map(re.escape, HEADS)), re.IGNORECASE)
ENDED = re.compile(r"[<>]")


class Phase(Enum):
    """Where the text is."""

    FLOWING = 1
    HEAD = 2
    BODY = 3
    AFTER = 4
    INVENTED = 5  # text behind the calls, which `full` drops


class Scanner:
    """The text of one answer's content, or of its thoughts."""

    def __init__(self, find: Find, *, full: bool = False, before: Callable[[], str] | None = None) -> None:
        self.find = find
        self.full = full
        self.spent = False  # nothing is taken for a call any more
        self.attentive = before is None  # all text has to come through `feed`
        self._before = before  # the text that did not come through `feed`
        self._context = Context()
        self._unread: list[str] = []  # went out, and is not in the context yet
        self._wait = ""  # of FLOWING: white space, or the beginning of a marker
        self._held: list[str] = []  # the block, and the white space before it
        self._size = 0
        self._window = ""  # the end of the block that is not judged yet
        self._phase = Phase.FLOWING
        self._called = 0  # letters of the block that are calls
        self._markers = 0  # that came to nothing
        self._begun = False  # something went out, so that no loose form can follow

    @property
    def held(self) -> str:
        """The text that is held."""
        return "".join(self._held) + self._wait

    @property
    def quiet(self) -> bool:
        """Whether nothing is held."""
        return self._phase is Phase.FLOWING and not self._wait

    @property
    def at_ease(self) -> bool:
        """Whether text without marks need not come through `feed`."""
        return self.quiet and (self.spent or not self.attentive) and (self._begun or not self.full)

    def next_blob(self) -> None:
        """What has gone out until now can be had from `before`."""
        if not self.attentive:
            self._unread.clear()

    def feed(self, text: str) -> str:
        """Take more text; returns what may go out."""
        out: list[str] = []
        for place in range(0, len(text), PIECE_LETTERS):
            piece = text[place : place + PIECE_LETTERS]
            while piece:
                piece = self._flow(piece, out) if self._phase is Phase.FLOWING else self._block(piece, out)
        return "".join(out)

    def end(self) -> tuple[str, list[Leak]]:
        """The text has ended: what else goes out, and the calls that were held."""
        held, phase, called = self.held, self._phase, self._called
        self.reset()
        if phase not in (Phase.FLOWING, Phase.HEAD):
            block = (held[:called] if phase is Phase.INVENTED else held).lstrip()
            calls = calls_in_json(unfenced(block), bare=True) if block[:1] in "{[`" else None
            if not calls:
                calls = read_block(block, self.find)
            if calls:
                return "", calls
        return held, []

    def reset(self) -> None:
        """Hold nothing any more."""
        self._held, self._size, self._wait, self._window = [], 0, "", ""
        self._phase = Phase.FLOWING

    # flowing

    def _flow(self, text: str, out: list[str]) -> str:
        """Let text go out up to a marker; returns the rest, if one has come whole."""
        text, self._wait = self._wait + text, ""
        if self.spent:
            out.append(text)
            return ""
        if self.full and not self._begun:
            bare = text.lstrip()
            if not bare or (bare[0] == "`" and len(bare) < FENCE_LETTERS and not FENCED.match(text)):
                self._wait = text
                return ""
            self._begun = True
            if FENCED.match(text):
                self._phase, self._window = Phase.BODY, ""
                return text
        if found := BEGINNING.search(text):
            start = found.start()
            space = len(text[:start].rstrip())
            self._go_out(text[:space], out)
            if not MARKER.match(text, start):
                self._wait = text[space:]
                return ""
            if self._is_quoted(text[space:start]):
                self._in_vain()
                self._go_out(text[space : start + 1], out)
                return text[start + 1 :]
            self._hold(text[space:start])
            self._phase, self._window = Phase.HEAD, ""
            return text[start:]
        space = len(text.rstrip())
        if len(text) - space > SPACE_LETTERS:
            space = len(text)
        self._go_out(text[:space], out)
        self._wait = text[space:]
        return ""

    def _go_out(self, text: str, out: list[str]) -> None:
        if text:
            out.append(text)
            self._unread.append(text)

    def _is_quoted(self, space: str) -> bool:
        if not self.attentive and self._before is not None:
            self._context.advance(self._before())
            self.attentive = True
        self._context.advance("".join(self._unread))
        self._unread = [space]
        self._context.advance(space)
        self._unread.clear()
        return self._context.is_quoted()

    # in a block

    def _block(self, text: str, out: list[str]) -> str:
        """Take text of a block; returns the rest, if the block turned out to be none."""
        self._hold(text)
        if self._size > MOST_LETTERS:
            return self._release(out)
        if self._phase is Phase.INVENTED:
            return ""
        self._window += text
        while True:
            match self._phase:
                case Phase.HEAD:
                    verdict = self._head()
                case Phase.BODY:
                    verdict = self._body()
                case _:
                    verdict = self._after()
            if verdict is None:
                return ""
            if not verdict:
                return self._release(out)

    def _hold(self, text: str) -> None:
        self._held.append(text)
        self._size += len(text)

    def _in_vain(self) -> None:
        """Count a marker that came to nothing."""
        self._markers += 1
        self.spent = self.spent or self._markers >= MOST_MARKERS

    def _release(self, out: list[str]) -> str:
        """No call: the block goes out, but its last letters may begin another one."""
        held = "".join(self._held)
        spent = self._phase is not Phase.HEAD or self.spent or self._size > MOST_LETTERS
        self.reset()
        self.spent = spent
        self._in_vain()
        begin = len(held) - len(held.lstrip())
        self._go_out(held[: begin + 1], out)
        return held[begin + 1 :]

    def _head(self) -> bool | None:
        """Judge what follows a marker: True to go on, None to wait, False if it is no call."""
        bare = self._window.lstrip()
        if not bare:
            return None
        if found := OPENER.match(bare):
            self._window = bare[found.end() :]
            return True
        if found := FUNCTION.match(bare):
            if self.find(name_in(found[1])) is None:
                self._phase = Phase.AFTER  # a call, but of nothing that is offered
                return False
            self._phase, self._window = Phase.BODY, bare[found.end() :]
            return True
        waits = BEGINNING.match(bare) is not None
        if bare[0] in "{[" and not waits:
            self._phase = Phase.BODY
            return True
        if CALL_HEAD.match(bare):
            self._phase = Phase.BODY
            return True
        if len(bare) > HEAD_LETTERS:
            return False
        if bare[0] in "<[":
            return None if waits and not ENDED.search(bare, 1) else False
        return None if bare.rstrip().replace(".", "").replace("-", "").isidentifier() else False

    def _body(self) -> bool | None:
        found = CLOSING.search(self._window)
        if found is None:
            self._window = self._window[-LONGEST_CLOSER:]
            return None
        self._phase, self._window = Phase.AFTER, self._window[found.end() :]
        return True

    def _after(self) -> bool | None:
        bare = self._window.lstrip()
        if not bare:
            self._window = ""
            return None
        if found := CLOSER.match(bare):
            self._window = bare[found.end() :]
            return True
        if OPENING.match(bare):
            self._phase, self._window = Phase.HEAD, bare
            return True
        if PARAMETER.match(bare):
            self._phase, self._window = Phase.BODY, bare
            return True
        if len(bare) < HEAD_LETTERS and AFTER_BEGINNING.match(bare) and not ENDED.search(bare, 1):
            return None
        if self.full:
            self._called = self._size - len(bare)
            self._phase = Phase.INVENTED
            return None
        return False


def unfenced(block: str) -> str:
    """The text in a fence, or the text itself."""
    bare = block.strip()
    if not bare.startswith("```"):
        return bare
    first, _, rest = bare.partition("\n")
    return rest.rstrip().removesuffix("```") if rest.rstrip().endswith("```") else first
