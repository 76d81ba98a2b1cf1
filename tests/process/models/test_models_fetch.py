"""Fetching from a real HTTP hub that fails in every way: right bytes or a clear error, never a wrong file."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.errors import HostError, ModelError
from nemotron_ops.installation import Installation
from nemotron_ops.models import store
from nemotron_ops.models.carry import import_path
from nemotron_ops.models.hub import list_files, remote_header
from nemotron_ops.models.partial import done_bytes
from nemotron_ops.models.ref import Ref
from nemotron_ops.models.synthetic.shape import MOE
from nemotron_ops.models.synthetic.write import write_tiny
from nemotron_ops.models.transfer import Download, Speed, Tuning, download
from nemotron_ops.models.web import Web
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Step, silent
from tests.fakes.hub import COMMIT, Entry, Fault, Hub
from tests.stages.fetch import HASTY, NAME, QUICK, REPO, SMALL, FetchStage

pytestmark = pytest.mark.process

REF = Ref(repo=REPO, quant="Q8_0")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny(MOE, tmp_path_factory.mktemp("tiny") / NAME, quant="Q8_0")[0].read_bytes()


@pytest.fixture
def stage(layout: Layout, content: bytes) -> Iterator[FetchStage]:
    with Hub() as hub:
        hub.add(REPO, NAME, content)
        yield FetchStage(hub=hub, layout=layout, content=content)


def cut_short(stage: FetchStage, at: int) -> None:
    """Make a fetch fail after about `at` bytes, as if the network was lost."""
    stage.hub.faults = [Fault(close_after=at, times=1), Fault(status=503)]
    with pytest.raises(ModelError, match="503"):
        stage.fetch()
    stage.hub.faults = []
    assert not stage.target.exists()


# ---- the straight way


def test_a_model_is_fetched_proven_and_found_again(stage: FetchStage) -> None:
    model = stage.fetch()
    assert stage.is_right()
    assert (model.id, model.commit, model.path) == (f"{REPO}:Q8_0", COMMIT, stage.target)
    assert store.find(stage.layout, REF) == model
    assert store.verify(model) == []
    assert stage.hub.sent_bytes == len(stage.content)


def test_a_second_fetch_transfers_nothing(stage: FetchStage) -> None:
    first = stage.fetch()
    assert stage.fetch() == first
    assert len(stage.hub.file_requests()) == len(stage.content) // (3 << 18) + 1


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(stage: FetchStage) -> None:
    plan = stage.prepare()
    assert (plan.fetch_bytes, plan.size_bytes, plan.commit) == (len(stage.content), len(stage.content), COMMIT)
    assert stage.hub.file_requests() == []
    assert not stage.layout.models.exists()


def test_a_local_dir_gets_the_files_under_their_names(stage: FetchStage, tmp_path: Path) -> None:
    model = stage.fetch(local_dir=tmp_path / "mine")
    assert model.path == tmp_path / "mine" / NAME
    assert model.path.read_bytes() == stage.content
    assert [p.name for p in model.path.parent.iterdir()] == [NAME]
    assert store.remove(stage.layout, model) == []
    assert model.path.exists(), "files outside the store are not ours to delete"


def test_a_small_file_without_lfs_is_proven_by_gits_hash(stage: FetchStage) -> None:
    stage.hub.add(REPO, NAME, stage.content, lfs=False)
    model = stage.fetch()
    assert stage.is_right()
    assert len(model.files[0].git_sha1) == 40
    assert store.verify(model) == []


def test_the_projector_comes_along_when_asked_for(stage: FetchStage) -> None:
    stage.hub.add(REPO, "mmproj-F16.gguf", b"GGUF projector")
    assert stage.fetch().mmproj is None
    with_it = stage.fetch(mmproj=True)
    assert with_it.mmproj is not None
    assert with_it.mmproj.read_bytes() == b"GGUF projector"
    assert stage.fetch() == with_it, "what is here is not dropped by asking for less"


# ---- resuming


def test_a_fetch_goes_on_where_the_last_one_stopped(stage: FetchStage) -> None:
    cut_short(stage, 700_000)
    before = stage.hub.sent_bytes
    stage.fetch()
    assert stage.is_right()
    assert before >= 700_000
    assert stage.hub.sent_bytes - before == len(stage.content) - 700_000


def test_connections_that_close_early_cost_no_byte_twice(stage: FetchStage) -> None:
    stage.hub.faults = [Fault(close_after=150_000)]
    stage.fetch()
    assert stage.is_right()
    assert stage.hub.sent_bytes == len(stage.content)


def test_a_server_that_ignores_range_is_read_from_the_start(stage: FetchStage) -> None:
    cut_short(stage, 700_000)
    stage.hub.faults = [Fault(ignore_range=True)]
    stage.fetch()
    assert stage.is_right()


def test_a_server_that_never_knew_ranges_is_read_once(stage: FetchStage) -> None:
    stage.hub.faults = [Fault(ignore_range=True)]
    stage.fetch()
    assert stage.is_right()
    assert len(stage.hub.file_requests()) == 1


def test_a_stalled_connection_is_given_up_and_the_rest_fetched(stage: FetchStage) -> None:
    stage.hub.faults = [Fault(stall_after=300_000, times=1)]
    stage.fetch(tuning=Tuning(patience=HASTY, speed=SMALL))
    assert stage.is_right()
    assert stage.hub.sent_bytes <= len(stage.content) + 300_000, "what was there is not fetched again"


def test_a_server_that_stalls_for_ever_is_an_error_and_the_part_is_kept(stage: FetchStage) -> None:
    stage.hub.faults = [Fault(stall_after=300_000, times=1), Fault(stall_after=0)]
    with pytest.raises(ModelError, match="no data before the timeout"):
        stage.fetch(tuning=Tuning(patience=HASTY, speed=SMALL))
    assert len(stage.content) - 300_000 <= stage.prepare().fetch_bytes < len(stage.content)


def test_a_busy_server_is_asked_again(stage: FetchStage) -> None:
    stage.hub.faults = [Fault(status=503, times=1, headers={"retry-after": "0"}), Fault(status=429, times=1)]
    stage.fetch()
    assert stage.is_right()


def test_a_damaged_part_of_an_earlier_run_is_noticed_and_fetched_again(stage: FetchStage) -> None:
    cut_short(stage, 700_000)
    partial = next((stage.layout.models / ".partial").glob("*.partial"))
    with partial.open("r+b") as f:
        f.seek(1000)
        f.write(b"power cut")
    stage.fetch()
    assert stage.is_right()
    assert any("damaged" in n for n in stage.notes)


def test_a_progress_file_that_makes_no_sense_is_started_over(stage: FetchStage) -> None:
    cut_short(stage, 700_000)
    next((stage.layout.models / ".partial").glob("*.progress")).write_bytes(b"{}" + b"\xff" * 5000)
    stage.fetch()
    assert stage.is_right()


# ---- wrong bytes


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(status=416), "shorter than the hub says"),
        (Fault(headers={"content-type": "text/html"}, body=b"<html>log in</html>"), "a web page was sent"),
        (Fault(headers={"content-encoding": "gzip"}), "it came compressed"),
        (Fault(headers={"content-range": "bytes 0-9/10"}), "bytes 0-9 were sent instead of"),
        (Fault(ignore_range=True, body=b"GGUF too short"), "has 14 bytes, the hub lists"),
        (Fault(ignore_range=True, extra=b"and more"), "sent more than was requested"),
        (Fault(flip_at=1_000_000), "cannot prove"),
        (Fault(status=401), "access denied"),
        (Fault(status=403, headers={"x-error-message": "Ask the owner."}), "Ask the owner"),
        (Fault(status=404), "there is no such file"),
        (Fault(status=500), "the server answered 500"),
        (Fault(status=418), "the server answered 418"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_wrong_answer_is_an_error_and_leaves_no_file(stage: FetchStage, fault: Fault, message: str) -> None:
    stage.hub.faults = [fault]
    with pytest.raises(ModelError, match=message):
        stage.fetch()
    assert not stage.target.exists()
    assert store.find(stage.layout, REF) is None
    stage.hub.faults = []
    stage.fetch()
    assert stage.is_right(), "and the next try is not spoilt by it"


def test_a_file_that_changes_between_requests_is_started_over(stage: FetchStage) -> None:
    stage.hub.faults = [Fault(headers={"etag": '"old"'}, times=1)]
    stage.fetch()
    assert stage.is_right()
    assert any("was replaced on the server" in n for n in stage.notes)


def test_etags_that_differ_with_every_answer_are_no_obstacle(stage: FetchStage) -> None:
    stage.hub.faults = [Fault(headers={"etag": f'"{n}"'}, times=1) for n in range(40)]
    stage.fetch()
    assert stage.is_right()


def test_a_file_that_is_not_what_the_hub_lists_is_never_kept(stage: FetchStage) -> None:
    stage.hub.add(REPO, NAME, stage.content[:-1] + b"?", sha256=hashlib.sha256(stage.content).hexdigest())
    with pytest.raises(ModelError, match="cannot prove"):
        stage.fetch()
    assert not stage.target.exists()
    assert next((stage.layout.models / ".partial").glob("*.partial")).stat().st_size == 0


def test_a_proven_file_that_is_no_model_is_refused(stage: FetchStage) -> None:
    stage.hub.add(REPO, NAME, b"<html>stored by mistake</html>")
    with pytest.raises(ModelError, match="a web page was sent"):
        stage.fetch()
    assert store.find(stage.layout, REF) is None


def test_a_pinned_hash_that_moved_is_shown_before_any_byte(stage: FetchStage) -> None:
    with pytest.raises(ModelError, match="the recipe pins sha256 abababababababab"):
        stage.fetch(pinned={NAME: "ab" * 32})
    assert stage.hub.file_requests() == []


def test_names_from_the_hub_never_leave_the_folder(stage: FetchStage) -> None:
    stage.hub.files[REPO] = {"../../../escaped-Q8_0.gguf": stage.hub.files[REPO][NAME]}
    with pytest.raises(ModelError, match="none of its GGUF files is a model"):
        stage.fetch()


@pytest.mark.parametrize("claimed", ["../../../escaped", "0" * 63, "G" * 64])
def test_a_hash_from_the_hub_that_is_none_never_becomes_a_path(stage: FetchStage, claimed: str) -> None:
    stage.hub.files[REPO][NAME] = replace(stage.hub.files[REPO][NAME], sha256=claimed)
    with pytest.raises(ModelError, match="lists no usable hash"):
        stage.fetch()
    assert not stage.layout.models.exists()


@pytest.mark.parametrize("claimed", ["../up", "main", ""])
def test_a_commit_from_the_hub_that_is_none_never_becomes_a_path(stage: FetchStage, claimed: str) -> None:
    stage.hub.commit = claimed
    with pytest.raises(ModelError, match="does not say which commit main is"):
        stage.fetch()


# ---- shards and updates


def test_shards_are_complete_or_absent(stage: FetchStage, tmp_path: Path) -> None:
    for part in write_tiny(MOE, tmp_path / "Big-Q4_0.gguf", quant="Q4_0", shards=3, metadata_first=True):
        stage.hub.add(REPO, f"Q4_0/{part.name}", part)
    ref = Ref(repo=REPO, quant="Q4_0")
    last = stage.hub.files[REPO].pop("Q4_0/Big-Q4_0-00003-of-00003.gguf")
    with pytest.raises(ModelError, match=r"shard Q4_0/Big-Q4_0-00003-of-00003\.gguf is missing"):
        stage.fetch(ref=ref)
    assert stage.hub.file_requests() == []
    stage.hub.files[REPO]["Q4_0/Big-Q4_0-00003-of-00003.gguf"] = replace(last, sha256="ab" * 32)
    with pytest.raises(ModelError, match="cannot prove Q4_0/Big-Q4_0-00003"):
        stage.fetch(ref=ref)
    assert store.find(stage.layout, ref) is None
    sent = stage.hub.sent_bytes
    stage.hub.files[REPO]["Q4_0/Big-Q4_0-00003-of-00003.gguf"] = last
    model = stage.fetch(ref=ref)
    assert [Path(f.path).name[-19:-5] for f in model.files] == ["00001-of-00003", "00002-of-00003", "00003-of-00003"]
    assert stage.hub.sent_bytes - sent == last.size, "shards that were here are not fetched again"


def test_an_update_comes_beside_the_old_one_and_switches_at_the_end(stage: FetchStage, tmp_path: Path) -> None:
    old = stage.fetch()
    newer = write_tiny(MOE, tmp_path / NAME, quant="Q8_0", seed=9)[0].read_bytes()
    stage.hub.add(REPO, NAME, newer)
    stage.hub.commit = "f" * 40
    stage.hub.faults = [Fault(flip_at=1000)]
    with pytest.raises(ModelError, match="cannot prove"):
        stage.fetch()
    assert store.find(stage.layout, REF) == old
    assert store.verify(old) == []
    stage.hub.faults = []
    new = stage.fetch()
    assert new.path.read_bytes() == newer
    assert old.path.read_bytes() == stage.content, "whoever runs the old one still can"
    assert store.find(stage.layout, REF) == new
    assert old.path in store.orphans(stage.layout)


def test_an_update_that_changes_nothing_transfers_nothing(stage: FetchStage) -> None:
    stage.fetch()
    sent = stage.hub.sent_bytes
    stage.hub.commit = "f" * 40
    model = stage.fetch()
    assert model.commit == "f" * 40
    assert model.path.read_bytes() == stage.content
    assert stage.hub.sent_bytes == sent


# ---- hosts and tokens


def test_the_token_goes_to_the_endpoint_and_nowhere_else(stage: FetchStage) -> None:
    stage.hub.token = "hf_secret"
    with Hub() as storage:
        storage.add(REPO, NAME, stage.content)
        stage.hub.faults = [Fault(redirect=storage.url)]
        stage.fetch(env={"HF_TOKEN": "hf_secret", "NEMOTRON_OPS_HUB_HOSTS": f"127.0.0.1:{storage.port}"})
        assert stage.is_right()
        assert {s.authorization for s in storage.file_requests()} == {""}
    assert {s.authorization for s in stage.hub.seen} == {"Bearer hf_secret"}


def test_a_redirect_into_the_local_network_is_refused(stage: FetchStage) -> None:
    with Hub() as inside:
        inside.add(REPO, NAME, stage.content)
        stage.hub.faults = [Fault(redirect=inside.url)]
        with pytest.raises(ModelError, match="it is a private address") as caught:
            stage.fetch()
        assert inside.seen == []
        assert f"NEMOTRON_OPS_HUB_HOSTS=127.0.0.1:{inside.port}" in (caught.value.hint or "")


def test_a_name_that_resolves_to_a_private_address_only_when_used_is_refused(stage: FetchStage) -> None:
    with Hub() as inside:
        inside.add(REPO, NAME, stage.content)
        stage.hub.faults = [Fault(redirect=f"http://localhost:{inside.port}")]
        with (
            Web(stage.hub.env, patience=QUICK, resolve=lambda host: {"93.184.215.14"}) as web,
            pytest.raises(ModelError, match="it is a private address"),
            web.get(web.file_url(REPO, "main", NAME)),
        ):
            pass


@pytest.mark.parametrize("to", ["ftp://example.org", "file:///etc/passwd?", "http://[", "https://127.0.0.1:1x"])
def test_redirects_to_nowhere_are_refused(stage: FetchStage, to: str) -> None:
    stage.hub.faults = [Fault(redirect=to)]
    with pytest.raises(ModelError, match=r"cannot (follow the redirect|reach)"):
        stage.fetch()


def test_redirects_in_a_circle_end(stage: FetchStage) -> None:
    stage.hub.faults = [Fault(redirect=stage.hub.url)]
    with pytest.raises(ModelError, match="more than 5 redirects"):
        stage.fetch()


def test_a_private_repository_says_what_it_needs(stage: FetchStage) -> None:
    stage.hub.token = "hf_secret"
    with pytest.raises(ModelError, match="it does not exist, or is private") as caught:
        stage.fetch()
    assert "HF_TOKEN" in (caught.value.hint or "")


def test_a_refused_token_is_left_out_of_a_public_repository_and_that_is_said(stage: FetchStage) -> None:
    stage.hub.refuses_tokens = "Invalid credentials in Authorization header"
    stage.fetch(env={"HF_TOKEN": "hf_expired"})
    assert stage.is_right()
    plan = stage.prepare(env={"HF_TOKEN": "hf_expired"})
    assert 'the hub refuses the token in use ("Invalid credentials' in plan.note
    assert "hf_expired" not in plan.note


def test_a_token_that_only_the_files_refuse_is_left_out_there(stage: FetchStage) -> None:
    stage.hub.refuses_tokens = "expired"
    with (
        Web(stage.hub.env, token="hf_expired", patience=QUICK) as web,
        web.get(web.file_url(REPO, "main", NAME)) as got,
    ):
        assert got.read() == stage.content


def test_a_refused_token_of_a_private_repository_is_the_cause(stage: FetchStage) -> None:
    stage.hub.token, stage.hub.refuses_tokens = "hf_secret", "Invalid credentials in Authorization header"
    with pytest.raises(ModelError, match="access denied to the token in use") as caught:
        stage.fetch(env={"HF_TOKEN": "hf_expired"})
    assert "Invalid credentials" in caught.value.message
    assert "renew or remove it" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "written", [b"hf_a\nhf_b", "hf_abc".encode("utf-16"), b"hf_a b", "hf_\u00e9tat".encode(), b"hf_a\0b"]
)
def test_a_token_that_no_header_can_carry_is_refused_without_its_value(
    stage: FetchStage, tmp_path: Path, written: bytes
) -> None:
    (tmp_path / "secret-file").write_bytes(written)
    with pytest.raises(ModelError, match=r"cannot use the token in .*secret-file: it has a line break") as caught:
        stage.fetch(env={"HF_TOKEN_PATH": str(tmp_path / "secret-file")})
    assert "hf_" not in f"{caught.value.message} {caught.value.hint}"
    assert stage.hub.seen == []


@pytest.mark.parametrize("written", [b"\xef\xbb\xbfhf_secret\r\n", b"  hf_secret\n\n"])
def test_marks_and_blanks_around_a_token_do_not_matter(stage: FetchStage, tmp_path: Path, written: bytes) -> None:
    stage.hub.token = "hf_secret"
    (tmp_path / "token").write_bytes(written)
    stage.fetch(env={"HF_TOKEN_PATH": str(tmp_path / "token")})
    assert stage.is_right()


# ---- mirrors that tell less


def test_a_mirror_that_lists_no_sizes_is_asked_for_each_file(stage: FetchStage) -> None:
    stage.hub.lists_sizes = False
    model = stage.fetch()
    assert stage.is_right()
    assert model.files[0].sha256 == hashlib.sha256(stage.content).hexdigest()


def test_a_file_that_nothing_proves_is_fetched_only_when_asked_for(stage: FetchStage) -> None:
    stage.hub.lists_sizes = stage.hub.sends_etags = False
    with pytest.raises(ModelError, match="the hub tells no hash for it") as caught:
        stage.fetch()
    assert "--unproven" in (caught.value.hint or "")
    stage.hub.faults = [Fault(close_after=700_000, times=1), Fault(status=503)]
    with pytest.raises(ModelError, match="503"):
        stage.fetch(unproven=True)
    stage.hub.faults = []
    model = stage.fetch(unproven=True)
    assert stage.is_right()
    assert model.files[0].sha256 == hashlib.sha256(stage.content).hexdigest(), "recorded, so that it is proven later"
    assert store.verify(model) == []
    assert stage.fetch(unproven=True) == model


def test_ranges_that_do_not_say_what_they_are_are_left_alone_for_one_plain_get(stage: FetchStage) -> None:
    cut_short(stage, 700_000)
    stage.hub.faults = [Fault(headers={"content-range": ""})]
    stage.fetch()
    assert stage.is_right()
    assert stage.hub.file_requests()[-1].range == ""


def test_a_hub_that_answers_with_a_few_bytes_at_a_time_is_given_up(stage: FetchStage) -> None:
    stage.hub.faults = [Fault(close_after=6)]
    with pytest.raises(ModelError, match=r"the connection was closed early|peer closed"):
        stage.fetch()
    assert len(stage.hub.file_requests()) == QUICK.tries


def test_a_hub_that_trickles_is_given_up(stage: FetchStage) -> None:
    """Takes 0.6 s: each of three connections is watched for 0.2 s."""
    stage.hub.faults = [Fault(bytes_s=2000)]
    patience = replace(QUICK, stall_s=0.2)
    with pytest.raises(ModelError, match=r"only [\d,]+ bytes came in"):
        stage.fetch(tuning=Tuning(patience=patience, speed=SMALL))


@pytest.mark.parametrize("page", [b"<html>log in</html>", b"<!DOCTYPE html><p>", b"<HTML>"])
def test_a_web_page_without_its_type_never_becomes_part_of_a_file(stage: FetchStage, page: bytes) -> None:
    stage.hub.faults = [Fault(body=page)]
    with pytest.raises(ModelError, match="a web page was sent"):
        stage.fetch()
    assert stage.prepare().fetch_bytes == len(stage.content)


def test_a_renamed_repository_is_read_and_its_new_name_said(stage: FetchStage) -> None:
    stage.hub.renamed["old/Tiny-GGUF"] = REPO
    found = list_files("old/Tiny-GGUF", revision="main", env=stage.hub.env, patience=QUICK)
    assert found.files[0].size_bytes == len(stage.content)
    assert found.note == f"old/Tiny-GGUF is {REPO} now"


def test_what_serve_fetches_by_itself_says_that_the_token_was_refused(stage: FetchStage) -> None:
    stage.hub.refuses_tokens = "expired"
    stage.fetch(env={"HF_TOKEN": "hf_expired"})
    assert [n for n in stage.notes if "the hub refuses the token in use" in n]


def test_a_header_that_trickles_is_given_up(stage: FetchStage) -> None:
    """Takes 0.6 s: each of three answers is watched for 0.2 s."""
    stage.hub.faults = [Fault(bytes_s=2000)]
    listing = list_files(REPO, revision="main", env=stage.hub.env, patience=QUICK)
    with (
        Web(stage.hub.env, patience=replace(QUICK, stall_s=0.2)) as web,
        pytest.raises(ModelError, match=r"only [\d,]+ bytes came in"),
    ):
        remote_header(web, listing, listing.files)


def test_a_gated_repository_says_where_to_ask(stage: FetchStage) -> None:
    stage.hub.token, stage.hub.gated = "hf_secret", True
    with pytest.raises(ModelError, match="access on request only") as caught:
        stage.fetch(env={"HF_TOKEN": "hf_other"})
    assert "accept its terms" in (caught.value.hint or "")
    assert "hf_other" not in str(caught.value)


def test_an_unknown_repository_or_revision_is_named(stage: FetchStage) -> None:
    with pytest.raises(ModelError, match="cannot read owner/Nothing: it does not exist"):
        list_files("owner/Nothing", revision="main", env=stage.hub.env, patience=QUICK)
    with pytest.raises(ModelError, match="it has no revision v9"):
        stage.fetch(revision="v9")


# ---- without the network


def test_what_is_here_is_good_enough_when_the_hub_is_away(stage: FetchStage) -> None:
    model = stage.fetch()
    plan = stage.prepare(env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert plan.model == model
    assert "using what is here" in plan.note


def test_nothing_here_and_no_hub_is_an_error(stage: FetchStage) -> None:
    with pytest.raises(ModelError, match=r"cannot reach http://127\.0\.0\.1:9"):
        stage.fetch(env={"HF_ENDPOINT": "http://127.0.0.1:9"})


def test_offline_mode_asks_nobody(stage: FetchStage) -> None:
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE forbids the network"):
        stage.fetch(env={"HF_HUB_OFFLINE": "1"})
    model = stage.fetch()
    asked = len(stage.hub.seen)
    assert stage.fetch(env={"HF_HUB_OFFLINE": "1"}) == model
    assert len(stage.hub.seen) == asked


# ---- caches of others


def hub_cache(stage: FetchStage, folder: Path, content: bytes) -> Path:
    """A hub cache laid out like huggingface_hub's and llama.cpp's; returns the blob."""
    repo = folder / f"models--{REPO.replace('/', '--')}"
    blob = repo / "blobs" / hashlib.sha256(stage.content).hexdigest()
    snapshot = repo / "snapshots" / COMMIT
    for made in (blob.parent, snapshot, repo / "refs"):
        made.mkdir(parents=True)
    blob.write_bytes(content)
    (snapshot / NAME).symlink_to(blob)
    (repo / "refs" / "main").write_text(COMMIT)
    return blob


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "LLAMA_CACHE"])
def test_a_cache_of_the_hub_is_used_without_copying(stage: FetchStage, tmp_path: Path, variable: str) -> None:
    blob = hub_cache(stage, tmp_path / "cache", stage.content)
    model = stage.fetch(env={variable: str(tmp_path / "cache")})
    assert stage.is_right()
    assert stage.hub.file_requests() == []
    assert any(how in stage.notes[-1] for how in ("reflink", "hardlink", "symlink"))
    store.remove(stage.layout, model)
    assert blob.read_bytes() == stage.content


def test_llama_cpps_old_cache_is_used(stage: FetchStage, tmp_path: Path) -> None:
    (tmp_path / f"owner_Tiny-GGUF_{NAME}").write_bytes(stage.content)
    stage.fetch(env={"LLAMA_CACHE": str(tmp_path)})
    assert stage.is_right()
    assert stage.hub.file_requests() == []


def test_a_damaged_cache_is_not_believed(stage: FetchStage, tmp_path: Path) -> None:
    hub_cache(stage, tmp_path / "cache", stage.content[:-1] + b"?")
    stage.fetch(env={"HF_HUB_CACHE": str(tmp_path / "cache")})
    assert stage.is_right()
    assert any("is damaged" in n for n in stage.notes)


def test_a_cache_serves_offline_too(stage: FetchStage, tmp_path: Path) -> None:
    hub_cache(stage, tmp_path / "cache", stage.content)
    model = stage.fetch(env={"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"})
    assert model.commit == COMMIT
    assert stage.is_right()
    assert stage.hub.seen == []


def test_a_file_that_lies_in_the_local_dir_already_is_proven_not_fetched(stage: FetchStage, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(stage.content)
    assert stage.fetch(local_dir=tmp_path).path == tmp_path / NAME
    assert stage.hub.file_requests() == []


@pytest.mark.parametrize(
    "change", [{"repo": "../../outside"}, {"repo": "a/.."}, {"commit": "../../up"}, {"quant": "../x"}, {"version": 9}]
)
def test_a_forged_export_does_not_leave_the_store(layout: Layout, tmp_path: Path, change: dict[str, Any]) -> None:
    file = write_tiny(MOE, tmp_path / "T-Q4_0.gguf", quant="Q4_0")[0]
    entry = {"name": file.name, "path": file.name, "size_bytes": 1, "sha256": "0" * 64, "mtime_ns": 0}
    manifest = {"version": 1, "repo": "o/n", "quant": "Q4_0", "revision": "", "commit": "", "files": [entry]}
    (tmp_path / "nemotron-ops-model.json").write_text(json.dumps(manifest | change))
    with pytest.raises(ModelError, match="cannot read"):
        import_path(tmp_path, Installation(layout=layout, env={}))
    assert not layout.models.exists()


# ---- disks, company, speed


def test_a_full_disk_is_said_and_nothing_else_is_harmed(stage: FetchStage, tmp_path: Path) -> None:
    other = stage.layout.models / "other.gguf"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"good")
    partial = stage.layout.models / ".partial" / f"{hashlib.sha256(stage.content).hexdigest()}.partial"
    partial.parent.mkdir()
    partial.symlink_to("/dev/full")
    with pytest.raises(ModelError, match="the disk is full"):
        stage.fetch()
    assert other.read_bytes() == b"good"
    assert partial.is_symlink()
    partial.unlink()
    stage.fetch()
    assert stage.is_right()


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(stage: FetchStage) -> None:
    stage.hub.files[REPO][NAME] = Entry(size=10**16, sha256="ab" * 32, data=b"")
    with pytest.raises(HostError, match=r"it takes 10000000\.0 GB"):
        stage.fetch()
    assert stage.hub.file_requests() == []


def test_fetches_of_the_same_file_share_one_download(stage: FetchStage) -> None:
    stage.hub.faults = [Fault(bytes_s=8e6)]
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(stage.fetch().path.read_bytes() == stage.content))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4
    assert stage.hub.sent_bytes == len(stage.content)


def test_a_slow_connection_gets_company(stage: FetchStage) -> None:
    stage.hub.faults = [Fault(bytes_s=1e6)]
    stage.fetch(
        tuning=Tuning(patience=QUICK, speed=Speed(segment_bytes=1 << 17, run_segments=1, connections=4, grow_s=0.05))
    )
    assert stage.is_right()
    assert stage.hub.most_at_once >= 2
    assert stage.hub.sent_bytes == len(stage.content)


def test_an_interrupt_keeps_the_part_and_stops_every_thread(stage: FetchStage, eventually: Callable[..., None]) -> None:
    class Interrupted(KeyboardInterrupt):
        pass

    def impatient(step: Step) -> None:
        if step.done is not None and step.done > 200_000:
            raise Interrupted

    stage.hub.faults = [Fault(bytes_s=1e6)]
    with pytest.raises(Interrupted):
        stage.fetch(report=impatient)
    assert not stage.target.exists()
    assert stage.prepare().fetch_bytes < len(stage.content)
    eventually(lambda: not [t for t in threading.enumerate() if "_work" in t.name or "_hash_along" in t.name])
    stage.hub.faults = []
    stage.fetch()
    assert stage.is_right()


def any_faults(chance: random.Random) -> list[Fault]:
    """Random faults in a row, each for one or two requests."""
    menu = [
        lambda: Fault(close_after=chance.randrange(200_000)),
        lambda: Fault(ignore_range=True),
        lambda: Fault(ignore_range=True, close_after=chance.randrange(200_000)),
        lambda: Fault(status=chance.choice([500, 503, 429, 416, 404])),
        lambda: Fault(flip_at=chance.randrange(200_000)),
        lambda: Fault(headers={"etag": '"other"'}),
        lambda: Fault(headers={"content-type": "text/html"}),
        lambda: Fault(ignore_range=True, extra=b"more"),
    ]
    faults = [chance.choice(menu)() for _ in range(chance.randrange(1, 6))]
    for fault in faults:
        fault.times = chance.randrange(1, 3)
    return faults


@pytest.mark.parametrize("seed", range(40))
def test_whatever_goes_wrong_in_a_row_the_name_never_stands_for_wrong_bytes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    data = chance.randbytes(200_000)
    final = tmp_path / "x.gguf"
    speed = Speed(segment_bytes=1 << 15, run_segments=2, connections=chance.choice([1, 3]), grow_s=0.01)
    with Hub() as hub:
        entry = hub.add(REPO, "x.gguf", data)
        item = Download(
            url=f"{hub.url}/{REPO}/resolve/main/x.gguf",
            name="x.gguf",
            size_bytes=len(data),
            proof=entry.sha256,
            partial=tmp_path / "x.partial",
            final=final,
        )
        for _ in range(12):
            hub.faults = any_faults(chance)
            with suppress(ModelError), Web(hub.env, patience=QUICK) as web:
                download(web, item, report=silent, speed=speed)
            if final.exists():
                break
        else:
            hub.faults = []
            with Web(hub.env, patience=QUICK) as web:
                download(web, item, report=silent, speed=speed)
    assert final.read_bytes() == data
    assert not (tmp_path / "x.partial").exists()


KILLS = 50
FORKER = """
import os, sys
from pathlib import Path
from tests.stages.fetch import FetchStage, REPO, QUICK
from nemotron_ops.models.transfer import Download, Speed, Tuning, download
from nemotron_ops.models.web import Web
from nemotron_ops.progress import silent
import nemotron_ops.models.fetch

