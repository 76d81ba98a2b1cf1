"""Training environments: virtual environments made on demand from a lock file, apart from the installation. Disk, pip.

Content-addressed, as builds are: the id is a hash of lock, Python and platform. An environment is made under another
name, trains one tiny step, and is renamed: one that is there is whole.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
from importlib import resources
from pathlib import Path

from nemotron_ops import files, proc
from nemotron_ops.errors import HostError
from nemotron_ops.progress import Report, Step

MANIFEST = "environment.json"
STALL_S = 600.0
TEST_S = 300.0
DISK_BYTES = 3 * 10**9
TEST = """
import torch, transformers, peft, safetensors.torch
model = torch.nn.Sequential(torch.nn.Linear(4, 4))
tuned = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["0"]))
loss = tuned(torch.ones(1, 4)).square().sum(); loss.backward()
assert all(p.grad is not None for p in tuned.parameters() if p.requires_grad)
assert hasattr(transformers, "NemotronHForCausalLM")
print(torch.__version__, transformers.__version__, peft.__version__)
"""


def lock() -> str:
    """The packages, each with one version."""
    return resources.files("nemotron_ops.tune").joinpath("train.lock").read_text()


def environment_id() -> str:
    """Names the environment of this lock for this Python and platform."""
    about = f"{lock()}\0{sys.version}\0{platform.platform()}"
    return f"train-{hashlib.sha256(about.encode()).hexdigest()[:12]}"


def current(environments: Path) -> Path | None:
    """The Python of the finished environment, or None."""
    found = environments / environment_id()
    return found / "bin" / "python" if (found / MANIFEST).is_file() else None


def ensure(environments: Path, report: Report) -> Path:
    """The Python of the environment, made if it is not there. Raises HostError with the installer's last lines."""
    environments.mkdir(parents=True, exist_ok=True)
    with files.locked(environments / ".lock"):
        if (found := current(environments)) is not None:
            return found
        free = shutil.disk_usage(environments).free
        if free < DISK_BYTES:
            raise HostError(
                f"cannot make the training environment: {free / 1e9:.1f} GB are free in {environments}, "
                f"{DISK_BYTES / 1e9:.0f} are needed"
            )
        half, final = environments / f".{environment_id()}", environments / environment_id()
        for old in (half, final):
            shutil.rmtree(old, ignore_errors=True)
        _make(half, report)
        os.replace(half, final)
        files.sync_dir(environments)
    return final / "bin" / "python"


def _make(folder: Path, report: Report) -> None:
    report(Step(what="make the training environment", done=0, total=3, unit="steps"))
    _run([sys.executable, "-m", "venv", str(folder)], "make a virtual environment")
    python = folder / "bin" / "python"
    wanted = folder / "train.lock"
    wanted.write_text(lock())
    report(Step(what="install torch, transformers and peft", done=1, total=3, unit="steps"))
    _run([str(python), "-m", "pip", "install", "-q", "--no-input", "-r", str(wanted)], "install the packages")
    report(Step(what="train one step with them", done=2, total=3, unit="steps"))
    versions = _run([str(python), "-c", TEST], "use the training environment")
    files.write_json(folder / MANIFEST, {"versions": versions.split(), "python": sys.version})
    report(Step(what="train one step with them", done=3, total=3, unit="steps"))


def _run(argv: list[str], what: str) -> str:
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "HF_HUB_OFFLINE": "1"}
    done = proc.run(argv, env=env)
    if done.returncode:
        tail = tuple(done.stderr.strip().splitlines()[-10:])
        raise HostError(f"cannot {what}: it ended with {done.returncode}", log_tail=tail)
    return done.stdout
