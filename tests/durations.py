"""Prints how long each ring took, its slowest tests and the sum, from the reports of the last run in build/tests."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

REPORTS = Path(__file__).parents[1] / "build/tests"


@dataclass(frozen=True, kw_only=True)
class Ring:
    """The report of one run of pytest."""

    name: str
    passed: int
    failed: int
    skipped: int
    wall_s: float
    tests: tuple[tuple[float, str], ...]


def read(path: Path) -> Ring:
    suite = next(ElementTree.parse(path).iter("testsuite"))
    total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    tests = [
        (float(case.get("time", 0)), f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}")
        for case in suite.iter("testcase")
    ]
    return Ring(
        name=path.stem, passed=total - failed - skipped, failed=failed, skipped=skipped,
        wall_s=float(suite.get("time", 0)), tests=tuple(sorted(tests, reverse=True)),
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slowest", type=int, default=3, help="tests to name for each ring")
    args = parser.parse_args()
    rings = [read(path) for path in sorted(REPORTS.glob("*.xml"), key=lambda p: p.stat().st_mtime)]
    for ring in rings:
        one_by_one_s = sum(seconds for seconds, _ in ring.tests)
        print(f"{ring.name:16} {ring.passed:5} passed  {ring.wall_s:5.0f} s, {one_by_one_s:5.0f} s one by one")
        for seconds, name in ring.tests[: args.slowest]:
            print(f"{'':16} {seconds:12.1f} s  {name}")
    failed, skipped = sum(r.failed for r in rings), sum(r.skipped for r in rings)
    counts = [f"{failed} failed"] * bool(failed) + [f"{sum(r.passed for r in rings)} passed"]
    counts += [f"{skipped} skipped"] * bool(skipped)
    print(f"{', '.join(counts)} in {sum(r.wall_s for r in rings):.2f}s")
    return 1 if failed or not rings else 0


if __name__ == "__main__":
    sys.exit(main())
