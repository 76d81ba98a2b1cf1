"""`python -m nemotron_ops.studio.pdf_text`: the text of a PDF, from stdin to stdout, within limits. Processes, pypdf.

A stranger's PDF can hold a megabyte that unpacks to gigabytes, or a page that takes hours: a process of its own, with
bounded memory and time, costs the page nothing when it is ended.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from contextlib import suppress
from io import BytesIO

from nemotron_ops.proc import python_argv

MOST_BYTES = 1 << 30  # address space
MOST_CPU_S = 20
MOST_TEXT = 8 << 20
WAIT_S = 30.0


class Unreadable(Exception):
    """The PDF has no text that can be read; the words are for people."""


async def text_of(data: bytes) -> str:
    """The text of a PDF, its pages apart by blank lines. Raises Unreadable."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *python_argv("nemotron_ops.studio.pdf_text"), stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        out, _ = await asyncio.wait_for(child.communicate(data), WAIT_S)
    except TimeoutError as exc:
        raise Unreadable("this PDF takes too long to read") from exc
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
    if child.returncode != 0:
        raise Unreadable("this PDF cannot be read")
    text = out.decode(errors="replace")
    if not text.strip():
        raise Unreadable("this PDF has no text: it may be a scan")
    return text


def main() -> None:
    """Read a PDF from stdin and print its text; any error of pypdf ends the process, which says enough."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
    from pypdf import PdfReader

    left = MOST_TEXT
    for page in PdfReader(BytesIO(sys.stdin.buffer.read())).pages:
        text = page.extract_text()
        sys.stdout.buffer.write(text[:left].encode(errors="replace") + b"\n\n")
        left -= len(text)
        if left <= 0:
            break


if __name__ == "__main__":
    main()
