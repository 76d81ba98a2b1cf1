"""TeX as MathML; what cannot be converted is shown as it was typed. latex2mathml.

The converter does not escape its input, so what it returns is markup of a stranger: `clean` comes after it.
"""

from __future__ import annotations

from functools import lru_cache
from html import escape

MOST_TEX = 4000  # letters
MOST_NESTING = 40  # opening braces that wait


@lru_cache(maxsize=2048)
def mathml(tex: str, *, display: bool) -> str:
    """The MathML of `tex`, or the TeX itself, escaped, between its dollars."""
    if len(tex) <= MOST_TEX and nesting(tex) <= MOST_NESTING:
        from latex2mathml.converter import convert

        try:
            return str(convert(tex, display="block" if display else "inline"))
        except Exception:  # noqa: BLE001  the converter raises whatever its parser meets
            pass
    marks = "$$" if display else "$"
    return f'<code class="tex">{escape(marks + tex + marks)}</code>'


def nesting(tex: str) -> int:
    """The deepest nesting of braces and `\\left`."""
    deepest = depth = 0
    for letter in tex:
        if letter == "{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter == "}":
            depth -= 1
    return deepest
