"""Compares our fetch, with its hashing, to huggingface_hub's own download of the same file. Processes, HTTP, disk.

A hub on loopback, in a separate process, serves one file to both in turn; the result is the ratio of the best times.
Each client runs in a new process and folder, and only the transfer is timed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

REPO, NAME = "bench/Bench-GGUF", "Bench-Q8_0.gguf"
CLIENTS = {"ours": ["ours", "8"], "ours, one connection": ["ours", "1"], "huggingface_hub": ["theirs"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the file")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each client")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("role", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        ROLES[options.role[0]](*options.role[1:])
        return
    with tempfile.TemporaryDirectory(prefix="bench-fetch-") as folder:
        file = Path(folder) / NAME
        digest = write_file(file, options.mib)
        result = race(file, digest, Path(folder), options.rounds)
    print(json.dumps(result, indent=2) if options.json else in_words(result))


def write_file(path: Path, mib: int) -> str:
    """Random bytes, and their sha256."""
    digest = hashlib.sha256()
    with path.open("wb") as f:
        for _ in range(mib):
            piece = os.urandom(1 << 20)
            digest.update(piece)
            f.write(piece)
    return digest.hexdigest()


def race(file: Path, digest: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Run the clients in turn, so that both meet the same load."""
    seconds: dict[str, list[float]] = {client: [] for client in CLIENTS}
    with serving(file, digest) as url:
        for turn in range(rounds):
            for client in seconds:
                target = folder / f"{CLIENTS[client][0]}-{turn}"
                env = os.environ | {"HF_ENDPOINT": url, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
                argv = [sys.executable, __file__, *CLIENTS[client], str(target), str(file.stat().st_size), digest]
                done = subprocess.run(argv, env=env, check=True, capture_output=True, text=True)
                seconds[client].append(float(done.stdout))
                subprocess.run(["rm", "-rf", str(target)], check=True)
    best = {client: min(times) for client, times in seconds.items()}
    return {
        "bytes": file.stat().st_size,
        "best_s": best,
        "all_s": seconds,
        "ratio": {client: best[client] / best["huggingface_hub"] for client in best},
    }


@contextmanager
def serving(file: Path, digest: str) -> Iterator[str]:
    """A hub in a separate process; ends with the block."""
    argv = [sys.executable, __file__, "serve", str(file), digest]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hub:
        assert hub.stdin
        assert hub.stdout
        try:
            yield hub.stdout.readline().strip()
        finally:
            hub.stdin.close()


def serve(path: str, digest: str) -> None:
    """Serve the file until stdin ends."""
    from tests.fakes.hub import Hub

    with Hub(send_buffer=0) as hub:
        hub.add(REPO, NAME, Path(path), sha256=digest)
        print(hub.url, flush=True)
        sys.stdin.read()


def ours(connections: str, target: str, size: str, digest: str) -> None:
    """Our transfer, with its hashing and its fsync."""
    from nemotron_ops.models.transfer import Download, Speed, download
    from nemotron_ops.models.web import Web
    from nemotron_ops.progress import silent

    folder = Path(target)
    folder.mkdir()
    with Web(os.environ) as web:
        began = time.perf_counter()
        item = Download(
            url=web.file_url(REPO, "main", NAME),
            name=NAME,
            size_bytes=int(size),
            proof=digest,
            partial=folder / "x.partial",
            final=folder / NAME,
        )
        download(web, item, report=silent, speed=Speed(connections=int(connections)))
        print(time.perf_counter() - began)


def theirs(target: str, size: str, digest: str) -> None:
    """huggingface_hub's download, which checks no hash."""
    from huggingface_hub import hf_hub_download

    began = time.perf_counter()
    path = hf_hub_download(REPO, NAME, local_dir=target)
    print(time.perf_counter() - began)
    assert Path(path).stat().st_size == int(size)


ROLES: dict[str, Callable[..., None]] = {"serve": serve, "ours": ours, "theirs": theirs}


def in_words(result: dict[str, Any]) -> str:
    """The result, a line per client."""
    lines = [
        f"{client}: {s:.2f} s, {result['ratio'][client]:.2f} of huggingface_hub's time"
        for client, s in result["best_s"].items()
    ]
    return "\n".join([*lines, "ours includes the hash and the flush to disk"])


if __name__ == "__main__":
    main()
