"""Writes a wish over another one and dies at one of the lines: `killed_lines.py HOME`. Prints what was left each time.

One child process per line that runs in `wish_file.py` and `files.py`; each dies there as from SIGKILL: nothing is
cleaned up. A line of output per child, as JSON: the line's number, the targets that the next start finds, the problem.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from types import FrameType
from typing import Any

from nemotron_ops.installation import Installation
from nemotron_ops.operations import wish_file
from nemotron_ops.operations.wish import Composed, Endpoint, ModelWish, Wish
from nemotron_ops.operations.wish_file import WishFile
from nemotron_ops.paths import user_layout
from nemotron_ops.recipes.resolve import Plan
from nemotron_ops.recipes.schema import Model, Recipe
from nemotron_ops.supervisor.spec import Config

WATCHED = ("wish_file.py", "files.py", "tempfile.py")
SURVIVED = 7


def at(home: str) -> WishFile:
    env = {"NEMOTRON_OPS_HOME": home}
    here = Installation(layout=user_layout(env, uid=os.getuid()), env=env)
    wish = Wish(models=(ModelWish(target="before"),))
    plan = Plan(recipe=Recipe(name="before", model=Model(path="/x.gguf")), profile="", alias="", settings={})
    endpoint = Endpoint(host="127.0.0.1", port=1)
    return WishFile(
        wish, wish, Composed(endpoint=endpoint, plans=(plan,), config=Config(models=(), instances=())), here
    )


def die_at(number: int) -> None:
    """Count the lines of the watched files, and die at the one of this number."""
    count = itertools.count(1)

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if os.path.basename(frame.f_code.co_filename) not in WATCHED:
            return None
        if event == "line" and next(count) == number:
            os._exit(9)
        return trace

    sys.settrace(trace)


def main(home: str) -> None:
    for number in itertools.count(1):
        file = at(home)
        file.begin()
        pid = os.fork()
        if pid == 0:
            die_at(number)
            file.prepare([{"target": "after"}])
            file.keep([{"target": "after"}])
            os._exit(SURVIVED)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        layout = user_layout({"NEMOTRON_OPS_HOME": home}, uid=os.getuid())
        kept, problem = wish_file.read(layout)
        targets = [m.target for m in kept.models] if kept else None
        print(json.dumps({"line": number, "code": code, "targets": targets, "problem": problem}), flush=True)
        if code == SURVIVED:
            return


if __name__ == "__main__":
    main(sys.argv[1])
