"""`python -m nemotron_ops.agent`: runs the agent as a process of its own. argv, sockets, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from nemotron_ops.agent.here import Here
from nemotron_ops.agent.options import Options, read
from nemotron_ops.agent.server import Server
from nemotron_ops.agent.turns import Turns
from nemotron_ops.errors import GatewayError, NemotronOpsError
from nemotron_ops.paths import system_layout, user_layout


async def serve(options: Options) -> None:
    """Serve until SIGTERM, SIGINT or idle."""
    if options.listen_fd < 0:
        raise GatewayError("cannot run the agent: no --listen-fd given")
    env = os.environ
    layout = system_layout() if env.get("NEMOTRON_OPS_SYSTEM") else user_layout(env, uid=os.getuid())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = Server(Turns(options.endpoint, options.ca, options.keep_alive_s), Here(layout, env))
    await server.serve(options.listen_fd, idle_s=options.idle_s, stop=stop)


def main() -> None:
    """Run the agent; errors become a message on stderr and an exit code."""
    try:
        asyncio.run(serve(read(sys.argv[1:])))
    except NemotronOpsError as exc:
        sys.stderr.write(f"error: {exc.message}\n" + (f"hint: {exc.hint}\n" if exc.hint else ""))
        sys.exit(exc.exit_code)


if __name__ == "__main__":
    main()
