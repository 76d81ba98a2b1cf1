"""`demo`: build, serve a model of 1 MB, ask, stop. Processes, HTTP.

It runs a supervisor of its own, with state in a temporary folder, so it never touches one that is running.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from nemotron_ops.cli.app import App, confirmation, json_option, progress_option
from nemotron_ops.errors import EngineError
from nemotron_ops.operations.ask import Answer, ask
from nemotron_ops.operations.building import have_build, look_for_build
from nemotron_ops.operations.detach import tail, wait_ready
from nemotron_ops.paths import user_layout
from nemotron_ops.proc import SAFE_PATH, kill_group, python_argv

QUESTION = "What is 2 + 2?"
STOP_S = 30.0


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8001, show_default=True, help="Port to listen on.")
@progress_option
@json_option
def demo(port: int, as_json: bool) -> None:
    """Build llama.cpp, serve a tiny model, ask it a question, stop.

    The model is made on the spot; nothing but llama.cpp's source is downloaded. A second run does not build again.
    """
    with App() as app, tempfile.TemporaryDirectory(prefix="nemotron-ops-demo-") as folder:
        found = look_for_build(app.installation, confirm=confirmation(as_json=as_json))
        app.ui.say(f"llama.cpp: build {have_build(found, app.installation).id}")
        started = time.monotonic()
        log = Path(folder) / "serve.log"
        env = {**app.env, "NEMOTRON_OPS_STATE": f"{folder}/state", "NEMOTRON_OPS_RUNTIME": f"{folder}/run"}
        supervisor = _serve(env, log, port)
        try:
            wait_ready(user_layout(env, uid=os.getuid()), supervisor, log, on_snapshot=lambda snapshot: None)
            url = f"http://127.0.0.1:{port}/v1"
            app.ui.say(f"tiny: ready after {time.monotonic() - started:.1f} s at {url}")
            answer = _ask(app, url, quiet=as_json)
        finally:
            code = _stop(supervisor)
        if code != 0:
            raise EngineError(f"cannot stop cleanly: the supervisor ended with {code}", log_tail=tail(log))
        app.ui.say("stopped cleanly")
        app.ui.say("next: nemotron-ops studio, a web page that leads from here to a model of your own")
        if as_json:
            app.ui.json(_result(answer))


def _serve(env: Mapping[str, str], log: Path, port: int) -> subprocess.Popen[bytes]:
    argv = python_argv("nemotron_ops", "serve", "tiny", "--port", str(port), "--no-build")
    with log.open("wb") as sink:
        return subprocess.Popen(
            argv, env={**env, **SAFE_PATH}, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, process_group=0
        )


def _ask(app: App, url: str, *, quiet: bool) -> Answer:
    said: list[bool] = []

    def show(text: str, thinking: bool) -> None:
        if quiet:
            return
        if thinking not in said:
            said.append(thinking)
            app.ui.out.write("\nthinking  " if thinking else "\nanswer    ")
        app.ui.out.write(text.replace("\n", " ") if thinking else text)
        app.ui.out.flush()

    if not quiet:
        app.ui.data(f"question  {QUESTION}")
    answer = ask(url, model="tiny", messages=[{"role": "user", "content": QUESTION}], on_text=show)
    if not quiet:
        rate = f"{answer.tokens_per_s:.0f} tokens/s" if answer.tokens_per_s else "rate unknown"
        app.ui.data(f"\n          {answer.tokens} tokens, {rate}")
    return answer


def _stop(supervisor: subprocess.Popen[bytes]) -> int:
    if supervisor.poll() is None:
        supervisor.send_signal(signal.SIGINT)
    try:
        return supervisor.wait(STOP_S)
    except subprocess.TimeoutExpired:
        kill_group(supervisor.pid)
        return supervisor.wait()


def _result(answer: Answer) -> dict[str, Any]:
    return {
        "question": QUESTION,
        "reasoning": answer.reasoning,
        "answer": answer.content,
        "tokens": answer.tokens,
        "tokens_per_s": answer.tokens_per_s,
    }
