"""Unpacking of untrusted archives."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from nemotron_ops.builds.packages.archive import prefix_of, read_member, safe_links, safe_name, under, unpack
from nemotron_ops.errors import SourceError


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def member(
    name: str, content: bytes = b"x", *, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info, content if kind == tarfile.REGTYPE else b""


def test_files_folders_and_inner_links_are_made(tmp_path: Path) -> None:
    packed = tar_of(
        tmp_path / "a.tar.gz",
        member("top/run.sh", b"#!", mode=0o4755),
        member("top/sub/b.txt", b"hello"),
        member("top/link", kind=tarfile.SYMTYPE, link="sub/b.txt"),
    )
    assert unpack(packed, tmp_path / "out") == 2
    assert (tmp_path / "out/top/link").read_text() == "hello"
    assert (tmp_path / "out/top/run.sh").stat().st_mode & 0o7777 == 0o755  # no set-user-id bit


def test_only_what_lies_below_a_prefix_is_kept(tmp_path: Path) -> None:
    packed = tar_of(tmp_path / "a.tar.gz", member("pkg-1/setup.py"), member("pkg-1/vendor/llama.cpp/src/x.cpp", b"c"))
    unpack(packed, tmp_path / "out", rename=under(PurePosixPath("pkg-1/vendor/llama.cpp")))
    assert [str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["src/x.cpp"]


@pytest.mark.parametrize(
    "bad",
    [
        member("/etc/passwd"),
        member("a/../../b"),
        member("top/link", kind=tarfile.SYMTYPE, link="../../etc/passwd"),
        member("top/link", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member("top/dev", kind=tarfile.CHRTYPE),
        member("top/pipe", kind=tarfile.FIFOTYPE),
        member("top/hard", kind=tarfile.LNKTYPE, link="/etc/shadow"),
    ],
)
def test_whatever_leads_out_or_is_no_plain_file_is_refused(tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes]) -> None:
    with pytest.raises(SourceError, match="cannot unpack"):
        unpack(tar_of(tmp_path / "a.tar.gz", bad), tmp_path / "out")
    assert not (tmp_path / "b").exists()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out/top").mkdir(parents=True)
    packed = tar_of(
        tmp_path / "a.tar.gz", member("top/l", kind=tarfile.SYMTYPE, link="sub"), member("top/l/evil.txt", b"e")
    )
    with pytest.raises(SourceError):
        unpack(packed, tmp_path / "out")
    assert list(outside.iterdir()) == []


def test_zip_files_are_unpacked_the_same_way(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        info = zipfile.ZipInfo("top/run")
        info.external_attr = 0o100755 << 16
        packed.writestr(info, "#!")
        packed.writestr("top/b", "b")
    assert unpack(tmp_path / "a.zip", tmp_path / "out") == 2
    assert (tmp_path / "out/top/run").stat().st_mode & 0o111


def test_a_zip_that_climbs_out_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("../evil", "e")
    with pytest.raises(SourceError, match="leads out"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_broken_archive_is_a_source_error(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b not really")
    with pytest.raises(SourceError, match="cannot unpack"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def zip_of(path: Path, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    with zipfile.ZipFile(path, "w", kind) as packed:
        packed.writestr("llama.cpp/src/x.cpp", "some text " * 1000)
    return path.read_bytes()


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_zip_with_broken_content_is_a_source_error(tmp_path: Path, kind: int) -> None:
    content = zip_of(tmp_path / "a.zip", kind)
    start = content.index(b"x.cpp") + 10
    (tmp_path / "a.zip").write_bytes(content[:start] + b"\xff" * 20 + content[start + 20 :])
    with pytest.raises(SourceError, match=r"cannot unpack a\.zip"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_zip_with_a_broken_list_is_a_source_error(tmp_path: Path) -> None:
    content = zip_of(tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(content.replace(b"PK\x01\x02", b"PK\x00\x00"))
    with pytest.raises(SourceError, match=r"cannot read archive a\.zip"):
        prefix_of(tmp_path / "a.zip", "src/x.cpp")


def test_an_encrypted_zip_is_a_source_error(tmp_path: Path) -> None:
    content = zip_of(tmp_path / "a.zip")
    at = content.index(b"PK\x01\x02") + 8  # the flags in the list of files
    (tmp_path / "a.zip").write_bytes(content[:at] + b"\x01" + content[at + 1 :])
    with pytest.raises(SourceError, match="encrypted"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize(("suffix", "rest"), [("gz", b""), ("xz", b""), ("xz", b"\xff" * 80), ("bz2", b"\xff" * 80)])
def test_a_tar_with_broken_content_is_a_source_error(tmp_path: Path, suffix: str, rest: bytes) -> None:
    path = tmp_path / f"a.tar.{suffix}"
    with tarfile.open(path, f"w:{suffix}") as tar:  # type: ignore[call-overload]
        for info, content in (member(f"llama.cpp/{i}", bytes(range(256)) * 200) for i in range(9)):
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + rest)
    with pytest.raises(SourceError):
        unpack(path, tmp_path / "out")
    assert read_member(path, "absent") == ""


def test_llama_cpp_is_found_wherever_it_lies_in_an_archive(tmp_path: Path) -> None:
    packed = tar_of(tmp_path / "a.tar.gz", member("p-1/README"), member("p-1/vendor/llama.cpp/src/llama-arch.cpp"))
    assert prefix_of(packed, "src/llama-arch.cpp") == PurePosixPath("p-1/vendor/llama.cpp")
    assert prefix_of(packed, "src/nothing.cpp") is None


def test_the_commit_is_read_from_the_archive_itself(tmp_path: Path) -> None:
    packed = tar_of(tmp_path / "a.tar.gz", member("p-1/.git/modules/vendor/llama.cpp/HEAD", b"abc\n"))
    assert read_member(packed, ".git/modules/vendor/llama.cpp/HEAD") == "abc"
    assert read_member(packed, "nothing") == ""


@pytest.mark.parametrize("name", ["/a", "a/../b", "..", "a\\b", "a\0b"])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(SourceError):
        safe_name(name)


@pytest.mark.parametrize(("at", "target"), [("a", "../x"), ("a/b", "../../x"), ("a/b", "c/../../../x"), ("a", "/x")])
def test_links_that_lead_out_are_refused(tmp_path: Path, at: str, target: str) -> None:
    links = {PurePosixPath(at): target}
    with pytest.raises(SourceError, match="leads out"):
        safe_links(tmp_path, links, links)
    inside = {PurePosixPath("a/b/c"): "../x"}
    safe_links(tmp_path, inside, inside)


CHAINS = {
    "a link below a link": [("l1", "sub"), ("l1/l2", "x"), ("sub/f", None)],
    "a file below a link": [("l1", "sub"), ("l1/f", None)],
    "up through a link to the folder above": [("d/l1", ".."), ("d/l2", "l1/.."), ("f", None)],
    "a chain that climbs": [("d/l1", ".."), ("d/l2", "l1/.."), ("d/l2/home/authorized_keys", "../x")],
    "the link that is given later": [("d/l2", "l1/../x"), ("d/l1", "..")],
    "a loop": [("a", "b"), ("b", "a")],
    "a link and a file of one name": [("a", "b"), ("a", None)],
    "two links of one name": [("d/a", "b"), ("d/a", "c")],
}


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_no_chain_of_links_leaves_the_folder(tmp_path: Path, kind: str, chain: list[tuple[str, str | None]]) -> None:
    """Also: nothing at all is unpacked of such an archive."""
    packed, out = tmp_path / f"a.{kind}", tmp_path / "store/out"
    if kind == "zip":
        with zipfile.ZipFile(packed, "w") as made:
            made.writestr("first", "x")
            for name, target in chain:
                info = zipfile.ZipInfo(name)
                info.external_attr = (0o120777 if target else 0o100644) << 16
                made.writestr(info, target or "x")
    else:
        links = [member(name, kind=tarfile.SYMTYPE, link=target) if target else member(name) for name, target in chain]
        tar_of(packed, member("first"), *links)
    with pytest.raises(SourceError, match="cannot unpack"):
        unpack(packed, out)
    assert list(out.iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([packed.name, "store"])


@pytest.mark.parametrize("name", ["here/f", "here"])
def test_a_link_that_was_there_before_is_not_written_through(tmp_path: Path, name: str) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (out / "here").symlink_to(outside if "/" in name else outside / "f")
    packed = tar_of(tmp_path / "a.tar.gz", member(name))
    if "/" in name:
        with pytest.raises(SourceError, match="below a link"):
            unpack(packed, out)
    else:
        unpack(packed, out)
        assert not (out / name).is_symlink()
    assert list(outside.iterdir()) == []
