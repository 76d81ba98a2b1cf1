"""What a hub's refusal is called, and the advice that comes with it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from nemotron_ops.models.refusals import Refusal, Stalled, refused, retry_after_s

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
PAGE = "https://hub.example/acme/Nemo"
BAD_TOKEN = {"x-error-message": "Invalid credentials in Authorization header"}
SCOPE = {"x-error-message": "Please enable access to public gated repositories in your fine-grained token settings"}


@pytest.mark.parametrize(
    ("status", "headers", "with_token", "cause", "hint"),
    [
        (401, BAD_TOKEN, True, "access denied to the token in use (401)", "renew or remove it"),
        (403, SCOPE, True, "the token lacks a permission", "edit the token's permissions"),
        (403, {"x-error-code": "GatedRepo"}, False, "on request only", "then set HF_TOKEN"),
        (403, {"x-error-code": "GatedRepo"}, True, "on request only", "the token in use must belong"),
        (401, {"x-error-code": "GatedRepo"}, True, "on request only", PAGE),
        (
            403,
            {"x-error-message": "Access to this resource is disabled."},
            True,
            "has disabled it",
            "another repository",
        ),
        (401, {"x-error-code": "RepoNotFound"}, False, "it does not exist, or is private", "set HF_TOKEN"),
        (
            401,
            {"x-error-code": "RepoNotFound"},
            True,
            "it does not exist, or is private",
            "the token in use may read it",
        ),
        (401, {}, False, "it does not exist, or is private", "set HF_TOKEN"),
        (404, {}, True, "it does not exist, or is private", "the token in use may read it"),
        (404, {"x-error-code": "RevisionNotFound"}, False, "it has no revision v9", ""),
        (404, {"x-error-code": "EntryNotFound"}, False, "there is no such file", ""),
        (403, {}, False, "access denied (403)", ""),
        (410, {}, False, "it was taken down", ""),
        (451, {}, False, "it was taken down", ""),
        (418, {}, False, "the server answered 418", ""),
    ],
)
def test_a_refusal_is_named_by_its_cause(
    status: int, headers: dict[str, str], with_token: bool, cause: str, hint: str
) -> None:
    found = refused(_refusal(status, headers, with_token=with_token), NOW)
    assert not isinstance(found, Stalled)
    assert cause in found.message
    assert hint in (found.hint or "")
    assert headers.get("x-error-message", "") in found.message, "the hub's own words are kept"
    assert not (with_token and "set HF_TOKEN" in (found.hint or "")), "what failed is not asked for"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_can_be_tried_again(status: int) -> None:
    found = refused(_refusal(status, {"retry-after": "7"}), NOW)
    assert isinstance(found, Stalled)
    assert found.retry_after_s == 7
    assert str(status) in found.message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("Mon, 30 Nov 2026 12:01:30 GMT", 90.0),
        ("Mon, 30 Nov 2026 11:00:00 GMT", 0.0),
        ("Mon, 30 Nov 2026 12:01:30", None),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("\u0661", None),
        ("9" * 400, 999999999.0),
    ],
)
def test_the_advice_to_wait_is_a_number_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": value}, NOW) == seconds


def test_the_hubs_words_are_cut_and_safe_to_print() -> None:
    found = refused(_refusal(403, {"x-error-message": "\x1b[2J" + "a" * 5000}), NOW)
    assert "\x1b" not in found.message
    assert len(found.message) < 500


def _refusal(status: int, headers: dict[str, str], *, with_token: bool = False) -> Refusal:
    return Refusal(status=status, headers=headers, what="acme/Nemo", page=PAGE, revision="v9", with_token=with_token)
