"""Generated pages and tables are up to date; commands, paths, keys and links on all pages exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from docs.generate import MADE, pages
from docs.generators.glossary import WORDS, lines_of_map
from docs.generators.recipes import documented_classes, field_comments
from nemotron_ops.cli import cli

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [page for page in PAGES if not page.read_text().startswith(MADE)]


@pytest.mark.parametrize("name", sorted(pages()))
def test_the_reference_page_is_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == pages()[name], "run `make docs`"


@pytest.mark.parametrize("kind", documented_classes(), ids=lambda k: k.__name__)
def test_every_key_of_a_recipe_has_a_meaning(kind: type) -> None:
    silent = [name for name, comment in field_comments(kind).items() if not comment]
    simple = {"server"}  # tables have their own section
    assert [n for n in silent if n not in simple] == []


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text()):
            if "://" in target:
                continue
            to = page.parent / target if target else page
            if not to.exists() or (anchor and anchor not in anchors_of(to)):
                broken.append(f"{page.relative_to(ROOT)}: {target}#{anchor}")
    assert broken == []


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_page_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([^)#\s]+\.md)\)", (ROOT / "docs/index.md").read_text()))
    there = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert there - linked == {"index.md"}


def test_every_path_of_the_repository_on_a_page_exists() -> None:
    folders = r"(?:nemotron_ops|tests|benchmarks|docs|recipes)"
    missing = []
    for page in WRITTEN:
        text = page.read_text()
        paths = re.findall(rf"(?<![\w/.])({folders}/[\w./-]*\w)", text)
        modules = re.findall(r"python3? -m ((?:nemotron_ops|tests|benchmarks)[\w.]*)", text)
        missing += [f"{page.name}: {p}" for p in paths if not (ROOT / p).exists()]
        missing += [f"{page.name}: {m}" for m in modules if not is_module(ROOT / m.replace(".", "/"))]
    assert missing == []


def is_module(path: Path) -> bool:
    return path.with_suffix(".py").exists() or (path / "__main__.py").exists()


def commands_of(text: str) -> Iterator[list[str]]:
    """The words of each command line of ours in a page: in code blocks, and between backticks."""
    lines = re.findall(r"`(nemotron-ops [^`\n]+)`", text)
    for kind, block in re.findall(r"```(sh|console)\n(.*?)```", text, re.DOTALL):
        found = block.replace("\\\n", " ").splitlines()
        lines += [x for x in found if kind == "sh" or x.startswith("$ ")]
    for line in lines:
        for part in re.split(r"[|;]|&&", line.partition(" #")[0]):
            words = shlex.split(part, posix=False)
            if "nemotron-ops" in words:
                yield words[words.index("nemotron-ops") + 1 :]


def unknown_in(words: list[str]) -> list[str]:
    """The command or the options of a command line that do not exist."""
    command: click.Command = cli
    known, rest = options_of(cli), words
    while rest and isinstance(command, click.Group) and not rest[0].startswith("-"):
        found = command.get_command(click.Context(command), rest[0])
        if found is None and command.name in ("bench", "deploy"):  # `deploy TARGET` is `deploy run TARGET`
            found = command.get_command(click.Context(command), "run")
        if found is None:
            return [rest[0]]
        command, rest = found, rest[1:]
        known |= options_of(command)
    if command.context_settings.get("ignore_unknown_options"):  # flags of another program may follow
        return []
    own = rest[: rest.index("--")] if "--" in rest else rest
    return sorted({w.partition("=")[0].replace("_", "-") for w in own if w.startswith("--")} - known)


def options_of(command: click.Command) -> set[str]:
    return {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: p.stem)
def test_every_command_and_option_on_a_page_exists(page: Path) -> None:
    lines = list(commands_of(page.read_text()))
    assert [(" ".join(words), unknown) for words in lines if (unknown := unknown_in(words))] == []


def test_no_page_speaks_of_components_as_people() -> None:
    people = re.compile(r"\b(who|whoever|nobody|somebody|anybody|everybody)\b", re.IGNORECASE)
    found = []
    for page in WRITTEN:
        text = re.sub(r"<!-- (\w+):.*?<!-- /\1 -->", "", page.read_text(), flags=re.DOTALL)  # of tests and maps
        found += [f"{page.name}: {line}" for line in text.splitlines() if people.search(line)]
    assert found == []


def test_every_word_of_the_glossary_is_owned_by_a_module_on_a_map() -> None:
    assert 35 <= len(WORDS) <= 50
    assert len({w.name for w in WORDS}) == len(WORDS)
    for word in WORDS:
        package, _, name = word.home.rpartition(".")
        known = lines_of_map(ROOT / "nemotron_ops" / package.replace(".", "/") / "__init__.py")
        assert name in known, f"{word.name}: {word.home} is not on the map of {package or 'nemotron_ops'}"
