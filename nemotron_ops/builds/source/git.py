"""Fetches one commit of a git repository, shallow and verified. Git, disk.

An unreachable repository must be detected within seconds: its host is probed first (unless a proxy is configured), git
may not ask for passwords, and transfers that are too slow are cut.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from nemotron_ops import proc
from nemotron_ops.builds.spec import Source, check_ref, is_commit, without_secrets
from nemotron_ops.errors import SourceError
from nemotron_ops.files import locked
from nemotron_ops.progress import Report, Step

CONNECT_TIMEOUT_S = 4.0
LIST_TIMEOUT_S = 15.0
FETCH_STALL_S = 120.0
PORTS = {"https": 443, "http": 80, "git": 9418, "ssh": 22}
KEPT = ("PATH", "HOME", "SSH_AUTH_SOCK", "GIT_SSL_CAINFO", "GIT_SSH_COMMAND", "SSL_CERT_FILE", "SSL_CERT_DIR", "TMPDIR")


def resolve(git: str, url: str, ref: str, env: Mapping[str, str]) -> str:
    """The commit that `ref` (tag, branch or full commit; empty: the default branch) names at `url`.

    Raises SourceError, within seconds if the repository cannot be reached.
    """
    if not _redirected(git, env):
        check_reachable(url, env)
    if is_commit(ref):
        return ref
    wanted = check_ref(ref) if ref else "HEAD"
    argv = [git, "ls-remote", "--", url, wanted, f"refs/tags/{wanted}^{{}}"]
    done = proc.run(argv, env=git_env(env), timeout_s=LIST_TIMEOUT_S)
    if not done.ok:
        raise SourceError(f"cannot read {without_secrets(url)}: {_reason(done)}")
    commit = pick_commit(done.stdout, wanted)
    if not commit:
        raise SourceError(
            f"cannot find {wanted} at {without_secrets(url)}: no such tag, branch or commit",
            hint="a server cannot look up an abbreviated commit; give all 40 digits",
        )
    return commit


def pick_commit(listing: str, ref: str) -> str:
    """The commit of `ref` in the output of `git ls-remote`: a tag's own commit before the tag, tags before branches."""
    found = {name: commit for commit, _, name in (line.partition("\t") for line in listing.splitlines())}
    order = (f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", ref)
    return next((found[name] for name in order if name in found), "")


def fetch(git: str, source: Source, *, to: Path, cache: Path, env: Mapping[str, str], report: Report) -> None:
    """Fetches the files of `source` into the new folder `to`, through a bare repository in `cache`.

    Raises SourceError.
    """
    url, commit = source.origin.place, source.commit
    store = cache / "git" / f"{hashlib.sha256(without_secrets(url).encode()).hexdigest()[:16]}.git"
    with locked(store.with_suffix(".lock")):
        _ensure_bare(git, store, env)
        if not _has(git, store, commit, env):
            _fetch_commit(git, store, source, env, report)
        checkout(git, store, commit, to, env)


def checkout(git: str, store: Path, commit: str, to: Path, env: Mapping[str, str]) -> None:
    """The files of `commit` in bare repository `store`, as a plain folder without `.git`."""
    to.mkdir(parents=True)
    argv = [git, f"--git-dir={store}", f"--work-tree={to}", "checkout", "--force", commit, "--", "."]
    done = proc.run(argv, env=git_env(env), cwd=to)
    if not done.ok:
        shutil.rmtree(to, ignore_errors=True)
        raise SourceError(f"cannot check out {commit[:12]}: {_reason(done)}")


def open_bundle(git: str, bundle: Path, ref: str, *, store: Path, env: Mapping[str, str]) -> str:
    """Unpack a git bundle into bare repository `store`; returns the commit of `ref` (empty: its HEAD)."""
    _ensure_bare(git, store, env)
    wanted = check_ref(ref) if ref else "HEAD"
    heads = proc.run([git, "bundle", "list-heads", bundle], env=git_env(env))
    commit = wanted if is_commit(wanted) else pick_commit(heads.stdout.replace(" ", "\t"), wanted)
    if not heads.ok or not commit:
        raise SourceError(f"cannot use bundle {bundle}: {_reason(heads) if not heads.ok else f'it has no {wanted}'}")
    done = proc.run([git, f"--git-dir={store}", "bundle", "unbundle", bundle], env=git_env(env))
    exact = _rev(git, store, commit, env) if done.ok else ""  # a tag in a bundle may be an object of its own
    if not exact:
        raise SourceError(f"cannot use bundle {bundle}: {_reason(done) if not done.ok else f'it lacks {commit}'}")
    return exact


def commit_of_folder(git: str, folder: Path, env: Mapping[str, str]) -> str:
    """The commit of a clean working tree whose top is `folder`; empty if it is none, or has changes."""
    top = proc.run([git, *QUIET, "-C", folder, "rev-parse", "--show-toplevel", "HEAD"], env=git_env(env), timeout_s=30)
    lines = top.stdout.split()
    if not top.ok or len(lines) != 2 or Path(lines[0]).resolve() != folder.resolve():
        return ""
    status = proc.run([git, *QUIET, "-C", folder, "status", "--porcelain"], env=git_env(env), timeout_s=120)
    return lines[1] if status.ok and not status.stdout.strip() else ""


def files_of_folder(git: str, folder: Path, env: Mapping[str, str]) -> tuple[str, ...]:
    """What belongs to the working tree at `folder`: tracked or new, and not ignored; empty if it is no working tree."""
    argv: list[str | Path] = [git, *QUIET, "-C", folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = proc.run(argv, env=git_env(env), timeout_s=120)
    return tuple(dict.fromkeys(name for name in done.stdout.split("\0") if name)) if done.ok else ()


# Settings of a foreign folder must not run programs.
QUIET = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")


def check_reachable(url: str, env: Mapping[str, str]) -> None:
    """Raises SourceError within seconds if the host of `url` does not accept connections; skipped behind a proxy."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        return
    if any(
        env.get(name) for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy")
    ):
        return
    try:
        socket.create_connection((parts.hostname, parts.port or PORTS[parts.scheme]), CONNECT_TIMEOUT_S).close()
    except OSError as exc:
        raise SourceError(f"cannot reach {parts.hostname}: {exc.strerror or exc}") from exc


def _redirected(git: str, env: Mapping[str, str]) -> bool:
    """Whether git is configured with a proxy or with URL rewriting; then only git itself can test the connection."""
    pattern = r"^(http\..*proxy|url\..*\.insteadof)$"
    return proc.run([git, "config", "--get-regexp", pattern], env=git_env(env), timeout_s=10).ok


def git_env(env: Mapping[str, str]) -> dict[str, str]:
    """git's environment: no prompts, no foreign repository, no slow transfers, the caller's proxies."""
    kept = {k: v for k, v in env.items() if k in KEPT or k.lower().endswith("_proxy")}
    settings = {"http.lowSpeedLimit": "1000", "http.lowSpeedTime": "20", "core.fsmonitor": "false", "gc.auto": "0"}
    numbered = {"GIT_CONFIG_COUNT": str(len(settings))}
    for i, (key, value) in enumerate(settings.items()):
        numbered |= {f"GIT_CONFIG_KEY_{i}": key, f"GIT_CONFIG_VALUE_{i}": value}
    ssh = {} if "GIT_SSH_COMMAND" in kept else {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=5"}
    return {**kept, **numbered, **ssh, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "/bin/false", "LC_ALL": "C"}


def _ensure_bare(git: str, store: Path, env: Mapping[str, str]) -> None:
    if (store / "HEAD").exists():
        return
    store.mkdir(parents=True, exist_ok=True)
    done = proc.run([git, "init", "--bare", "--quiet", store], env=git_env(env))
    if not done.ok:
        raise SourceError(f"cannot make a git repository in {store}: {_reason(done)}")


def _has(git: str, store: Path, commit: str, env: Mapping[str, str]) -> bool:
    argv = [git, f"--git-dir={store}", "cat-file", "-e", f"{commit}^{{tree}}"]
    return proc.run(argv, env=git_env(env)).ok and (store / f"got-{commit}").exists()


def _fetch_commit(git: str, store: Path, source: Source, env: Mapping[str, str], report: Report) -> None:
    """Fetch one commit without history; by its ref where the server refuses to send bare commits."""
    url, commit, ref = source.origin.place, source.commit, source.origin.ref
    problems: list[str] = []
    for wanted in dict.fromkeys([commit, *([ref] if ref else [])]):
        how = ("--depth=1", "--no-tags", "--progress", "--force")
        argv = [git, f"--git-dir={store}", "fetch", *how, "--", url, wanted]
        done = proc.run_lines(
            argv, on_line=lambda line: _progress(line, report), env=git_env(env), stall_s=FETCH_STALL_S
        )
        if done.ok and _rev(git, store, "FETCH_HEAD", env) == commit:
            (store / f"got-{commit}").touch()  # an interrupted fetch may leave a commit without its files
            return
        problems.append(
            "it stalled" if done.stalled else _reason(done) if not done.ok else f"{wanted} is no longer {commit}"
        )
    raise SourceError(f"cannot fetch {commit[:12]} from {without_secrets(url)}: {problems[0]}")


def _rev(git: str, store: Path, name: str, env: Mapping[str, str]) -> str:
    done = proc.run([git, f"--git-dir={store}", "rev-parse", f"{name}^{{commit}}"], env=git_env(env))
    return done.stdout.strip() if done.ok else ""


def _progress(line: str, report: Report) -> None:
    """`Receiving objects:  42% (…)`, as git writes it."""
    head, _, rest = line.rpartition("\r")[2].partition(":")
    percent = rest.strip().partition("%")[0]
    if head.strip() == "Receiving objects" and percent.isdigit():
        report(Step(what="fetch source", done=float(percent), total=100, unit="%"))


def _reason(done: proc.Finished) -> str:
    """git's own error message."""
    if done.returncode == 124:
        return f"no answer within {LIST_TIMEOUT_S:g} s"
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (fatal or lines or [f"git ended with {done.returncode}"])[0].removeprefix("fatal: ").removeprefix("error: ")
