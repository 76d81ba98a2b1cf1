"""The training environment: torch, transformers and peft, made on demand from a lock file. Disk, pip."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from nemotron_ops import python_environment
from nemotron_ops.progress import Report
from nemotron_ops.python_environment import Wanted

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


def wanted() -> Wanted:
    """The environment of the shipped lock."""
    return Wanted(
        kind="train", name="training environment", packages="torch, transformers and peft",
        tested="train one step with them", test=TEST, disk_bytes=DISK_BYTES,
        lock=resources.files("nemotron_ops.tune").joinpath("train.lock").read_text(),
    )  # fmt: skip


def current(environments: Path) -> Path | None:
    """The Python of the finished environment, or None."""
    return python_environment.current(wanted(), environments)


def ensure(environments: Path, report: Report) -> Path:
    """The Python of the environment, made if it is not there. Raises HostError with the installer's last lines."""
    return python_environment.ensure(wanted(), environments, report)
