"""Which charts runs have, what is in their pictures, and that no name of a model becomes markup. Costs 3 s."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from nemotron_ops.errors import HostError
from nemotron_ops.measure.pictures.chart import Bar, Bars, Lines, Panel, Series
from nemotron_ops.measure.pictures.drawing import draw
from nemotron_ops.measure.pictures.of_runs import charts_of
from nemotron_ops.measure.pictures.page import Table, page
from nemotron_ops.measure.runs import Result, Run

SPREAD = {"p50": 0.1, "p95": 0.2, "p99": 0.3, "mean": 0.1}
SUMMARY = {
    **dict.fromkeys(("ttft_s", "itl_s", "token_time_s", "latency_s", "request_tokens_per_s"), SPREAD),
    "tokens_per_s": 40.0,
    "engine_prompt_per_s": 900.0,
    "engine_tokens_per_s": 50.0,
}


def result(run: str, at_s: float = 0.0, build: str = "b1", **load: float) -> Result:
    given = {"concurrency": 1, "rate_per_s": 0.0, "prompt_tokens": 128, **load}
    repeats = tuple({**SUMMARY, "tokens_per_s": v} for v in (38.0, 40.0, 41.0))
    return Result(
        run=run, at_s=at_s, label="tiny", load=given, load_name=str(sorted(load.items())), limit={}, summary=SUMMARY,
        repeats=repeats, made_by={"build": {"id": build}},
    )  # fmt: skip


def run(*results: Result) -> Run:
    return Run(id=results[0].run, results=results)


def names(*runs: Run, history: tuple[Run, ...] = ()) -> set[str]:
    return {c.name for c in charts_of(runs, history)}


def test_a_run_over_concurrency_shows_latency_and_throughput() -> None:
    one = run(*(result("a", concurrency=n) for n in (1, 4, 2)))
    charts = {c.name: c for c in charts_of([one])}
    latency = charts["ttft-against-concurrency"]
    assert isinstance(latency, Lines)
    assert [s.name for s in latency.series] == ["p50", "p95", "p99"]
    assert latency.series[1].x == (1, 2, 4)
    assert latency.series[1].y == (200.0, 200.0, 200.0)
    assert "throughput-against-concurrency" in charts
    assert "ttft-against-rate" not in charts


def test_open_and_closed_loops_are_not_in_one_chart() -> None:
    one = run(result("a", concurrency=1), result("a", rate_per_s=1.0), result("a", rate_per_s=2.0))
    found = names(one)
    assert "ttft-against-rate" in found
    assert "ttft-against-concurrency" not in found


def test_prompt_lengths_show_speed_against_context() -> None:
    one = run(result("a", prompt_tokens=128), result("a", prompt_tokens=4096))
    assert {"prompt-speed-against-context", "generation-speed-against-context"} <= names(one)


def test_a_load_alone_has_no_chart_but_its_history() -> None:
    runs = tuple(run(result(n, at_s=t, build=b)) for n, t, b in (("a", 1, "b1"), ("b", 2, "b1"), ("c", 3, "b2")))
    (chart,) = charts_of(runs[-1:], runs)
    assert isinstance(chart, Lines)
    assert chart.name == "builds-over-time"
    assert chart.series[0].notes == ("b1", "", "b2")
    assert (chart.series[0].low[0], chart.series[0].y[0], chart.series[0].high[0]) == (38.0, 40.0, 41.0)


LINES = Lines(
    name="n", title="Speed of <b>x & y</b> $\\alpha$", x_label="x", y_label="y",
    series=(Series(name="<script>1</script>", x=(1, 2), y=(3, 4), low=(2, 3), high=(4, 5)),),
)  # fmt: skip
BARS = Bars(
    name="b", title="Share", largest=1,
    panels=(Panel(title="sums", bars=(Bar(name="A", value=0.5, low=0.4, high=0.6), Bar(name="B", value=0.9))),),
)  # fmt: skip


@pytest.mark.parametrize("chart", [LINES, BARS, replace(LINES, dates=True), replace(LINES, log_x=True)])
def test_a_picture_is_valid_and_the_same_each_time(chart: Lines | Bars) -> None:
    svg = draw(chart)
    texts = [t.text or "" for t in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert chart.title in texts
    assert svg == draw(chart)
    assert draw(chart, "png").startswith(b"\x89PNG")


def test_a_bar_is_as_long_as_its_value_and_says_it() -> None:
    svg = draw(BARS).decode()
    assert ">0.5<" in svg
    assert ">0.9<" in svg


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(HostError, match="matplotlib is not installed") as caught:
        draw(LINES)
    assert "[plots]" in str(caught.value.hint)


def test_a_page_holds_everything_and_runs_nothing() -> None:
    table = Table(title="<img src=x onerror=alert(1)>", header=("a",), rows=(("<script>",),), note="&")
    text = page("<title>", [table], [('"><script>', draw(LINES))])
    assert "<script" not in text
    assert "<img src=x" not in text
    assert set(re.findall(r'(?:src|href)="([a-z+/]+:[a-z+/]+)', text)) == {"data:image/svg+xml"}
    assert "http" not in re.sub(r"base64,[^\"]*", "", text).replace("http-equiv", "")
