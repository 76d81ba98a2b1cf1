"""What operations decide without a machine: builds, quants and settings of a wish, the words of a detached serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemotron_ops.builds.spec import Backend, BuildOptions
from nemotron_ops.cli.serve import ServeOptions, serve
from nemotron_ops.host.facts import Facts, Tool
from nemotron_ops.installation import Installation
from nemotron_ops.memory.pack import ModelToPack, Quant, Refusal, pack
from nemotron_ops.operations.building import ZIG_QUESTION, refuse, with_zig
from nemotron_ops.operations.detach import serve_argv, tail
from nemotron_ops.operations.memory_budget import settings_by_hand, with_placement, with_quant
from nemotron_ops.operations.serving import gateway_argv
from nemotron_ops.operations.wish import Composed, Endpoint, ModelWish, Wish
from nemotron_ops.paths import user_layout
from nemotron_ops.recipes.load import load_recipe
from nemotron_ops.recipes.resolve import Plan, Settings, resolve
from nemotron_ops.supervisor.spec import Config
from tests.fakes.shapes import true_header

GIB = 1 << 30
TOOLS = {name: Tool(path=f"/usr/bin/{name}", version=(13, 2)) for name in ("cc", "cxx")}


def here(tmp_path: Path, *, tools: dict[str, Tool] | None = None) -> Installation:
    facts = Facts(system="Linux", machine="x86_64", ram_bytes=64 * GIB, ram_available_bytes=64 * GIB, tools=tools or {})
    env = {"NEMOTRON_OPS_HOME": str(tmp_path)}
    return Installation(layout=user_layout(env, uid=1), env=env, known=facts)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return resolve(load_recipe("30b", here(tmp_path).layout), flags={"parallel": 2})


def test_zig_is_asked_for_only_where_there_is_no_compiler(tmp_path: Path) -> None:
    asked: list[str] = []

    def agree(question: str) -> bool:
        asked.append(question)
        return True

    options = with_zig(BuildOptions(), here(tmp_path), agree)
    assert (options.zig, options.backend, asked) == (True, Backend.CPU, [ZIG_QUESTION])
    assert with_zig(BuildOptions(), here(tmp_path, tools=TOOLS), agree) == BuildOptions()
    assert with_zig(BuildOptions(backend=Backend.CUDA), here(tmp_path), agree).zig is False
    assert with_zig(BuildOptions(), here(tmp_path), refuse).zig is False
    assert asked == [ZIG_QUESTION]


@pytest.mark.parametrize(
    ("target", "quants", "is_open"),
    [
        ("30b", {}, True),
        ("30b:Q8_0", {}, False),
        ("30b", {"30b": "Q8_0"}, False),
        ("30b", {"": "Q8_0"}, False),
        ("30b", {"4b": "Q8_0"}, True),
    ],
)
def test_a_quant_given_by_hand_is_served_or_refused(target: str, quants: dict[str, str], is_open: bool) -> None:
    model = ModelWish(target=target)
    assert Wish(models=(model,), quants=quants).quant_is_open(model, "30b") is is_open


def test_memory_planning_keeps_what_was_chosen_by_hand_and_says_what_it_decided(plan: Plan, tmp_path: Path) -> None:
    assert settings_by_hand(plan) == {"parallel", "temp", "top_p"}
    own = Quant(name="Q4_K", header=true_header("30b", "Q4_K"))
    model = ModelToPack(name="30b", quants=(own,), server=plan.server, by_hand=settings_by_hand(plan))
    packed = pack([model], here(tmp_path).machine)
    assert not isinstance(packed, Refusal)
    found = packed[0].placements[0]
    assert found
    placed = with_placement(plan, found)
    assert placed.settings["parallel"] == plan.settings["parallel"]
    decided = {k: s.source for k, s in placed.settings.items() if s != plan.settings.get(k)}
    assert set(decided.values()) <= {f"memory: {found.why}"}
    assert with_placement(plan, None) == plan


def test_what_the_gateways_errors_advise_are_options_of_serve_and_settings() -> None:
    wanted = ServeOptions(
        files=(),
        repos=(),
        quants=(),
        adapters=(),
        allowed_hosts=("a.example",),
        tls_cert="c.pem",
        max_connections=9,
        max_receiving_mib=7,
    )
    settings = wanted.wish(("tiny",), ()).settings(Settings(allowed_origins=("https://b.example",)))
    layout = user_layout({"NEMOTRON_OPS_HOME": "/h"}, uid=0)
    argv = gateway_argv(Endpoint(host="127.0.0.1", port=1, settings=settings), layout)
    for flag, value in (
        ("--allowed-host", "a.example"), ("--allowed-origin", "https://b.example"), ("--max-connections", "9"),
        ("--max-receiving-mib", "7"), ("--tls-cert", str(Path("c.pem").absolute())),
    ):  # fmt: skip
        assert argv[argv.index(flag) + 1] == value
    known = {opt for param in serve.params for opt in param.opts}
    advised = {"--allowed-host", "--allowed-origin", "--tls-cert", "--tls-key", "--max-connections"}
    assert {*advised, "--max-receiving-mib"} <= known


def test_a_failed_start_shows_only_its_own_log(tmp_path: Path) -> None:
    log = tmp_path / "supervisor.log"
    log.write_text("error: of an earlier start\n")
    before = log.stat().st_size
    with log.open("a") as sink:
        sink.write("error: of this start\n")
    assert tail(log, since=before) == ("error: of this start",)
    assert tail(tmp_path / "none", since=before) == ()


def test_a_detached_serve_gets_the_quant_that_was_decided_and_makes_nothing_itself(plan: Plan) -> None:
    chosen = with_quant(plan, "Q2_K")
    composed = Composed(
        endpoint=Endpoint(host="127.0.0.1", port=8001), plans=(chosen,), config=Config(models=(), instances=())
    )
    words = serve_argv(["30b", "--detach", "--json"], ["--swa-full"], composed)[4:]
    assert words == ["serve", "30b", "--no-build", "--no-fetch", "--decided", "30b=Q2_K", "--", "--swa-full"]
    assert with_quant(plan, plan.recipe.model.quant.lower()) is plan
