"""Patterns of llama-server's log, each with the cause of death and the next step. Pure.

Texts as of llama.cpp v0.5.0. The first pattern that matches wins, so specific rows stand above general ones: a failed
allocation also prints "exiting due to model loading error". Each pattern is searched for in one line of bounded length,
and begins with a literal or `^`: a search that tries a repeat at every character takes quadratic time.

`TABLE` is for processes that have served no request: llama-server writes parts of requests into its log (a grammar that
it cannot parse, for example), so a text of a later line can be a client's. `GPU_ERRORS` is all that is read of the log
of a process that was ready; its texts are quoted from here, never from the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    BAD_FLAG = "bad-flag"
    BAD_VALUE = "bad-value"
    MODEL_MISSING = "model-missing"
    MODEL_TRUNCATED = "model-truncated"
    MODEL_CORRUPT = "model-corrupt"
    UNKNOWN_ARCHITECTURE = "unknown-architecture"
    HOST_MEMORY = "host-memory"
    DEVICE_MEMORY = "device-memory"
    DEVICE_MISSING = "device-missing"
    GPU_ERROR = "gpu-error"
    ADDRESS = "address"
    RESOURCE_LIMIT = "resource-limit"
    ASSERTION = "assertion"
    ILLEGAL_INSTRUCTION = "illegal-instruction"
    OOM_KILLER = "oom-killer"
    KILLED = "killed"
    CRASH = "crash"
    BINARY_MISSING = "binary-missing"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Row:
    """`what` is filled with the groups of `pattern`; an empty `hint` asks for the nearest known flag."""

    cause: Cause
    pattern: str
    what: str
    hint: str = ""


_SMALLER = "use a smaller context, fewer slots or a smaller quant; `nemotron-ops plan` shows what fits"
_VERIFY = "check it with `nemotron-ops models verify`, then fetch it again"
_OTHER_BUILD = "a bug in llama.cpp: try another version with `nemotron-ops builds use` or `nemotron-ops build --ref`"
_LIMITS = "raise the limits on processes and open files (ulimit -u, -n; TasksMax= and LimitNOFILE= in a unit)"

_NO_HOST_MEMORY = "|".join(
    (
        r"std::bad_alloc",
        r"Cannot allocate memory",
        r"failed to allocate compute pp buffers",
        r"failed to allocate buffer for kv cache",
        r"unable to allocate CPU\S* buffer",
        r"mmap failed: .*memory",
    )
)
_SHORT_FILE = "|".join(
    (
        r"failed to read key-value pairs",
        r"failed to read magic",
        r"failed to read tensor info",
        r"invalid split file",
        r"illegal split file",
    )
)
_BAD_FILE = "|".join(
    (
        r"invalid magic characters: .*",
        r"tensor '[^']+' not found",
        r"missing tensor '[^']+'",
        r"tensor '[^']+' has wrong shape.*",
        r"tensor '[^']+' has invalid ggml type .*",
        r"invalid ggml type .*",
        r"(?:bad|unsupported) GGUF version.*",
        r"this GGUF file is version \d+.*",
        r"GGUFv1 is no longer supported.*",
        r"error loading model (?:hyperparameters|vocabulary).*",
    )
)

TABLE: tuple[Row, ...] = (
    Row(Cause.BAD_FLAG, r"error: invalid argument: (\S+)", "llama-server does not know the flag {0}"),
    Row(
        Cause.DEVICE_MISSING,
        r"invalid device: (\S+)",
        "no such device: {0}",
        "`nemotron-ops doctor` lists the devices of this machine",
    ),
    Row(
        Cause.BAD_VALUE, r'error while handling argument "([^"]+)": (.*)', "bad value for {0}: {1}", "correct the value"
    ),
    Row(Cause.BAD_VALUE, r"error: (invalid value .*)", "{0}", "correct the value"),
    Row(
        Cause.BAD_VALUE,
        r"(context type MTP requested but model doesn't contain MTP layers)",
        "{0}",
        "leave server.spec_type out: this file has no MTP layers",
    ),
    Row(
        Cause.DEVICE_MEMORY,
        r"(allocating [\d.]+ MiB on device \d+: cudaMalloc failed: out of memory)",
        "out of device memory: {0}",
        _SMALLER,
    ),
    Row(Cause.DEVICE_MEMORY, r"CUDA error: (out of memory)", "out of device memory while running", _SMALLER),
    Row(
        Cause.DEVICE_MEMORY,
        r"unable to allocate ((?!CPU)\S+) buffer",
        "out of device memory: no buffer on {0}",
        _SMALLER,
    ),
    Row(
        Cause.DEVICE_MEMORY,
        r"(ErrorOutOfDeviceMemory|kIOGPUCommandBufferCallbackErrorOutOfMemory)",
        "out of device memory: {0}",
        _SMALLER,
    ),
    Row(
        Cause.GPU_ERROR,
        r"CUDA error: (.*)",
        "the GPU driver reported: {0}",
        "look for Xid lines in `dmesg`; if it happens again, reset the GPU or reboot",
    ),
    Row(
        Cause.GPU_ERROR,
        r"(ggml_cuda_init: failed to initialize CUDA: .*|CUDA driver version is insufficient.*)",
        "{0}",
        "check the driver with `nvidia-smi`; see `nemotron-ops doctor`",
    ),
    Row(
        Cause.HOST_MEMORY,
        r"insufficient memory \(attempted to allocate ([\d.]+) MB\)",
        "out of memory: {0} MB could not be allocated",
        _SMALLER,
    ),
    Row(Cause.HOST_MEMORY, f"({_NO_HOST_MEMORY})", "out of memory: {0}", _SMALLER),
    Row(
        Cause.RESOURCE_LIMIT,
        r"(Resource temporarily unavailable|Too many open files)",
        "a limit of this system was hit: {0}",
        _LIMITS,
    ),
    Row(
        Cause.MODEL_MISSING,
        r"failed to open GGUF file '([^']+)' \(No such file or directory\)",
        "the model file {0} is missing",
        "fetch it with `nemotron-ops fetch`",
    ),
    Row(
        Cause.MODEL_MISSING,
        r"failed to open GGUF file '([^']+)' \(([^)]+)\)",
        "the model file {0} cannot be read: {1}",
        "check its permissions",
    ),
    Row(
        Cause.UNKNOWN_ARCHITECTURE,
        r"unknown (?:model )?architecture: '([^']+)'",
        "this llama.cpp does not know the architecture {0}",
        "build a newer llama.cpp: `nemotron-ops build --ref master`",
    ),
    Row(
        Cause.MODEL_TRUNCATED,
        r"data is not within the file bounds, model is corrupted or incomplete",
        "the model file is incomplete: it ends before its tensors do",
        _VERIFY,
    ),
    Row(Cause.MODEL_TRUNCATED, f"({_SHORT_FILE})", "the model file is incomplete: {0}", _VERIFY),
    Row(Cause.MODEL_CORRUPT, f"({_BAD_FILE})", "the model file is damaged or not a model: {0}", _VERIFY),
    Row(
        Cause.ADDRESS,
        r"(couldn't bind HTTP server socket.*)",
        "the socket could not be opened: {0}",
        "another process holds it; `nemotron-ops status` shows what is ours",
    ),
    Row(
        Cause.ASSERTION, r"^(\S+:\d+: GGML_ASSERT\(.*\) failed)", "an assertion in llama.cpp failed: {0}", _OTHER_BUILD
    ),
    Row(Cause.ASSERTION, r"^(\S+:\d+: (?:fatal error|GGML_ABORT.*))", "llama.cpp aborted: {0}", _OTHER_BUILD),
    Row(
        Cause.MODEL_CORRUPT,
        r"(?:error loading model: |failed to load model: )(.*)",
        "the model cannot be loaded: {0}",
        "check it with `nemotron-ops models verify`",
    ),
)

# `0.12.345.678 E CUDA error: …` (common/log.cpp with --log-prefix and --log-timestamps; ggml-cuda.cu ggml_cuda_error)
_OWN_ERROR = r"^\d+\.\d\d\.\d\d\d\.\d\d\d E "
_DRIVER = r"(?:CUDA|ROCm|MUSA) error: "
_SAID = (  # texts of cudaGetErrorString
    "an illegal memory access was encountered",
    "unspecified launch failure",
    "uncorrectable ECC error encountered",
    "misaligned address",
    "an illegal instruction was encountered",
    "the launch timed out and was terminated",
    "no CUDA-capable device is detected",
    "out of memory",
)
GPU_ERRORS: tuple[tuple[str, str], ...] = (
    *((f"{_OWN_ERROR}{_DRIVER}{said}", said) for said in _SAID),
    (_OWN_ERROR + _DRIVER, "an error of another kind"),
)
