"""The pages about services and deploys have a row for each fault that a host test shows, and its transcripts."""

from __future__ import annotations

import re

import pytest

from tests.tables.host_faults import PAGES, faults, page_with_table
from tests.tables.transcript import WRITE, compared, stable


@pytest.mark.parametrize("module", PAGES)
def test_the_table_of_faults_has_a_row_for_each_test_that_shows_one(module: str) -> None:
    text = PAGES[module].read_text()
    assert len(faults(module)) > 1
    assert text == page_with_table(text, module), "run `make docs`"


@pytest.mark.parametrize("page", ["test_service_hosts", "test_balancer_hosts"])
def test_every_transcript_has_the_output_of_a_run(page: str) -> None:
    text = PAGES[page].read_text()
    found = re.findall(r"<!-- transcript: \w+ -->\n```console\n(.*?)\n```\n<!-- /transcript -->", text, re.DOTALL)
    assert len(found) == text.count("<!-- transcript: ") > 0, f"set {WRITE}=1"
    for block in found:
        assert [x for x in block.splitlines() if not x.startswith(("$ ", "# "))], block


def test_a_transcript_keeps_what_is_the_same_in_each_run_and_puts_machines_one_after_another() -> None:
    output = """\
send bundle-3593d0e6c09bf1a1.tar: 2 % 1.05 MB of 64.5 MB
gpu3: try: serve
gpu2: try: serve
gpu3:   version: 0.5.0-dev (build 11370, commit 0c1e5709)
gpu3: activate: switch
gpu2: activate: switch
ready: http://127.0.0.1:8001/v1 (pid 4711)
gpu2    0.1.0-b28be5cbcf  deployed
"""
    assert stable(output) == [
        "gpu2: try: serve",
        "gpu2: activate: switch",
        "gpu3: try: serve",
        "gpu3: activate: switch",
        "ready: http://127.0.0.1:8001/v1 (pid PID)",
        "gpu2    RELEASE           deployed",
    ]


def test_only_counts_may_differ_from_the_page() -> None:
    assert compared("210 requests served, 0 failed") == compared("98 requests served, 0 failed")
    assert compared("gpu1   UP      12") == compared("gpu1  UP  9")
    assert compared("gpu1  UP  9") != compared("gpu1  DOWN  9")
    assert compared("ready: http://127.0.0.1:8001") != compared("ready: http://127.0.0.1:8002")
