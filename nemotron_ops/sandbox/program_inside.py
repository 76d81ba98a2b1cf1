"""Runs inside a sandbox before a program: sets limits, becomes the sandbox's user, starts the program. Processes.

Only the standard library: the source is given to Python as a text. The first argument is JSON: `rlimits` by name, `uid`
or null, and `command`.
"""

import json
import os
import resource
import sys


def main() -> None:
    """Replace this process by the program; 127 if it cannot be started."""
    given = json.loads(sys.argv[1])
    for name, value in given["rlimits"].items():
        number = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(number, (value, value))
    if given["uid"] is not None:
        os.setgroups([])
        os.setresgid(given["uid"], given["uid"], given["uid"])
        os.setresuid(given["uid"], given["uid"], given["uid"])
    command = given["command"]
    try:
        os.execvp(command[0], command)
    except OSError as exc:
        why = "it is not in the sandbox" if isinstance(exc, FileNotFoundError) else exc.strerror
        sys.stderr.write(f"cannot start {command[0]}: {why}\n")
        os._exit(127)


main()
