"""The converter's environment, made on demand from a lock file, and its command line. Disk, pip.

The converter and its gguf package are those of the build's own source tree. It runs without a network and with the
folder's own files only; those are chosen by `models.checkpoint`, which takes no Python and no pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from nemotron_ops import python_environment
from nemotron_ops.errors import BuildError
from nemotron_ops.progress import Report
from nemotron_ops.python_environment import Wanted

CONVERTER = "convert_hf_to_gguf.py"
DISK_BYTES = 3 * 10**9
TEST = """
import numpy, requests, safetensors.torch, sentencepiece, torch, tqdm, transformers, yaml
import google.protobuf
assert torch.ones(2, 2).to(torch.bfloat16).float().sum().item() == 4.0
print(torch.__version__, transformers.__version__, numpy.__version__)
"""


def wanted() -> Wanted:
    """The environment of the shipped lock."""
    return Wanted(
        kind="convert", name="converter's environment", packages="torch and transformers for the converter",
        tested="try the converter's packages", test=TEST, disk_bytes=DISK_BYTES,
        lock=resources.files("nemotron_ops.builds").joinpath("data/convert.lock").read_text(),
    )  # fmt: skip


def ensure(environments: Path, report: Report) -> Path:
    """The Python of the environment, made if it is not there. Raises HostError with the installer's last lines."""
    return python_environment.ensure(wanted(), environments, report)


def converter_argv(python: Path, tree: Path, checkpoint: Path, out: Path, *, outtype: str, pre: str) -> list[str]:
    """The command that converts the folder `checkpoint` to `out`. Raises BuildError if the source has no converter."""
    program = tree / CONVERTER
    if not program.is_file():
        raise BuildError(
            f"cannot convert: the build's source has no {CONVERTER}",
            hint="build from a whole source: nemotron-ops build --force",
        )
    first = [str(Path(__file__).with_name("pre_tokenizer.py")), str(tree), pre] if pre else [str(program)]
    return [str(python), *first, str(checkpoint), "--outfile", str(out), "--outtype", outtype]


def converter_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of the converter: no network of a hub, no secrets, nothing written into the source tree."""
    dropped = ("NEMOTRON_OPS", "HF_", "HUGGING_FACE", "PYTHON", "NO_LOCAL_GGUF")
    kept = {k: v for k, v in env.items() if not k.startswith(dropped)}
    return {**kept, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
