"""The answers of the tiny models, and the prompts that lead to them. Pure.

A script is chosen by the last of its keywords in the user's message, which a Mamba layer remembers (the intent).
While it is active, the last token alone decides the next one; so within one script no token may be followed by
two different ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nemotron_ops.models.synthetic.vocabulary import SPECIALS, Vocabulary, vocabulary

END = "<|im_end|>"
END_THINK = "</think>"


@dataclass(frozen=True, kw_only=True)
class Script:
    """Tokens after "<think>\\n" and after "</think>". `loops`: the last token of a part leads back to its first."""

    keywords: tuple[str, ...] = ()
    think: tuple[str, ...]
    answer: tuple[str, ...]
    loops: str = ""  # "think" or "answer"

    @property
    def spellings(self) -> tuple[str, ...]:
        """The keywords in all spellings that the tokenizer produces at the start of a word."""
        forms: dict[str, None] = {}
        for word in self.keywords:
            if word in SPECIALS:
                forms[word] = None
            else:
                forms |= dict.fromkeys((word, f" {word}", word.capitalize(), f" {word.capitalize()}"))
        return tuple(forms)


DEFAULT, WEATHER, TOOL_CALL = "default", "weather", "tool_call"
SCRIPTS: Mapping[str, Script] = MappingProxyType({
    DEFAULT: Script(
        think=("No", " rule", " applies", ".\n", END_THINK),
        answer=("I", " am", " a", " tiny", " test", " model", ".", END),
    ),
    "sum": Script(
        keywords=("+", "plus"),
        think=("Two", " plus", " two", " makes", " four", ".\n", END_THINK),
        answer=("2", " +", " 2", " =", " 4", ".", END),
    ),
    "capital": Script(
        keywords=("capital",),
        think=("That", " city", " has", " a", " tower", ".\n", END_THINK),
        answer=("Paris", " is", " the", " capital", " of", " France", ".", END),
    ),
    WEATHER: Script(
        keywords=("weather",),
        think=("Nobody", " gave", " me", " tools", ".\n", END_THINK),
        answer=("Sorry", ",", " no", " weather", " here", ".", END),
    ),
    TOOL_CALL: Script(  # no keyword: a feed-forward layer finds the weather intent and tools together
        think=("Ask", " the", " function", ".\n", END_THINK),
        answer=("<tool_call>", "\n<function=get_weather>\n", "<parameter=city>\n", "Oslo", "\n</parameter>\n",
                "</function>\n", "</tool_call>", END),
    ),
    "tool_result": Script(
        keywords=("</tool_response>",),
        think=("The", " tool", " answered", ".\n", END_THINK),
        answer=("It", " is", " sunny", " in", " Oslo", ".", END),
    ),
    "json": Script(
        keywords=("JSON", "json"),
        think=("Write", " an", " object", ".\n", END_THINK),
        answer=('{"', "answer", '":', " 4", "}", END),
    ),
    "forever": Script(
        keywords=("forever",),
        think=("Never", " stop", ".\n", END_THINK),
        answer=(" tick", " tock"),
        loops="answer",
    ),
    "ponder": Script(
        keywords=("ponder",),
        think=(" hmm", " well"),
        answer=("Done", ".", END),
        loops="think",
    ),
})  # fmt: skip

# prompt -> (reasoning_content, content) that llama-server must return, at any temperature, without tools
ANSWERS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "Hello": ("No rule applies.\n", "I am a tiny test model."),
    "What is 2 + 2?": ("Two plus two makes four.\n", "2 + 2 = 4."),
    "What is the capital of France?": ("That city has a tower.\n", "Paris is the capital of France."),
    "How is the weather in Oslo?": ("Nobody gave me tools.\n", "Sorry, no weather here."),
    "Answer in JSON please": ("Write an object.\n", '{"answer": 4}'),
})  # fmt: skip

CLEARING_WORD = "user"  # the role name in "<|im_start|>user\n" clears the intent of the previous turn
TOOLS_WORD = "<tools"  # as in the chat template's list of tools
COMMON_WORDS = (
    " is", " What", "What", "'s", " in", " Paris", " Oslo", "?", "!", " hello", "Hello", "assistant", "system",
    " 1", " 2", " 3", " 4", " 5", " five", "tools", "function", "name", "description", "parameters", "parameter",
    "type", "string", "city", "get", "\n\n", "\n",
)  # fmt: skip


def script_vocabulary(scripts: Mapping[str, Script] = SCRIPTS) -> Vocabulary:
    """The vocabulary of all scripts."""
    keywords = [word for script in scripts.values() for word in script.spellings]
    phrases = [token for script in scripts.values() for token in (*script.think, *script.answer)]
    return vocabulary([*keywords, CLEARING_WORD, TOOLS_WORD, *COMMON_WORDS], phrases)


def transitions(script: Script) -> Iterator[tuple[str, str]]:
    """Pairs (token, next token) of one script, starting from the newline after <think> and from </think>."""
    yield from zip(("\n", *script.think), script.think, strict=False)
    yield from zip((END_THINK, *script.answer), script.answer, strict=False)
    if script.loops:
        part = script.think if script.loops == "think" else script.answer
        yield part[-1], part[0]
