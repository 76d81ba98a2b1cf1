"""Setup, login, password, sessions. Starlette."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from starlette.responses import Response

from nemotron_ops.studio.handlers.asked import Refusal, answer, json_of, shared, text
from nemotron_ops.studio.login import passwords
from nemotron_ops.studio.login.sessions import LASTS_S, id_of
from nemotron_ops.studio.shared import Shared


async def setup(request: Request) -> Response:
    """Set the first password with the one-time code."""
    here, value = shared(request), await json_of(request)
    address = _address(request)
    _slow_down(here, address)
    if not await asyncio.to_thread(here.login.code_fits, text(value, "code", most=200)):
        here.attempts.failed(address, time.monotonic())
        raise Refusal(403, "this code is wrong or has ended: run `nemotron-ops studio` for a new one")
    password = text(value, "password", most=passwords.MOST + 1)
    if problem := passwords.problem(password):
        raise Refusal(400, problem)
    await asyncio.to_thread(here.login.set_password, password)
    return await _welcome(request, here)


async def login(request: Request) -> Response:
    """Begin a session."""
    here, value = shared(request), await json_of(request)
    address = _address(request)
    _slow_down(here, address)
    password = text(value, "password", most=passwords.MOST + 1)
    if not await asyncio.to_thread(here.login.password_fits, password):
        here.attempts.failed(address, time.monotonic())
        raise Refusal(403, "the password is wrong")
    here.attempts.succeeded(address)
    return await _welcome(request, here)


async def logout(request: Request) -> Response:
    """End this session, or with `id` another, or with `others` all others."""
    here, value = shared(request), await json_of(request)
    mine = id_of(request.cookies.get(here.cookie, ""))
    if value.get("others") is True:
        await asyncio.to_thread(here.login.end, but=mine)
    else:
        await asyncio.to_thread(here.login.end, str(value.get("id") or mine))
    return answer({"ok": True})


async def change(request: Request) -> Response:
    """Change the password; all sessions but a new one end."""
    here, value = shared(request), await json_of(request)
    address = _address(request)
    _slow_down(here, address)
    if not await asyncio.to_thread(here.login.password_fits, text(value, "old", most=passwords.MOST + 1)):
        here.attempts.failed(address, time.monotonic())
        raise Refusal(403, "the old password is wrong")
    new = text(value, "new", most=passwords.MOST + 1)
    if problem := passwords.problem(new):
        raise Refusal(400, problem)
    await asyncio.to_thread(here.login.set_password, new)
    return await _welcome(request, here)


async def sessions(request: Request) -> Response:
    """All sessions, with this one marked."""
    here = shared(request)
    mine = id_of(request.cookies.get(here.cookie, ""))
    found = await asyncio.to_thread(here.login.sessions)
    return answer(
        [{"id": s.id, "begun_s": s.begun_s, "seen_s": s.seen_s, "agent": s.agent, "this": s.id == mine} for s in found]
    )


def _slow_down(here: Shared, address: str) -> None:
    if wait_s := here.attempts.wait_s(address, time.monotonic()):
        raise Refusal(429, f"too many wrong attempts: try again in {wait_s:.0f} s", retry_after_s=wait_s)


async def _welcome(request: Request, here: Shared) -> Response:
    token = await asyncio.to_thread(here.login.begin, request.headers.get("user-agent", ""))
    made = answer({"ok": True})
    made.set_cookie(
        here.cookie, token, max_age=int(LASTS_S), httponly=True, samesite="strict", path="/", secure=here.places.tls
    )
    return made


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
