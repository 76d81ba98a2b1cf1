"""Checks files of training data: every finding with its rows, counts, reasoning share. Disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from nemotron_ops.progress import Report, Step, silent
from nemotron_ops.tune.contamination import HeldOut
from nemotron_ops.tune.findings import KINDS, Found
from nemotron_ops.tune.row_checks import LETTERS_PER_TOKEN, folded, found_in, letters_of, question_of, reasons
from nemotron_ops.tune.rows import Unreadable, rows_of
from nemotron_ops.tune.shapes import Sample, ShapeError, sample_of

SHOWN_ROWS = 20  # row numbers that a finding keeps for each file
LEAST_REASONING = 0.75
DOMINATING = 0.2  # share of one answer
DOMINATING_ROWS = 20  # below so many rows a share says nothing
REPORT_ROWS = 5000
KEPT_TEXTS = 1000  # answers whose text is kept, to name one that dominates

Count = Callable[[Sample], tuple[int, int]]  # tokens before the answer, and of it


def estimated(sample: Sample) -> tuple[int, int]:
    """Tokens of a sample by the letters of English text."""
    before, after = letters_of(sample)
    return int(before / LETTERS_PER_TOKEN) + 1, int(after / LETTERS_PER_TOKEN) + 1


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the data are checked against. `max_length` is in tokens, 0 without a bound."""

    max_length: int = 0
    count: Count = estimated
    tests: tuple[Path, ...] = ()


@dataclass
class Finding:
    """All findings of one kind in one file: how many, the first row numbers, and what the first one says."""

    name: str
    file: str
    count: int = 0
    rows: list[int] = field(default_factory=list)
    said: str = ""


@dataclass
class Checked:
    """What a check found. Tokens are estimates unless counted with a vocabulary."""

    rows: int = 0
    samples: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    reasoning: int = 0
    tokens: int = 0
    answer_tokens: int = 0
    longest: int = 0
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)

    @property
    def reasoning_share(self) -> float:
        """Share of the answers that reason first; 1 where there is no answer."""
        return self.reasoning / self.answers if self.answers else 1.0

    @property
    def errors(self) -> int:
        """Findings that stop training."""
        return sum(f.count for f in self.findings.values() if KINDS[f.name].level == "error")

    def add(self, file: str, row: int, found: Found) -> None:
        """Keep one finding; row 0 stands for the whole file."""
        it = self.findings.setdefault((found.name, file), Finding(found.name, file, said=found.said))
        it.count += 1
        if row and len(it.rows) < SHOWN_ROWS:
            it.rows.append(row)


def check(files: Iterable[Path], rules: Rules, report: Report = silent) -> Checked:
    """Check all rows of `files` together. Raises UsageError where a file cannot be read at all."""
    run = _Run(rules)
    for path in files:
        for number, row in rows_of(path):
            run.row(path.name, number, row)
            if run.checked.rows % REPORT_ROWS == 0:
                report(Step(what="check rows", done=run.checked.rows, unit="rows"))
    run.end()
    return run.checked


class _Run:
    """One check over all files: what earlier rows said."""

    def __init__(self, rules: Rules) -> None:
        self.checked = Checked()
        self._rules = rules
        self._seen: dict[int, int] = {}  # whole row -> its number
        self._asked: dict[int, int] = {}  # question -> its answer
        self._answers: Counter[int] = Counter()
        self._answer_text: dict[int, str] = {}
        self._held_out = HeldOut()
        for path in rules.tests:
            for _, row in rows_of(path):
                if not isinstance(row, Unreadable) and (sample := _sample(row)):
                    self._held_out.add(question_of(sample))

    def row(self, file: str, number: int, row: object) -> None:
        checked = self.checked
        checked.rows += 1
        if isinstance(row, Unreadable):
            checked.add(file, number, Found("unreadable-row", row.why))
            return
        assert isinstance(row, dict)
        try:
            sample = sample_of(row)
        except ShapeError as exc:
            checked.add(file, number, Found("unknown-shape", str(exc)))
            return
        checked.samples += 1
        checked.shapes[sample.shape] += 1
        for found in found_in(sample):
            checked.add(file, number, found)
        self._compare(file, number, sample)
        self._measure(file, number, sample)

    def _compare(self, file: str, number: int, sample: Sample) -> None:
        question, answer = question_of(sample), _answer(sample)
        asked, answered = hash(question), hash(answer)
        first = self._seen.setdefault(hash((asked, answered)), number)
        if first != number:
            self.checked.add(file, number, Found("duplicate", f"of row {first}"))
        elif self._asked.setdefault(asked, answered) != answered:
            self.checked.add(file, number, Found("contradiction"))
        if answer:
            self._answers[answered] += 1
            if len(self._answer_text) < KEPT_TEXTS:
                self._answer_text.setdefault(answered, answer[:60])
        if self._held_out and (how := self._held_out.holds(question)):
            self.checked.add(file, number, Found("contaminated", how))

    def _measure(self, file: str, number: int, sample: Sample) -> None:
        checked = self.checked
        before, after = self._rules.count(sample)
        checked.tokens += before + after
        checked.longest = max(checked.longest, before + after)
        if sample.messages[-1].role == "assistant":
            checked.answers += 1
            checked.reasoning += reasons(sample)
            checked.answer_tokens += after
        most = self._rules.max_length
        if most and before + after > most:
            checked.add(file, number, Found("too-long", f"about {before + after} tokens"))
            if before >= most:
                checked.add(file, number, Found("no-label", f"its prompt alone has about {before} tokens"))

    def end(self) -> None:
        checked = self.checked
        if checked.answers and checked.reasoning_share < LEAST_REASONING:
            checked.add("", 0, Found("few-reasoning", f"{checked.reasoning_share:.0%}"))
        for answer, times in self._answers.most_common(1):
            if checked.answers >= DOMINATING_ROWS and times / checked.answers > DOMINATING:
                said = f"{times} of {checked.answers}: {self._answer_text.get(answer, '')!r}"
                checked.add("", 0, Found("dominating-answer", said))


def _answer(sample: Sample) -> str:
    last = sample.messages[-1]
    return folded(last.content) if last.role == "assistant" else ""


def _sample(row: object) -> Sample | None:
    try:
        return sample_of(row) if isinstance(row, dict) else None
    except ShapeError:
        return None
