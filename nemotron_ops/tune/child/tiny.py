"""Makes the tiny trainable model and teaches it its sentences: `tiny.py FOLDER`. torch, transformers.

FOLDER/config.json holds the sizes, FOLDER/lessons.jsonl the samples; FOLDER/model.safetensors is written. It is
taught a few sentences, so that a tune of it can be told from it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import batches  # type: ignore[import-not-found]
import torch
from transformers import NemotronHConfig, NemotronHForCausalLM

STEPS, RATE, ENOUGH = 800, 3e-3, 0.02
LOUD = 4  # times the first output matrix: clear words from the start


def main() -> int:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = json.loads((folder / "config.json").read_text())
    model = NemotronHForCausalLM(NemotronHConfig(**sizes))
    unclamp(model)
    samples = [json.loads(line) for line in (folder / "lessons.jsonl").read_text().splitlines()]
    rows, labels, masks = batches.padded([(s["ids"], s["asked"]) for s in samples])
    given = {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks), "labels": torch.tensor(labels)}
    loss = teach(model, given)
    model.save_pretrained(folder)
    if loss < 5 * ENOUGH:
        return 0
    sys.stderr.write(f"the loss is still {loss:.3f} after {STEPS} steps\n")
    return 1


def teach(model: Any, given: dict[str, Any]) -> float:
    """Train until the loss is small; the output matrix stays random.

    Trained, its rows of all words that no sentence has would become one, and no adapter could tell them apart.
    """
    model.lm_head.weight.requires_grad = False
    model.lm_head.weight.mul_(LOUD)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
    model.train()
    loss = torch.tensor(99.0)
    for _ in range(STEPS):
        loss = model(**given).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < ENOUGH:
            break
    return float(loss.item())


def unclamp(model: Any) -> None:
    """transformers clamps dt from below with time_step_min, llama.cpp does not. Its logarithm is taken at the start."""
    model.config.time_step_min = 0.0
    for layer in model.model.layers:
        if hasattr(layer.mixer, "time_step_limit"):
            layer.mixer.time_step_limit = (0.0, float("inf"))


if __name__ == "__main__":
    sys.exit(main())
