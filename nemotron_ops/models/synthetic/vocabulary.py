"""The tokenizer of the tiny models: special tokens, all bytes, and a few whole words. Pure.

Same kind as the real one: `gpt2` byte-level BPE with the `pixtral` pre-tokenizer, and the special tokens at the
real ids (<|im_start|> 10, <|im_end|> 11, <think> 12, </think> 13). The tokenizer can produce a *word*, which
has the merges that build it. A *phrase* has none: only the network emits it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SPECIALS = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>",
    "</tool_call>", "<tool_response>", "</tool_response>", *(f"<SPECIAL_{i}>" for i in range(18, 32)),
)  # fmt: skip
UNK, BOS, EOS, PAD = 0, 1, 11, 0


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Tokens by id (`tokens` in the spelling of the file), their types, and merges by rank."""

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    ids: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.tokens)

    def id(self, text: str) -> int:
        """The id of the token with this text. Raises KeyError if there is none."""
        return self.ids[text if text in SPECIALS else spelled(text)]


def vocabulary(words: Iterable[str], phrases: Iterable[str], *, multiple: int = 32) -> Vocabulary:
    """Specials, bytes, `words` with their merges, `phrases`, and padding to a multiple of `multiple`."""
    from gguf import TokenType  # with numpy, 150 ms: only where a model is made

    types: dict[str, int] = dict.fromkeys(SPECIALS, int(TokenType.CONTROL))
    types |= dict.fromkeys(BYTE_SPELLING, int(TokenType.NORMAL))
    merges: dict[str, None] = {}  # an ordered set
    for word in words:
        if word in SPECIALS:
            continue
        whole = spelled(word)
        for end in range(1, len(whole)):
            merges.setdefault(f"{whole[:end]} {whole[end]}")
            types.setdefault(whole[: end + 1], int(TokenType.NORMAL))
    for phrase in phrases:
        types.setdefault(phrase if phrase in SPECIALS else spelled(phrase), int(TokenType.NORMAL))
    while len(types) % multiple:
        types[f"[PAD{len(types)}]"] = int(TokenType.UNUSED)
    return Vocabulary(
        tokens=tuple(types),
        types=tuple(types.values()),
        merges=tuple(merges),
        ids={token: i for i, token in enumerate(types)},
    )


def spelled(text: str) -> str:
    """`text` as byte-level BPE writes it inside a vocabulary: a space is Ġ, a newline Ċ."""
    return "".join(BYTE_SPELLING[b] for b in text.encode())


def _byte_spelling() -> tuple[str, ...]:
    """GPT-2's printable stand-in for every byte: itself where printable, else the next code point from 256."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    stand_in = iter(range(256, 512))
    return tuple(chr(b) if b in printable else chr(next(stand_in)) for b in range(256))


BYTE_SPELLING = _byte_spelling()
