"""Keys and quotas: who may do what, how much, and what is kept of a secret."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_ops.errors import GatewayError, UsageError
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Scope
from nemotron_ops.gateway.keys import keystore
from nemotron_ops.gateway.keys.key_usage import Usage, from_json
from nemotron_ops.gateway.keys.quota import Quotas
from nemotron_ops.gateway.keys.ring import ANYONE, Key, KeyRing, admit, hash_key, may_use, parse

NOW = 1_800_000_000.0
SHA = b"0" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "keys.json"


def make(path: Path, **settings: object) -> tuple[Key, str]:
    given: dict[str, object] = {"id": "", "sha256": "", "name": "bob", "created_at": NOW, **settings}
    return keystore.create(path, Key(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scopes", "asked", "status"),
    [
        ((), Scope.PUBLIC, 0),
        ((), Scope.INFERENCE, 403),
        ((Scope.INFERENCE,), Scope.INFERENCE, 0),
        ((Scope.INFERENCE,), Scope.METRICS, 403),
        ((Scope.INFERENCE,), Scope.ADMIN, 403),
        ((Scope.METRICS,), Scope.METRICS, 0),
        ((Scope.METRICS,), Scope.INFERENCE, 403),
        ((Scope.ADMIN,), Scope.INFERENCE, 0),
        ((Scope.ADMIN,), Scope.METRICS, 0),
        ((Scope.ADMIN,), Scope.ADMIN, 0),
    ],
)
def test_the_matrix_of_scopes(path: Path, scopes: tuple[Scope, ...], asked: Scope, status: int) -> None:
    key, text = make(path, scopes=scopes)
    ring = keystore.read_ring(path)
    if not status:
        assert admit(ring, text, asked, now=NOW).id == key.id
        return
    with pytest.raises(Refusal) as caught:
        admit(ring, text, asked, now=NOW)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "text", ["", "x", "nok-", "nok-a-b", "nok-{id}-wrong", "nok-{id}-", "NOK-{id}-{secret}", " ", "é"]
)
def test_a_wrong_key_opens_nothing(path: Path, text: str) -> None:
    key, right = make(path)
    wrong = text.format(id=key.id, secret=right.split("-", 2)[2])
    for scope in (Scope.INFERENCE, Scope.METRICS, Scope.ADMIN):
        with pytest.raises(Refusal) as caught:
            admit(keystore.read_ring(path), wrong, scope, now=NOW)
        assert caught.value.status == 401
    assert admit(keystore.read_ring(path), wrong, Scope.PUBLIC, now=NOW).scopes == (Scope.PUBLIC,)


def test_without_a_keys_file_anyone_may_do_anything() -> None:
    assert admit(None, "", Scope.ADMIN, now=NOW) is ANYONE


def test_an_expired_key_is_over_to_the_second(path: Path) -> None:
    _, text = make(path, expires_at=NOW + 10)
    ring = keystore.read_ring(path)
    admit(ring, text, Scope.INFERENCE, now=NOW + 9.9)
    with pytest.raises(Refusal, match="expired"):
        admit(ring, text, Scope.INFERENCE, now=NOW + 10)


def test_a_revoked_key_is_refused_and_revoking_again_changes_nothing(path: Path) -> None:
    key, text = make(path)
    assert keystore.revoke(path, "bob", now=NOW) == (replace(key), True)
    assert keystore.revoke(path, key.id, now=NOW + 5)[1] is False
    with pytest.raises(Refusal, match="revoked"):
        admit(keystore.read_ring(path), text, Scope.INFERENCE, now=NOW)
    assert keystore.read_ring(path).keys[key.id].revoked_at == NOW


def test_a_key_for_some_models_is_for_those_only() -> None:
    key = Key(id="a", sha256="", models=("tiny",))
    assert may_use(key, ("tiny", "org/tiny"))
    assert not may_use(key, ("30b",))
    assert may_use(Key(id="a", sha256=""), ("30b",))


def test_the_secret_is_nowhere_in_the_file_and_nobody_else_can_read_it(path: Path) -> None:
    key, text = make(path)
    content = path.read_text()
    assert text.split("-", 2)[2] not in content
    assert hash_key(text) in content
    assert path.stat().st_mode & 0o077 == 0
    assert hash_key(text) not in repr(key)


def test_a_name_is_taken_until_it_is_replaced(path: Path) -> None:
    _, old = make(path)
    with pytest.raises(UsageError, match="one already"):
        make(path)
    _, new = keystore.create(path, Key(id="", sha256="", name="bob", created_at=NOW), replace_old=True)
    ring = keystore.read_ring(path)
    admit(ring, new, Scope.INFERENCE, now=NOW)
    with pytest.raises(Refusal):
        admit(ring, old, Scope.INFERENCE, now=NOW)


def test_a_plain_list_of_keys_works_like_llama_servers(path: Path) -> None:
    ring = parse(b"# clients\nalpha\n\n  beta  \n")
    assert admit(ring, "beta", Scope.INFERENCE, now=NOW).name == "plain"
    with pytest.raises(Refusal):
        admit(ring, "# clients", Scope.INFERENCE, now=NOW)
    path.parent.mkdir()
    path.write_text("alpha\n")
    with pytest.raises(UsageError, match="plain list"):
        make(path)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"keys": 1}',
        b'{"keys": [{}]}',
        b'{"keys": [], "version": 2}',
        b'{"keys": [], "colour": 1}',
        b'{"keys": [{"id": "a", "sha256": "b"}]}',
        b'{"keys": [{"id": "a", "sha256": "' + SHA + b'"}, {"id": "a", "sha256": "' + SHA + b'"}]}',
    ],
)
def test_a_damaged_keys_file_is_an_error_and_never_an_open_door(content: bytes) -> None:
    with pytest.raises(UsageError, match="keys file"):
        parse(content)


@pytest.mark.parametrize(
    "field",
    [
        *('"colour": 1', '"scopes": ["root"]', '"scopes": "admin"', '"models": "30b"', '"models": [30]'),
        *('"expires_at": "2027-01-01"', '"concurrent": true', '"concurrent": -1', '"tokens_per_day": 1.5'),
        *('"weight": 0', '"weight": "2"', '"name": null', '"revoked_at": false'),
    ],
)
def test_a_field_of_the_wrong_type_is_an_error_that_names_it(field: str) -> None:
    content = b'{"keys": [{"id": "a", "sha256": "%b", %b}]}' % (SHA, field.encode())
    with pytest.raises(UsageError, match=r"keys\[0\]: .*" + field.split('"')[1]):
        parse(content)


def test_a_key_is_held_until_it_is_revoked_or_gone(path: Path) -> None:
    key, _ = make(path)
    assert keystore.read_ring(path).holds(key)
    make(path, name="other")
    assert keystore.read_ring(path).holds(key)
    keystore.revoke(path, "bob", now=NOW)
    assert not keystore.read_ring(path).holds(key)
    assert not parse(b"").holds(key)
    plain = parse(b"alpha\nbeta\n").plain[0]
    assert parse(b"beta\nalpha\n").holds(plain)
    assert not parse(b"beta\n").holds(plain)


def test_a_missing_keys_file_is_an_error(path: Path) -> None:
    with pytest.raises(GatewayError):
        keystore.read_ring(path)


def test_an_empty_keys_file_lets_nobody_in() -> None:
    with pytest.raises(Refusal):
        admit(parse(b""), "anything", Scope.INFERENCE, now=NOW)
    assert parse(b"") == KeyRing(keys={}, plain=())


# quotas


def use(quotas: Quotas, key: Key, *, at: float = 0.0, tokens: int = 0) -> None:
    quotas.enter(key, now=at, wall=NOW + at)
    quotas.leave(key)
    quotas.used(key, tokens, 0, now=at, wall=NOW + at)


def refused(quotas: Quotas, key: Key, *, at: float = 0.0) -> Refusal:
    with pytest.raises(Refusal) as caught:
        quotas.enter(key, now=at, wall=NOW + at)
    assert caught.value.status == 429
    return caught.value


def test_requests_per_minute_are_a_bucket() -> None:
    quotas, key = Quotas(), Key(id="a", sha256="", requests_per_minute=3)
    for _ in range(3):
        use(quotas, key)
    assert refused(quotas, key).retry_after_s == pytest.approx(20.0)
    use(quotas, key, at=20.1)
    refused(quotas, key, at=20.2)


def test_tokens_per_minute_are_paid_afterwards() -> None:
    quotas, key = Quotas(), Key(id="a", sha256="", tokens_per_minute=600)
    use(quotas, key, tokens=1200)
    assert refused(quotas, key).retry_after_s == pytest.approx(60.1, abs=0.1)
    use(quotas, key, at=61.0)


def test_tokens_per_day_come_back_at_midnight_utc() -> None:
    quotas, key = Quotas(), Key(id="a", sha256="", tokens_per_day=100)
    use(quotas, key, tokens=100)
    wait = refused(quotas, key).retry_after_s
    assert wait is not None
    assert wait == pytest.approx(86400 - NOW % 86400)
    use(quotas, key, at=wait + 1)


def test_concurrent_requests_are_counted_until_they_leave() -> None:
    quotas, key = Quotas(), Key(id="a", sha256="", concurrent=2)
    quotas.enter(key, now=0, wall=NOW)
    quotas.enter(key, now=0, wall=NOW)
    refused(quotas, key)
    quotas.leave(key)
    quotas.enter(key, now=0, wall=NOW)


def test_a_refused_request_costs_nothing() -> None:
    quotas, key = Quotas(), Key(id="a", sha256="", requests_per_minute=2, concurrent=1)
    quotas.enter(key, now=0, wall=NOW)
    for _ in range(50):
        refused(quotas, key)
    quotas.leave(key)
    use(quotas, key)
    assert quotas.usage["a"].requests == 1


def test_use_is_kept_across_restarts(tmp_path: Path) -> None:
    quotas, key = Quotas(), Key(id="a", sha256="", tokens_per_day=100)
    use(quotas, key, tokens=100)
    path = str(tmp_path / "state" / "usage.json")
    keystore.add_usage(path, quotas.unsaved(), known={})
    again = Quotas.go_on(keystore.read_usage(path))
    assert again.usage == quotas.usage
    assert again.unsaved() == {}
    refused(again, key)


def save(path: str, quotas: Quotas) -> None:
    part = quotas.unsaved()
    quotas.saved(part, keystore.add_usage(path, part, known=quotas.known))


def test_two_gateways_that_count_at_once_lose_nothing(tmp_path: Path) -> None:
    path, key = str(tmp_path / "usage.json"), Key(id="a", sha256="", tokens_per_day=1000)
    old = Quotas()
    use(old, key, tokens=100)
    save(path, old)
    new = Quotas.go_on(keystore.read_usage(path))
    use(new, key, tokens=10)
    use(old, key, tokens=1)
    save(path, new)
    part = old.unsaved()
    use(old, key, tokens=1000)  # while it is being written
    old.saved(part, keystore.add_usage(path, part, known=old.known))
    save(path, old)
    save(path, new)
    assert keystore.read_usage(path)["a"].prompt_tokens == 1111
    assert old.usage["a"] == keystore.read_usage(path)["a"]
    assert old.usage["a"].requests == 4
    refused(new, key)  # it has taken over what the old one counted


def test_a_day_that_began_at_one_gateway_only_is_the_days_use(tmp_path: Path) -> None:
    path, key = str(tmp_path / "usage.json"), Key(id="a", sha256="")
    old, new = Quotas(), Quotas()
    use(old, key, tokens=100)
    use(new, key, at=86400.0, tokens=7)
    save(path, new)
    save(path, old)
    found = keystore.read_usage(path)["a"]
    assert (found.prompt_tokens, found.day_tokens, found.day_requests) == (107, 7, 1)


def test_a_usage_file_that_was_damaged_is_written_anew_from_what_is_known(tmp_path: Path) -> None:
    path, key = tmp_path / "usage.json", Key(id="a", sha256="")
    quotas = Quotas()
    use(quotas, key, tokens=100)
    save(str(path), quotas)
    path.write_bytes(b"\xff{")
    use(quotas, key, tokens=1)
    save(str(path), quotas)
    assert keystore.read_usage(str(path))["a"].prompt_tokens == 101


@pytest.mark.parametrize(
    "value", [None, [], {"usage": 3}, {"usage": {"a": 1}}, {"usage": {"a": {"requests": "x", "b": 1}}}]
)
def test_a_damaged_usage_file_counts_as_unused(value: object) -> None:
    assert from_json(value).get("a", Usage()).requests == 0
