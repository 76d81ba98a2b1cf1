"""The pages themselves, as HTML. Starlette, Jinja2."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from nemotron_ops import __version__
from nemotron_ops.studio.handlers.asked import shared
from nemotron_ops.studio.login.sessions import form_token
from nemotron_ops.studio.pages.catalogue import LANGUAGES, catalogue

HERE = Path(__file__).parents[1] / "pages"
LANGUAGE_COOKIE = "nemotron_language"


@lru_cache(maxsize=1)
def templates() -> Environment:
    """The templates; every value is escaped."""
    return Environment(loader=FileSystemLoader(HERE), autoescape=select_autoescape(default=True), auto_reload=False)


def language_of(request: Request) -> str:
    """The language that was chosen, or that the browser prefers."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    if chosen in LANGUAGES:
        return chosen
    return "zh" if request.headers.get("accept-language", "").lower().startswith("zh") else "en"


def page(request: Request, name: str, **values: Any) -> Response:
    """One page. `t` is the catalogue of its language."""
    here, language = shared(request), language_of(request)
    token = request.cookies.get(here.cookie, "")
    made = templates().get_template(f"{name}.html").render(
        t=catalogue(language), language=language, languages=LANGUAGES, page=name,
        token=form_token(token) if token else "", version=__version__ if token else "", **values,
    )  # fmt: skip
    return HTMLResponse(made)


async def home(request: Request) -> Response:
    """The chat, or what comes before it."""
    return RedirectResponse("/chat", 303)


async def setup(request: Request) -> Response:
    """The first password."""
    return page(request, "setup") if not shared(request).login.has_password else RedirectResponse("/login", 303)


async def login(request: Request) -> Response:
    """The login."""
    return page(request, "login") if shared(request).login.has_password else RedirectResponse("/setup", 303)


async def chat(request: Request) -> Response:
    """The chat page."""
    return page(request, "chat", chat=request.path_params.get("chat", ""))


async def compare(request: Request) -> Response:
    """Panes side by side."""
    return page(request, "compare")


async def models(request: Request) -> Response:
    """Models: search, downloads, disk."""
    return page(request, "models")


async def run(request: Request) -> Response:
    """What runs."""
    return page(request, "run")


async def tune(request: Request) -> Response:
    """Training."""
    return page(request, "tune")


async def settings(request: Request) -> Response:
    """Password, sessions, presets."""
    return page(request, "settings")


async def welcome(request: Request) -> Response:
    """The first three steps."""
    return page(request, "welcome")


async def words(request: Request) -> Response:
    """The catalogue for the scripts of a page."""
    import msgspec

    found = catalogue(language_of(request))
    return Response(msgspec.json.encode(found), media_type="application/json")
