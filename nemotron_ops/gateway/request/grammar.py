"""Measures a grammar (GBNF) before llama-server parses it. Pure.

llama-server parses a grammar by recursion, looks for left recursion in time that is exponential in the worst case, and
keeps one stack for each way in which the text so far can continue (src/llama-grammar.cpp, v0.5.0). So nesting, rules
and ways are counted here. Ways that multiply while the model writes (`root ::= "a" root "b" | "a" root "c"`) are not:
useful grammars have them too, and what they cost depends on the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.request import limits
from nemotron_ops.gateway.request.limits import exceeded

WORD = re.compile(
    r"""(?P<skip>\s+|\#[^\r\n]*)
      | (?P<literal>"(?:[^"\\]|\\.)*"?)
      | (?P<set>\[(?:[^\]\\]|\\.)*\]?)
      | (?P<rule>[A-Za-z0-9_-]+(?=(?:\s|\#[^\r\n]*[\r\n])*+::=))
      | (?P<name>[A-Za-z0-9_-]+)
      | (?P<token>!?<[^>]*>?)
      | (?P<times>[*+?]|\{[\s0-9,]*\}?)
      | (?P<other>[().|]|::=|.)""",
    re.VERBOSE | re.DOTALL,
)
NUMBER = re.compile(r"\d+")
MOST_TIMES = 2000  # more are refused or taken for "any number" by llama-server
ENDLESS = -1  # as a repetition's upper end


class Item(NamedTuple):
    """A piece of a sequence and its repetitions; `rule` is -1 for text."""

    rule: int
    size: int
    least: int = 1
    most: int = 1


Rules = list[list[list[Item]]]  # rules, their alternatives, the items of each


def check_grammar(text: str, *, field: str = "grammar") -> None:
    """Raises Refusal if `text` has more of something than llama-server can take."""
    if len(text) * 4 > limits.GRAMMAR_BYTES.most and len(text.encode()) > limits.GRAMMAR_BYTES.most:
        raise exceeded(limits.GRAMMAR_BYTES, field)
    rules = parsed(text)
    if sum(item.size for rule in rules for alternative in rule for item in alternative) > limits.GRAMMAR_SIZE.most:
        raise exceeded(limits.GRAMMAR_SIZE, field)
    check_ways(rules, field)


def parsed(text: str) -> Rules:
    """The rules of a grammar, groups as rules of their own. What llama-server refuses is read somehow."""
    names: dict[str, int] = {}
    rules: Rules = []
    open_rules: list[int] = []
    for match in WORD.finditer(text):
        kind, word = match.lastgroup, match.group()
        if kind in ("rule", "name") and word not in names:
            names[word] = len(rules)
            rules.append([])
            if len(names) > limits.GRAMMAR_RULES.most:
                raise exceeded(limits.GRAMMAR_RULES)
        if kind == "rule":
            rules[names[word]].append([])
            open_rules = [names[word]]
        elif open_rules and kind != "skip":
            _read(kind or "", word, rules, open_rules, names)
    return rules


def _read(kind: str, word: str, rules: Rules, open_rules: list[int], names: dict[str, int]) -> None:
    """Read one word into the innermost open rule."""
    items = rules[open_rules[-1]][-1]
    if kind == "times":
        if items:
            items[-1] = repeated(items[-1], *_times(word))
    elif kind == "name":
        items.append(Item(names[word], 1))
    elif word == "|":
        rules[open_rules[-1]].append([])
    elif word == "(":
        items.append(Item(len(rules), 1))
        open_rules.append(len(rules))
        rules.append([[]])
        if len(open_rules) > limits.GRAMMAR_DEPTH.most + 1:
            raise exceeded(limits.GRAMMAR_DEPTH)
    elif word == ")" and len(open_rules) > 1:
        open_rules.pop()
    elif word not in ("::=", ")"):
        if kind == "literal" and len(word) > 2:
            items.append(Item(-1, len(word) - 2))
        elif kind != "literal":
            items.append(Item(-1, len(word)))


def _times(word: str) -> tuple[int, int]:
    """The least and the most repetitions that a word asks for."""
    if word in "*+?":
        return int(word == "+"), 1 if word == "?" else ENDLESS
    found = [min(int(number[:6]), MOST_TIMES + 1) for number in NUMBER.findall(word)] or [0]
    most = found[0] if "," not in word else found[1] if len(found) > 1 else ENDLESS
    return found[0], most if most <= MOST_TIMES else ENDLESS


def repeated(item: Item, least: int, most: int) -> Item:
    """`item` with one more repetition. Its size is that of the copies that llama-server makes."""
    copies = max(least, most, 1)
    size = min(item.size * max(least, 1) + max(most - least, 1) * (item.size + 2), limits.GRAMMAR_SIZE.most + 1)
    if most == ENDLESS or item.most == ENDLESS:
        return Item(item.rule, size, item.least * least, ENDLESS)
    return Item(item.rule, size, item.least * least, min(item.most * copies, limits.GRAMMAR_SIZE.most + 1))


# ways


class Ways(NamedTuple):
    """The ways to begin a rule or the rest of a sequence, and how many of them may begin as others do."""

    all: int = 0
    doubled: int = 0

    def plus(self, more: Ways) -> Ways:
        most = limits.GRAMMAR_WIDTH.most + 1
        return Ways(min(self.all + more.all, most), min(self.doubled + more.doubled, most))


def check_ways(rules: Rules, field: str) -> None:
    """Raises Refusal if there are too many ways to go on at one place of any rule, or if a rule never ends."""
    can_be_empty = nullable(rules)
    of_rules = _ways(rules, can_be_empty)
    found = [*of_rules]
    for rule in rules:
        for items in rule:
            rest = Ways()  # of the sequence from the next item on
            for item in reversed(items):
                own = _of_item(item, of_rules, can_be_empty)
                rest = own.plus(Ways(rest.all, rest.all)) if _empty(item, can_be_empty) else own
                found.append(rest)
    if max((ways.all for ways in found), default=0) > limits.GRAMMAR_WIDTH.most:
        raise exceeded(limits.GRAMMAR_WIDTH, field)
    if max((ways.doubled for ways in found), default=0) > limits.GRAMMAR_DOUBLED.most:
        raise exceeded(limits.GRAMMAR_DOUBLED, field)


def nullable(rules: Rules) -> list[bool]:
    """For each rule, whether it can stand for nothing."""
    empty = [False] * len(rules)
    waits: list[list[tuple[int, list[int]]]] = [[] for _ in rules]
    ready: list[int] = []
    for index, rule in enumerate(rules):
        for items in rule:
            needed = [item for item in items if item.least > 0]
            if not needed:
                ready.append(index)
            elif all(item.rule >= 0 for item in needed):
                left = [len(needed)]
                for item in needed:
                    waits[item.rule].append((index, left))
    while ready:
        if empty[index := ready.pop()]:
            continue
        empty[index] = True
        for waiting, left in waits[index]:
            left[0] -= 1
            if not left[0]:
                ready.append(waiting)
    return empty


def _empty(item: Item, can_be_empty: list[bool]) -> bool:
    return item.least == 0 or (item.rule >= 0 and can_be_empty[item.rule])


def _first(items: list[Item], can_be_empty: list[bool]) -> Iterator[tuple[Item, bool]]:
    """The items with which a sequence can begin, and whether each is its last."""
    for place, item in enumerate(items, 1):
        yield item, place == len(items) and item.most == 1
        if not _empty(item, can_be_empty):
            return


def _ways(rules: Rules, can_be_empty: list[bool]) -> list[Ways]:
    """For each rule, the ways to begin it. Raises Refusal if a rule can begin with itself, which never ends."""
    ways = [Ways()] * len(rules)
    on_path: dict[int, bool] = {}  # rules that are being counted -> whether each is the last item of the one before
    for start in range(len(rules)):
        path = [(start, True)]
        while path:
            index, last = path[-1]
            if ways[index].all:
                path.pop()
                continue
            on_path.setdefault(index, last)
            if missing := _missing(rules[index], can_be_empty, ways, on_path):
                path += missing
                continue
            ways[index] = _of_rule(rules[index], can_be_empty, ways)
            del on_path[index]
            path.pop()
    return ways


def _of_rule(rule: list[list[Item]], can_be_empty: list[bool], ways: list[Ways]) -> Ways:
    """The ways to begin a rule. Those behind an empty item, or of a rule that begins two alternatives, are doubled."""
    found, begun = Ways(all=1), set()
    for items in rule:
        for place, (item, _) in enumerate(_first(items, can_be_empty)):
            own = _of_item(item, ways, can_be_empty)
            if place or item.rule in begun:
                own = Ways(own.all, own.all)
            elif item.rule >= 0:
                begun.add(item.rule)
            found = found.plus(own)
    return found


def _missing(
    rule: list[list[Item]], can_be_empty: list[bool], ways: list[Ways], on_path: dict[int, bool]
) -> list[tuple[int, bool]]:
    """The rules that must be counted before `rule`."""
    missing = []
    for items in rule:
        for item, last in _first(items, can_be_empty):
            if item.rule in on_path:
                between = list(on_path)
                chain = between[between.index(item.rule) + 1 :]
                if not last or not all(on_path[index] for index in chain):
                    message = "grammar: a rule begins with itself (left recursion)"
                    raise Refusal(status=400, code="invalid_field", message=message)
            elif item.rule >= 0 and not ways[item.rule].all:
                missing.append((item.rule, last))
    return missing


def _of_item(item: Item, ways: list[Ways], can_be_empty: list[bool]) -> Ways:
    """The ways to begin an item, with its repetitions; a rule that is still being counted has one."""
    each = Ways(all=1) if item.rule < 0 or not ways[item.rule].all else ways[item.rule]
    if item.least == item.most == 1:
        return each
    copies = item.most if item.rule >= 0 and can_be_empty[item.rule] and item.most != ENDLESS else 1
    if copies <= 1:
        return each.plus(Ways(all=1))
    count = (each.all + 1) * copies
    return Ways().plus(Ways(count, count))
