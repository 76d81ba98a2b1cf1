"""Saves llama-server's slots before a requested restart and restores them after it. Disk, HTTP to the engine.

llama-server's slot files carry no checksum, are written in place, and a truncated one aborts the server (llama.cpp
v0.5.0, src/llama-context.cpp:3322). So each file is written under a temporary name, hashed and renamed, and restored
only by a process with the same fingerprint (build, model, cache settings) and only if its hash still matches. On a
hybrid model a restored slot serves a prompt that continues the saved one; a prompt that diverges from it is evaluated
from the start, because the file does not hold the checkpoints of the recurrent state.
"""

from __future__ import annotations

import asyncio
from typing import Any

from nemotron_ops.errors import EngineError, NemotronOpsError
from nemotron_ops.files import read_json, sha256_of, write_json
from nemotron_ops.supervisor.instance.watched import Watched

MAX_BYTES = 2 << 30  # per slot file


async def save(instance: Watched) -> None:
    """Save every slot that is in use; a failure is logged, and the next process starts with empty slots."""
    if "{slots_dir}" not in instance.spec.argv:
        return
    folder, saved = instance.slots_dir, []
    try:
        for slot in await instance.client.slots():
            if not slot.get("n_prompt_tokens"):
                continue
            number, temporary = int(slot["id"]), f"{slot['id']}.tmp"
            answer = await instance.client.slot_file("save", number, temporary)
            file = folder / f"{number}.slot"
            if (folder / temporary).stat().st_size > MAX_BYTES:
                (folder / temporary).unlink()
                continue
            (folder / temporary).replace(file)
            digest = await asyncio.to_thread(sha256_of, file)
            saved.append({"slot": number, "sha256": digest, "tokens": int(answer.get("n_saved", 0))})
        if saved:
            write_json(folder / "slots.json", {"fingerprint": instance.spec.fingerprint, "slots": saved})
    except (EngineError, OSError) as exc:
        instance.journal.add("slots-not-saved", str(exc), instance=instance.id, level="warning")
        return
    if saved:
        instance.journal.add("slots-saved", f"{len(saved)} slots", instance=instance.id)


async def restore(instance: Watched) -> None:
    """Restore the files of `save`, once; a file that does not match is skipped, with the reason in the journal."""
    folder = instance.slots_dir
    if "{slots_dir}" not in instance.spec.argv or not (folder / "slots.json").exists():
        return
    try:
        wanted = check(read_json(folder / "slots.json"), fingerprint=instance.spec.fingerprint)
        for entry in wanted:
            file = folder / f"{int(entry['slot'])}.slot"
            if await asyncio.to_thread(sha256_of, file) != entry["sha256"]:
                raise EngineError(f"cannot restore slot {entry['slot']}: its file has changed")
            await instance.client.slot_file("restore", int(entry["slot"]), file.name)
        instance.journal.add("slots-restored", f"{len(wanted)} slots", instance=instance.id)
    except (NemotronOpsError, OSError, KeyError, ValueError) as exc:
        instance.journal.add("slots-not-restored", str(exc), instance=instance.id, level="warning")
    finally:
        for file in (folder / "slots.json", *folder.glob("*.slot")):
            file.unlink(missing_ok=True)


def check(value: Any, *, fingerprint: str) -> list[dict[str, Any]]:
    """The entries of a slots.json made by a process with the same `fingerprint`. Raises EngineError otherwise."""
    if not isinstance(value, dict) or value.get("fingerprint") != fingerprint:
        raise EngineError("cannot restore slots: they were saved with another build, model or setting")
    return [dict(e) for e in value["slots"]]
