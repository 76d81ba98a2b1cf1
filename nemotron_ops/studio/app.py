"""Routes to functions, one table; the guard before them and headers on every answer. Starlette."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.studio.guard import HEADERS, refusal
from nemotron_ops.studio.handlers import account, chat, feed, jobs, machine, pages, shelf, tune
from nemotron_ops.studio.handlers.asked import Refusal, answer
from nemotron_ops.studio.login.sessions import form_token, same
from nemotron_ops.studio.shared import Shared

Handler = Callable[[Request], Awaitable[Response]]
OPEN = frozenset({"/setup", "/login", "/api/setup", "/api/login", "/health", "/words.json"})
STATIC = "/static/"

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/", pages.home),
    ("GET", "/setup", pages.setup),
    ("GET", "/login", pages.login),
    ("GET", "/welcome", pages.welcome),
    ("GET", "/chat", pages.chat),
    ("GET", "/chat/{chat}", pages.chat),
    ("GET", "/compare", pages.compare),
    ("GET", "/models", pages.models),
    ("GET", "/run", pages.run),
    ("GET", "/tune", pages.tune),
    ("GET", "/settings", pages.settings),
    ("GET", "/words.json", pages.words),
    ("POST", "/api/setup", account.setup),
    ("POST", "/api/login", account.login),
    ("POST", "/api/logout", account.logout),
    ("POST", "/api/password", account.change),
    ("GET", "/api/sessions", account.sessions),
    ("GET", "/api/chats", chat.chats),
    ("POST", "/api/chats", chat.create),
    ("GET", "/api/chats/{chat}", chat.show),
    ("POST", "/api/chats/{chat}", chat.change),
    ("POST", "/api/chats/{chat}/ask", chat.ask),
    ("POST", "/api/chats/{chat}/count", chat.count),
    ("POST", "/api/chats/{chat}/preview", chat.preview),
    ("GET", "/api/chats/{chat}/export.{kind}", chat.export),
    ("POST", "/api/messages/{message}/regenerate", chat.regenerate),
    ("POST", "/api/messages/{message}/continue", chat.go_on),
    ("POST", "/api/messages/{message}/stop", chat.stop),
    ("POST", "/api/messages/{message}/end-thinking", chat.end_thinking),
    ("POST", "/api/messages/{message}/edit", chat.edit),
    ("POST", "/api/messages/{message}/fork", chat.fork),
    ("GET", "/api/presets", chat.presets),
    ("POST", "/api/presets", chat.presets),
    ("POST", "/api/files", chat.upload),
    ("GET", "/files/{sha256}", chat.file),
    ("GET", "/feed", feed.feed),
    ("GET", "/api/status", machine.status),
    ("POST", "/api/instances", machine.verb),
    ("GET", "/api/logs", machine.logs),
    ("GET", "/api/doctor", machine.doctor),
    ("GET", "/api/stored", shelf.stored),
    ("GET", "/api/plan", shelf.plan),
    ("GET", "/api/search", shelf.search),
    ("GET", "/api/builds", shelf.builds),
    ("GET", "/api/template", shelf.template),
    ("POST", "/api/template", jobs.template),
    ("GET", "/api/parameters", machine.parameters),
    ("POST", "/api/compare/order", machine.order),
    ("GET", "/api/keys", shelf.keys),
    ("POST", "/api/keys", shelf.keys),
    ("POST", "/api/models/remove", shelf.remove),
    ("POST", "/api/fetch", jobs.fetch),
    ("POST", "/api/serve", jobs.serve),
    ("POST", "/api/models/verify", jobs.verify),
    ("POST", "/api/models/import", jobs.bring),
    ("POST", "/api/upgrade", jobs.upgrade),
    ("GET", "/api/tools", shelf.tools),
    ("POST", "/api/tools", shelf.tools),
    ("GET", "/api/tune", tune.page_of_jobs),
    ("POST", "/api/tune", tune.train),
    ("POST", "/api/tune/check", tune.check),
    ("POST", "/api/tune/{job}/{verb}", tune.act),
    ("GET", "/api/jobs", jobs.listed),
    ("POST", "/api/jobs/{job}/stop", jobs.stop),
    ("POST", "/api/jobs/{job}/again", jobs.again),
    ("POST", "/api/jobs/{job}/forget", jobs.forget),
)


def make_app(shared: Shared) -> ASGIApp:
    """The application of the page's process."""
    routes: list[Route | Mount] = [Route(path, _told(handler), methods=[method]) for method, path, handler in ROUTES]
    routes.append(Route("/health", _health, methods=["GET"]))
    routes.append(Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")))
    app = Starlette(routes=routes)
    app.state.shared = shared
    return Guarded(app, shared)


async def _health(request: Request) -> Response:
    """Whether the process answers; says nothing else."""
    del request
    return answer({"status": "ok"})


def _told(handler: Handler) -> Handler:
    """Errors of a handler as JSON with a text."""

    async def told(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as exc:
            made = answer({"error": exc.said}, exc.status)
            if exc.retry_after_s:
                made.headers["Retry-After"] = str(max(1, round(exc.retry_after_s)))
            return made
        except NemotronOpsError as exc:
            return answer({"error": exc.message, "hint": exc.hint}, 507 if "disk" in (exc.hint or "") else 500)

    return told


class Guarded:
    """Refuses what must not reach a handler, asks for a login, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, shared: Shared) -> None:
        self._app, self._shared = app, shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = {k.lower() for k, _ in message["headers"]}
                if request.url.path.startswith(STATIC):
                    message["headers"] = [*message["headers"], (b"cache-control", b"no-cache")]
                    kept.add(b"cache-control")
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.lower().encode() not in kept]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        request = Request(scope)
        refused = self._refused(request)
        if refused is not None:
            await refused(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)

    def _refused(self, request: Request) -> Response | None:
        headers = {k.lower(): v for k, v in request.headers.items()}
        token = request.cookies.get(self._shared.cookie, "")
        sent = headers.get("x-form-token", "")
        fits = bool(token and sent) and same(sent, form_token(token))
        path = request.url.path
        if found := refusal(request.method, headers, self._shared.places, token_fits=fits):
            return answer({"error": found.said}, found.status)
        if path in OPEN or path.startswith(STATIC):
            return None
        if token and self._shared.login.session(token) is not None:
            return None
        if path.startswith(("/api/", "/feed", "/files/")):
            return answer({"error": "log in again", "login": True}, 401)
        return RedirectResponse("/login" if self._shared.login.has_password else "/setup", 303)
