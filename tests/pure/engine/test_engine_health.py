"""Progress as `/metrics` and `/slots` show it, and the environment of a child."""

from __future__ import annotations

from pathlib import Path

from nemotron_ops.engine.env import child_env
from nemotron_ops.engine.health import Health, activity, health_of, parse_metrics

METRICS = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 23
llamacpp:tokens_predicted_total 14
llamacpp:n_decode_total 16
llamacpp:requests_processing 1
llamacpp:requests_deferred 2
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="0"} 3
"""


def slot(**more: object) -> dict[str, object]:
    return {"id": 0, "id_task": 7, "is_processing": True, "next_token": [{"n_decoded": 0}], **more}


def test_health_is_read_from_the_status_code() -> None:
    assert [health_of(s) for s in (200, 503, 404, 500)] == [Health.OK, Health.LOADING, *[Health.UNREACHABLE] * 2]


def test_metrics_lose_their_prefix_and_labelled_lines() -> None:
    found = parse_metrics(METRICS)
    assert found["n_decode_total"] == 16.0
    assert not any("per_pos" in name for name in found)


def test_a_long_prompt_shows_as_progress_batch_by_batch() -> None:
    metrics = parse_metrics(METRICS)
    before = activity(metrics, [slot(n_prompt_tokens_processed=512)])
    after = activity(metrics, [slot(n_prompt_tokens_processed=1024)])
    assert before.busy == after.busy == 1
    assert before.mark != after.mark


def test_a_made_token_shows_as_progress_and_nothing_new_does_not() -> None:
    metrics = parse_metrics(METRICS)
    one, two = (activity(metrics, [slot(next_token=[{"n_decoded": n}])]) for n in (1, 2))
    assert one.mark != two.mark
    assert one.mark == activity(metrics, [slot(next_token=[{"n_decoded": 1}])]).mark


def test_idle_slots_count_for_nothing_and_the_queue_is_seen() -> None:
    seen = activity({"requests_processing": 0, "requests_deferred": 2}, [slot(is_processing=False)])
    assert (seen.busy, seen.deferred) == (0, 2)


def test_a_child_inherits_drivers_settings_but_no_options_secrets_or_home() -> None:
    base = {
        "PATH": "/bin",
        "HOME": "/root",
        "XDG_CONFIG_HOME": "/root/.config",
        "LLAMA_ARG_TOOLS": "all",
        "HF_TOKEN": "hf_x",
        "AIP_MODE": "PREDICTION",
        "CUDA_VISIBLE_DEVICES": "1",
        "LD_LIBRARY_PATH": "/opt/cuda",
        "LLAMA_API_KEY": "k",
        "LC_ALL": "C.UTF-8",
        "HTTPS_PROXY": "http://p",
        "LLAMA_SERVER_ROUTER_PORT": "1",
    }
    env = child_env(base, home=Path("/state/home"), extra={"OWN": "1"})
    assert env == {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "1",
        "LD_LIBRARY_PATH": "/opt/cuda",
        "LC_ALL": "C.UTF-8",
        "OWN": "1",
        "GGML_NO_BACKTRACE": "1",
        "HOME": "/state/home",
        "XDG_CONFIG_HOME": "/state/home/.config",
        "XDG_CACHE_HOME": "/state/home/.cache",
    }
