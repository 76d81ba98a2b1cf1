"""What the scripts of one deploy to one target are made from: request, release, facts, paths, audit log. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from nemotron_ops.deploy.steps.candidate import Candidate
from nemotron_ops.deploy.steps.facts import Site, TargetFacts
from nemotron_ops.deploy.steps.release import Release, Request
from nemotron_ops.deploy.steps.saved_state import SavedState
from nemotron_ops.deploy.steps.scripts import append_audit, try_append_audit
from nemotron_ops.service.spec import CREDENTIALS, USER, Scope


@dataclass(frozen=True, kw_only=True)
class Context:
    """One deploy to one target. `who` is the operator, `why` their reason, `now` the time for the audit log."""

    request: Request
    release: Release
    facts: TargetFacts
    site: Site
    who: str
    now: str
    why: str = ""

    @property
    def name(self) -> str:
        """The release's name."""
        return self.release.id(self.request)

    @property
    def system(self) -> bool:
        """Whether this deploys the machine's service, not a user's."""
        return self.site.scope is Scope.SYSTEM

    @property
    def release_dir(self) -> PurePosixPath:
        return self.site.release(self.name)

    @property
    def program(self) -> PurePosixPath:
        return self.site.release_program(self.name)

    @property
    def python_env(self) -> PurePosixPath:
        """The virtual environment of this release, shared by releases that differ only in what they serve."""
        return self.site.root / "programs" / self.release.bundle.sha256[:16]

    @property
    def config(self) -> str:
        """The target's configuration folder, as a shell word."""
        return "/etc/nemotron-ops" if self.system else '"$HOME/.config/nemotron-ops"'

    @property
    def keys_path(self) -> str:
        """The file that the service reads its API keys from: a credential of the system's, or the user's own file."""
        return f"{CREDENTIALS}/api-keys" if self.system else f"{self.facts.home}/.config/nemotron-ops/api-keys"

    @property
    def systemctl(self) -> str:
        return "systemctl" if self.system else "systemctl --user"

    @property
    def as_service_user(self) -> str:
        """Words before a command that writes builds or models, which belong to the service's user."""
        return f"runuser -u {USER} -- env NEMOTRON_OPS_SYSTEM=1 HOME=/var/lib/nemotron-ops " if self.system else ""

    @property
    def candidate(self) -> Candidate:
        recipes = self.release_dir / "recipes"
        return Candidate(site=self.site, recipes=recipes, config=self.config, build_id=self.release.build_id)

    @property
    def saved_state(self) -> SavedState:
        return SavedState(site=self.site, config=self.config, keys_path=self.keys_path if self.release.keys else "")

    def audit(self, event: str, *, why: str = "") -> str:
        """Appends an event of this release to the audit log."""
        return append_audit(self.site, who=self.who, now=self.now, event=event, release=self.name, why=why)

    @property
    def audit_failure(self) -> str:
        """Appends `failed` to the audit log, if the disk takes it."""
        return try_append_audit(self.site, who=self.who, now=self.now, event="failed", release=self.name)
