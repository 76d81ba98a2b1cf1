"""Compares two builds: version, options, llama-server's flags, and recipes that would break. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemotron_ops.builds.plan import PLACES


@dataclass(frozen=True, kw_only=True)
class Difference:
    """From build A to build B. `users` maps a vanished flag to the recipes that would pass it."""

    facts: Mapping[str, tuple[str, str]]
    options: Mapping[str, tuple[str, str]]
    new_flags: tuple[str, ...]
    vanished_flags: tuple[str, ...]
    users: Mapping[str, tuple[str, ...]]

    @property
    def breaks(self) -> bool:
        """Whether some recipe would not start with B."""
        return bool(self.users)


def compare(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    *,
    flags_a: frozenset[str],
    flags_b: frozenset[str],
    recipe_flags: Mapping[str, frozenset[str]],
) -> Difference:
    """The difference from manifest `a` to `b`; `recipe_flags` are the flags that each recipe passes."""
    vanished = tuple(sorted(flags_a - flags_b))
    users = {
        flag: using for flag in vanished if (using := tuple(sorted(r for r, f in recipe_flags.items() if flag in f)))
    }
    return Difference(
        facts=changed(_facts(a), _facts(b)),
        options=changed(_options(a), _options(b)),
        new_flags=tuple(sorted(flags_b - flags_a)),
        vanished_flags=vanished,
        users=users,
    )


def changed(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Keys whose value differs; a missing one is empty."""
    return {k: (a.get(k, ""), b.get(k, "")) for k in sorted({*a, *b}) if a.get(k, "") != b.get(k, "")}


def _facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    plan = manifest["plan"]
    return {
        "llama.cpp": str(manifest.get("version", "")),
        "source": plan["source"]["label"],
        "commit": plan["source"]["commit"],
        "backend": plan["backend"],
        "compiler": plan["compiler"],
        "cuda": plan["cuda"] or "",
        "architectures": " ".join(plan["archs"]),
        "fixes": " ".join(plan["fixes"]),
    }


def _options(manifest: Mapping[str, Any]) -> dict[str, str]:
    in_facts = {"LLAMA_BUILD_NUMBER", "LLAMA_BUILD_COMMIT"}
    return {k: v for k, v in manifest["plan"]["cmake"].items() if k not in PLACES and k not in in_facts}
