"""Which flags a llama.cpp build knows, and which of them may be passed through. Pure.

`parse_help` reads `--help` (there is no machine-readable form). Every flag is one of

    allowed   may stand in a recipe's `extra_args` or after `serve … --`
    owned     set by nemotron-ops, or has a setting of its own
    denied    reaches the file system, other hosts or a shell, or is known to give wrong answers
    unknown   not in the lists below: refused, because a new llama.cpp may add anything
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from nemotron_ops.engine.flag_lists import ALLOWED, DENIED, OWNED, REPLACED
from nemotron_ops.errors import UsageError

SPELLING = re.compile(r"(-{1,2}[A-Za-z][\w.-]*)(,\s*)?")
ENV = re.compile(r"\(env: (\w+)\)")


class Kind(StrEnum):
    ALLOWED = "allowed"
    OWNED = "owned"
    DENIED = "denied"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One option: all its spellings (negations included), the shape of its value ("" for a switch), its variable."""

    spellings: tuple[str, ...]
    value: str = ""
    env: str = ""

    @property
    def values(self) -> int:
        """How many words follow it."""
        return len(self.value.split()) if self.value == "START END" else int(bool(self.value))


@dataclass(frozen=True, kw_only=True)
class Flags:
    """All options of one binary."""

    flags: tuple[Flag, ...]

    @property
    def spellings(self) -> tuple[str, ...]:
        return tuple(s for f in self.flags for s in f.spellings)

    def find(self, word: str) -> Flag | None:
        """The flag spelled `word`; as in llama.cpp, `_` counts as `-` in long spellings (common/arg.cpp:820)."""
        wanted = normal(word)
        return next((f for f in self.flags if wanted in f.spellings), None)

    def near(self, word: str) -> tuple[str, ...]:
        """The spellings closest to `word`, best first."""
        return tuple(get_close_matches(normal(word), self.spellings, n=3, cutoff=0.6))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    kind: Kind
    reason: str = ""


def parse_help(text: str) -> Flags:
    """The flags in the output of `--help`: lines that start with `-`, each with the lines indented under it."""
    flags: list[Flag] = []
    for line in text.splitlines():
        if line.startswith("-") and not line.startswith("-----"):
            flags.append(_flag(line))
        elif flags and (env := ENV.search(line)):
            flags[-1] = Flag(spellings=flags[-1].spellings, value=flags[-1].value, env=env.group(1))
    return Flags(flags=tuple(flags))


def _flag(line: str) -> Flag:
    spellings: list[str] = []
    at = 0
    while match := SPELLING.match(line, at):
        spellings.append(match.group(1))
        at = match.end()
        if not match.group(2):
            break
    rest = line[at:]
    value = "" if rest.startswith("  ") else re.split(r" {2,}", rest.strip())[0]
    return Flag(spellings=tuple(spellings), value=value)


def normal(word: str) -> str:
    """`--ctx_size` as `--ctx-size`; short spellings stay."""
    return word.replace("_", "-") if word.startswith("--") else word


def classify(flag: Flag) -> Verdict:
    """Whether `flag` may be passed through; the most restricted of its spellings decides."""
    for spelling in flag.spellings:
        if spelling in DENIED:
            return Verdict(kind=Kind.DENIED, reason=DENIED[spelling])
    for spelling in flag.spellings:
        if spelling in OWNED:
            return Verdict(kind=Kind.OWNED, reason=OWNED[spelling])
    if any(s in ALLOWED for s in flag.spellings):
        return Verdict(kind=Kind.ALLOWED)
    return Verdict(kind=Kind.UNKNOWN, reason="it is not on nemotron-ops's list of flags")


def checked_args(args: Sequence[str], flags: Flags | None) -> tuple[str, ...]:
    """`args` unchanged, if each flag in them may be passed through. Raises UsageError if not.

    With `flags` None (no build yet) the lists alone decide, and a word that is not shaped like a flag is a value.
    """
    words = list(args)
    at = 0
    while at < len(words):
        word = words[at]
        if not word.startswith("-"):
            raise UsageError(f"cannot pass {word!r} to llama-server: a flag was expected there")
        flag = _known(word, flags)
        verdict = classify(flag)
        if verdict.kind is not Kind.ALLOWED:
            raise UsageError(f"cannot pass {word} to llama-server: {verdict.reason}", hint=_hint(word, flags, verdict))
        count = flag.values if flags else _values_by_shape(words, at)
        if at + count >= len(words):
            raise UsageError(f"cannot pass {word} to llama-server: its value ({flag.value}) is missing")
        at += 1 + count
    return tuple(words)


def _known(word: str, flags: Flags | None) -> Flag:
    if flags is None:
        plain = normal(word)
        return Flag(spellings=(plain, plain.replace("--no-", "--", 1)))
    flag = flags.find(word)
    if flag is None:
        near = flags.near(word)
        if replaced := REPLACED.get(word.partition("=")[0]):
            hint: str | None = replaced
        elif "=" in word:
            hint = f"write {word.replace('=', ' ', 1)}"
        else:
            hint = f"did you mean {', '.join(near)}?" if near else None
        raise UsageError(f"cannot pass {word} to llama-server: the built binary has no such flag", hint=hint)
    return flag


def _values_by_shape(words: Sequence[str], at: int) -> int:
    following = words[at + 1] if at + 1 < len(words) else "-"
    return 0 if re.match(r"-{1,2}[A-Za-z]", following) or following == "-" else 1


def _hint(word: str, flags: Flags | None, verdict: Verdict) -> str | None:
    if verdict.kind is not Kind.UNKNOWN:
        return None
    near = flags.near(word) if flags else get_close_matches(normal(word), sorted(ALLOWED), n=3)
    others = [n for n in near if n != normal(word)]
    return f"did you mean {', '.join(others)}?" if others else None
