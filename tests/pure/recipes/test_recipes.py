"""Recipes: the shipped ones, the errors of wrong ones, and the order of layers."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from nemotron_ops.errors import RecipeError
from nemotron_ops.paths import Layout
from nemotron_ops.policy import Health, Restart
from nemotron_ops.recipes.load import load_recipe, load_settings, parse_recipe, recipe_files, recipe_for
from nemotron_ops.recipes.resolve import Settings, default_alias, public_names, request_fields, resolve
from nemotron_ops.recipes.schema import Recipe, Server

SHIPPED = ("120b", "30b", "4b", "tiny-train", "tiny")
MINIMAL = '[model]\nrepo = "owner/name-GGUF"\n'


def parsed(text: str) -> Recipe:
    return parse_recipe(text, name="x", origin="recipes/x.toml")


def test_the_shipped_recipes_are_these_and_all_load(layout: Layout) -> None:
    assert tuple(recipe_files(layout)) == SHIPPED
    for name in SHIPPED:
        recipe = load_recipe(name, layout)
        assert recipe.default_profile == "chat"
        assert set(recipe.profiles) == {"chat", "tools", "guide", "conversation"}
        assert (recipe.reasoning.start_id, recipe.reasoning.end_id) == (12, 13)


@pytest.mark.parametrize(
    ("name", "repo", "quant", "arch"),
    [
        ("4b", "unsloth/NVIDIA-Nemotron-3-Nano-4B-GGUF", "Q8_0", "nemotron_h"),
        ("30b", "unsloth/Nemotron-3-Nano-30B-A3B-GGUF", "UD-Q4_K_XL", "nemotron_h_moe"),
        ("120b", "unsloth/NVIDIA-Nemotron-3-Super-120B-A12B-GGUF", "UD-Q4_K_XL", "nemotron_h_moe"),
    ],
)
def test_a_recipe_says_what_the_guide_says(name: str, repo: str, quant: str, arch: str, layout: Layout) -> None:
    recipe = load_recipe(name, layout)
    assert (recipe.model.repo, recipe.model.quant, recipe.arch) == (repo, quant, arch)
    assert (recipe.context.default_tokens, recipe.context.max_tokens) == (262144, 1048576)
    assert recipe.requests.max_tokens == 32768
    assert request_fields(recipe.profiles["chat"]) == {"temperature": 1.0, "top_p": 1.0}
    assert request_fields(recipe.profiles["tools"]) == {"temperature": 0.6, "top_p": 0.95}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_guide_profile_is_the_guides_server_line(name: str, layout: Layout) -> None:
    plan = resolve(load_recipe(name, layout), profile="guide")
    line = {k: plan.value(k) for k in ("prio", "min_p", "temp", "top_p", "ctx_size", "port")}
    assert line == {"prio": 3, "min_p": 0.01, "temp": 0.6, "top_p": 0.95, "ctx_size": 16384, "port": 8001}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (MINIMAL + '[server]\nctx_size = "8k"', 'recipes/x.toml: server.ctx_size: expected an integer, found "8k"'),
        (MINIMAL + "[server]\nctx_sise = 8", "recipes/x.toml: server.ctx_sise: unknown key (did you mean ctx_size?)"),
        (MINIMAL + "[server]\nctx-size = 8", "recipes/x.toml: server.ctx-size: unknown key (did you mean ctx_size?)"),
        (MINIMAL + "[server]\nprio = 4", "recipes/x.toml: server.prio: expected -1 to 3, found 4"),
        (MINIMAL + "[server]\nkv_unified = 1", "recipes/x.toml: server.kv_unified: expected true or false, found 1"),
        (MINIMAL + "[server]\nparallel = true", "recipes/x.toml: server.parallel: expected an integer, found true"),
        (MINIMAL + '[restart]\npolicy = "maybe"', "expected one of always, on-failure, no"),
        (
            MINIMAL + '[server]\nextra_args = ["--temp", "1\\u0000"]',
            "server.extra_args[1]: expected no control character, found U+0000",
        ),
        (MINIMAL + "[lifecycle]\nttl_s = nan", "recipes/x.toml: lifecycle.ttl_s: expected 1 to 3.1536e+07, found nan"),
        (MINIMAL + "[profiles.chat]\ntemp = -1", "recipes/x.toml: profiles.chat.temp: expected 0 to 10, found -1.0"),
        (MINIMAL + '[server]\nextra_args = ["-a", 3]', "server.extra_args[1]: expected a string, found 3"),
        (MINIMAL + '[lifecycle]\nreplicas = "two"', 'expected a number from 1 or "auto"'),
        ('default_profile = "x"\n' + MINIMAL, "no profile 'x'"),
        ("title = 3\n" + MINIMAL, "recipes/x.toml: title: expected a string, found 3"),
        ('[model]\nquant = "Q8_0"', "expected one of repo, path, synthetic, found none of them"),
        ('[model]\nrepo = "a/b"\npath = "c"', "found repo and path"),
        ('[model]\nrepo = "a/b"\nchat_template_file = "../x.jinja"', "a .jinja file beside the recipe"),
        ('[model]\nrepo = "a/b"\nchat_template_file = "/etc/passwd"', "model.chat_template_file: expected the name"),
        ("[modell]", "recipes/x.toml: modell: unknown key (did you mean model?)"),
        ('name = "y"\n' + MINIMAL, "recipes/x.toml: name: unknown key"),
        ("model = ", "not valid TOML"),
        ("", "recipes/x.toml: model: missing"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_key_and_what_was_expected(text: str, complaint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parsed(text)
    assert complaint in caught.value.message


def test_an_unknown_recipe_names_the_nearest(layout: Layout) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("3b", layout)
    assert caught.value.hint in {"did you mean 30b?", "did you mean 4b?"}


def test_a_users_recipe_replaces_the_shipped_one(layout: Layout) -> None:
    layout.user_recipes.mkdir(parents=True)
    (layout.user_recipes / "30b.toml").write_text(MINIMAL)
    assert load_recipe("30b", layout).model.repo == "owner/name-GGUF"


def test_later_layers_win_and_every_value_knows_its_source() -> None:
    recipe = parsed('[model]\nrepo = "o/n-GGUF"\n[context]\ndefault_tokens = 4096\n[profiles.p]\ntemp = 0.5')
    settings = Settings(port=9000, server=Server(threads=3))
    plan = resolve(recipe, profile="p", settings=settings, env={"NEMOTRON_OPS_PORT": "9001"}, flags={"threads": 5})
    found = {k: (s.value, s.source) for k, s in plan.settings.items()}
    assert found["ctx_size"] == (4096, "recipe x [context]")
    assert found["temp"] == (0.5, "profile p")
    assert found["port"] == (9001, "NEMOTRON_OPS_PORT")
    assert found["threads"] == (5, "--threads")
    assert found["host"] == ("127.0.0.1", "built in")
    assert "host" not in plan.server
    assert "port" not in plan.server


def test_flags_that_were_not_given_change_nothing() -> None:
    recipe = parsed(MINIMAL)
    assert resolve(recipe, flags={"threads": None, "extra_args": ()}) == resolve(recipe)


def test_a_context_beyond_the_recipes_maximum_is_refused() -> None:
    with pytest.raises(RecipeError, match="allows 1,048,576"):
        resolve(parsed(MINIMAL), flags={"ctx_size": 2_000_000})


def test_an_unknown_profile_lists_the_known() -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(parsed(MINIMAL + "[profiles.a]\n[profiles.b]"), profile="c")
    assert caught.value.hint == "known: a, b"


def test_public_names_start_with_the_alias_and_hold_the_recipes_name() -> None:
    recipe = parsed(MINIMAL)
    assert default_alias(recipe) == "owner/name"
    assert public_names(resolve(recipe, flags={"alias": "mine"})) == ("mine", "x", "owner/name", "owner/name-GGUF")


def test_reasoning_off_becomes_the_templates_switch() -> None:
    recipe = parsed(MINIMAL + "[profiles.fast]\nreasoning = false\nmax_tokens = 9")
    assert request_fields(recipe.profiles["fast"]) == {
        "max_tokens": 9,
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_a_repository_or_a_file_needs_no_recipe(layout: Layout, tmp_path: Path) -> None:
    by_repo = recipe_for("owner/Some.Model-GGUF:Q4_K_M", layout)
    assert (by_repo.name, by_repo.model.quant, by_repo.model.alias) == ("some.model", "Q4_K_M", "owner/Some.Model")
    file = tmp_path / "Other Model.gguf"
    file.touch()
    assert recipe_for(str(file), layout).name == "other-model"
    assert recipe_for("30b:Q8_0", layout).model.quant == "Q8_0"
    with pytest.raises(RecipeError, match="no such file"):
        recipe_for("absent.gguf", layout)


def test_settings_are_checked_like_recipes(layout: Layout) -> None:
    assert load_settings(layout) == Settings()
    layout.config.mkdir(parents=True)
    (layout.config / "settings.toml").write_text("prot = 1")
    with pytest.raises(RecipeError, match=r"prot: unknown key \(did you mean port\?\)"):
        load_settings(layout)


NUMBERS_S = [(table, f.name) for table, kind in (("restart", Restart), ("health", Health)) for f in fields(kind)
             if f.name.endswith("_s")]  # fmt: skip


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "-inf", "1e300"])
@pytest.mark.parametrize(("table", "key"), [*NUMBERS_S, ("lifecycle", "ttl_s"), ("requests", "queue_wait_s")])
def test_a_time_that_is_negative_endless_or_no_number_is_refused_by_its_key(table: str, key: str, value: str) -> None:
    with pytest.raises(RecipeError, match=rf"{table}\.{key}: expected "):
        parsed(f"{MINIMAL}[{table}]\n{key} = {value}")


@pytest.mark.parametrize(("table", "key"), [*(t for t in NUMBERS_S if t[1] != "drain_s"), ("lifecycle", "ttl_s")])
def test_a_period_of_zero_is_refused(table: str, key: str) -> None:
    with pytest.raises(RecipeError, match=rf"{table}\.{key}: expected "):
        parsed(f"{MINIMAL}[{table}]\n{key} = 0")


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "a = 1" + "0" * 5000, "a = 9" * 2], ids=["deep", "huge", "twice"]
)
def test_toml_that_python_cannot_read_is_one_error(text: str) -> None:
    with pytest.raises(RecipeError, match=r"x\.toml: not valid TOML"):
        parse_recipe(text, name="x", origin="x.toml")
