"""`python -m nemotron_ops.operations.tune_guard`: puts lent instances back where a training job was killed. Processes.

It ends once nothing is lent. Several may run: each puts back what is there under one lock.
"""

from __future__ import annotations

import os
import time

from nemotron_ops.operations import tune_lend
from nemotron_ops.paths import system_layout, user_layout

POLL_S = 0.5


def main() -> None:
    env = dict(os.environ)
    layout = system_layout() if env.get("NEMOTRON_OPS_SYSTEM") else user_layout(env, uid=os.getuid())
    while tune_lend.read(layout.state) is not None:
        if tune_lend.left_behind(layout.state):
            tune_lend.put_back(layout)
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
