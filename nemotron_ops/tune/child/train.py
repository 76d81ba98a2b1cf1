"""Trains a LoRA: `train.py JOB [FD]` reads JOB/plan.json and JOB/samples.jsonl. torch, transformers, peft.

    JOB/progress.jsonl            one line for each step: {"step", "loss", "tokens"}
    JOB/checkpoints/step-000040/  adapter, optimizer.pt, and done.json, which is written last
    JOB/adapter/                  the finished adapter, renamed into place

A checkpoint counts once it has done.json: a kill at any line leaves the one before it. SIGTERM saves and ends with 10.
A loss that is no number ends with 11, too little memory with 12; neither overwrites a checkpoint. FD is the locked
JOB/trainer.lock: the lock ends with this process, the file tells its pid and its exit code.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import batches  # type: ignore[import-not-found]
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

PAUSED, NOT_FINITE, OUT_OF_MEMORY = 10, 11, 12
LOSS_TILE = 1024  # tokens whose logits are held at once
KEPT = 2  # checkpoints


class Stop:
    """Whether the job was told to pause."""

    asked = False


def main() -> int:
    job = Path(sys.argv[1])
    plan = json.loads((job / "plan.json").read_text())
    signal.signal(signal.SIGTERM, lambda *_: setattr(Stop, "asked", True))
    lock = int(sys.argv[2]) if len(sys.argv) > 2 else None
    tell(lock, {"pid": os.getpid()})
    code = train_to_its_end(job, plan)
    tell(lock, {"pid": os.getpid(), "end": code})
    return code


def tell(lock: int | None, value: dict[str, int]) -> None:
    """Write `value` as the content of the lock file."""
    if lock is not None:
        text = json.dumps(value).encode()
        os.pwrite(lock, text, 0)  # it only grows


def train_to_its_end(job: Path, plan: dict[str, Any]) -> int:
    torch.set_num_threads(plan["threads"])
    torch.manual_seed(plan["seed"])
    try:
        return train(job, plan)
    except torch.cuda.OutOfMemoryError as exc:
        note(job, {"error": f"out of memory on the device: {exc}"})
        return OUT_OF_MEMORY
    except MemoryError:
        note(job, {"error": "out of host memory"})
        return OUT_OF_MEMORY


def train(job: Path, plan: dict[str, Any]) -> int:
    """Train from the newest whole checkpoint to the last step."""
    samples = [json.loads(line) for line in (job / "samples.jsonl").read_text().splitlines()]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = open_model(plan, device)
    weights = [p for p in model.parameters() if p.requires_grad]
    if any(".gate." in n for n, p in model.named_parameters() if p.requires_grad):
        raise RuntimeError("the router would be trained")
    optimizer = torch.optim.AdamW(weights, lr=plan["learning_rate"], weight_decay=0.0)
    first = resume(job, model, optimizer)
    note(job, {"start": first, "trained": sum(p.numel() for p in weights), "device": device})
    for step in range(first, plan["steps"]):
        chosen = batches.indices(step, count=len(samples), batch=plan["batch"], seed=plan["seed"])
        loss, tokens = one_step(model, optimizer, [samples[i] for i in chosen], plan, step, device)
        if loss is None:
            note(job, {"error": f"the loss of step {step + 1} is no number"})
            return NOT_FINITE
        note(job, {"step": step + 1, "loss": round(loss, 6), "tokens": tokens})
        if Stop.asked or (step + 1) % plan["save_every"] == 0:
            save(job, step + 1, model, optimizer)
        if Stop.asked and step + 1 < plan["steps"]:
            return PAUSED
    finish(job, model)
    return 0


def open_model(plan: dict[str, Any], device: str) -> Any:
    """The base with a fresh adapter. time_step_min: transformers clamps dt from below, llama.cpp does not."""
    model = AutoModelForCausalLM.from_pretrained(
        plan["checkpoint"], dtype=torch.bfloat16 if device == "cuda" else torch.float32, time_step_min=0.0,
        local_files_only=True, trust_remote_code=False,
    ).to(device)  # fmt: skip
    model.config.use_cache = False
    if plan["checkpointing"]:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    config = LoraConfig(
        r=plan["rank"], lora_alpha=plan["alpha"], lora_dropout=0.0, target_modules=plan["targets"],
        target_parameters=plan["parameters"] or None,
    )  # fmt: skip
    tuned = get_peft_model(model, config)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return tuned.train()


def one_step(
    model: Any, optimizer: Any, samples: list[Any], plan: dict[str, Any], step: int, device: str
) -> tuple[float | None, int]:
    """One update; returns the mean loss of a learnt token, None if it is no number, and the learnt tokens."""
    for group in optimizer.param_groups:
        group["lr"] = batches.rate(step, steps=plan["steps"], peak=plan["learning_rate"])
    rows, labels, masks = batches.padded([(s["ids"], s["asked"]) for s in samples])
    base = model.get_base_model()
    hidden = base.model(
        input_ids=torch.tensor(rows, device=device), attention_mask=torch.tensor(masks, device=device), use_cache=False
    ).last_hidden_state
    wanted = torch.tensor(labels, device=device)[:, 1:]
    learnt = wanted != batches.IGNORED
    loss = tiled_loss(base.lm_head, hidden[:, :-1][learnt], wanted[learnt]) / int(learnt.sum())
    if not torch.isfinite(loss):
        return None, 0
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item(), int(learnt.sum())


def tiled_loss(head: Any, hidden: Any, wanted: Any) -> Any:
    """The summed loss, with the logits of one tile at a time."""

    def of(tile: Any, labels: Any) -> Any:
        return torch.nn.functional.cross_entropy(head(tile).float(), labels, reduction="sum")

    parts = zip(hidden.split(LOSS_TILE), wanted.split(LOSS_TILE), strict=True)
    return sum(torch.utils.checkpoint.checkpoint(of, h, w, use_reentrant=False) for h, w in parts)


def save(job: Path, step: int, model: Any, optimizer: Any) -> None:
    """A checkpoint; its marker is written last."""
    folder = job / "checkpoints" / f"step-{step:06d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    for file in folder.iterdir():
        flush(file)
    half = folder / ".done"
    half.write_text(json.dumps({"step": step}))
    flush(half)
    half.rename(folder / "done.json")
    for old in whole_checkpoints(job)[:-KEPT]:
        (old / "done.json").unlink()
        shutil.rmtree(old)


def resume(job: Path, model: Any, optimizer: Any) -> int:
    """Load the newest whole checkpoint; returns the steps that it has behind it."""
    for folder in reversed(whole_checkpoints(job)):
        step = int(json.loads((folder / "done.json").read_text())["step"])
        set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
        optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
        return step
    return 0


def whole_checkpoints(job: Path) -> list[Path]:
    return sorted(p.parent for p in (job / "checkpoints").glob("step-*/done.json"))


def finish(job: Path, model: Any) -> None:
    """The adapter, under its name once it is whole."""
    half = job / ".adapter"
    shutil.rmtree(half, ignore_errors=True)
    model.save_pretrained(half)
    for file in half.iterdir():
        flush(file)
    shutil.rmtree(job / "adapter", ignore_errors=True)
    half.rename(job / "adapter")


def flush(file: Path) -> None:
    with file.open("rb") as f:
        os.fsync(f.fileno())


def note(job: Path, value: dict[str, Any]) -> None:
    """One line of progress."""
    with (job / "progress.jsonl").open("a") as f:
        f.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    sys.exit(main())
