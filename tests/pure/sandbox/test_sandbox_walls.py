"""Command lines, rules and profiles of the walls, whole; the order of backends; the refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemotron_ops.sandbox import bwrap, choose, landlock, seatbelt
from nemotron_ops.sandbox.bwrap import View, Wall
from nemotron_ops.sandbox.choose import Backend, Candidate, Facts

VIEW = View(
    folders=("/usr", "/home/ann/.pyenv/versions/3.12"), links=(("/lib", "usr/lib"),), toolbox="/home/ann/t",
    hidden=("/usr/local/etc",),
)  # fmt: skip
WALL = Wall(program="/usr/bin/bwrap", view=VIEW, work_bytes=1 << 30, filter_fd=7, passwd_fd=8)
GOLDEN = Path(__file__).parents[2] / "golden" / "sandbox"


def lines(argv: tuple[str, ...]) -> str:
    """One flag a line with its values, as the golden file has them."""
    text = ""
    for word in argv:
        text += ("\n" if word.startswith("--") or word == "python" else " ") + word
    return text.strip() + "\n"


def goldens() -> dict[str, str]:
    as_root = Wall(program="/usr/bin/bwrap", view=VIEW, work_bytes=1 << 30, filter_fd=7, passwd_fd=8, as_root=True)
    return {
        "bwrap-user.txt": lines(bwrap.argv(WALL, ("python", "-I"))),
        "bwrap-root.txt": lines(bwrap.argv(as_root, ("python", "-I"))),
        "seatbelt.sb": seatbelt.profile(readable=("/opt/python", '/Users/a "b"/t'), work="/private/tmp/work"),
    }


@pytest.mark.parametrize("name", goldens())
def test_the_whole_wall_is_as_the_golden_file_has_it(name: str) -> None:
    assert goldens()[name] == (GOLDEN / name).read_text()


def test_unsized_file_systems_are_read_only_after_their_mounts() -> None:
    argv = bwrap.argv(WALL, ("python",))
    for place in ("/", "/dev"):
        at = max(i for i, word in enumerate(argv) if word == "--remount-ro" and argv[i + 1] == place)
        inner = [
            i for i, w in enumerate(argv) if w in ("--tmpfs", "--dir", "--symlink", "--dev") and place in argv[i + 1]
        ]
        assert all(i < at for i in inner)
    sized = [argv[i - 1] for i, word in enumerate(argv) if word == "--tmpfs" and argv[i + 1] in ("/work", "/dev/shm")]
    assert sized == [str(bwrap.SHM_BYTES), str(1 << 30)]


def test_a_user_namespace_is_named_so_that_more_of_them_can_be_refused() -> None:
    argv = bwrap.argv(WALL, ("python",))
    assert "--unshare-user" in argv
    assert "--disable-userns" in argv
    assert "--clearenv" not in argv  # would leave bubblewrap's own environment in /proc/1/environ


def test_landlock_asks_only_for_what_the_kernels_version_knows() -> None:
    first, third, sixth = (landlock.rules(abi, readable=("/usr",), work="/w") for abi in (1, 3, 6))
    assert first.handled_fs == (1 << 13) - 1
    assert (first.handled_net, first.scoped) == (0, 0)
    assert third.handled_fs & landlock.TRUNCATE
    assert sixth.scoped == landlock.ABSTRACT_SOCKETS | landlock.SIGNALS
    assert dict(sixth.paths)["/usr"] == landlock.EXECUTE | landlock.READ_FILE | landlock.READ_DIR
    assert not dict(sixth.paths)["/w"] & (landlock.MAKE_CHAR | landlock.MAKE_BLOCK | landlock.MAKE_SOCK)
    assert all(not rights & ~rules.handled_fs for rules in (first, third, sixth) for _, rights in rules.paths)


def test_backends_come_strongest_first() -> None:
    facts = Facts(bwrap="/usr/bin/bwrap", wheel="/w/bwrap", landlock_abi=7, monty="1.4")
    usable = [c.backend for c in choose.candidates(facts) if c.usable]
    assert usable == [Backend.BUBBLEWRAP, Backend.BUBBLEWRAP_WHEEL, Backend.LANDLOCK, Backend.MONTY]


def test_a_mac_has_seatbelt_and_monty() -> None:
    facts = Facts(system="Darwin", machine="arm64", seatbelt=True, monty="1.4", bwrap="/opt/bwrap")
    assert [c.backend for c in choose.candidates(facts) if c.usable] == [Backend.SEATBELT, Backend.MONTY]


def test_the_refusal_gives_each_reason_and_each_fix_once() -> None:
    facts = Facts(release="4.4.0", userns_limits=("user.max_user_namespaces=0",))
    text, hint = choose.refusal(choose.candidates(facts))
    assert text.startswith("cannot run code: no sandbox works here: bubblewrap: not installed; ")
    for backend in Backend:
        assert f"{backend}: " in text
    assert "this kernel (4.4.0) has no Landlock" in text
    assert "apt-get install bubblewrap" in hint
    assert hint.count("nemotron-ops[tools]") == 1


def test_a_refused_user_namespace_names_the_setting_that_refuses_it() -> None:
    facts = Facts(bwrap="/usr/bin/bwrap", userns_limits=("kernel.apparmor_restrict_unprivileged_userns=1",))
    assert "bwrap-userns-restrict" in choose.candidates(facts)[0].fix


def test_a_machine_without_a_filter_gets_no_wall_that_needs_one() -> None:
    found = {c.backend: c for c in choose.candidates(Facts(machine="riscv64", bwrap="/b", landlock_abi=7))}
    for backend in (Backend.BUBBLEWRAP, Backend.LANDLOCK):
        assert found[backend] == Candidate(backend=backend, reason="no seccomp filter for riscv64")


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for file, text in goldens().items():
        (GOLDEN / file).write_text(text)
