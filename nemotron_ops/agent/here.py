"""What this installation gives to tools: sandboxes, the web, what is enabled, settings, approvals. Disk."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from nemotron_ops.agent import settings as agent_settings
from nemotron_ops.agent.approvals import Approvals
from nemotron_ops.agent.settings import Settings
from nemotron_ops.agent.tools.web import WebTools
from nemotron_ops.errors import HostError
from nemotron_ops.paths import Layout
from nemotron_ops.sandbox import enabled
from nemotron_ops.sandbox.choose import Backend
from nemotron_ops.sandbox.open import Room
from nemotron_ops.sandbox.session import Sandbox
from nemotron_ops.web.cache import Cache
from nemotron_ops.web.reach import Reach
from nemotron_ops.web.search import Search
from nemotron_ops.web.settings import load, settings_path

Stamp = tuple[int, int, int] | None


class Here:
    """One installation. Files are read for each request: a change counts from the next one on."""

    def __init__(self, layout: Layout, env: Mapping[str, str]) -> None:
        self.layout, self._env = layout, dict(env)
        self._room = Room(layout=layout, env=self._env)
        self._web: WebTools | None = None
        self._web_stamp: Stamp = None
        self.approvals = Approvals(layout.state)

    def open_session(self) -> Sandbox:
        """A sandbox. Raises HostError if no wall works here."""
        return self._room.open()

    def bubblewrap(self) -> str:
        """The path of a bubblewrap that has held its attacks here. Raises HostError."""
        reasons = []
        for backend in (Backend.BUBBLEWRAP, Backend.BUBBLEWRAP_WHEEL):
            for tried in self._room.tried(only=backend):
                if tried.works:
                    return tried.candidate.program
                reasons.append(f"{backend}: {tried.reason}")
        raise HostError(
            f"cannot start an MCP server in a sandbox: it needs bubblewrap: {'; '.join(reasons)}",
            hint='install bubblewrap, or let this server run without a wall: sandbox = "off" in mcp.toml',
        )

    def refusal(self, needs: Collection[str]) -> str:
        """Why the tools of a request are not run, or an empty text. Raises RecipeError if the file is wrong."""
        allowed = enabled.allowed(self.layout.config)
        for name in sorted(needs):
            if name not in allowed:
                text, hint = enabled.refusal(name)
                return f"{text}; enable it with: {hint}"
        if "web" in needs and (why := load(self.layout.config, self._env).refusal):
            return f"cannot search the web: {why}; the provider is set in {settings_path(self.layout.config)}"
        return ""

    def usable(self) -> tuple[str, ...]:
        """What is enabled and set up here. Raises RecipeError if a file is wrong."""
        return tuple(name for name in enabled.allowed(self.layout.config) if not self.refusal((name,)))

    def settings(self) -> Settings:
        """Budgets and approvals. Raises RecipeError if the file is wrong."""
        return agent_settings.load(self.layout.config)

    def web(self) -> WebTools:
        """Search and pages: one search for all requests, made anew when web.toml has changed."""
        stamp = _stamp(settings_path(self.layout.config))
        if self._web is None or stamp != self._web_stamp:
            web = load(self.layout.config, self._env)
            cache = Cache(self.layout.cache / "web")
            reach = Reach(allow=frozenset(web.settings.allow))
            self._web, self._web_stamp = WebTools(search=Search(web, cache), reach=reach, cache=cache), stamp
        return self._web


def _stamp(path: os.PathLike[str]) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
