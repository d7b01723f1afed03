"""The function library as text: what it is made of, and which one stays on a server."""

from __future__ import annotations

import re

import pytest

from glidemq_core._library import WRITES, bundle, lua_directory
from glidemq_core.errors import LibraryError
from tests.harness.small_library import small_library

# What the functions call besides, as of now: none of these writes.
_READS = """
EXISTS GET HEXISTS HGET HGETALL HKEYS HLEN HMGET HVALS INFO LINDEX LLEN LRANGE MEMORY MGET PTTL SCARD SISMEMBER SMEMBERS
SMISMEMBER TIME TTL TYPE XINFO XLEN XRANGE XREVRANGE ZCARD ZCOUNT ZMSCORE ZRANGE ZRANGEBYSCORE ZRANK ZREVRANGE
ZREVRANGEBYSCORE ZSCORE ZLEXCOUNT ZRANGEBYLEX ZREVRANGEBYLEX STRLEN HSTRLEN"""
READS = set(_READS.split())


def lua_files() -> dict[str, str]:
    root = lua_directory()
    return {
        str(path.relative_to(root)): path.read_text("utf-8") for path in sorted(root.rglob("*.lua"))
    }


def test_first_line_names_the_library(tmp_path):
    assert small_library(tmp_path).text.splitlines()[0] == "#!lua name=glidemq_9"


def test_every_function_file_is_registered_under_its_name(tmp_path):
    text = small_library(tmp_path).text

    registered = re.findall(r"^register\('(\w+)', 'functions\.(\w+)'", text, re.MULTILINE)
    assert registered == [
        (f"glidemq_9_{name}", name) for name in ("count", "fail", "source", "stumble")
    ]


@pytest.mark.parametrize("path", ["lib/layout.lua", "functions/count.lua", "functions/stumble.lua"])
def test_line_table_leads_to_the_file(tmp_path, path):
    library = small_library(tmp_path)
    wanted = (tmp_path / "lua-9.1" / path).read_text().splitlines()

    for number, line in enumerate(library.text.splitlines(), 1):
        file, at, *_ = library.locate(f"user_function:{number}: boom").split(":")
        # Behind a file comes the end of the loader around it.
        if file == f"lua/{path}" and int(at) <= len(wanted):
            assert line == wanted[int(at) - 1]
            wanted[int(at) - 1] = "found"
    assert set(wanted) == {"found"}


def test_lines_of_no_file_are_left_as_they_are(tmp_path):
    library = small_library(tmp_path)
    last = library.text.count("\n")

    assert library.locate(f"user_function:{last}: boom") == f"user_function:{last}: boom"
    assert library.locate("user_function:1: boom") == "user_function:1: boom"


def test_hash_tells_texts_and_kinds_apart(tmp_path):
    one = small_library(tmp_path)
    other = small_library(tmp_path / "other", more={"lib/more.lua": "return {}\n"})
    test = bundle("test", tmp_path / "lua-9.1")

    assert len({one.hash, other.hash, test.hash}) == 3


def description(library) -> str:
    found = re.search(r"'functions\.source', '(.*)'\)", library.text)
    assert found is not None
    return found.group(1)


@pytest.mark.parametrize(("ours", "theirs"), [("9.2", "9.1"), ("9.10", "9.9")])
def test_higher_revision_replaces_lower_and_never_the_other_way(tmp_path, ours, theirs):
    newer, older = small_library(tmp_path, ours), small_library(tmp_path, theirs)

    assert newer.should_replace(description(older))
    assert not older.should_replace(description(newer))


def test_missing_library_is_loaded_and_an_equal_one_kept(tmp_path):
    library = small_library(tmp_path)

    assert library.should_replace(None)
    assert not library.should_replace(description(library))


def test_other_text_at_one_revision_is_replaced_from_a_checkout_only(tmp_path):
    installed = small_library(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "pyproject.toml").touch()
    checkout = small_library(tmp_path / "b", more={"lib/more.lua": "return {}\n"})

    assert checkout.should_replace(description(installed))
    assert not installed.should_replace(description(checkout))


def test_every_required_module_exists():
    files = lua_files()
    modules = {path[:-4].replace("/", ".") for path in files} | {"lib.build"}

    for path, text in files.items():
        wanted = set(re.findall(r"""require\(['"]([\w.]+)['"]\)""", text))
        assert wanted <= modules, path


def test_test_build_knows_every_command_that_the_functions_call():
    called = {
        command
        for text in lua_files().values()
        for command in re.findall(r"redis\.call\(\s*'([A-Z]+)'", text)
    }

    assert called - READS - WRITES == set()
    assert {"HSET", "ZADD", "XADD", "TIME"} <= called
    assert not READS & WRITES


def test_function_file_that_returns_no_run_is_named(tmp_path):
    with pytest.raises(LibraryError, match=r"lua/functions/odd\.lua"):
        small_library(tmp_path, more={"functions/odd.lua": "local odd = {}\nreturn odd\n"})


def test_functions_that_say_they_only_read_hold_no_write():
    for path, text in lua_files().items():
        if path.startswith("functions/") and "'no-writes'" in text:
            written = set(re.findall(r"redis\.call\(\s*'([A-Z]+)'", text)) & WRITES
            assert not written, path
