"""The hall: paths, files, errors, ui."""

from __future__ import annotations

import io
import json
import os
import stat
import time
from pathlib import Path

import pytest

from nemotron_ops import errors
from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.files import read_json, write_atomic, write_json
from nemotron_ops.paths import SOCKET_NAME_BYTES, SOCKET_PATH_BYTES, user_layout
from nemotron_ops.progress import Step
from nemotron_ops.ui import Ui, duration, plain_line, render_table, size


def kinds() -> list[type[NemotronOpsError]]:
    return [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, NemotronOpsError)]


def test_every_kind_of_error_has_its_own_exit_code_and_is_drawn_in_the_tree() -> None:
    codes = [k.exit_code for k in kinds()]
    assert sorted(codes) == list(range(1, len(codes) + 1))
    for kind in kinds():
        assert any(line.split()[-1:] and kind.__name__ in line for line in (errors.__doc__ or "").splitlines())


def test_folders_follow_the_xdg_variables() -> None:
    layout = user_layout({"HOME": "/home/u", "XDG_DATA_HOME": "/d", "XDG_RUNTIME_DIR": "/run/user/7"}, uid=7)
    assert layout.builds == Path("/d/nemotron-ops/builds")
    assert layout.config == Path("/home/u/.config/nemotron-ops")
    assert layout.control_socket == Path("/run/user/7/nemotron-ops/control.sock")


def test_one_variable_moves_everything_and_state_can_move_alone() -> None:
    env = {"HOME": "/home/u", "NEMOTRON_OPS_HOME": "/x", "NEMOTRON_OPS_STATE": "/s", "NEMOTRON_OPS_RUNTIME": "/r"}
    layout = user_layout(env, uid=7)
    assert (layout.data, layout.state, layout.logs, layout.runtime) == (
        Path("/x/data"),
        Path("/s"),
        Path("/s/logs"),
        Path("/r"),
    )


def test_sockets_always_fit_their_path_limit() -> None:
    layout = user_layout({"NEMOTRON_OPS_HOME": "/" + "long/" * 40}, uid=7)
    assert len(str(layout.runtime)) + SOCKET_NAME_BYTES <= SOCKET_PATH_BYTES
    assert layout.runtime == user_layout({"NEMOTRON_OPS_HOME": "/" + "long/" * 40}, uid=7).runtime


def test_a_file_is_written_whole_with_its_mode_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"a": 1}, mode=0o600)
    write_json(path, {"a": 2}, mode=0o600)
    assert read_json(path) == {"a": 2}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["file.json"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_reading_what_is_not_json_says_which_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(NemotronOpsError, match=r"x\.json: not valid JSON"):
        read_json(tmp_path / "x.json")
    assert read_json(tmp_path / "absent.json") is None


@pytest.mark.parametrize(
    ("n", "text"), [(999, "999 B"), (4.2e9, "4.2 GB"), (36e9, "36 GB"), (1.284e11, "128 GB"), (2e12, "2 TB")]
)
def test_sizes_are_in_powers_of_ten(n: float, text: str) -> None:
    assert size(n) == text


@pytest.mark.parametrize(("s", "text"), [(59, "59 s"), (200, "3 min 20 s"), (900, "15 min"), (7500, "2 h 5 min")])
def test_durations_are_rounded_to_what_matters(s: float, text: str) -> None:
    assert duration(s) == text


def test_progress_is_plain_lines_where_there_is_no_terminal() -> None:
    err = io.StringIO()
    ui = Ui(out=io.StringIO(), err=err)
    for done in (0, 1, 2, 100, 100):
        ui.report(Step(what="compile", done=done, total=100))
    ui.report(Step(what="source", note="using the package registry"))
    assert err.getvalue().splitlines() == ["compile: 0 % 0/100", "compile: 100 % 100/100", "using the package registry"]


def test_a_line_of_progress_has_amount_rate_and_time_left() -> None:
    step = Step(what="fetch m.gguf", done=1e9, total=4e9, unit="B", rate_per_s=1e8, eta_s=30)
    assert plain_line(step) == "fetch m.gguf: 25 % 1 GB of 4 GB at 100 MB/s, 30 s left"


def test_progress_for_programs_is_a_step_per_line_at_most_four_a_second() -> None:
    err = io.StringIO()
    ui = Ui(out=io.StringIO(), err=err, progress="json")
    begun = time.monotonic()
    for done in range(2001):
        ui.report(Step(what=f"fetch {done % 2}", done=done, total=2000, unit="B", eta_s=1.5))
    ui.report(Step(what="", note="going on without the token", warning=True))
    ui.say("done")
    lines = [json.loads(line) for line in err.getvalue().splitlines()]
    assert lines[0] == {"what": "fetch 0", "done": 0, "total": 2000, "unit": "B", "eta_s": 1.5}
    assert lines[-3]["done"] == 2000
    assert lines[-2:] == [{"note": "going on without the token", "warning": True}, {"note": "done"}]
    assert len(lines) <= 5 + 4 * (time.monotonic() - begun) + 1


def test_no_progress_keeps_remarks() -> None:
    err = io.StringIO()
    ui = Ui(out=io.StringIO(), err=err, progress="none")
    ui.report(Step(what="compile", done=1, total=2, note="two cores"))
    assert err.getvalue() == "two cores\n"


def test_stdout_is_data_and_stderr_is_talk() -> None:
    out, err = io.StringIO(), io.StringIO()
    ui = Ui(out=out, err=err)
    ui.say("hello")
    ui.json({"a": 1})
    assert json.loads(out.getvalue()) == {"a": 1}
    assert err.getvalue() == "hello\n"


def test_tables_align_words_left_and_numbers_right() -> None:
    assert render_table(["NAME", "N"], [["a", "1"], ["bcd", "22"]]) == "NAME   N\na      1\nbcd   22"
