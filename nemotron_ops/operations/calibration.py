"""The importance matrix of a conversion: a file, or made by llama-imatrix from the docs of llama.cpp. Processes, disk.

llama.cpp's own documentation is at hand with every build's source: prose, code, tables and shell, the same text for the
same build. A file made from one's own kind of text is better.
"""

from __future__ import annotations

import os
from pathlib import Path

from nemotron_ops import files
from nemotron_ops.builds.store.store import Build
from nemotron_ops.errors import ModelError, UsageError
from nemotron_ops.installation import Installation
from nemotron_ops.models.local import read_header
from nemotron_ops.operations.further_programs import have_program
from nemotron_ops.operations.program_output import Tool, write_by

AUTO = "auto"
TEXT_BYTES = 1 << 20
CHUNKS = 200
CHUNK_TOKENS = 512
MATRIX_BYTES = 64 << 20  # for the progress


def check_matrix(asked: str) -> Path | None:
    """The file of `--imatrix FILE`, None for `auto` and "". Raises UsageError if it is no importance matrix."""
    if asked in ("", AUTO):
        return None
    path = Path(asked).absolute()
    try:
        kind = read_header(path).values.get("general.type")
    except ModelError as exc:
        raise UsageError(f"cannot use {asked} as an importance matrix: {exc.message}") from exc
    if kind != "imatrix":
        raise UsageError(f"cannot use {asked} as an importance matrix: it is a GGUF of another kind")
    return path


def matrix(asked: str, whole: Path, build: Build, tree: Path, here: Installation) -> Path | None:
    """The importance matrix for `whole`, made if `asked` is "auto"; None where none is asked for."""
    if asked != AUTO:
        return check_matrix(asked)
    made = whole.with_name("imatrix.gguf")
    if made.is_file():
        return made
    program = have_program(build, "llama-imatrix", here)
    text, half = whole.with_name("calibration.txt"), whole.with_name("imatrix.part.gguf")
    files.write_atomic(text, calibration_text(tree))
    tool = Tool(argv=imatrix_argv(program, whole, text, half), what="weigh importance", out=half, total=MATRIX_BYTES)
    write_by(tool, here)
    with half.open("rb") as f:
        os.fsync(f.fileno())
    half.rename(made)
    files.sync_dir(made.parent)
    return made


def imatrix_argv(program: Path, whole: Path, text: Path, out: Path) -> list[str]:
    """The command that makes an importance matrix of `text`."""
    words = [program, "-m", whole, "-f", text, "-o", out, "-c", CHUNK_TOKENS, "--chunks", CHUNKS, "--no-ppl"]
    return [str(word) for word in words]


def calibration_text(tree: Path) -> str:
    """The docs of the source as one text of at most `TEXT_BYTES`."""
    kept, left = [], TEXT_BYTES
    for path in [tree / "README.md", *sorted((tree / "docs").rglob("*.md"))]:
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")[:left]
        kept.append(text)
        left -= len(text)
    return "\n\n".join(kept)
