"""`supervise`: the supervisor from its lock to its exit code. asyncio, signals.

SIGTERM, SIGINT    drain, stop everything, end with 0; a second one ends the drain (if the service manager keeps the
                   listening socket for the next start, the gateway ends first: it answers what it has accepted, and
                   later clients wait in the socket's backlog)
SIGHUP             reload
SIGKILL, a crash   engines and gateway keep running; the next supervisor finds and adopts them
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from nemotron_ops.paths import Layout
from nemotron_ops.supervisor.control.verbs import Verbs
from nemotron_ops.supervisor.records import lock
from nemotron_ops.supervisor.spec import Config
from nemotron_ops.supervisor.supervisor import Hooks, Options, Supervisor
from nemotron_ops.supervisor.wishes import RESUME


def supervise(
    options: Options,
    *,
    layout: Layout,
    load_config: Callable[[], Config],
    env: Mapping[str, str],
    hooks: Hooks | None = None,
) -> int:
    """Run until stopped; returns the exit code.

    Raises ControlError if another supervisor holds this state directory, GatewayError if the address is not available,
    and the errors of `load_config`: nothing has been started then.
    """
    resumed = json.loads(env.get(RESUME, "{}"))
    held = lock.take(layout, inherited_fd=resumed.get("lock_fd"))
    supervisor = Supervisor(options, hooks or Hooks(), layout, load_config, env)
    verbs = Verbs(supervisor)
    try:
        main = supervisor.main(verbs.table(), on_hup=verbs.reload_in_background, listen_fd=resumed.get("listen_fd"))
        code = asyncio.run(main)
    except BaseExceptionGroup as group:
        raise only(group) from None
    finally:
        if not supervisor.executing:
            os.close(held)
    if supervisor.executing:
        execute(held, supervisor.gateway.sock)
    return code


def execute(lock_fd: int, sock: socket.socket | None) -> NoReturn:
    """Replace this process by the installed version, with the same pid, lock and listening socket."""
    resume = {"lock_fd": lock_fd}
    os.set_inheritable(lock_fd, True)
    if sock is not None:
        os.set_inheritable(sock.fileno(), True)
        resume["listen_fd"] = sock.fileno()
    os.environ[RESUME] = json.dumps(resume)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group, at any depth: the message names one cause."""
    first = group.exceptions[0]
    return only(first) if isinstance(first, BaseExceptionGroup) else first
