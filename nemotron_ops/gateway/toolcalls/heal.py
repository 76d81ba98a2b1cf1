"""The ladder: from what an engine answered to the calls that were meant, or the honest word that there are none. Pure.

Each step is done only if what comes out fulfils the tool's schema; otherwise the model's own bytes stay.

    truncated    an answer cut by the token limit: nothing is promoted, a call that is not whole is dropped and named
    parallel     calls beyond those that the request allows are left out
    index        two ids under one index are two calls
    extract      a call that the model wrote as text becomes a call
    repair_json  arguments that are not JSON
    coerce       arguments of the wrong type
    name         the same letters in another spelling
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nemotron_ops.gateway.toolcalls.coerce import coerced
from nemotron_ops.gateway.toolcalls.leaks import Leak, parameters
from nemotron_ops.gateway.toolcalls.names import Names
from nemotron_ops.gateway.toolcalls.offered import MOST_CALLS, Offered, Tool
from nemotron_ops.gateway.toolcalls.read_json import Read, read_object, read_strict, text_of
from nemotron_ops.gateway.toolcalls.scan import Scanner
from nemotron_ops.gateway.toolcalls.schema import Checker

STEPS = ("index", "parallel", "extract", "repair_json", "coerce", "name", "reask")
NOT_OFFERED = "not offered"
NO_OBJECT = "arguments are no JSON object"


class Level(StrEnum):
    """How far healing goes."""

    OFF = "off"
    SAFE = "safe"
    FULL = "full"


class Outcome(StrEnum):
    """How a call ended, for the metrics."""

    CLEAN = "clean"
    HEALED = "healed"
    REASKED = "reasked"
    INVALID = "invalid"
    TRUNCATED = "truncated"


@dataclass(slots=True)
class ToolCall:
    """A call: `arguments` is JSON text as it goes out. `id` is empty for a call that was text."""

    name: str
    arguments: str
    id: str = ""
    index: int | None = None
    outcome: Outcome = Outcome.CLEAN
    fault: str = ""  # what its tool's schema refuses

    def refused(self, fault: str) -> None:
        """Note that the call is wrong, and why."""
        self.outcome, self.fault = Outcome.INVALID, fault


@dataclass(slots=True)
class Answer:
    """What an answer says, of whatever API. `length`: the token limit ended it."""

    content: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    length: bool = False
    steps: list[str] = field(default_factory=list)
    truncated_call: str = ""
    promoted: int = 0  # how many of `calls`, at their end, were text

    def note(self, steps: set[str]) -> None:
        """Add `steps`, in the order of the ladder."""
        self.steps = [step for step in STEPS if step in steps or step in self.steps]


class Ladder:
    """The ladder for the answers to one request."""

    def __init__(self, offered: Offered, level: Level = Level.SAFE) -> None:
        self.level = level
        self.offered = offered
        self.full = level is Level.FULL
        self.most = 1 if not offered.parallel else offered.most
        self.names = Names(offered.callable, full=self.full)

    def scanner(self, before: Callable[[], str] | None = None) -> Scanner:
        """A scanner for one text of an answer; `before` gives the part of it that it is not fed."""
        return Scanner(self.names.find, full=self.full, before=before)

    def heal(self, answer: Answer) -> Answer:
        """A whole answer, healed in place."""
        if answer.length or self.level is Level.OFF:
            self.check(answer)
            return answer
        channel = "content" if answer.content.strip() or answer.calls else "reasoning"
        text = getattr(answer, channel)
        if text and ("<" in text or "[" in text or self.full):
            scanner = self.scanner()
            out = scanner.feed(text)
            _, leaks = scanner.end()
            if leaks and (promoted := self.promoted(leaks)):
                calls, steps = promoted
                self.check(answer)
                del calls[self.most - len(answer.calls) :]
                setattr(answer, channel, out.rstrip())
                if channel == "reasoning":
                    answer.content = ""
                answer.calls += calls
                answer.promoted = len(calls)
                answer.note(steps)
                return answer
        self.check(answer)
        return answer

    def promoted(self, leaks: list[Leak]) -> tuple[list[ToolCall], set[str]] | None:
        """The calls that were text, with the steps; None unless each of them is right."""
        if self.level is Level.OFF:
            return None
        calls: list[ToolCall] = []
        steps = {"extract"}
        for leak in leaks:
            tool = self.names.find(leak.name)
            read = Read(leak.arguments, leak.mended) if isinstance(leak.arguments, dict) else None
            if tool is None:
                return None
            if read is None:
                read = read_object(leak.arguments)
            if read is None:
                return None
            arguments, fault = coerced(read.value, tool.schema, full=self.full)
            if fault:
                return None
            steps |= {"repair_json"} if read.mended else set()
            steps |= {"coerce"} if arguments is not read.value or read.repeated else set()
            steps |= {"name"} if tool.name != leak.name else set()
            calls.append(ToolCall(tool.name, text_of(arguments), outcome=Outcome.HEALED))
        if len(calls) > MOST_CALLS:
            return None
        if len(calls) > self.most:
            steps.add("parallel")
            del calls[self.most :]
        return calls, steps

    def check(self, answer: Answer) -> None:
        """Heal the engine's own calls; drop the one that the token limit cut."""
        if answer.length and answer.calls and not self._is_whole(answer.calls[-1]):
            answer.truncated_call = answer.calls.pop().name
        steps: set[str] = {"parallel"} if len(answer.calls) > self.most else set()
        del answer.calls[self.most :]
        for call in answer.calls:
            steps |= self.mend(call) if not answer.length else self.judge(call)
        answer.note(steps)

    def judge(self, call: ToolCall) -> set[str]:
        """Say whether an engine's call is right; it stays as it is."""
        tool = self.names.tools.get(call.name)
        read = read_strict(call.arguments)
        call.outcome = Outcome.CLEAN
        if tool is None or read is None:
            call.refused(NOT_OFFERED if tool is None else NO_OBJECT)
        elif fault := Checker(tool.schema).fault(read.value, tool.schema):
            call.refused(fault)
        return set()

    def invalid(self, answer: Answer) -> list[dict[str, Any]]:
        """The wrong calls of a checked answer; with healing off only those of tools with `strict`.

        Where no tools are offered there is nothing to judge by.
        """
        tools, off = self.offered.tools, self.level is Level.OFF
        if not tools:
            return []
        return [
            {"index": place, "name": call.name, "cause": call.fault}
            for place, call in enumerate(answer.calls)
            if call.fault and not (off and (call.name not in tools or not tools[call.name].strict))
        ]

    @property
    def passes(self) -> bool:
        """Whether all answers may go out unread: nothing is healed, limited or checked."""
        strict = any(tool.strict for tool in self.offered.tools.values())
        return self.level is Level.OFF and self.most == MOST_CALLS and not strict

    def mend(self, call: ToolCall) -> set[str]:
        """Heal one call of the engine, if that makes it right; returns the steps."""
        if self.level is Level.OFF:
            return self.judge(call)
        tool = self.names.find(call.name)
        found = self._read(call.arguments, tool) if tool is not None else None
        if tool is None or found is None:
            call.refused(NOT_OFFERED if tool is None else NO_OBJECT)
            return set()
        read, steps = found
        arguments, fault = coerced(read.value, tool.schema, full=self.full)
        if fault:
            call.refused(fault)
            return set()
        if tool.name != call.name:
            steps.add("name")
            call.name = tool.name
        if arguments is not read.value or read.repeated:
            steps.add("coerce")
        if steps - {"name"}:
            call.arguments = text_of(arguments)
        call.outcome = Outcome.HEALED if steps else Outcome.CLEAN
        return steps

    def _read(self, text: str, tool: Tool) -> tuple[Read, set[str]] | None:
        read = read_strict(text)
        if read is not None:
            return read, set()
        if (inside := parameters(text, tool)) is not None:
            return Read(inside), {"extract"}
        read = read_object(text)
        return (read, {"repair_json"}) if read is not None else None

    def _is_whole(self, call: ToolCall) -> bool:
        """Whether a call had the time to become whole: JSON, with all that is required."""
        read = read_strict(call.arguments)
        tool = self.names.find(call.name) or self.offered.tools.get(call.name)
        if read is None:
            return False
        required = tool.schema.get("required") if tool is not None else None
        return all(name in read.value for name in required) if isinstance(required, list) else True
