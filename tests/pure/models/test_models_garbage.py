"""The models that `models gc` removes."""

from __future__ import annotations

from nemotron_ops.models.garbage import garbage
from nemotron_ops.models.store import StoredFile, StoredModel

DAY = 86400.0
NOW = 1000 * DAY


def model(name: str, *, size: int = 10, used_days_ago: float = 0) -> StoredModel:
    file = StoredFile(name=f"{name}.gguf", path=f"/m/{name}.gguf", size_bytes=size, sha256="0" * 64, mtime_ns=0)
    return StoredModel(
        repo=f"o/{name}", quant="Q8_0", revision="main", commit="c", files=(file,), used_at=NOW - used_days_ago * DAY
    )


OLD, MIDDLE, NEW = model("old", used_days_ago=60), model("middle", used_days_ago=20), model("new", used_days_ago=1)


def removed(**how: object) -> list[str]:
    return [g.model.repo for g in garbage([NEW, OLD, MIDDLE], now=NOW, **how)]  # type: ignore[arg-type]


def test_without_a_limit_nothing_goes() -> None:
    assert removed() == []


def test_the_long_unused_go() -> None:
    assert removed(older_than_s=30 * DAY) == ["o/old"]


def test_room_is_made_from_the_longest_unused_on() -> None:
    assert removed(keep_bytes=15) == ["o/old", "o/middle"]


def test_both_limits_together_count_what_age_removed() -> None:
    assert removed(older_than_s=30 * DAY, keep_bytes=20) == ["o/old"]


def test_what_is_in_use_stays_even_if_room_is_short() -> None:
    assert removed(keep_bytes=0, in_use={OLD.id, NEW.id}) == ["o/middle"]
