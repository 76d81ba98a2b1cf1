"""Files that change or cannot be written while the gateway serves, and who may see what."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.gateway.api.routes import Scope
from nemotron_ops.gateway.keys import keystore
from nemotron_ops.supervisor.snapshot import ModelView
from tests.fakes.calls import BODY, CHAT, MODEL, bearer, call, make, served
from tests.fakes.certificates import self_signed
from tests.fakes.scripted_engine import ScriptedEngine, hangs_after, well
from tests.stages.gateway import gateway, open_request

pytestmark = pytest.mark.process
Eventually = Callable[..., None]


# files


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_stops_nothing(tmp_path: Path, eventually: Eventually) -> None:
    text = make(tmp_path / "keys.json", "alice", scopes=(Scope.ADMIN,))
    (tmp_path / "blocked").write_text("a file where a folder should be")
    flags = ("--access-log", "/dev/full", "--usage-file", str(tmp_path / "blocked" / "usage.json"))
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=well)
    with served(tmp_path, engine, *flags, "--api-keys-file", str(tmp_path / "keys.json"), key=text) as stage:
        assert call(stage, "POST", CHAT, BODY, **bearer(text))[0] == 200
        eventually(lambda: "cannot write the usage per key" in stage.log.read_text())
        stage.process.send_signal(signal.SIGHUP)
        for _ in range(20):
            assert call(stage, "POST", CHAT, BODY, **bearer(text))[0] == 200
        assert stage.log.read_text().count("cannot write the access log") == 1


def test_a_certificate_that_comes_before_its_key_is_not_used_until_both_fit(
    tmp_path: Path, eventually: Eventually
) -> None:
    cert, key = tmp_path / "tls.pem", tmp_path / "key.pem"
    self_signed(cert, key, organisation="first")
    self_signed(tmp_path / "new.pem", tmp_path / "new.key", organisation="renewed")
    both = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    both.load_verify_locations(cert)
    both.load_verify_locations(tmp_path / "new.pem")

    def subject() -> str:
        with (
            socket.create_connection(stage.address, timeout=30) as raw,
            both.wrap_socket(raw, server_hostname="localhost") as s,
        ):
            found = s.getpeercert()
            assert found is not None
            return str(found["subject"])

    with gateway(tmp_path, "--tls-cert", str(cert), "--tls-key", str(key)) as stage:
        assert "first" in subject()
        os.replace(tmp_path / "new.pem", cert)
        eventually(lambda: "keeping the old one" in stage.log.read_text())
        assert "first" in subject()
        os.replace(tmp_path / "new.key", key)
        eventually(lambda: "renewed" in subject())


def test_from_the_first_key_on_keys_are_asked_for(tmp_path: Path, eventually: Eventually) -> None:
    keys = tmp_path / "config" / "keys.json"
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=hangs_after(3))
    engine.start()
    with gateway(tmp_path, "--api-keys-file", str(keys), "--keys-optional") as stage:
        stage.control.show(models=(MODEL,), instances=(engine.view(),))
        stage.settle()
        with open_request(stage, CHAT, {**BODY, "stream": True}) as running:
            running.until(b" answer")
            eventually(lambda: stage.control.inflight == {"m-0": 1})
            text = make(keys, "first")
            eventually(lambda: call(stage, "GET", "/v1/models")[0] == 401)
            assert call(stage, "GET", "/v1/models", **bearer(text))[0] == 200
            assert stage.control.inflight == {"m-0": 1}, "what ran without a key goes on"
    engine.stop()


def test_a_first_keys_file_that_cannot_be_read_lets_nobody_in(tmp_path: Path, eventually: Eventually) -> None:
    keys = tmp_path / "keys.json"
    with gateway(tmp_path, "--api-keys-file", str(keys), "--keys-optional") as stage:
        assert call(stage, "GET", "/openapi.json")[0] == 200
        keys.write_bytes(b'{"keys": [')
        eventually(lambda: call(stage, "GET", "/metrics")[0] == 401)


def test_a_revoked_key_ends_what_runs_and_what_waits_for_it_and_nothing_else(
    tmp_path: Path, eventually: Eventually
) -> None:
    keys = tmp_path / "keys.json"
    bad, good = make(keys, "bad"), make(keys, "good", scopes=(Scope.ADMIN,))
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=hangs_after(3))
    with served(tmp_path, engine, "--api-keys-file", str(keys), key=good) as stage, contextlib.ExitStack() as stack:

        def ask(text: str, *, stream: bool) -> Any:
            body = {**BODY, "stream": stream}
            return stack.enter_context(open_request(stage, CHAT, body, headers=bearer(text)))

        running, other = ask(bad, stream=True), ask(good, stream=True)
        running.until(b" answer")
        other.until(b" answer")
        waiting = ask(bad, stream=False)
        line = 'nemotron_ops_queue_length{model="m"} 1.0'
        eventually(lambda: line in call(stage, "GET", "/metrics", **bearer(good))[2].decode())
        keystore.revoke(keys, "bad", now=1.0)
        raw = running.rest()
        assert b'"code":"key_revoked"' in raw.replace(b" ", b"")
        assert running.broken
        waiting.rest()
        assert waiting.status == 401
        eventually(lambda: stage.control.inflight == {"m-0": 1})
        assert not other.broken


def test_two_gateways_add_up_what_a_key_has_used(tmp_path: Path) -> None:
    keys, usage = tmp_path / "keys.json", tmp_path / "usage.json"
    text = make(keys, "alice", scopes=(Scope.ADMIN,))
    flags = ("--api-keys-file", str(keys), "--usage-file", str(usage))
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    one = ScriptedEngine(name="m-0", path=tmp_path / "1.sock", play=well)
    two = ScriptedEngine(name="m-0", path=tmp_path / "2.sock", play=well)
    with served(tmp_path / "new", two, *flags, key=text) as new, served(tmp_path / "old", one, *flags, key=text) as old:
        for stage in (old, new, old):
            assert call(stage, "POST", CHAT, BODY, **bearer(text))[0] == 200
    (used,) = keystore.read_usage(str(usage)).values()
    assert (used.requests, used.completion_tokens, used.day_requests) == (3, 15, 3)


# who sees what


def test_a_key_for_some_models_hears_of_no_others(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    mine, all_models = (
        make(keys, "mine", scopes=(Scope.ADMIN,), models=("m",)),
        make(keys, "all", scopes=(Scope.ADMIN,)),
    )
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=well)
    with served(tmp_path, engine, "--api-keys-file", str(keys), key=all_models) as stage:
        secret = ModelView(name="secret", names=("secret",))
        views = (engine.view(), engine.view(model="secret", name="secret-0"))
        stage.control.show(models=(MODEL, secret), instances=views)
        stage.settle(all_models)
        for path, body in (
            ("/health", None),
            ("/v1/models", None),
            ("/v1/models/nope", None),
            ("/slots?instance=nope", None),
        ):
            assert b"secret" in call(stage, "GET", path, body, **bearer(all_models))[2]
            assert b"secret" not in call(stage, "GET", path, body, **bearer(mine))[2]
        assert b"secret" not in call(stage, "POST", CHAT, {**BODY, "model": "nope"}, **bearer(mine))[2]
        assert call(stage, "GET", "/slots?instance=secret-0", **bearer(mine))[0] == 404
        assert call(stage, "GET", "/slots?model=secret", **bearer(mine))[0] == 404
        status, _, body = call(stage, "GET", "/health")
        assert status == 200
        assert json.loads(body) == {"status": "ok", "models": {}}


def test_a_page_of_an_allowed_origin_may_send_what_openais_and_anthropics_clients_send(tmp_path: Path) -> None:
    with gateway(tmp_path, "--allowed-origin", "https://app.example") as stage:
        wanted = "anthropic-dangerous-direct-browser-access,anthropic-version,content-type,x-api-key,x-stainless-os"
        page = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        headers = call(stage, "OPTIONS", "/v1/messages", **page, Access_Control_Request_Headers=wanted)[1]
        assert headers["access-control-allow-headers"].replace(" ", "") == wanted
        headers = call(stage, "OPTIONS", "/v1/messages", **page, Access_Control_Request_Headers="x y, a(b)")[1]
        assert "(" not in headers["access-control-allow-headers"]
        headers = call(stage, "GET", "/health", **page)[1]
        assert {"X-Request-Id", "Retry-After"} <= set(headers["access-control-expose-headers"].split(", "))


@pytest.mark.parametrize("link", [False, True], ids=["deleted", "dangling-link"])
def test_a_gateway_that_starts_without_its_keys_file_answers_and_lets_nobody_in(
    tmp_path: Path, eventually: Eventually, link: bool
) -> None:
    keys = tmp_path / "keys.json"
    if link:
        keys.symlink_to(tmp_path / "gone.json")
    with gateway(tmp_path, "--api-keys-file", str(keys), *(["--keys-optional"] if link else [])) as stage:
        assert call(stage, "GET", "/v1/models")[0] == 401
        keys.unlink(missing_ok=True)
        text = make(keys, "first")
        eventually(lambda: call(stage, "GET", "/v1/models", **bearer(text))[0] != 401)


def test_the_gateway_may_open_as_many_descriptors_as_the_system_grants(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        with gateway(tmp_path) as stage:
            stage.settle()
            assert resource.prlimit(stage.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_it_listens_on_loopback_of_either_family(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET6) as free:
        free.bind(("::1", 0))
        port = free.getsockname()[1]
    with gateway(tmp_path, "--listen", f"[::1]:{port}") as stage:
        stage.settle()
        with socket.create_connection(("::1", port), timeout=10) as s:
            s.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: [::1]:%d\r\nConnection: close\r\n\r\n" % port)
            assert s.recv(65536).startswith(b"HTTP/1.1 200 ")
