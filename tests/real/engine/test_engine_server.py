"""The real llama-server: its flags, its settings, its answers, and its deaths, provoked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nemotron_ops.engine.args import FLAGS, server_argv
from nemotron_ops.engine.client import Client
from nemotron_ops.engine.death_table import Cause
from nemotron_ops.engine.deaths import explain
from nemotron_ops.engine.env import child_env
from nemotron_ops.engine.flags import Flags, Kind, classify, parse_help
from nemotron_ops.engine.health import Health
from nemotron_ops.engine.once import started
from nemotron_ops.errors import EngineError
from nemotron_ops.models.synthetic import ensure
from nemotron_ops.proc import run

pytestmark = pytest.mark.real

ALL = {
    "ctx_size": 2048, "parallel": 2, "kv_unified": True, "n_gpu_layers": 0, "n_cpu_moe": 1, "split_mode": "layer",
    "tensor_split": "1", "main_gpu": 0, "flash_attn": "auto", "cache_type_k": "f16", "cache_type_v": "f16",
    "batch_size": 512, "ubatch_size": 256, "threads": 1, "threads_batch": 2, "prio": 0, "load_mode": "mmap",
    "ctx_checkpoints": 2, "cache_ram_mib": 0, "seed": 3407, "temp": 0.6, "top_p": 0.95, "top_k": 40, "min_p": 0.01,
    "special": False, "spec_type": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure("moe", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def flags(llama_bin: Path) -> Flags:
    return parse_help(run([llama_bin / "llama-server", "--help"]).stdout)


def test_every_flag_of_this_build_is_classified(flags: Flags) -> None:
    assert [f.spellings for f in flags.flags if classify(f).kind is Kind.UNKNOWN] == []


def test_every_setting_is_one_that_this_build_accepts(llama_bin: Path, model: Path, tmp_path: Path) -> None:
    assert ALL.keys() == FLAGS.keys()
    with started(binary=llama_bin / "llama-server", model=model, workdir=tmp_path, settings=ALL) as client:
        assert client.health() is Health.OK
        assert client.metrics()["requests_processing"] == 0
        assert [s["n_ctx"] for s in client.slots()] == [2048, 2048]
        answer = client.chat([{"role": "user", "content": "What is 2 + 2?"}], temperature=0)
        assert answer["choices"][0]["message"]["content"] == "2 + 2 = 4."
        assert client.props()["total_slots"] == 2
    assert Client(socket=tmp_path / "gone.sock").health() is Health.UNREACHABLE


def test_an_engine_answers_nobody_without_its_key(llama_bin: Path, model: Path, tmp_path: Path) -> None:
    with started(
        binary=llama_bin / "llama-server", model=model, workdir=tmp_path, settings={"ctx_size": 256}
    ) as client:
        client._http.headers.pop("Authorization")
        with pytest.raises(EngineError, match="401"):
            client.metrics()


def cut(path: Path, model: Path, length: int) -> Path:
    path.write_bytes(model.read_bytes()[:length])
    return path


def patched(path: Path, model: Path, old: bytes, new: bytes) -> Path:
    data = model.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    return path


BAD_MODELS: dict[str, tuple[Cause, Callable[[Path, Path], Path]]] = {
    "missing": (Cause.MODEL_MISSING, lambda p, m: p),
    "empty": (Cause.MODEL_TRUNCATED, lambda p, m: cut(p, m, 0)),
    "cut-header": (Cause.MODEL_TRUNCATED, lambda p, m: cut(p, m, 4096)),
    "cut-data": (Cause.MODEL_TRUNCATED, lambda p, m: cut(p, m, m.stat().st_size // 2)),
    "not-a-model": (Cause.MODEL_CORRUPT, lambda p, m: patched(p, m, b"GGUF", b"<htm")),
    "newer-version": (Cause.MODEL_CORRUPT, lambda p, m: patched(p, m, b"GGUF\x03", b"GGUF\x63")),
    "unknown-arch": (
        Cause.UNKNOWN_ARCHITECTURE, lambda p, m: patched(p, m, b"nemotron_h_moe", b"nemotron_9_moe"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_bad_model_file_is_explained(llama_bin: Path, model: Path, tmp_path: Path, name: str) -> None:
    cause, make = BAD_MODELS[name]
    bad = make(tmp_path / "bad.gguf", model)
    with (
        pytest.raises(EngineError) as caught,
        started(binary=llama_bin / "llama-server", model=bad, workdir=tmp_path / "w", settings={"ctx_size": 256}),
    ):
        pass
    assert explain(1, caught.value.log_tail).cause is cause
    assert caught.value.hint


@pytest.mark.parametrize(
    ("words", "cause", "said"),
    [
        (["--ctx-sizze", "1"], Cause.BAD_FLAG, "--ctx-sizze"),
        (["--threads", "abc"], Cause.BAD_VALUE, "--threads"),
        (["--device", "CUDA99"], Cause.DEVICE_MISSING, "CUDA99"),
        (["--spec-type", "draft-mtp"], Cause.BAD_VALUE, "MTP"),
        (["--ctx-size", "20000000", "--fit", "off"], Cause.HOST_MEMORY, "memory"),
    ],
)
def test_a_bad_command_line_is_explained(
    llama_bin: Path, model: Path, flags: Flags, tmp_path: Path, words: list[str], cause: Cause, said: str
) -> None:
    (tmp_path / "key").write_text("k\n")
    argv = server_argv(
        binary=llama_bin / "llama-server", model=model, socket=tmp_path / "s.sock", api_key_file=tmp_path / "key",
        alias="x", settings={"ctx_size": 256},
    )  # fmt: skip
    limited = ["sh", "-c", 'ulimit -v 2000000; exec "$0" "$@"', *argv, *words]
    done = run(limited, env=child_env(os.environ, home=tmp_path), timeout_s=60)
    death = explain(done.returncode, (done.stdout + done.stderr).splitlines(), flags=flags)
    assert death.cause is cause, death
    assert said in death.what
    assert death.hint


def test_a_stale_socket_is_explained(llama_bin: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "s.sock").write_text("in the way")
    (tmp_path / "key").write_text("k\n")
    argv = server_argv(
        binary=llama_bin / "llama-server", model=model, socket=tmp_path / "s.sock", api_key_file=tmp_path / "key",
        alias="x", settings={"ctx_size": 256},
    )  # fmt: skip
    done = run(argv, env=child_env(os.environ, home=tmp_path), timeout_s=60)
    assert explain(done.returncode, (done.stdout + done.stderr).splitlines()).cause is Cause.ADDRESS