size, digest, partial, final = sys.argv[1:]
for endpoint in sys.stdin:  # one child per line; only the child has threads
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        continue
    with Web({"HF_ENDPOINT": endpoint.strip()}, patience=QUICK) as web:
        item = Download(
            url=web.file_url(REPO, "main", "big.gguf"), name="big.gguf", size_bytes=int(size), proof=digest,
            partial=Path(partial), final=Path(final),
        )
        speed = Speed(segment_bytes=1 << 20, run_segments=4, connections=2, grow_s=0.1)
        download(web, item, report=silent, speed=speed)
    os._exit(0)
"""


def test_fifty_kills_at_random_bytes_cost_hardly_a_byte_and_no_right_one(
    stage: FetchStage, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    chance = random.Random(4)
    data = chance.randbytes(64 << 20)
    stage.hub.add(REPO, "big.gguf", data)
    stage.hub.faults = [Fault(bytes_s=2e6)]  # slow enough that no kill comes too late
    partial, final = tmp_path / "big.partial", tmp_path / "big.gguf"
    argv = [str(len(data)), hashlib.sha256(data).hexdigest(), str(partial), str(final)]
    with (
        Hub() as last,  # a hub without any request of the killed processes
        subprocess.Popen(
            [sys.executable, "-c", FORKER, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as forker,
    ):
        last.add(REPO, "big.gguf", data)
        assert forker.stdin
        assert forker.stdout
        for _ in range(KILLS):
            forker.stdin.write(f"{stage.hub.url}\n")
            forker.stdin.flush()
            pid = int(forker.stdout.readline())
            due = done_bytes(partial) + chance.randrange(1, 300_000)
            eventually(lambda due=due: done_bytes(partial) >= due)
            os.kill(pid, signal.SIGKILL)
            assert int(forker.stdout.readline()) == -signal.SIGKILL
            assert not final.exists()
            assert done_bytes(partial) >= due, "what was counted is still there"
        left = len(data) - done_bytes(partial)
        forker.stdin.write(f"{last.url}\n")
        forker.stdin.close()
        int(forker.stdout.readline())
        assert int(forker.stdout.readline()) == 0
    assert final.read_bytes() == data
    assert last.sent_bytes == left, "and is not fetched again"
