"""The whole command line of bubblewrap. Pure.

The sandbox has a root of its own, read-only, with the system's programs and one sized work folder. bubblewrap's root
and `/dev` are tmpfs without a size, so both are made read-only after the mounts. The environment is not cleared by a
flag: `--clearenv` leaves bubblewrap's own, which the sandbox reads in `/proc/1/environ`; the caller starts bubblewrap
with the environment of the sandbox.

Two ways to be unprivileged: an ordinary user gets a user namespace; root gets none, because its processes would stay
the host's root for limits and files. There the kernel process changes to a user id that nothing else has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

WORK = "/work"
TOOLBOX = "/toolbox"
SHM_BYTES = 64 << 20
INSIDE_UID = 1000
SYSTEM_FILES = (  # of /etc; none of them holds a secret
    *("/etc/alternatives", "/etc/fonts", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"),
    *("/etc/localtime", "/etc/mime.types", "/etc/matplotlibrc"),
)
NETWORK_FILES = (  # what a name and a certificate are looked up in
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols"),
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ca-certificates", "/etc/pki/tls/certs", "/etc/pki/ca-trust"),
)


@dataclass(frozen=True, kw_only=True)
class View:
    """What the sandbox sees of the host. `links` are pairs of a link in the root folder and its target."""

    folders: tuple[str, ...]  # read-only, at their own paths: /usr, the interpreter
    links: tuple[tuple[str, str], ...] = ()  # /lib -> usr/lib
    hidden: tuple[str, ...] = ()  # below `folders`, shown empty
    toolbox: str = ""  # shown as TOOLBOX


@dataclass(frozen=True, kw_only=True)
class Wall:
    """One bubblewrap to be started. File descriptors are those of the child."""

    program: str
    view: View
    work_bytes: int
    filter_fd: int
    passwd_fd: int
    as_root: bool = False
    network: bool = False  # the host's network, for programs of the operator's, never for code of a model
    read: tuple[str, ...] = ()  # further folders and files of the host, at their own paths
    write: tuple[str, ...] = ()


def argv(wall: Wall, command: Sequence[str]) -> tuple[str, ...]:
    """bubblewrap with all its flags, then `command`."""
    return (
        wall.program,
        *_rights(wall),
        *("--unshare-pid", *(() if wall.network else ("--unshare-net",))),
        *("--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--die-with-parent", "--new-session", "--hostname", "sandbox"),
        *_system(wall.view),
        *(_each("--ro-bind-try", NETWORK_FILES) if wall.network else ()),
        *(
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--perms",
            "1777",
            "--size",
            str(SHM_BYTES),
            "--tmpfs",
            "/dev/shm",
            "--remount-ro",
            "/dev",
        ),
        *(
            "--perms",
            "1777",
            "--size",
            str(wall.work_bytes),
            "--tmpfs",
            WORK,
            "--perms",
            "1777",
            "--dir",
            f"{WORK}/.tmp",
        ),
        *("--symlink", f"{WORK[1:]}/.tmp", "/tmp", "--dir", "/var", "--symlink", f"..{WORK}/.tmp", "/var/tmp"),
        *("--perms", "0444", "--ro-bind-data", str(wall.passwd_fd), "/etc/passwd"),
        *_own("--ro-bind", wall.read, wall.view.folders),
        *_own("--bind", wall.write, wall.view.folders),
        *("--remount-ro", "/", "--chdir", WORK, "--seccomp", str(wall.filter_fd)),
        *command,
    )


def _each(flag: str, paths: Sequence[str]) -> list[str]:
    return [word for path in paths for word in (flag, path, path)]


def _own(flag: str, paths: Sequence[str], there: Sequence[str]) -> list[str]:
    """Paths of the host at their own places, each below folders that any user may enter."""
    words: list[str] = []
    for path in paths:
        above = [str(p) for p in list(PurePosixPath(path).parents)[-2::-1]]
        words += [w for p in above if not any(_below(p, f) for f in there) for w in ("--perms", "0755", "--dir", p)]
        words += [flag, path, path]
    return words


def _rights(wall: Wall) -> tuple[str, ...]:
    if wall.as_root:  # the kernel process needs these two to become another user
        return ("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    inside = str(INSIDE_UID)
    return ("--unshare-user", "--disable-userns", "--uid", inside, "--gid", inside)


def _system(view: View) -> list[str]:
    """Folders of the host at their own paths, each below folders that any user may enter."""
    words: list[str] = []
    made: set[str] = set()
    for folder in view.folders:
        for parent in list(PurePosixPath(folder).parents)[-2::-1]:
            if str(parent) not in made and not any(_below(str(parent), f) for f in view.folders):
                words += ["--perms", "0755", "--dir", str(parent)]
                made.add(str(parent))
        words += ["--ro-bind", folder, folder]
    words += ["--perms", "0755", "--dir", "/etc"]
    if view.toolbox:
        words += ["--ro-bind", view.toolbox, TOOLBOX]
    for link, target in view.links:
        words += ["--symlink", target, link]
    for path in SYSTEM_FILES:
        words += ["--ro-bind-try", path, path]
    for path in view.hidden:
        words += ["--perms", "0755", "--tmpfs", path, "--remount-ro", path]
    return words


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def passwd(uid: int) -> bytes:
    """`/etc/passwd` of the sandbox: root, and its one user."""
    return f"root:x:0:0:root:/nonexistent:/bin/false\nsandbox:x:{uid}:{uid}:sandbox:{WORK}:/bin/bash\n".encode()
