"""Which charts belong to runs: latency and throughput against load, speed against context, builds over time. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nemotron_ops.measure.pictures.chart import Chart, Lines, Series
from nemotron_ops.measure.runs import Result, Run

MS = 1000.0
HISTORY_OF = ("tokens_per_s", "tokens per second, all requests")
Number = Callable[[Mapping[str, Any]], float | None]


def charts_of(runs: Sequence[Run], history: Sequence[Run] = ()) -> tuple[Chart, ...]:
    """The charts for which `runs` have at least two points; `history` are all runs that are kept."""
    found = [*latency(runs), *throughput(runs), *context(runs), *over_time(runs, history)]
    return tuple(c for c in found if c is not None)


def latency(runs: Sequence[Run]) -> list[Chart | None]:
    """TTFT and time per token against concurrency, and against arrival rate."""
    charts: list[Chart | None] = []
    for axis, label in AXES:
        for figure, title in (("ttft_s", "Time to the first token"), ("token_time_s", "Time per token")):
            series = [
                s
                for q, dash in QUANTILES
                for s in _series(runs, axis, _part(figure, q, MS), name=f"{{}} {q}", by="prompt_tokens", dash=dash)
            ]
            series.sort(key=lambda s: s.colour)
            name = f"{'ttft' if figure == 'ttft_s' else 'token-time'}-against-{axis.replace('_per_s', '')}"
            charts.append(_lines(name, f"{title} against load", label, "milliseconds", series))
    return charts


def throughput(runs: Sequence[Run]) -> list[Chart | None]:
    """Tokens per second against concurrency: of all requests, and of each."""
    axis, label = AXES[0]
    series = [
        *_series(runs, axis, _whole("tokens_per_s"), name="{} in all", by="prompt_tokens", spread="tokens_per_s"),
        *_series(
            runs, axis, _part("request_tokens_per_s", "p50"), name="{} each request", by="prompt_tokens", dash="--"
        ),
    ]
    return [_lines("throughput-against-concurrency", "Throughput against load", label, "tokens per second", series)]


def context(runs: Sequence[Run]) -> list[Chart | None]:
    """Prompt and generation speed of the engine against the length of the prompt."""
    charts: list[Chart | None] = []
    for figure, title in (("engine_prompt_per_s", "Prompt speed"), ("engine_tokens_per_s", "Generation speed")):
        series = _series(runs, "prompt_tokens", _whole(figure), name="{}", by="concurrency", spread=figure)
        name = f"{title.lower().replace(' ', '-')}-against-context"
        chart = _lines(name, f"{title} against context", "prompt tokens", "tokens per second", series, log_x=True)
        charts.append(chart)
    return charts


def over_time(runs: Sequence[Run], history: Sequence[Run]) -> list[Chart | None]:
    """Throughput of the loads of `runs` in all kept runs of the same name, with the build of each."""
    figure, label = HISTORY_OF
    wanted = {(r.label, load) for r in runs for load in r.repeats}
    points: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for run in history:
        for result in run.results:
            if (run.label, result.load_name) in wanted:
                points[run.label, result.load_name].append(result)
    series = []
    for colour, ((name, load), results) in enumerate(points.items()):
        values = [[v for s in r.repeats if (v := s.get(figure)) is not None] for r in results]
        kept = [(r, v) for r, v in zip(results, values, strict=True) if v]
        series.append(
            Series(
                name=f"{name} · {load}",
                x=tuple(r.at_s for r, _ in kept),
                y=tuple(sorted(v)[len(v) // 2] for _, v in kept),
                low=tuple(min(v) for _, v in kept),
                high=tuple(max(v) for _, v in kept),
                colour=colour,
                notes=_changes([str(r.made_by.get("build", {}).get("id", "")) for r, _ in kept]),
            )
        )
    return [_lines("builds-over-time", "Builds over time", "", label, series, dates=True)]


QUANTILES = (("p50", "-"), ("p95", "--"), ("p99", ":"))
AXES = (("concurrency", "requests at once"), ("rate_per_s", "requests per second"))


def _changes(builds: Sequence[str]) -> tuple[str, ...]:
    """Each build where it is another one than before."""
    return tuple(b if i == 0 or b != builds[i - 1] else "" for i, b in enumerate(builds))


def _series(
    runs: Sequence[Run], axis: str, number: Number, *, name: str, by: str, spread: str = "", dash: str = "-"
) -> list[Series]:
    """One series per run and value of `by`: `number` of each load against its `axis`; open and closed loops apart."""
    groups: dict[tuple[str, float], list[Result]] = defaultdict(list)
    for run in runs:
        for result in run.results:
            opened = bool(result.load["rate_per_s"])
            if opened == (axis == "rate_per_s") or (axis == "prompt_tokens" and not opened):
                groups[run.id, result.load[by]].append(result)
    several_runs, several = len({k[0] for k in groups}) > 1, len({k[1] for k in groups}) > 1
    found = []
    for colour, ((run_id, value), results) in enumerate(groups.items()):
        label = next(r.label for r in runs if r.id == run_id)
        said = [label] if several_runs else []
        said += [f"{value:g} {'prompt tokens' if by == 'prompt_tokens' else 'at once'}"] if several else []
        points = sorted(
            ((r.load[axis], y, r) for r in results if (y := number(r.summary)) is not None), key=lambda p: float(p[0])
        )
        ranges = [[v for s in r.repeats if (v := s.get(spread)) is not None] for _, _, r in points] if spread else []
        found.append(
            Series(
                name=name.format(" ".join(said)).strip() or label,
                x=tuple(float(x) for x, _, _ in points),
                y=tuple(float(y) for _, y, _ in points),
                low=tuple(min(v) for v in ranges),
                high=tuple(max(v) for v in ranges),
                colour=colour,
                dash=dash,
            )
        )
    return found


def _lines(name: str, title: str, x_label: str, y_label: str, series: Sequence[Series], **fields: bool) -> Lines | None:
    """The chart, if one of its series is more than a point."""
    kept = tuple(s for s in series if len(s.x) >= 2)
    if not kept:
        return None
    return Lines(name=name, title=title, x_label=x_label, y_label=y_label, series=kept, **fields)


def _whole(figure: str) -> Number:
    return lambda summary: summary.get(figure)


def _part(figure: str, q: str, factor: float = 1.0) -> Number:
    def number(summary: Mapping[str, Any]) -> float | None:
        value = summary[figure][q]
        return None if value is None else value * factor

    return number
