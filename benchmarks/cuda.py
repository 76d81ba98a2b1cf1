"""Tries a CUDA toolkit that is assembled without root, on a machine without a GPU: `make bench-cuda`.

For each set of architectures, this assembles the toolkit of `build --cuda --cuda-arch …`, configures llama.cpp with it
and compiles a few of its .cu files. Then it links a program that uses the CUDA runtime, cuBLAS and the driver against
the stub and starts it: it must find its libraries and no device. This needs a download of 1 GB, 2 GB of disk and a few
minutes; `make bench-gpu` is the full run on a machine with a GPU.

    70,90   CUDA 12.4, for drivers before 580 and GPUs before Turing
    90      CUDA 13.0
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from typing import Any

from nemotron_ops import proc
from nemotron_ops.builds.plan import cuda_root
from nemotron_ops.builds.run import Configured, configure
from nemotron_ops.builds.spec import Backend, BuildOptions, BuildRequest
from nemotron_ops.builds.toolchain import toolchain
from nemotron_ops.builds.toolchain.cuda import dotted
from nemotron_ops.host import Facts
from nemotron_ops.installation import Installation
from nemotron_ops.paths import user_layout
from nemotron_ops.ui import Ui

FILES = ("acc", "norm", "ssm-conv", "ssm-scan", "argsort")  # small files, and those of Mamba layers
PROGRAM = """
#include <cstdio>
#include <cublas_v2.h>
#include <cuda.h>
#include <cuda_runtime.h>
__global__ void twice(float * x) { x[threadIdx.x] *= 2; }
int main() {
    int devices = -1, version = 0;
    cublasHandle_t handle;
    const int driver = cuInit(0), counted = cudaGetDeviceCount(&devices), blas = cublasCreate(&handle);
    cudaRuntimeGetVersion(&version);
    std::printf("{\\"driver\\": %d, \\"counted\\": %d, \\"blas\\": %d,", driver, counted, blas);
    std::printf(" \\"runtime\\": %d}\\n", version);
    if (devices > 0) twice<<<1, 1>>>(nullptr);
}
"""


def tried(archs: tuple[str, ...], jobs: int, installation: Installation) -> dict[str, Any]:
    """The result of assembling, configuring, compiling and linking for `archs`; a failure ends the program."""
    request = BuildRequest(options=BuildOptions(backend=Backend.CUDA, cuda_archs=archs, jobs=jobs))
    with Ui(quiet=False) as ui:
        ready = configure(request, replace(installation, report=ui.report))
    assert ready.plan.cuda is not None
    return {
        "archs": ready.plan.archs,
        "toolkit": dotted(ready.plan.cuda.toolkit.version),
        "why": ready.plan.cuda.toolkit.why,
        "configured_steps": ready.steps,
        "compiled": {name: compiled(name, ready, installation.facts) for name in FILES},
        "program": linked(ready, installation),
    }


def compiled(name: str, ready: Configured, facts: Facts) -> float:
    """Seconds of compiling one of llama.cpp's .cu files."""
    began = time.monotonic()
    target = f"ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/{name}.cu.o"
    run([facts.tools["ninja"].path, "-C", str(ready.folder), target], dict(ready.plan.env))
    return round(time.monotonic() - began, 1)


def linked(ready: Configured, installation: Installation) -> dict[str, int]:
    """The output of a program that is linked like llama-server, with the stub instead of a driver."""
    plan, place = ready.plan, ready.folder / "bench"
    assert plan.cuda is not None
    root = cuda_root(plan.cuda, installation.layout.toolchains, installation.facts)
    place.mkdir(exist_ok=True)
    (place / "try.cu").write_text(PROGRAM)
    flags = plan.cmake.get("CMAKE_CUDA_FLAGS", "-cudart=shared").split()
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in (arch.removesuffix("-real") for arch in plan.archs)]
    stub = toolchain.driver_stub(plan, installation)
    compiler = [str(root / "bin/nvcc"), "-ccbin", plan.compilers.cxx, *flags, *codes]
    libraries = ["-lcublas", "-lcuda", f"-L{root / 'lib64/stubs'}", f"-Xlinker=-rpath={root / 'lib64'}"]
    run([*compiler, str(place / "try.cu"), "-o", str(place / "try"), *libraries], dict(plan.env))
    output = run([str(place / "try")], {"LD_LIBRARY_PATH": str(stub)} if stub else {})
    answer: dict[str, int] = json.loads(output)
    return answer


def run(argv: list[str], env: dict[str, str]) -> str:
    done = proc.run(argv, env=env)
    if not done.ok:
        sys.exit(f"{argv[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("archs", nargs="*", default=["70,90", "90"], help="sets of architectures, as for --cuda-arch")
    ask.add_argument("--jobs", type=int, default=1)
    given = ask.parse_args()
    env = dict(os.environ)
    installation = Installation(layout=user_layout(env, uid=os.getuid()), env=env)
    for archs in given.archs:
        print(json.dumps(tried(tuple(archs.split(",")), given.jobs, installation), indent=2))


if __name__ == "__main__":
    main()
