"""The gateway's pages say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from nemotron_ops.gateway.observe.exposition import names
from nemotron_ops.gateway.openapi.describe import describe
from nemotron_ops.gateway.request.fields import ALLOWED
from tests.tables.gateway_faults import PAGE, page_with_table

DOCS = PAGE.parents[1]
SOURCE = Path(__file__).parents[3] / "nemotron_ops" / "gateway"


def test_the_fault_table_is_what_the_tests_hold() -> None:
    assert PAGE.read_text() == page_with_table(PAGE.read_text()), "run `python -m tests.tables.gateway_faults`"


def test_the_dashboard_shows_only_metrics_that_there_are() -> None:
    text = (DOCS / "grafana.json").read_text()
    json.loads(text)
    shown = set(re.findall(r"nemotron_ops_[a-z_]+", text))
    known = set(names()) | {n + s for n in names() for s in ("_bucket", "_sum", "_count")}
    assert shown
    assert shown <= known


def test_every_code_of_an_error_is_documented() -> None:
    source = "".join(p.read_text() for p in SOURCE.rglob("*.py"))
    codes = set(re.findall(r'code="([a-z_]+)"', source))
    page = (DOCS / "how-to" / "connect-clients.md").read_text()
    # what only programs that speak HTTP wrongly get to see
    own = {
        "bad_request", "body_too_large", "content_encoding", "content_type", "engine_error", "head_too_large",
        "http_version", "instance_not_found", "internal", "invalid_form", "method", "method_not_allowed", "not_found",
        "request_timeout", "uri_too_long",
    }  # fmt: skip
    assert {c for c in codes - own if f"`{c}`" not in page} == set()


def test_fields_that_are_called_dropped_are() -> None:
    for name in ("id_slot", "n_cache_reuse", "n_discard", "lora"):
        assert f"`{name}`" in PAGE.read_text()
        assert not any(name in fields for fields in ALLOWED.values())


def test_the_description_of_the_api_is_complete() -> None:
    described = describe()
    ids = [o["operationId"] for methods in described["paths"].values() for o in methods.values()]
    assert len(ids) == len(set(ids))
    assert all(o["summary"] for methods in described["paths"].values() for o in methods.values())
