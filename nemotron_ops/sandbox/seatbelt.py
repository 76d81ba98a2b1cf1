"""The profile of macOS' Seatbelt (`sandbox-exec`). Pure.

Everything is denied but reading the system and the toolbox, reading and writing the work folder, and signals to the
same sandbox. There is no network.
"""

from __future__ import annotations

from collections.abc import Sequence

SYSTEM = (
    *("/System", "/usr", "/bin", "/sbin", "/Library/Frameworks", "/Library/Apple", "/private/var/db/dyld"),
    *("/private/etc/localtime", "/private/var/db/timezone", "/dev"),
)
HIDDEN = ("/usr/local/etc", "/usr/local/var")


def profile(*, readable: Sequence[str], work: str) -> str:
    """The profile for `sandbox-exec -p`; `readable` are the interpreter's folders and the toolbox."""
    reads = "\n".join(f"  (subpath {_quoted(path)})" for path in (*SYSTEM, *readable, work))
    hidden = "\n".join(f"  (subpath {_quoted(path)})" for path in HIDDEN)
    return f"""(version 1)
(deny default)
(allow process-fork)
(allow process-exec
{reads})
(allow signal (target same-sandbox))
(allow process-info* (target same-sandbox))
(allow sysctl-read)
(allow file-read-metadata)
(allow file-read*
  (literal "/")
{reads})
(deny file-read*
{hidden})
(allow file-write*
  (subpath {_quoted(work)}))
(allow file-write-data
  (literal "/dev/null")
  (literal "/dev/zero"))
(deny network*)
(deny mach-lookup)
(deny iokit-open)
"""


def argv(*, readable: Sequence[str], work: str, command: Sequence[str]) -> tuple[str, ...]:
    """`sandbox-exec` with the profile, then `command`."""
    return ("/usr/bin/sandbox-exec", "-p", profile(readable=readable, work=work), *command)


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
