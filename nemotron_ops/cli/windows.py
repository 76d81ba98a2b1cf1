"""What is said on Windows itself, where nothing is served: use WSL 2. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nemotron_ops.errors import HostError

HARMLESS = frozenset({"-h", "--help", "--version"})


def check_platform(platform: str, words: Sequence[str]) -> None:
    """Raises HostError on Windows, unless only help or the version is asked for."""
    if platform == "win32" and words and not HARMLESS.intersection(words):
        raise HostError(
            "cannot run on Windows itself: sockets, locks and signals of Unix are needed",
            hint="run it in WSL 2, which uses the same GPU: `wsl --install`, then install nemotron-ops inside; "
            "docs/how-to/windows.md has the steps",
        )
