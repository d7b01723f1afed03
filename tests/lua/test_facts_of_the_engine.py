"""What the library relies on, of the server and its Lua. When one of these fails, a rule of lua/README.md has changed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.harness.servers import Connection, ReplyError, ValkeyServer

Run = Callable[..., Any]
_pack = msgspec.msgpack.encode


def _library(
    body: str, *, name: str = "facts", flags: str = "", function: str | None = None
) -> str:
    return (
        f"#!lua name={name}\n"
        f"redis.register_function{{function_name='{function or name}', flags={{{flags}}}, "
        f"callback=function(keys, args)\n{body}\nend}}\n"
    )


@pytest.fixture
def run(any_server: ValkeyServer) -> Run:
    """Run a function body once: run(body, *args, flags=..., command=...)."""

    def run_(body: str, *args: str | bytes | int, flags: str = "", command: str = "FCALL") -> Any:
        any_server.cmd("FUNCTION", "LOAD", "REPLACE", _library(body, flags=flags))
        return any_server.cmd(command, "facts", 1, "k", *args)

    return run_


@pytest.mark.parametrize(
    "text",
    [
        "\n" + _library("return 1"),
        _library("return 1").replace("name=facts", "name=facts author=x"),
        _library("return 1", function="with-dash"),
        _library("return 1") + "surplus = 1\n",
        _library("return 1") + "".join(f"local v{i} = 1\n" for i in range(201)),
        "".join(f"local v{i} = 1\n" for i in range(61)).join(
            [
                "#!lua name=facts\n",
                "local f = function() return " + " + ".join(f"v{i}" for i in range(61)) + " end\n",
            ]
        ),
        "#!lua name=facts\nlocal t = string.format('%d', 1)\n"
        + _library("return 1").split("\n", 1)[1],
        "#!lua name=facts\nfor _ in ipairs({}) do end\n" + _library("return 1").split("\n", 1)[1],
        "#!lua name=facts\nlocal now = redis.call('TIME')\n"
        + _library("return 1").split("\n", 1)[1],
    ],
    ids=[
        "head not on the first line",
        "more than a name in the head",
        "dash in a name",
        "global assigned",
        "201 locals",
        "61 outer locals in a function",
        "string while loading",
        "ipairs while loading",
        "call while loading",
    ],
)
def test_library_that_does_not_load(any_server: ValkeyServer, text: str):
    with pytest.raises(ReplyError):
        any_server.cmd("FUNCTION", "LOAD", "REPLACE", text)


def test_function_names_are_global_to_the_server(any_server: ValkeyServer):
    any_server.cmd("FUNCTION", "LOAD", "REPLACE", _library("return 1"))

    with pytest.raises(ReplyError, match="already exists"):
        any_server.cmd(
            "FUNCTION", "LOAD", _library("return 1", name="facts_other", function="facts")
        )


def test_replacing_drops_what_the_new_text_lacks(any_server: ValkeyServer):
    any_server.cmd("FUNCTION", "LOAD", "REPLACE", _library("return 1", function="facts_old"))
    any_server.cmd("FUNCTION", "LOAD", "REPLACE", _library("return 1"))

    with pytest.raises(ReplyError, match="Function not found"):
        any_server.cmd("FCALL", "facts_old", 0)


def test_one_of_several_loads_at_once_wins(any_server: ValkeyServer):
    any_server.cmd("FUNCTION", "LOAD", "REPLACE", _library("return 1", name="facts_race"))
    any_server.cmd("FUNCTION", "DELETE", "facts_race")
    outcomes: list[str] = []

    def load() -> None:
        connection = Connection(any_server.port)
        try:
            connection.cmd("FUNCTION", "LOAD", _library("return 1", name="facts_race"))
            outcomes.append("loaded")
        except ReplyError as error:
            outcomes.append("exists" if "already exists" in str(error) else str(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["exists", "exists", "exists", "loaded"]


def test_function_that_says_it_does_not_write_can_not(run: Run):
    with pytest.raises(ReplyError, match="Write commands are not allowed"):
        run("return redis.call('SET', keys[1], 1)", flags="'no-writes'")


def test_read_only_call_refuses_a_function_that_may_write(run: Run):
    assert run("return 1", flags="'no-writes'", command="FCALL_RO") == 1
    with pytest.raises(ReplyError, match="Can not execute a script with write flag"):
        run("return 1", command="FCALL_RO")


def test_full_server_runs_what_is_allowed_to():
    with ValkeyServer() as server:
        for name, flags in (("f_plain", ""), ("f_oom", "'allow-oom'"), ("f_read", "'no-writes'")):
            server.cmd("FUNCTION", "LOAD", _library("return 1", name=name, flags=flags))
        server.cmd("SET", "k", "x" * 1_000_000)
        server.cmd("CONFIG", "SET", "maxmemory", "1mb")

        with pytest.raises(ReplyError, match=r"^OOM "):
            server.cmd("FCALL", "f_plain", 0)
        assert [server.cmd("FCALL", "f_oom", 0), server.cmd("FCALL", "f_read", 0)] == [1, 1]


def test_error_reply_arrives_with_its_code(run: Run):
    with pytest.raises(ReplyError, match=r"^CODE some words"):
        run("return redis.error_reply('CODE some words')")
    with pytest.raises(ReplyError, match=r"^CODE some words script: "):
        run("error(redis.error_reply('CODE some words'))")


def test_other_errors_arrive_with_the_line_of_the_text(run: Run):
    with pytest.raises(ReplyError, match=r"^ERR user_function:4: why"):
        run("local x = 1\nerror('why')")


def test_what_was_written_before_an_error_stays(run: Run, any_server: ValkeyServer):
    with pytest.raises(ReplyError):
        run("redis.call('SET', keys[1], 'half')\nerror('why')")

    assert any_server.cmd("GET", "k") == b"half"


def test_packed_bytes_are_rejected_and_packed_text_is_not(run: Run):
    body = "return cmsgpack.unpack(args[1])"
    text = "x" * 70_000

    assert run(body, _pack(text)).decode() == text
    with pytest.raises(ReplyError, match="Bad data format"):
        run(body, _pack(b"bytes"))


def test_packed_nothing_is_nil_and_the_null_of_json_is_not(run: Run):
    assert run("return cmsgpack.unpack(args[1]).x == nil and 1 or 0", _pack({"x": None})) == 1
    assert run("return cjson.decode(args[1]).x and 1 or 0", '{"x":null}') == 1


@pytest.mark.parametrize("number", [123456789012345, 2**53 - 1])
def test_big_number_is_exact_in_a_call_and_cut_as_a_text(run: Run, number: int):
    body = "local n = cmsgpack.unpack(args[1])\nredis.call('SET', keys[1], n)\nreturn redis.call('GET', keys[1])"

    assert run(body, _pack(number)) == str(number).encode()
    assert (
        run("return string.format('%.0f', cmsgpack.unpack(args[1]))", _pack(number))
        == str(number).encode()
    )
    assert b"e+" in run("return tostring(cmsgpack.unpack(args[1]))", _pack(number))


def test_numbers_beyond_exactness_change_silently(run: Run):
    assert (
        run("return string.format('%.0f', cmsgpack.unpack(args[1]))", _pack(2**53 + 1))
        == str(2**53).encode()
    )


def test_replies_cut_numbers_and_stop_at_nothing(run: Run):
    assert run("return 3.99") == 3
    assert run("return {1, 2, nil, 4}") == [1, 2]


def test_time_goes_on_between_calls_but_not_within_one(run: Run):
    times = run(
        "local a = redis.call('TIME')\nlocal b = redis.call('TIME')\nreturn {a[1], a[2], b[1], b[2]}"
    )

    assert times[:2] == times[2:]


def test_cluster_rejects_keys_of_another_slot(cluster_session_server: ValkeyServer):
    cluster_session_server.cmd(
        "FUNCTION", "LOAD", "REPLACE", _library("return redis.call('GET', 'other')")
    )

    with pytest.raises(ReplyError, match="do not hash to the same slot"):
        cluster_session_server.cmd("FCALL", "facts", 1, "k")
