"""A source tree with llama.cpp's layout that compiles in a second, for tests of builds.

Its `llama-server` and `llama-bench` execute real ones, so the self-test after the build is real too. `mode` chooses a
failure: "sigill" dies like a miscompiled server, unless the fix's flags are set; "broken" does not compile; "stranger"
reports another commit; "gpu" lists an H100, logs that its layers were offloaded, and fails where a GPU without code for
it could be used; "lazy gpu" does not offload all layers. The last step waits while the file `gate` exists.
"""

from __future__ import annotations

from pathlib import Path

from nemotron_ops.builds.spec import TARGETS

CMAKE = """
cmake_minimum_required(VERSION 3.14)
project("llama.cpp" C)
set(LLAMA_VERSION_MAJOR 0)
set(LLAMA_VERSION_MINOR {minor})
set(LLAMA_VERSION_PATCH 0)
set(FIXED no)
if(CMAKE_C_FLAGS MATCHES "mno-amx-tile")
  set(FIXED yes)
endif()
configure_file(${{CMAKE_SOURCE_DIR}}/server.in ${{CMAKE_BINARY_DIR}}/llama-server.sh @ONLY)
file(MAKE_DIRECTORY ${{CMAKE_BINARY_DIR}}/bin)
set(BEFORE "")
foreach(name {targets})
  set(made ${{CMAKE_BINARY_DIR}}/bin/${{name}})
  add_custom_command(OUTPUT ${{made}} COMMAND sh ${{CMAKE_SOURCE_DIR}}/make.sh ${{name}} ${{made}}
    DEPENDS ${{BEFORE}} COMMENT "Building ${{made}}" VERBATIM)
  add_custom_target(${{name}} DEPENDS ${{made}})
  set(BEFORE ${{made}})
endforeach()
"""

MAKE = """
set -e
echo "$1" >> '{ledger}'
if [ '{mode}' = broken ] && [ "$1" = llama-quantize ]; then
  echo "quantize.cpp:7:1: error: 'x' was not declared in this scope"; exit 1
fi
while [ "$1" = llama-fit-params ] && [ -e '{gate}' ]; do sleep 0.05; done
if [ "$1" = llama-server ]; then cp llama-server.sh "$2"; else
  printf '#!/bin/sh\\necho "offloaded 7/7 layers to GPU" >&2\\nexec %s/%s "$@"\\n' '{real}' "$1" > "$2"
fi
chmod 755 "$2"
"""

SERVER = """#!/bin/sh
commit=@LLAMA_BUILD_COMMIT@
[ '{mode}' = stranger ] && commit=0000000
case "$1" in --version) echo "version: 0.5.0-dev (build 0, commit $commit)"; exit 0;; esac
case '{mode}' in *gpu)
  [ "$1" = --list-devices ] && echo '  CUDA0: NVIDIA H100 (81559 MiB, 81000 MiB free)' && exit
  case "$*" in
    *'--n-gpu-layers 0'*) [ "$CUDA_VISIBLE_DEVICES" = -1 ] || exit 1;; # no kernel image is available
    *'--verbosity 4'*) echo 'load_tensors: offloaded {moved}/7 layers to GPU';;
  esac;;
esac
[ '{mode}' = sigill ] && [ @FIXED@ = no ] && [ "$1" != --list-devices ] && kill -ILL $$
exec {real}/llama-server "$@"
"""


def write_tree(
    folder: Path, *, real: Path, ledger: Path, mode: str = "fine", gate: Path | None = None, minor: int = 5
) -> Path:
    """Write the tree to `folder`; each step appends its name to `ledger`, programs execute those in `real`."""
    (folder / "src").mkdir(parents=True)
    (folder / "src/llama-arch.cpp").write_text('{ LLM_ARCH_NEMOTRON_H_MOE, "nemotron_h_moe" },\n')
    (folder / "CMakeLists.txt").write_text(
        CMAKE.format(minor=minor, targets=" ".join(sorted(TARGETS, key=_gated_last)))
    )
    (folder / "make.sh").write_text(MAKE.format(ledger=ledger, mode=mode, gate=gate or "/nonexistent", real=real))
    (folder / "server.in").write_text(SERVER.format(mode=mode, real=real, moved=3 if mode == "lazy gpu" else 7))
    return folder


def _gated_last(name: str) -> bool:
    return name == "llama-fit-params"
