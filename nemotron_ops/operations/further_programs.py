"""Programs of llama.cpp that a build does not hold, compiled when they are first wanted. cmake, ninja, disk."""

from __future__ import annotations

from nemotron_ops.builds.more_programs import have_program

__all__ = ["have_program"]
