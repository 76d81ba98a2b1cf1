"""pip's configuration, and pages of package indexes."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from nemotron_ops.builds.packages.pip_config import PipConfig, config_files, merge, normal_name
from nemotron_ops.builds.packages.simple_index import parse_page, pick_sdist, sdist_versions

PAGE = "https://mirror.example/simple/llama-cpp-python/"


def test_without_any_configuration_the_public_index_is_used() -> None:
    assert merge([], {}) == PipConfig()
    assert PipConfig().indexes == ("https://pypi.org/simple",)


def test_later_files_win_over_earlier_and_the_environment_over_all() -> None:
    wide = "[global]\nindex-url = https://wide/simple\ncert = /etc/wide.pem\n"
    user = "[global]\nindex-url = https://user/simple\n"
    assert merge([wide, user], {}).index_url == "https://user/simple"
    found = merge([wide, user], {"PIP_INDEX_URL": "https://env/simple"})
    assert (found.index_url, found.cert) == ("https://env/simple", "/etc/wide.pem")


def test_several_extra_indexes_and_find_links_are_words() -> None:
    text = (
        "[global]\nextra-index-url = file:///opt/a/simple\n    https://b/simple\nfind-links = /opt/wheels https://c/\n"
    )
    found = merge([text], {})
    assert found.extra_index_urls == ("file:///opt/a/simple", "https://b/simple")
    assert found.find_links == ("/opt/wheels", "https://c/")


def test_indexes_that_are_files_come_first() -> None:
    found = merge(["[global]\nextra-index-url = file:///opt/a/simple\n"], {})
    assert found.indexes == ("file:///opt/a/simple", "https://pypi.org/simple")


def test_no_index_means_none() -> None:
    assert merge(["[install]\nno-index = true\nfind-links = /opt/wheels\n"], {}).indexes == ()


def test_options_under_install_and_underscores_are_read_too() -> None:
    assert merge(["[install]\nindex_url = https://x/simple\n"], {}).index_url == "https://x/simple"


def test_a_file_that_is_no_configuration_adds_nothing() -> None:
    assert merge(["not = in a section\n"], {}) == PipConfig()


def test_percent_signs_in_passwords_are_only_text() -> None:
    text = "[global]\nindex-url = https://u:p%40ss@host/simple\n"
    assert merge([text], {}).index_url == "https://u:p%40ss@host/simple"


def test_the_files_are_those_of_pip_weakest_first() -> None:
    env = {"HOME": "/home/u", "XDG_CONFIG_DIRS": "/etc/xdg:/opt/xdg", "PIP_CONFIG_FILE": "/own.conf"}
    assert config_files(env, system="Linux", prefix="/venv") == tuple(
        PurePosixPath(p)
        for p in (
            "/opt/xdg/pip/pip.conf",
            "/etc/xdg/pip/pip.conf",
            "/etc/pip.conf",
            "/home/u/.pip/pip.conf",
            "/home/u/.config/pip/pip.conf",
            "/venv/pip.conf",
            "/own.conf",
        )
    )


def test_dev_null_switches_all_files_off() -> None:
    assert config_files({"PIP_CONFIG_FILE": "/dev/null"}, system="Linux", prefix="/venv") == ()


def test_a_mac_has_its_own_places() -> None:
    files = config_files({"HOME": "/Users/u"}, system="Darwin", prefix="/venv")
    assert PurePosixPath("/Users/u/Library/Application Support/pip/pip.conf") in files


@pytest.mark.parametrize("name", ["Llama_CPP.python", "llama-cpp-python", "LLAMA--CPP__PYTHON"])
def test_names_are_normal(name: str) -> None:
    assert normal_name(name) == "llama-cpp-python"


HTML = """<!DOCTYPE html><html><body>
<a href="../../files/llama_cpp_python-0.3.35.tar.gz#sha256=AA11">llama_cpp_python-0.3.35.tar.gz</a>
<a href="https://files/llama_cpp_python-0.3.36-cp311-linux_x86_64.whl#sha256=bb">wheel</a>
<a href="/f/llama_cpp_python-0.3.36.tar.gz#sha256=cc22" data-yanked="oops" data-requires-python="&gt;=3.8">x</a>
<a href="/f/llama_cpp_python-0.3.4.tar.gz">x</a>
</body></html>"""
JSON = """{"meta": {"api-version": "1.1"}, "name": "llama-cpp-python", "files": [
 {"filename": "llama_cpp_python-0.3.36.tar.gz", "url": "https://files/x/llama_cpp_python-0.3.36.tar.gz",
  "hashes": {"sha256": "cc22"}, "size": 76589250, "yanked": false, "requires-python": null},
 {"filename": "llama_cpp_python-0.3.36-cp311.whl", "url": "rel/y.whl", "hashes": {}, "yanked": "bad build"}]}"""


def test_an_html_page_gives_files_with_absolute_urls_and_hashes() -> None:
    files = parse_page(HTML, content_type="text/html", url=PAGE)
    assert files[0].url == "https://mirror.example/files/llama_cpp_python-0.3.35.tar.gz"
    assert files[0].sha256 == "aa11"
    assert files[3].sha256 == ""


def test_a_json_page_gives_the_same() -> None:
    files = parse_page(JSON, content_type="application/vnd.pypi.simple.v1+json", url=PAGE)
    assert (files[0].name, files[0].sha256, files[0].size) == ("llama_cpp_python-0.3.36.tar.gz", "cc22", 76589250)
    assert files[1].url == "https://mirror.example/simple/llama-cpp-python/rel/y.whl"
    assert files[1].yanked


def test_the_source_archive_of_exactly_one_version_is_picked() -> None:
    files = parse_page(HTML, content_type="text/html", url=PAGE)
    found = pick_sdist(files, "llama-cpp-python", "0.3.36")
    assert found is not None
    assert found.name == "llama_cpp_python-0.3.36.tar.gz"  # yanked, but named exactly
    assert pick_sdist(files, "llama-cpp-python", "0.3.3") is None
    assert pick_sdist(files, "other", "0.3.36") is None


def test_versions_are_in_order_of_numbers_not_letters() -> None:
    files = parse_page(HTML, content_type="text/html", url=PAGE)
    assert sdist_versions(files, "llama-cpp-python") == ("0.3.4", "0.3.35", "0.3.36")


@pytest.mark.parametrize("body", ["{", '{"files": 3}', '{"message": "not found"}', '{"files": [{"url": "x"}]}'])
def test_a_page_that_is_no_index_is_an_error(body: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        parse_page(body, content_type="application/json", url=PAGE)
