"""The asking side of the control socket, before a supervisor that ends in the middle of its answer."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from nemotron_ops.errors import ControlError
from nemotron_ops.paths import Layout, user_layout
from nemotron_ops.supervisor.control import client as control

pytestmark = pytest.mark.process


@contextmanager
def dying(folder: Path, last_words: bytes) -> Iterator[Layout]:
    """A supervisor that says no more than `last_words`."""
    layout = user_layout({"NEMOTRON_OPS_HOME": str(folder)}, uid=os.getuid())
    layout.runtime.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(layout.control_socket))
        door.listen()

        def answer() -> None:
            client, _ = door.accept()
            with client:
                client.recv(1000)
                client.sendall(last_words)

        thread = Thread(target=answer)
        thread.start()
        yield layout
        thread.join(10)


@pytest.mark.parametrize("last_words", [b"", b'{"events": [{"kind": "rea', b'{"events": []}'])
def test_half_an_answer_is_none(tmp_path: Path, last_words: bytes) -> None:
    with (
        dying(tmp_path, last_words) as layout,
        pytest.raises(ControlError, match="cannot events: the supervisor ended before it answered"),
    ):
        control.request(layout, "events")


def test_a_whole_line_is_an_answer(tmp_path: Path) -> None:
    with dying(tmp_path, b'{"events": []}\n') as layout:
        assert control.request(layout, "events") == {"events": []}
