"""The tree of errors and the exit code of each kind. Pure.

    NemotronOpsError      1   any expected error; the root of the tree
    ├── UsageError        2   the command line or an argument is wrong
    ├── RecipeError       3   a recipe or settings file is wrong
    ├── HostError         4   this machine lacks something (compiler, driver, disk, memory)
    ├── SourceError       5   llama.cpp's source cannot be fetched, or does not match its hash
    ├── BuildError        6   configuring, compiling or self-testing failed
    ├── ModelError        7   a model cannot be found, fetched, read or verified
    ├── FitError          8   the model does not fit this machine with these settings
    ├── EngineError       9   llama-server did not start, died, or sent an invalid answer
    ├── ControlError     10   no supervisor, another supervisor, or it refused
    ├── GatewayError     11   the listening side cannot be set up (port taken, key missing)
    ├── ServiceError     12   a service unit cannot be installed or did not come up
    └── DeployError      13   a remote target cannot be reached, or a release failed there

Every message reads `cannot <verb> <thing>: <cause>`, in lower case; `hint` names a remedy, if there is one. Texts of
other programs enter a message here, so secrets are taken out here: what looks like one, and what `conceal` was told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|CREDENTIALS?)$", re.IGNORECASE)
SECRET = re.compile(
    r"(?<=://)[^\s/@]*(?=@)"  # user:password@ in an address
    r"|(?-i:\bhf_[A-Za-z0-9]{12,})"
    r"|(?<=bearer )[^\s'\"]+|(?<=authorization: basic )[^\s'\"]+"
    r"|(?<=authorization: )(?!bearer |basic )[^\s'\"]+"
    r"|(?<=[?&])(?P<key>token|access_token|api_key|key|sig|signature|x-amz-[a-z-]+)=[^&\s'\"]+",
    re.IGNORECASE,
)
LEAST_SECRET = 6  # letters; what is shorter would hide ordinary words
_concealed: set[str] = set()


def conceal(secret: str) -> None:
    """Take this value, and each of its lines, out of every later error."""
    _concealed.update(p for part in (secret, *secret.split()) if len(p := part.strip()) >= LEAST_SECRET)


def conceal_environment(env: Mapping[str, str]) -> None:
    """Take the values of variables that hold secrets, by their names, out of every later error."""
    for name, value in env.items():
        if SECRET_NAME.search(name):
            conceal(value)


def redacted(text: str) -> str:
    """`text` without secrets, and without control characters of a terminal inside their values."""
    for secret in sorted(_concealed, key=len, reverse=True):
        for shown in {secret, repr(secret)[1:-1]}:
            text = text.replace(shown, "***")
    return SECRET.sub(lambda m: f"{m['key']}=***" if m["key"] else "***", text)


class NemotronOpsError(Exception):
    """An error with a message for people, an optional hint, and an exit code."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, log_tail: tuple[str, ...] = ()) -> None:
        self.message = redacted(message)
        super().__init__(self.message)
        self.hint = redacted(hint) if hint else hint
        self.log_tail = tuple(redacted(line) for line in log_tail)


class UsageError(NemotronOpsError):
    """The command line or an argument is wrong."""

    exit_code = 2


class RecipeError(NemotronOpsError):
    """A recipe or settings file is wrong."""

    exit_code = 3


class HostError(NemotronOpsError):
    """This machine lacks something: a compiler, a driver, disk, memory."""

    exit_code = 4


class SourceError(NemotronOpsError):
    """llama.cpp's source cannot be fetched, or does not match its hash."""

    exit_code = 5


class BuildError(NemotronOpsError):
    """Configuring, compiling or self-testing llama.cpp failed."""

    exit_code = 6


class ModelError(NemotronOpsError):
    """A model cannot be found, fetched, read or verified."""

    exit_code = 7


class FitError(NemotronOpsError):
    """The model does not fit this machine with these settings."""

    exit_code = 8


class EngineError(NemotronOpsError):
    """llama-server did not start, died, or sent an invalid answer."""

    exit_code = 9


class ControlError(NemotronOpsError):
    """No supervisor is running, another one is, or it refused."""

    exit_code = 10


class GatewayError(NemotronOpsError):
    """The listening side cannot be set up: port taken, key missing."""

    exit_code = 11


class ServiceError(NemotronOpsError):
    """A service unit cannot be installed or did not come up."""

    exit_code = 12


class DeployError(NemotronOpsError):
    """A remote target cannot be reached, or a release failed there."""

    exit_code = 13
