"""What every file of the library keeps to. Read from the text: these need no server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from glidemq_core import _glide_setup, _library

ROOT = _library.lua_directory()
FUNCTIONS = sorted((ROOT / "functions").glob("*.lua"))
FILES = sorted(ROOT.glob("*/*.lua"))
READS = frozenset(
    [
        "EXISTS",
        "GET",
        "MGET",
        "HEXISTS",
        "HGET",
        "HGETALL",
        "HKEYS",
        "HLEN",
        "HMGET",
        "HSTRLEN",
        "LINDEX",
        "LLEN",
        "LRANGE",
        "SCARD",
        "SISMEMBER",
        "TIME",
        "XINFO",
        "XLEN",
        "XRANGE",
        "XREVRANGE",
        "ZCARD",
        "ZCOUNT",
        "ZRANGE",
        "ZRANGEBYLEX",
        "ZRANGEBYSCORE",
        "ZSCORE",
        "INFO",
    ]
)


def _code(path: Path) -> str:
    """A file without its comments."""
    return re.sub(r"--.*", "", path.read_text())


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("path", FUNCTIONS, ids=_name)
def test_every_function_has_tests(path: Path):
    assert (Path(__file__).parent / f"test_{path.stem}.py").is_file()


@pytest.mark.parametrize("path", FUNCTIONS, ids=_name)
def test_every_function_says_what_it_takes_and_answers(path: Path):
    head = re.match(r"(--.*\n)+", path.read_text())

    assert head
    assert head.group().startswith(f"--- {path.stem}: ")
    for part in ("keys", "args", "reply", "error", "cost"):
        assert re.search(rf"^-- {part}   ?\S", head.group(), re.MULTILINE), part


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_every_file_says_what_it_is(path: Path):
    assert path.read_text().startswith(f"--- {path.stem}: ")


def test_every_error_code_is_known_to_the_clients_and_used():
    used: set[str] = set()
    for path in FILES:
        text = _code(path)
        used |= set(re.findall(r"reply\.fail\('([A-Z]+)'", text))
        used |= {code.upper() for code in re.findall(r"reply\.(gone|stale|state)\(", text)}

    assert used == set(_glide_setup._TYPED)


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_every_command_is_known_as_a_read_or_a_write(path: Path):
    """A write that the test build doesn't know is a place where no test breaks a call off."""
    commands = set(re.findall(r"redis\.call\('(\w+)'", _code(path)))

    assert commands <= READS | _library.WRITES


def test_commands_are_named_where_they_are_called():
    """Else the rule above sees nothing of them."""
    unnamed = {
        (path.name, call)
        for path in FILES
        for call in re.findall(r"redis\.call\(([^'\s][^,]*)", _code(path))
    }

    assert unnamed == {("event_read.lua", "command"), ("news.lua", "publish_command()")}


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_nothing_forbidden_is_used(path: Path):
    forbidden = r"\bpcall\b|\btostring\b|'KEYS'|SCAN'|math\.random|\bserver\.|cjson\.decode"
    # A limiter's rules are JSON so that the same text is recognised and parsed once; what is no JSON is named. A chunk's
    # fields are its writer's JSON, in which a reader's look finds the open call; what is no JSON has none.
    reads_json = path.name in ("ledger_conf.lua", "stream_read_many.lua")

    assert re.findall(forbidden, _code(path)) == (["pcall", "cjson.decode"] if reads_json else [])


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_keys_are_made_in_one_place(path: Path):
    if path.name not in ("layout.lua", "ledger.lua"):
        assert not re.search(r"root \.\. ", _code(path))


def test_errors_are_raised_in_one_place():
    raising = {
        path.name for path in FILES if re.search(r"(?<![.\w])error\(|error_reply", _code(path))
    }

    assert raising == {"reply.lua"}


def test_lua_is_linted_with_everything_else():
    check = (ROOT.parent / "scripts" / "check").read_text()

    assert re.search(r"^step lua ", check, re.MULTILINE)
    assert "luacheck" in check
