"""`python -m nemotron_ops.studio`: runs the page as a process of its own. argv, sockets, signals."""

from __future__ import annotations

import asyncio
import shlex
import signal
import socket
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import uvicorn
import uvloop

from nemotron_ops.errors import GatewayError, NemotronOpsError
from nemotron_ops.files import write_atomic
from nemotron_ops.paths import Layout
from nemotron_ops.proc import python_argv
from nemotron_ops.studio.app import make_app
from nemotron_ops.studio.guard import LOOPBACK, Places
from nemotron_ops.studio.login.store import LoginStore
from nemotron_ops.studio.neighbours.gateway import Gateway
from nemotron_ops.studio.neighbours.supervisor import Supervisor
from nemotron_ops.studio.neighbours.work import Work
from nemotron_ops.studio.options import Options, read
from nemotron_ops.studio.render.markdown import warm
from nemotron_ops.studio.shared import Shared
from nemotron_ops.studio.threads.store import Store
from nemotron_ops.studio.turns.feed import Feed
from nemotron_ops.studio.turns.run import Turns

DRAIN_S = 3
KEY_NAME = "studio"  # of the page's key at the gateway


def share(options: Options, port: int) -> Shared:
    """Everything that the requests share. Raises HostError where the folder cannot be used."""
    folder = Path(options.folder)
    control = Path(options.control)
    layout = Layout(
        data=folder, cache=folder, config=folder, state=folder, logs=folder, runtime=control.parent
    )  # only the control socket of it is used
    store, feed = Store(folder), Feed()
    work = Work(shlex.split(options.command) or [*python_argv("nemotron_ops")], folder / "jobs.json")
    key_file = Path(options.key_file) if options.key_file else None
    renew = partial(new_key, work, key_file, options.keys_file) if key_file and options.keys_file else None
    gateway = Gateway(options.endpoint, key_file=key_file, ca=options.ca, renew=renew)
    turns = Turns(store, gateway, feed)
    turns.recover()
    places = Places(port=port, hosts=LOOPBACK | set(options.allowed_host), tls=bool(options.tls_cert))
    return Shared(
        places=places, login=LoginStore(folder), store=store, gateway=gateway, supervisor=Supervisor(layout),
        work=work, feed=feed, turns=turns,
    )  # fmt: skip


async def new_key(work: Work, key_file: Path, keys_file: str) -> bool:
    """Make the page another key, which replaces its last one. Whether that worked."""
    words = ("keys", "create", KEY_NAME, "--replace", "--file", keys_file, "--scope", "inference", "--scope", "metrics")
    value, _ = await work.json(*words, "--json")
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return False
    await asyncio.to_thread(write_atomic, key_file, value["text"] + "\n", mode=0o600)
    return True


async def serve(options: Options) -> None:
    """Serve until SIGTERM or SIGINT."""
    if options.listen_fd < 0:
        raise GatewayError("cannot serve the page: no --listen-fd given")
    sock = socket.socket(fileno=options.listen_fd)
    shared = share(options, sock.getsockname()[1])
    config = uvicorn.Config(
        make_app(shared), log_level="warning", access_log=False, lifespan="off", server_header=False,
        date_header=False, timeout_graceful_shutdown=DRAIN_S, ws="none",
        ssl_certfile=options.tls_cert or None, ssl_keyfile=options.tls_key or None,
        h11_max_incomplete_event_size=65536,
    )  # fmt: skip
    server = uvicorn.Server(config)
    loop = asyncio.get_running_loop()
    Thread(target=warm, daemon=True).start()
    serving = loop.create_task(server.serve(sockets=[sock]))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
    await serving
    await shared.turns.close()
    await shared.work.close()
    await shared.gateway.close()
    shared.store.close()


def main() -> None:
    """Run the page; errors become a message on stderr and an exit code."""
    try:
        options = read(sys.argv[1:])
        uvloop.run(serve(replace(options, allowed_host=tuple(h.lower() for h in options.allowed_host))))
    except NemotronOpsError as exc:
        sys.stderr.write(f"error: {exc.message}\n" + (f"hint: {exc.hint}\n" if exc.hint else ""))
        sys.exit(exc.exit_code)


if __name__ == "__main__":
    main()
