"""An `ssh` on PATH that runs the remote command on this machine, for all tests of deploys to targets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SSH = """\
#!/bin/sh
# as sshd does: the words after the target are one command line for the user's shell
while [ "$1" != -- ]; do shift; done
[ "$2" = away ] && { echo "ssh: connect to host away port 22: Connection refused" >&2; exit 255; }
export HOME=@HOME@
exec sh -c "$3"
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of the user on the target."""
    home = tmp_path / "there"
    home.mkdir()
    ssh = tmp_path / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(SSH.replace("@HOME@", str(home)))
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    return home
