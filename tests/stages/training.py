"""The training environment of this machine, made once and shared by tests; minutes the first time. Disk, pip."""

from __future__ import annotations

import os
from pathlib import Path

from nemotron_ops.paths import user_layout
from nemotron_ops.progress import silent
from nemotron_ops.tune import environment


def environments() -> Path:
    """The folder of training environments of this user, with the environment in it."""
    env = {k: v for k, v in os.environ.items() if k != "NEMOTRON_OPS_HOME"}
    folder = user_layout(env, uid=os.getuid()).data / "environments"
    environment.ensure(folder, silent)
    return folder
