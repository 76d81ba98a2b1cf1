"""A text that grows: which of its blocks are final, and their HTML.

Blocks that end in lines that are whole are final; what follows them is rendered anew with each flush. A flush that was
slow is followed by a pause of twenty times its length, so rendering never takes more than a twentieth of a core.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape

from nemotron_ops.studio.render.markdown import html_of, html_of_open_fence
from nemotron_ops.studio.render.segments import segments

PAUSE = 20  # times what the last flush took
QUICK_S, QUICK_LETTERS = 0.004, 2000
SLOW_S = 0.05  # an open block that takes longer is shown as plain text until it ends
PLAIN = '<pre class="plain">'  # an open block that is not rendered yet
FENCE = re.compile(r"(`{3,}|~{3,})[^\n]*\n")  # the first line of a fence, which is whole
Patch = tuple[int, str]  # number of a block, its HTML
Render = Callable[[str], str]


@dataclass
class Growing:
    """One growing text. `clock` counts processor time in seconds.

    One thread may add while another flushes: `add` alone writes `text`, `flush` everything else.
    """

    clock: Callable[[], float] = time.thread_time
    text: str = ""
    final: int = 0  # blocks that do not change any more
    _at: int = 0  # where the text behind the final blocks begins
    _shown: list[tuple[str, str, Render]] = field(default_factory=list)  # each block, its HTML, and how it was made
    _cost_s: float = 0.0
    _seen: int = 0  # letters that the last flush has seen

    def add(self, text: str) -> None:
        """Append `text`."""
        self.text += text

    @property
    def quick(self) -> bool:
        """Whether the next flush takes too little time to be worth a thread."""
        return self._cost_s < QUICK_S and len(self.text) - self._seen < QUICK_LETTERS

    @property
    def pause_s(self) -> float:
        """Seconds of wall time that the next flush should wait for."""
        return self._cost_s * PAUSE

    def flush(self, *, ended: bool = False) -> list[Patch]:
        """The blocks that changed since the last flush; with `ended` all are final."""
        if len(self.text) == self._seen and not ended:
            self._cost_s = 0.0
            return []
        begun = self.clock()
        patches: list[Patch] = []
        self._seen = len(self.text)
        rest = self.text[self._at : self._seen]
        whole = rest if ended else rest[: rest.rfind("\n") + 1]
        done = segments(whole)
        if not ended:
            done = done[:-1]
        for block in done:
            self._show(self.final, block, html_of, patches)
            self.final += 1
            self._at += len(block)
            rest = rest[len(block) :]
        for number, block in enumerate(segments(rest), self.final):
            self._show(number, block, html_of if ended else self._way(block), patches)
        self._cost_s = self.clock() - begun
        return patches

    def _way(self, block: str) -> Render:
        """How an open block is shown until it ends."""
        if self._cost_s > SLOW_S:
            return _plain
        fence = FENCE.match(block)
        return html_of_open_fence if fence and not block.rstrip().endswith(fence[1]) else html_of

    def _show(self, number: int, block: str, render: Render, patches: list[Patch]) -> None:
        if number == len(self._shown):
            self._shown.append(("", "", render))
        source, html, way = self._shown[number]
        if source == block and way is render and html:
            return
        made = render(block)
        self._shown[number] = (block, made, render)
        if made != html:
            patches.append((number, made))

    @property
    def html(self) -> list[str]:
        """The HTML of each block, as last flushed."""
        return [html for _, html, _ in self._shown]


def _plain(block: str) -> str:
    return f"{PLAIN}{escape(block)}</pre>"


def whole(text: str) -> list[str]:
    """The HTML of each block of a text that is whole."""
    return [html_of(block) for block in segments(text)]
