"""Sessions, locks and transfers, with an `ssh` that runs the remote command on this machine instead.

What ssh itself does is tested on real hosts (tests/hosts); here it is about what we make of it.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from nemotron_ops.deploy.remote.session import Locked, Session, locked_session
from nemotron_ops.deploy.remote.ssh import Connection, address_of
from nemotron_ops.deploy.steps.facts import site_for
from nemotron_ops.errors import DeployError
from nemotron_ops.files import sha256_of
from nemotron_ops.progress import Step, silent
from nemotron_ops.service.units import Scope

pytestmark = pytest.mark.process
Eventually = Callable[..., None]
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
    """The home folder of the user at the other end."""
    home = tmp_path / "there"
    home.mkdir()
    ssh = tmp_path / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(SSH.replace("@HOME@", str(home)))
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    return home


@pytest.fixture
def connection(there: Path) -> Connection:
    return Connection(target="gpu1")


def lock_of(there: Path) -> PurePosixPath:
    return PurePosixPath(there / "lib/.lock")


def test_steps_run_one_after_another_and_each_stops_at_its_first_failure(connection: Connection, there: Path) -> None:
    seen: list[str] = []
    with Session(connection, lock_of(there)) as session:
        assert session.run("echo one; echo two >&2", on_line=seen.append) == (0, ("one", "two"))
        assert session.run("echo before; false; echo after") == (1, ("before",))
        assert session.run("printf no-newline; exit 7") == (7, ("no-newline",))
        assert session.run("cat") == (0, ())  # nobody else's input is read
        assert session.run("false | true")[0] == 1
    assert seen == ["one", "two"]


def test_every_step_begins_with_the_prelude(connection: Connection, there: Path) -> None:
    with Session(connection, lock_of(there), prelude="export A=5\n") as session:
        assert session.run('echo "$A"') == (0, ("5",))


def test_only_one_session_at_a_time_and_the_lock_goes_with_it(connection: Connection, there: Path) -> None:
    with Session(connection, lock_of(there)) as first:
        first.run("true")
        with Session(connection, lock_of(there)) as second, pytest.raises(Locked, match="another deploy is under way"):
            second.run("true")
    with Session(connection, lock_of(there)) as third:
        assert third.run("true")[0] == 0


def test_a_client_that_is_killed_loses_the_lock_when_its_step_ends(
    connection: Connection, there: Path, eventually: Eventually
) -> None:
    gate, began = there / "gate", there / "began"
    os.mkfifo(gate)
    code = (
        "import sys; from pathlib import PurePosixPath; from nemotron_ops.deploy.remote.ssh import Connection\n"
        "from nemotron_ops.deploy.remote.session import Session\n"
        f"with Session(Connection(target='gpu1'), PurePosixPath({str(lock_of(there))!r})) as session:\n"
        f"    session.run('touch {began}; cat {gate}')\n"
    )
    client = subprocess.Popen([sys.executable, "-c", code])
    eventually(began.exists)
    client.kill()
    client.wait()
    with Session(connection, lock_of(there)) as second, pytest.raises(Locked):
        second.run("true")
    gate.write_text("go on\n")

    def free() -> bool:
        with Session(connection, lock_of(there)) as again:
            try:
                return again.run("true")[0] == 0
            except Locked:
                return False

    eventually(free)


def test_whoever_is_refused_reads_who_holds_the_lock(connection: Connection, there: Path) -> None:
    site = site_for(Scope.USER, home=str(there))
    Path(site.root).mkdir(parents=True)
    Path(site.root, "LOCK.json").write_text('{"who": "ann", "since": "noon", "why": "deploy of x"}\n')
    with Session(connection, site.root / ".lock") as first:
        first.run("true")
        with pytest.raises(Locked, match=r"ann since noon: deploy of x"):
            locked_session(connection, site)


def test_a_target_that_cannot_be_reached_is_an_error_in_words(there: Path) -> None:
    away = Connection(target="away")
    with pytest.raises(DeployError, match="cannot reach away: nobody answers"):
        away.sh("true")
    with Session(away, lock_of(there)) as session, pytest.raises(DeployError, match="nobody answers"):
        session.run("true")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(3 << 20))
    return path


def part_of(to: Path, source: Path) -> Path:
    return to.with_name(f"{to.name}.part-{sha256_of(source)[:16]}")


def test_a_file_arrives_whole_and_private(connection: Connection, there: Path, source: Path) -> None:
    to = there / "incoming/big.bin"
    connection.send_file(source, PurePosixPath(to), sha256=sha256_of(source), report=silent)
    assert to.read_bytes() == source.read_bytes()
    assert stat.S_IMODE(to.stat().st_mode) == 0o600
    assert list(to.parent.iterdir()) == [to]


def test_a_broken_transfer_goes_on_where_it_stopped(connection: Connection, there: Path, source: Path) -> None:
    to = there / "incoming/big.bin"
    to.parent.mkdir()
    part_of(to, source).write_bytes(source.read_bytes()[: 2 << 20])
    steps: list[Step] = []
    connection.send_file(source, PurePosixPath(to), sha256=sha256_of(source), report=steps.append)
    assert [s.done for s in steps] == [3 << 20]  # one chunk of a MiB after the two that were there
    assert to.read_bytes() == source.read_bytes()


def test_a_file_that_is_there_is_not_sent_again(connection: Connection, there: Path, source: Path) -> None:
    to = there / "incoming/big.bin"
    connection.send_file(source, PurePosixPath(to), sha256=sha256_of(source), report=silent)
    before = to.stat().st_ino
    connection.send_file(source, PurePosixPath(to), sha256=sha256_of(source), report=silent)
    assert to.stat().st_ino == before


def test_bytes_that_are_wrong_over_there_never_get_the_files_name(
    connection: Connection, there: Path, source: Path
) -> None:
    to = there / "incoming/big.bin"
    to.parent.mkdir()
    part_of(to, source).write_bytes(b"x" * (1 << 20))  # a beginning that is not this file's
    with pytest.raises(DeployError, match="another sha256"):
        connection.send_file(source, PurePosixPath(to), sha256=sha256_of(source), report=silent)
    assert not to.exists()
    connection.send_file(source, PurePosixPath(to), sha256=sha256_of(source), report=silent)
    assert to.read_bytes() == source.read_bytes()


def test_a_disk_that_is_full_is_an_error_in_words(connection: Connection, source: Path) -> None:
    with pytest.raises(DeployError, match="cannot write"):
        connection.send_file(source, PurePosixPath("/dev/full/big.bin"), sha256=sha256_of(source), report=silent)


def test_the_address_behind_a_name_is_the_one_that_ssh_goes_to(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host gpu1\n  HostName 10.9.8.7\n")
    assert address_of("ann@gpu1", config=config) == "10.9.8.7"
    assert address_of("gpu2.example.org", config=config) == "gpu2.example.org"
    assert address_of("ann@gpu1", config=tmp_path / "nowhere") == "gpu1"
