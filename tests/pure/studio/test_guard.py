"""The guard, in full: method × host × origin × site × content type; setup, sessions, attempts."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from nemotron_ops.studio.guard import Places, refusal
from nemotron_ops.studio.login import passwords
from nemotron_ops.studio.login.attempts import FREE, LONGEST_S, MOST_ADDRESSES, Attempts
from nemotron_ops.studio.login.sessions import LASTS_S, form_token, id_of
from nemotron_ops.studio.login.store import CODE_S, LoginStore

PLACES = Places(port=8888, hosts=frozenset({"127.0.0.1", "localhost", "[::1]", "box.lan"}))
HOSTS = {"127.0.0.1:8888": True, "localhost:8888": True, "[::1]:8888": True, "box.lan": True, "box.lan:443": True,
         "evil.example": False, "127.0.0.1:9999": False, "": False, "127.0.0.1.evil.example:8888": False}  # fmt: skip
ORIGINS = {None: True, "same": True, "null": False, "http://evil.example": False, "http://localhost:1": False}
SITES = {None: True, "same-origin": True, "none": True, "cross-site": False, "same-site": False}
TYPES = {"application/json": True, "application/json; charset=utf-8": True, "text/plain": False, None: False,
         "application/x-www-form-urlencoded": "token", "multipart/form-data; boundary=x": "token"}  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_every_combination_is_refused_unless_all_of_it_is_ours(method: str) -> None:
    for (host, h), (origin, o), (site, s), (kind, k), token in product(
        HOSTS.items(), ORIGINS.items(), SITES.items(), TYPES.items(), (False, True)
    ):
        headers = {"host": host}
        if origin is not None:
            headers["origin"] = f"http://{host}" if origin == "same" else origin
        if site is not None:
            headers["sec-fetch-site"] = site
        if kind is not None:
            headers["content-type"] = kind
        safe = method in ("GET", "HEAD")
        post = method == "POST" and (k is True or (k == "token" and token))
        expected = h and o and s and (safe or post)
        found = refusal(method, headers, PLACES, token_fits=token)
        assert (found is None) == expected, (method, headers, token, found)


def test_a_link_from_elsewhere_may_open_a_page_but_change_nothing() -> None:
    headers = {"host": "127.0.0.1:8888", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert refusal("GET", headers, PLACES, token_fits=False) is None
    assert refusal("POST", {**headers, "content-type": "application/json"}, PLACES, token_fits=True) is not None


def test_a_refused_host_names_the_option_that_allows_it() -> None:
    found = refusal("GET", {"host": "my.lan"}, PLACES, token_fits=False)
    assert found is not None
    assert "--allowed-host" in found.said


def test_passwords_are_hashed_with_a_salt_of_their_own() -> None:
    one, two = passwords.hashed("correct horse"), passwords.hashed("correct horse")
    assert one != two
    assert passwords.fits("correct horse", one)
    assert not passwords.fits("wrong horse", one)
    assert not passwords.fits("x", "damaged")
    assert passwords.problem("short")
    assert passwords.problem("x" * 2000)
    assert not passwords.problem("long enough")


def test_attempts_are_slowed_per_address_and_forgotten() -> None:
    attempts = Attempts()
    for _ in range(FREE):
        assert attempts.wait_s("a", 0.0) == 0.0
        attempts.failed("a", 0.0)
    assert attempts.wait_s("a", 0.0) == 1.0
    assert attempts.wait_s("b", 0.0) == 0.0
    for _ in range(30):
        attempts.failed("a", 0.0)
    assert attempts.wait_s("a", 0.0) == LONGEST_S
    assert attempts.wait_s("a", 2000.0) == 0.0
    attempts.succeeded("a")
    assert attempts.wait_s("a", 0.0) == 0.0
    for n in range(MOST_ADDRESSES + 10):
        attempts.failed(str(n), 5000.0 + n * 100)
    assert len(attempts._wrong) <= MOST_ADDRESSES


def test_only_the_fresh_code_sets_the_first_password(tmp_path: Path) -> None:
    now = [0.0]
    store = LoginStore(tmp_path, clock=lambda: now[0])
    assert not store.code_fits("")
    old, code = store.new_code(), store.new_code()
    assert not store.code_fits(old)
    assert store.code_fits(code)
    now[0] = CODE_S + 1
    assert not store.code_fits(code)
    code = store.new_code()
    store.set_password("correct horse")
    assert not store.code_fits(code)
    assert store.new_code() == ""
    assert store.has_password
    assert store.path.stat().st_mode & 0o077 == 0


def test_sessions_end_by_hand_by_time_and_with_the_password(tmp_path: Path) -> None:
    now = [0.0]
    store = LoginStore(tmp_path, clock=lambda: now[0])
    store.set_password("correct horse")
    one, two = store.begin("firefox"), store.begin("chromium")
    assert store.session(one) is not None
    assert store.session("guess") is None
    assert one not in store.path.read_text()
    store.end(id_of(one))
    assert store.session(one) is None
    assert store.session(two) is not None
    now[0] = LASTS_S + 1
    assert store.session(two) is None
    three = store.begin("x")
    store.set_password("another horse")
    assert store.session(three) is None
    assert form_token(one) != form_token(two)
