"""Calls that wait for a person, through our own command line; clients that leave meanwhile. Costs about 15 s."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from tests.stages.agent import Served
from tests.stages.tool_model import CODE, SAID

pytestmark = pytest.mark.real
Eventually = Callable[..., None]
ASKED: Any = {"model": "m:agent", "messages": [{"role": "user", "content": "please compute"}], "max_tokens": 200}


@pytest.fixture
def asks(served: Served) -> Iterator[Callable[[str], None]]:
    """Set the policy of the code interpreter."""
    yield lambda policy: served.write(
        "agent.toml", f'[budgets]\napproval_s = 20.0\n[approve]\ncode_interpreter = "{policy}"\n'
    )
    (served.home / "config" / "agent.toml").unlink()
    served.command("tools", "revoke", "code_interpreter")


class Asking(threading.Thread):
    """A chat in a thread of its own."""

    def __init__(self, served: Served) -> None:
        super().__init__()
        self.served, self.answer = served, None
        self.start()

    def run(self) -> None:
        self.answer = self.served.openai_client.chat.completions.create(**ASKED)

    @property
    def text(self) -> str:
        self.join(60)
        assert self.answer is not None
        return str(self.answer.choices[0].message.content)


def stream(served: Served) -> AbstractContextManager[httpx.Response]:
    """The same chat as a stream of bytes."""
    headers, url = {"Authorization": f"Bearer {served.key}"}, f"{served.stage.url}/v1/chat/completions"
    return httpx.stream("POST", url, json={**ASKED, "stream": True}, headers=headers, timeout=60)


def waiting(served: Served) -> list[Any]:
    listed = served.command("tools", "approvals", "--json")
    assert listed.returncode == 0, listed.stderr
    return list(json.loads(listed.stdout)["waiting"])


def one_waiting(served: Served, eventually: Eventually) -> Any:
    eventually(lambda: waiting(served))
    (found,) = waiting(served)
    return found


def test_a_call_waits_for_a_person_and_runs_once_approved(
    served: Served, asks: Callable[[str], None], eventually: Eventually
) -> None:
    asks("always")
    chat = Asking(served)
    found = one_waiting(served, eventually)
    assert (found["tool"], json.loads(found["arguments"])) == ("code_interpreter", {"code": CODE})
    assert served.command("tools", "approve", found["id"]).returncode == 0
    assert chat.text == SAID
    assert waiting(served) == []


def test_a_call_that_is_denied_is_not_run(served: Served, asks: Callable[[str], None], eventually: Eventually) -> None:
    asks("always")
    chat = Asking(served)
    found = one_waiting(served, eventually)
    assert served.command("tools", "deny", found["id"]).returncode == 0
    assert chat.text == SAID  # the tiny model says so after any result
    assert not served.children()


def test_once_asks_only_the_first_time_of_a_key(
    served: Served, asks: Callable[[str], None], eventually: Eventually
) -> None:
    asks("once")
    chat = Asking(served)
    served.command("tools", "approve", one_waiting(served, eventually)["id"])
    assert chat.text == SAID
    assert Asking(served).text == SAID
    allowed = json.loads(served.command("tools", "approvals", "--json").stdout)["allowed"]
    assert [one["tool"] for one in allowed] == ["code_interpreter"]


def test_a_client_that_leaves_takes_its_request_with_it(
    served: Served, asks: Callable[[str], None], eventually: Eventually
) -> None:
    asks("always")
    with stream(served) as answer:
        lines = answer.iter_lines()  # kept: a generator that is gone closes the stream
        next(lines)
        one_waiting(served, eventually)
    eventually(lambda: not waiting(served))


def test_an_unknown_request_is_an_error_with_a_hint(served: Served) -> None:
    done = served.command("tools", "approve", "nothing")
    assert done.returncode == 2
    assert "no such call waits" in done.stderr
    assert "nemotron-ops tools approvals" in done.stderr


def test_comments_keep_a_silent_stream_alive(served: Served, asks: Callable[[str], None]) -> None:
    """A call that waits is silent but for comments; then the answer goes on."""
    asks("always")
    with stream(served) as answer:
        lines = answer.iter_lines()
        next(line for line in lines if line == ": keep-alive")
        (found,) = waiting(served)
        served.command("tools", "approve", found["id"])
        assert [line for line in lines if line][-1] == "data: [DONE]"
