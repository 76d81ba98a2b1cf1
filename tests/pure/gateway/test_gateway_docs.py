"""The gateway's pages hold what the code does: metrics, error codes, fields of the access log, dropped fields."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from docs.generators.metrics import LABELS
from nemotron_ops.gateway.api.error_codes import ERROR_CODES
from nemotron_ops.gateway.api.errors import REASONS
from nemotron_ops.gateway.client.connection import ClientConnection
from nemotron_ops.gateway.observe.exposition import Picture, names, render
from nemotron_ops.gateway.observe.metrics import Metrics
from nemotron_ops.gateway.openapi.describe import describe
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.request.fields import ALLOWED
from nemotron_ops.gateway.server import Gateway
from nemotron_ops.supervisor.snapshot import Snapshot
from tests.fakes.transport import Transport

DOCS = Path(__file__).parents[3] / "docs"
SOURCE = Path(__file__).parents[3] / "nemotron_ops" / "gateway"


def rows_of(page: str) -> list[list[str]]:
    """The cells of all rows of all tables of a reference page."""
    lines = (DOCS / "reference" / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]


# metrics


def test_the_dashboard_shows_only_metrics_that_there_are() -> None:
    text = (DOCS / "grafana.json").read_text()
    json.loads(text)
    shown = set(re.findall(r"nemotron_ops_[a-z_]+", text))
    known = set(names()) | {n + s for n in names() for s in ("_bucket", "_sum", "_count")}
    assert shown
    assert shown <= known


def test_each_metric_of_the_endpoint_is_on_its_page_with_its_type_and_meaning() -> None:
    picture = Picture(
        metrics=Metrics(), snapshot=Snapshot(models=(), instances=()), queue_length={}, inflight={},
        reserved_tokens={}, connections=0, tasks=0, connected=True, version="1",
    )  # fmt: skip
    rows = {cells[0].strip("`"): cells for cells in rows_of("metrics.md")}
    families = list(text_string_to_metric_families(render(picture).decode()))
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        assert rows[name][1] == family.type
        assert rows[name][4] == family.documentation
    assert len(families) == len(names()) > 20
    assert {name for name in rows if name.startswith("nemotron_ops_")} == set(names())


def test_each_label_of_a_metric_has_a_meaning_and_none_is_unused() -> None:
    metrics = [cells for cells in rows_of("metrics.md") if cells[0].startswith("`nemotron_ops_")]
    assert {label for cells in metrics for label in re.findall(r"`(\w+)`", cells[2])} == set(LABELS)


# errors


@dataclass(frozen=True)
class Use:
    """A code in the source, as a regular expression, and its status; None: it is computed."""

    code: str
    status: int | None


def patterns(node: ast.expr) -> list[str]:
    """The codes that an expression can give, each as a regular expression."""
    match node:
        case ast.Constant(value=str(text)):
            return [re.escape(text)]
        case ast.IfExp(body=a, orelse=b):
            return patterns(a) + patterns(b)
        case ast.JoinedStr(values=parts):
            return ["".join(re.escape(str(p.value)) if isinstance(p, ast.Constant) else "[a-z_]+" for p in parts)]
        case _:
            return []


def literal_status(node: ast.expr | None) -> int | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int) else None


def argument(call: ast.Call, name: str, position: int | None) -> ast.expr | None:
    """The argument of `call` for the parameter `name` at `position`."""
    if found := next((k.value for k in call.keywords if k.arg == name), None):
        return found
    return call.args[position] if position is not None and position < len(call.args) else None


def called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def uses_in(tree: ast.Module) -> Iterator[Use]:
    """Each code that a `Refusal` is made with, also through a function that takes the code as its parameter."""
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    for refusal in (c for c in calls if called(c) == "Refusal"):
        code, status = argument(refusal, "code", None), argument(refusal, "status", None)
        assert code is not None, ast.unparse(refusal)
        found = patterns(code)
        yield from (Use(pattern, literal_status(status)) for pattern in found)
        if found or not isinstance(code, ast.Name):
            continue
        (maker,) = (f for f in functions if any(n is refusal for n in ast.walk(f)))
        takes = [a.arg for a in (*maker.args.args, *maker.args.kwonlyargs) if a.arg != "self"]
        for call in (c for c in calls if called(c) == maker.name):
            given = argument(call, code.id, takes.index(code.id))
            if isinstance(status, ast.Name):
                at = literal_status(argument(call, status.id, takes.index(status.id)))
            else:
                at = literal_status(status)
            assert given is not None
            assert patterns(given), f"{maker.name}: its code is not literal: {ast.unparse(call)}"
            yield from (Use(pattern, at) for pattern in patterns(given))


USES = {
    use
    for path in sorted(SOURCE.rglob("*.py"))
    if path.name != "error_codes.py"
    for use in uses_in(ast.parse(path.read_text()))
}


def test_each_error_code_of_the_gateway_is_in_the_table_with_its_status() -> None:
    assert len(USES) > 30
    for use in USES:
        found = [error for code, error in ERROR_CODES.items() if re.fullmatch(use.code, code)]
        assert found, f"{use.code} is not in ERROR_CODES"
        own = [error for error in found if error.statuses]  # the others have llama-server's status
        assert all(use.status in error.statuses for error in own), use


def test_no_entry_of_the_table_of_errors_is_unused() -> None:
    used = {(code, use.status) for code in ERROR_CODES for use in USES if re.fullmatch(use.code, code)}
    listed = {(code, status) for code, error in ERROR_CODES.items() for status in error.statuses}
    assert {code for code, _ in used} == set(ERROR_CODES)
    assert listed <= used
    assert {status for _, status in listed} <= set(REASONS)


def test_every_code_of_an_error_is_documented() -> None:
    assert {cells[0].strip("`") for cells in rows_of("api-errors.md")} == set(ERROR_CODES)
    page = (DOCS / "how-to" / "connect-clients.md").read_text()
    # codes that need no advice: HTTP that is wrong, and errors of llama-server
    own = {
        "bad_request", "body_too_large", "content_encoding", "content_type", "engine_error", "engine_refused",
        "head_too_large", "http_version", "instance_not_found", "internal", "invalid_form", "method",
        "method_not_allowed", "not_found", "request_timeout", "uri_too_long",
    }  # fmt: skip
    assert {c for c in set(ERROR_CODES) - own if f"`{c}`" not in page} == set()


# the access log


def test_the_fields_of_a_real_line_of_the_access_log_are_those_of_its_page() -> None:
    async def line() -> bytes:
        gateway = Gateway(Options(control="/nonexistent", access_log="-"), ring=None)
        client = ClientConnection(gateway, asyncio.get_running_loop())
        client.connection_made(Transport())  # type: ignore[arg-type]  # as much of one as is needed
        client.data_received(b"GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        gateway.accounting.settle()
        (written,) = gateway.accounting.log.take()
        return written

    found = json.loads(asyncio.run(line()))
    assert list(found) == [cells[0].strip("`") for cells in rows_of("access-log.md")]
    assert (found["path"], found["status"], found["cause"]) == ("/v1/nothing", 404, "not_found")
    kinds = {"string": str, "integer": int, "number": int | float, "number or null": int | float | None}
    for name, kind, _ in rows_of("access-log.md"):
        assert isinstance(found[name.strip("`")], kinds[kind]), name


# prose


def test_fields_that_are_called_dropped_are() -> None:
    page = (DOCS / "explanation" / "gateway.md").read_text()
    for name in ("id_slot", "n_cache_reuse", "n_discard", "lora"):
        assert f"`{name}`" in page
        assert not any(name in fields for fields in ALLOWED.values())


def test_the_description_of_the_api_is_complete() -> None:
    described = describe()
    ids = [o["operationId"] for methods in described["paths"].values() for o in methods.values()]
    assert len(ids) == len(set(ids))
    assert all(o["summary"] for methods in described["paths"].values() for o in methods.values())
