"""Turns a hub's refusal into an error: the cause in the hub's own words, and advice that is true. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from nemotron_ops.errors import ModelError

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
MOST_SAID = 300  # letters of the hub's own words


class Stalled(ModelError):
    """A failure after which a retry may help. `retry_after_s` is the server's own advice."""

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer without what was asked for. `what` is the repository or file, `page` the repository's address.

    Header names are lower case. `with_token`: a token was sent.
    """

    status: int
    headers: Mapping[str, str]
    what: str
    page: str = ""
    revision: str = ""
    with_token: bool = False

    @property
    def said(self) -> str:
        """The hub's own words, safe to print."""
        words = self.headers.get("x-error-message", "")
        return "".join(c if c.isprintable() else " " for c in words)[:MOST_SAID].strip()

    @property
    def may_be_the_token(self) -> bool:
        """Whether the same request may succeed without its token: the repository may be public."""
        return self.with_token and self.status in (401, 403)


def refused(it: Refusal, now: datetime) -> ModelError:
    """The error for `it`: Stalled where a retry may help. `now` is for a Retry-After that is a date."""
    cause, hint = _why(it)
    words = f'; the hub says: "{it.said}"' if it.said else ""
    message = f"cannot read {it.what}: {cause}{words}"
    if it.status in PASSING:
        return Stalled(message, hint=hint, retry_after_s=retry_after_s(it.headers, now))
    return ModelError(message, hint=hint)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that the server advises to wait: Retry-After is a number, or a date."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _why(it: Refusal) -> tuple[str, str | None]:
    """The cause in our words, and what helps."""
    code, said = it.headers.get("x-error-code", ""), it.said.lower()
    if it.status in (401, 403, 404):
        if code == "GatedRepo":
            return f"its owner grants access on request only ({it.status})", _gated_hint(it)
        if code == "RevisionNotFound":
            return f"it has no revision {it.revision or 'of that name'}", None
        if code == "EntryNotFound" or (it.status == 404 and not it.page):
            return f"there is no such file ({it.status})", None
        if "disabled" in said:
            return f"the hub has disabled it ({it.status})", "choose another repository of this model"
        if it.with_token and "fine-grained" in said:
            return f"the token lacks a permission ({it.status})", "edit the token's permissions in the hub's settings"
        if it.with_token and code != "RepoNotFound" and it.status != 404:
            return f"access denied to the token in use ({it.status})", _token_hint()
        if code != "RepoNotFound" and it.status == 403:
            return "access denied (403)", None
        if it.page or code == "RepoNotFound":
            return f"it does not exist, or is private ({it.status})", _private_hint(it)
        return f"access denied ({it.status})", _private_hint(it)
    match it.status:
        case 410 | 451:
            return f"it was taken down ({it.status})", None
        case 416:
            return "the file there is shorter than the hub says (416)", None
        case 429:
            return "too many requests from here: the server answered 429", "wait, or set HF_TOKEN: users may ask more"
        case _:
            return f"the server answered {it.status}", None


def _gated_hint(it: Refusal) -> str:
    then = "the token in use must belong to the account that accepted them" if it.with_token else "then set HF_TOKEN"
    return f"accept its terms at {it.page or 'its page'}; {then}"


def _private_hint(it: Refusal) -> str:
    if it.with_token:
        return "check the spelling, and that the token in use may read it"
    return "check the spelling; for a private repository, set HF_TOKEN to a token that may read it"


def _token_hint() -> str:
    return "HF_TOKEN, or the file that `hf auth login` wrote, has expired or lacks a permission: renew or remove it"
