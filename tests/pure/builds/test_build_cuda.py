"""CUDA: the choice of toolkit and architectures, and every refusal with its remedy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nemotron_ops.builds.toolchain.cuda import choose, cmake_arch, parse_arch, refuse
from nemotron_ops.errors import HostError, UsageError
from nemotron_ops.host import Facts, Gpu, Tool
from tests.fakes.machines import GCC12, GCC16, H100, LAPTOP, MAC, SPARK, WHEELS, nvcc

TWO_KINDS = replace(
    H100,
    gpus=(
        Gpu(index=0, kind="cuda", name="NVIDIA H100", compute_capability=(9, 0)),
        Gpu(index=1, kind="cuda", name="NVIDIA H100", compute_capability=(9, 0)),
        Gpu(index=2, kind="cuda", name="NVIDIA L4", compute_capability=(8, 9)),
    ),
)
MIG = replace(
    H100, gpus=(Gpu(index=0, kind="cuda", name="NVIDIA H100 MIG 1g.10gb", compute_capability=(9, 0), mig=True),)
)
V100 = replace(H100, gpus=(Gpu(index=0, kind="cuda", name="Tesla V100", compute_capability=(7, 0)),))
OLD_DRIVER = replace(H100, driver_version="550.54.14", driver_cuda=(12, 4))
RUBIN = replace(H100, gpus=(Gpu(index=0, kind="cuda", name="Next", compute_capability=(15, 0)),))


def with_tools(facts: Facts, **tools: Tool) -> Facts:
    return replace(facts, tools={**facts.tools, **tools})


def chosen(facts: Facts, *asked: str) -> tuple[tuple[str, ...], str, bool]:
    choice = choose(facts, asked, facts.tools.get("cxx"))
    version = ".".join(str(n) for n in choice.toolkit.version)
    return choice.archs, version, choice.toolkit.from_wheels


def test_a_machine_with_only_a_driver_gets_the_toolkit_from_wheels() -> None:
    assert chosen(H100) == (("90-real",), "13.0.2", True)


def test_the_systems_toolkit_is_used_where_it_fits() -> None:
    assert chosen(with_tools(H100, **nvcc(13, 0, 88))) == (("90-real",), "13.0.88", False)


def test_each_kind_of_gpu_is_built_for_once() -> None:
    assert chosen(TWO_KINDS)[0] == ("89-real", "90-real")


def test_a_slice_of_a_gpu_counts_as_that_gpu() -> None:
    assert chosen(MIG)[0] == ("90-real",)


def test_blackwell_gets_its_own_features() -> None:
    assert chosen(SPARK)[0] == ("121a-real",)
    assert cmake_arch(120) == "120a-real"
    assert cmake_arch(100) == "100-real"


def test_a_newer_minor_release_runs_on_the_driver_as_real_code() -> None:
    assert chosen(with_tools(OLD_DRIVER, **nvcc(12, 9, 41))) == (("90-real",), "12.9.41", False)


def test_a_toolkit_without_cublas_is_not_used() -> None:
    facts = replace(with_tools(H100, **nvcc(13, 0, 88)), cuda_lacks=("cublas",))
    choice = choose(facts, (), facts.tools["cxx"])
    assert choice.toolkit.from_wheels
    assert "lacks cublas" in choice.toolkit.why


def test_a_toolkit_too_new_for_the_driver_is_left_for_the_wheels() -> None:
    facts = with_tools(replace(H100, driver_cuda=(13, 0)), **nvcc(14, 0))
    choice = choose(facts, (), facts.tools["cxx"])
    assert choice.toolkit.from_wheels
    assert "needs a newer driver" in choice.toolkit.why


def test_architectures_of_another_machine_need_no_gpu_and_no_driver_here() -> None:
    assert chosen(LAPTOP, "90", "8.9", "sm_120") == (("89-real", "90-real", "120a-real"), "13.0.2", True)


def test_the_driver_here_is_minded_when_the_architectures_asked_for_are_those_of_the_gpus_here() -> None:
    assert chosen(OLD_DRIVER, "90") == chosen(OLD_DRIVER) == (("90-real",), "12.4.1", True)
    both = replace(TWO_KINDS, driver_version="550.54.14", driver_cuda=(12, 4))
    assert chosen(both, "89")[1] == "12.4.1"


def test_the_driver_here_is_minded_when_a_gpu_here_does_not_tell_what_it_is() -> None:
    facts = replace(OLD_DRIVER, gpus=(Gpu(index=0, kind="cuda", name="some GPU"),))
    assert chosen(facts, "90")[1] == "12.4.1"


def test_for_another_machines_gpu_its_driver_is_named_and_the_one_here_does_not_matter() -> None:
    choice = choose(OLD_DRIVER, ("120",), OLD_DRIVER.tools["cxx"])
    assert choice.toolkit.version == (13, 0, 2)
    assert choice.toolkit.why.endswith("the GPU's machine needs driver 580 or newer")
    assert "machine needs" not in choose(OLD_DRIVER, ("90",), OLD_DRIVER.tools["cxx"]).toolkit.why


def refused(facts: Facts, *asked: str) -> HostError:
    with pytest.raises(HostError) as caught:
        choose(facts, asked, facts.tools.get("cxx"))
    return caught.value


def test_no_gpu_is_refused_and_names_the_ways_out() -> None:
    error = refused(LAPTOP)
    assert "no NVIDIA GPU" in error.message
    assert error.hint is not None
    assert "--cuda-arch" in error.hint
    assert "--cpu" in error.hint


@pytest.mark.parametrize("runs", [(12, 0), (12, 2), (12, 4), (12, 9)])
def test_a_driver_that_runs_cuda_12_gets_the_toolkit_for_it(runs: tuple[int, int]) -> None:
    assert chosen(replace(OLD_DRIVER, driver_cuda=runs)) == (("90-real",), "12.4.1", True)


@pytest.mark.parametrize(
    ("capability", "version"),
    [((5, 0), "12.4.1"), ((6, 1), "12.4.1"), ((7, 0), "12.4.1"), ((7, 5), "13.0.2"), ((12, 1), "13.0.2")],
)
def test_a_gpu_gets_the_newest_toolkit_that_still_knows_it(capability: tuple[int, int], version: str) -> None:
    facts = replace(H100, gpus=(Gpu(index=0, kind="cuda", name="G", compute_capability=capability),))
    assert chosen(facts)[1:] == (version, True)


def test_an_old_and_a_new_gpu_get_one_toolkit_that_knows_both() -> None:
    assert chosen(LAPTOP, "70", "90") == (("70-real", "90-real"), "12.4.1", True)


def test_a_toolkit_too_new_for_an_old_driver_is_left_for_an_older_one() -> None:
    facts = with_tools(OLD_DRIVER, **nvcc(13, 0, 88))
    choice = choose(facts, (), facts.tools["cxx"])
    assert (choice.toolkit.version, choice.toolkit.from_wheels) == ((12, 4, 1), True)
    assert "/usr/local/cuda/bin/nvcc: CUDA 13.0 needs a newer driver" in choice.toolkit.why
    assert "CUDA 13.0.2 from wheels: CUDA 13.0 needs a newer driver" in choice.toolkit.why


def test_a_driver_too_old_for_every_toolkit_is_refused() -> None:
    error = refused(replace(OLD_DRIVER, driver_version="470.256", driver_cuda=(11, 4)))
    assert "CUDA 12.4 needs a newer driver than this one, which runs 11.4 at most" in error.message
    assert error.hint is not None
    assert "525" in error.hint


def test_a_new_gpu_on_an_old_driver_is_refused() -> None:
    error = refused(replace(SPARK, driver_version="570.1", driver_cuda=(12, 8)))
    assert "CUDA 13.0 needs a newer driver" in error.message
    assert "CUDA 12.4 does not know compute capability 12.1 yet" in error.message
    assert error.hint is not None
    assert "580" in error.hint


def test_a_gpu_too_old_for_every_toolkit_is_refused() -> None:
    error = refused(replace(H100, gpus=(Gpu(index=0, kind="cuda", name="Tesla K80", compute_capability=(3, 7)),)))
    assert "CUDA 12.4 no longer supports compute capability 3.7" in error.message
    assert error.hint is not None
    assert "--cuda-arch" in error.hint


def test_gpus_that_no_one_toolkit_knows_are_refused() -> None:
    error = refused(LAPTOP, "70", "120")
    assert "no longer supports compute capability 7.0" in error.message
    assert "does not know compute capability 12.0 yet" in error.message
    assert error.hint is not None
    assert "fewer kinds" in error.hint


def test_a_compiler_too_new_for_cuda_12_is_refused_with_the_one_to_take() -> None:
    compilers = {name: replace(tool, version=(14, 2)) for name, tool in GCC12.items()}
    error = refused(replace(V100, tools={**compilers, **WHEELS}))
    assert "accepts gcc up to 13" in error.message
    assert error.hint is not None
    assert "CXX=g++-13" in error.hint


def test_an_old_gpu_is_fine_with_the_systems_cuda_12() -> None:
    assert chosen(with_tools(V100, **nvcc(12, 9, 41))) == (("70-real",), "12.9.41", False)


def test_a_gpu_newer_than_every_toolkit_is_refused() -> None:
    assert "does not know compute capability 15.0" in refused(RUBIN).message


def test_blackwell_is_refused_by_a_toolkit_from_before_it() -> None:
    facts = replace(with_tools(SPARK, **nvcc(12, 4, 131)), driver_cuda=(12, 9))
    assert "CUDA 12.4 does not know compute capability 12.1" in refused(facts).message


@pytest.mark.parametrize(
    ("toolkit", "arch", "fits"),
    [
        ((12, 4), "90", True), ((12, 4), "100", False), ((12, 8), "100", True), ((12, 8), "101", True),
        ((12, 8), "120", True), ((12, 8), "121", False), ((12, 8), "103", False), ((12, 9), "121", True),
        ((12, 9), "103", True), ((12, 9), "70", True), ((12, 9), "88", False), ((13, 0), "88", True),
        ((13, 0), "110", True), ((13, 0), "70", False), ((13, 0), "101", False), ((13, 0), "107", False),
        ((13, 0), "95", False), ((13, 4), "107", False), ((13, 5), "107", True), ((12, 9), "95", False),
    ],
)  # fmt: skip
def test_each_toolkit_knows_a_set_of_architectures(toolkit: tuple[int, int], arch: str, fits: bool) -> None:
    assert (refuse(toolkit, (parse_arch(arch),), None, None) == "") is fits


def test_a_toolkit_that_came_after_our_table_may_know_gpus_that_came_after_it() -> None:
    assert refuse((14, 0), (150,), None, None) == ""
    assert "does not know compute capability 9.5" in refuse((14, 0), (95,), None, None)


def test_an_architecture_that_no_gpu_has_is_refused_with_the_list_of_those_there_are() -> None:
    error = refused(LAPTOP, "95")
    assert "CUDA 13.0 does not know compute capability 9.5;" in error.message
    assert error.hint is not None
    assert "https://developer.nvidia.com/cuda-gpus" in error.hint


def test_an_architecture_under_its_old_number_is_no_longer_known() -> None:
    assert "CUDA 13.0 no longer supports compute capability 10.1" in refused(LAPTOP, "101").message


def test_a_host_compiler_too_new_for_nvcc_is_refused() -> None:
    facts = replace(H100, tools={**GCC16, **WHEELS})
    error = refused(facts)
    assert "accepts gcc up to 15" in error.message
    assert error.hint is not None
    assert "CXX=g++-15" in error.hint


@pytest.mark.parametrize(("toolkit", "gcc", "fits"), [((12, 4), 13, True), ((12, 4), 14, False), ((13, 5), 16, True)])
def test_each_nvcc_has_its_own_limit_of_gcc(toolkit: tuple[int, int], gcc: int, fits: bool) -> None:
    compilers = {name: replace(tool, version=(gcc, 1)) for name, tool in GCC12.items()}
    facts = replace(H100, driver_cuda=(13, 5), tools={**compilers, **WHEELS, **nvcc(*toolkit)})
    try:
        from_wheels = choose(facts, (), facts.tools["cxx"]).toolkit.from_wheels
    except HostError:
        from_wheels = True
    assert from_wheels is not fits


def test_no_wheels_for_this_machine_is_refused() -> None:
    assert "no wheels are published for Linux on riscv64" in refused(replace(H100, machine="riscv64")).message
    assert "no wheels are published for Darwin" in refused(replace(MAC, gpus=()), "90").message


def test_a_gpu_whose_capability_is_unknown_is_refused() -> None:
    facts = replace(H100, gpus=(Gpu(index=0, kind="cuda", name="Tesla K80"),))
    assert "compute capability of Tesla K80" in refused(facts).message


@pytest.mark.parametrize(
    ("word", "number"), [("90", 90), ("9.0", 90), ("sm_86", 86), ("120a-real", 120), ("compute_75", 75)]
)
def test_architectures_are_understood_as_people_write_them(word: str, number: int) -> None:
    assert parse_arch(word) == number


@pytest.mark.parametrize("word", ["native", "all", "all-major", "", "hopper", "9"])
def test_architectures_are_never_left_open(word: str) -> None:
    with pytest.raises(UsageError, match="cannot use --cuda-arch"):
        parse_arch(word)
