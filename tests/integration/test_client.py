"""The way to the server: calls that are answered, lost, refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from glidemq_core import _client, _loader
from glidemq_core import _glide_setup as setup
from glidemq_core._client import Client
from glidemq_core._loader import check_info
from glidemq_core._target import parse
from glidemq_core.errors import (
    Backlogged,
    ConnectionLost,
    InvalidOption,
    JobNotFound,
    LeaseLost,
    LibraryError,
    OutOfMemory,
    ServerError,
    ServerUnsuitable,
    WrongState,
)
from tests.harness.processes import eventually
from tests.harness.servers import ReplyError, ValkeyServer
from tests.harness.small_library import small_library

ROOT = "glidemq:{client}"


def count(client: Client, id: str, **options: Any) -> Awaitable[Any]:
    return client.call("count", ROOT, {"id": id}, **options)


class TestAnswers:
    async def test_call_is_answered(self, any_url, open_client):
        client = open_client(any_url)

        assert await count(client, "a") == b"a"
        assert await client.command("GET", f"{ROOT}:count") == b"1"

    async def test_calls_reach_every_shard_of_a_cluster(self, open_client, cluster_server):
        client = open_client(cluster_server.url)
        roots = [f"glidemq:{{q{i}}}" for i in range(50)]

        await asyncio.gather(*(client.call("count", root, {"id": "a"}) for root in roots))

        assert [await client.command("GET", f"{root}:count") for root in roots] == [b"1"] * 50

    @pytest.mark.parametrize(
        ("text", "kind", "facts"),
        [
            ("ARG jobs[0].delay not an int", InvalidOption, {"field": "jobs[0].delay"}),
            ("GONE j1", JobNotFound, {"job_id": "j1"}),
            ("GONE NOPERM", JobNotFound, {"job_id": "NOPERM"}),
            ("STALE j1", LeaseLost, {"job_id": "j1"}),
            ("STATE j1 active waiting or delayed", WrongState, {"state": "active"}),
            ("BACKLOGGED 100000", Backlogged, {}),
        ],
    )
    async def test_error_of_a_function_arrives_typed(self, url, open_client, text, kind, facts):
        client = open_client(url)

        with pytest.raises(kind) as caught:
            await client.call("fail", ROOT, {"text": text})

        assert {name: getattr(caught.value, name) for name in facts} == facts
        assert "script:" not in str(caught.value)

    async def test_other_errors_keep_their_code(self, url, open_client):
        client = open_client(url)

        with pytest.raises(ServerError, match="else") as caught:
            await client.call("fail", ROOT, {"text": "SOMETHING else"})

        assert caught.value.code == "SOMETHING"

    async def test_unforeseen_error_names_file_and_line(self, url, open_client):
        client = open_client(url)

        with pytest.raises(ServerError, match=r"lua/functions/stumble\.lua:4: attempt to index"):
            await client.call("stumble", ROOT, {})

    async def test_full_server_refuses_with_its_own_error(self, open_client):
        with ValkeyServer() as own:
            client = open_client(own.url)
            await count(client, "a")
            own.cmd("CONFIG", "SET", "maxmemory", "1")

            with pytest.raises(OutOfMemory):
                await count(client, "b")

    async def test_more_calls_than_the_client_takes_at_once_are_all_answered(
        self, url, open_client, monkeypatch
    ):
        monkeypatch.setattr(setup, "INFLIGHT_LIMIT", 10)
        client = open_client(url)

        await asyncio.gather(*(count(client, str(i)) for i in range(60)))

        assert await client.command("GET", f"{ROOT}:count") == b"60"


class TestLostReplies:
    async def test_call_is_repeated_as_a_repeat_and_applied_once(self, proxy, server, open_client):
        client = open_client(proxy.url)
        await count(client, "first")
        proxy.lose_reply(b"count")

        assert await count(client, "a") == b"a"

        assert server.cmd("GET", f"{ROOT}:count") == b"2"
        assert server.cmd("GET", f"{ROOT}:repeats") == b"1"

    async def test_call_that_never_gets_a_reply_has_an_unknown_outcome(self, proxy, open_client):
        client = open_client(proxy.url)
        await count(client, "first")
        proxy.lose_reply(b"count", times=1000)

        with pytest.raises(ConnectionLost) as caught:
            await count(client, "a", give_up_after=0.2)

        assert (caught.value.outcome, caught.value.id) == ("unknown", "a")

    async def test_half_open_connection_is_replaced(
        self, proxy, server, open_client, quick_timeouts
    ):
        client = open_client(proxy.url)
        await count(client, "first")
        hung = proxy.lose_request(b"count", times=1, ending="hang")

        assert await count(client, "a") == b"a"

        assert hung.count == 1
        assert server.cmd("GET", f"{ROOT}:count") == b"2"

    async def test_hundred_calls_on_a_cut_connection_are_all_answered_once(
        self, proxy, server, open_client, caplog
    ):
        client = open_client(proxy.url)
        await count(client, "first")
        proxy.hold(up=False)
        calls = [asyncio.ensure_future(count(client, str(i))) for i in range(100)]
        await eventually(lambda: server.cmd("GET", f"{ROOT}:count") == b"101")

        proxy.reset_all()
        proxy.release()
        await asyncio.gather(*calls)

        assert server.cmd("GET", f"{ROOT}:count") == b"101"
        assert server.cmd("GET", f"{ROOT}:repeats") == b"100"
        assert caplog.text.count("anew") == 1

    async def test_replies_that_stop_coming_at_all_are_noticed(
        self, open_client, monkeypatch, caplog
    ):
        monkeypatch.setattr(_client, "_PERIOD", 0.2)
        monkeypatch.setattr(_client, "_SECOND_LOOK", 0.05)
        with ValkeyServer() as own:
            client = open_client(own.url)
            await count(client, "first")
            own.freeze()
            call = asyncio.ensure_future(count(client, "a"))

            await eventually(lambda: "no reply to 1 calls" in caplog.text)
            own.thaw()

            assert await call == b"a"
            assert own.cmd("GET", f"{ROOT}:count") == b"2"

    async def test_call_that_has_just_begun_is_not_missed_at_the_first_look(
        self, proxy, open_client, monkeypatch, caplog
    ):
        monkeypatch.setattr(_client, "_SECOND_LOOK", 0.0)
        client = open_client(proxy.url)
        await count(client, "first")
        proxy.delay = 0.1
        call = asyncio.ensure_future(count(client, "a"))
        await asyncio.sleep(0)

        client._look()

        assert await call == b"a"
        assert "no reply" not in caplog.text


class TestServerTrouble:
    async def test_frozen_server_is_waited_for(self, open_client, quick_timeouts):
        with ValkeyServer() as own:
            client = open_client(own.url)
            await count(client, "first")
            own.freeze()
            call = asyncio.ensure_future(count(client, "a"))
            await asyncio.wait({call}, timeout=1)
            assert not call.done()
            own.thaw()

            assert await call == b"a"
            assert own.cmd("GET", f"{ROOT}:count") == b"2"

    async def test_server_that_starts_again_without_the_library_gets_it(
        self, open_client, quick_timeouts
    ):
        with ValkeyServer() as own:
            client = open_client(own.url)
            await count(client, "first")
            own.restart()

            assert await count(client, "a") == b"a"

    async def test_calls_go_on_while_the_functions_are_flushed(self, any_server, open_client):
        client = open_client(any_server.url)
        await count(client, "first")

        for batch in range(5):
            any_server.cmd("FUNCTION", "FLUSH")
            await asyncio.gather(*(count(client, f"{batch}/{i}") for i in range(20)))

        assert await client.command("GET", f"{ROOT}:count") == b"101"

    async def test_function_that_no_library_has_is_told_apart(self, url, open_client, monkeypatch):
        monkeypatch.setattr(_client, "_MISSING_FOR", 0.1)
        client = open_client(url)

        with pytest.raises(LibraryError, match="has no such function"):
            await client.call("nothing", ROOT, {})

    @pytest.mark.faults
    async def test_client_follows_a_failover(self, open_client, quick_timeouts):
        options = {"repl-diskless-sync-delay": "0"}
        with ValkeyServer(options=options) as first, ValkeyServer() as second:
            second.cmd("REPLICAOF", "127.0.0.1", first.port)
            client = open_client(f"valkey://127.0.0.1:{first.port},127.0.0.1:{second.port}")
            await count(client, "first")
            await eventually(lambda: second.cmd("GET", f"{ROOT}:count") == b"1")

            second.cmd("REPLICAOF", "NO", "ONE")
            first.cmd("REPLICAOF", "127.0.0.1", second.port)

            assert await count(client, "a") == b"a"
            assert second.cmd("GET", f"{ROOT}:count") == b"2"

    async def test_busy_server_is_waited_for(self, open_client):
        with ValkeyServer(options={"busy-reply-threshold": "50"}) as own:
            client = open_client(own.url)
            await count(client, "first")
            own.cmd("FUNCTION", "LOAD", _spinning())
            spinning = own.connect()
            spinning.send("FCALL", "spin", "1", ROOT)
            await eventually(lambda: _is_busy(own))

            call = asyncio.ensure_future(count(client, "a"))
            await asyncio.wait({call}, timeout=0.2)
            assert not call.done()
            own.cmd("FUNCTION", "KILL")

            assert await call == b"a"
            spinning.close()


def _spinning() -> str:
    return (
        "#!lua name=spinning\nredis.register_function('spin', function() while true do end end)\n"
    )


def _is_busy(server: ValkeyServer) -> bool:
    try:
        server.cmd("PING")
    except ReplyError as error:
        return "BUSY" in str(error)
    return False


class TestRefusals:
    async def test_server_that_is_not_there_was_sent_nothing(self, open_client, quick_timeouts):
        client = open_client("valkey://127.0.0.1:1")

        with pytest.raises(ConnectionLost, match=r"127\.0\.0\.1:1 can't be reached") as caught:
            await count(client, "a", give_up_after=0.1)

        assert caught.value.outcome == "not_sent"

    async def test_wrong_password_is_told_at_once_and_not_repeated_in_the_text(self, open_client):
        with ValkeyServer() as own:
            own.cmd("CONFIG", "SET", "requirepass", "sesame")
            client = open_client(f"valkey://:open-up@127.0.0.1:{own.port}")

            async with asyncio.timeout(10):
                with pytest.raises(ConnectionLost, match="check user and password") as caught:
                    await count(client, "a")

            assert "open-up" not in str(caught.value) + repr(client.target)

    async def test_user_without_the_right_is_told_so(self, open_client):
        with ValkeyServer() as own:
            client = open_client(own.url)
            await count(client, "first")
            own.cmd("ACL", "SETUSER", "default", "-sadd")

            with pytest.raises(ConnectionLost, match="ACL"):
                await count(client, "a")

    @pytest.mark.parametrize("is_allowed", [False, True])
    async def test_evicting_server_is_refused_unless_the_url_allows_it(
        self, open_client, is_allowed
    ):
        options = {"maxmemory-policy": "allkeys-lru"}
        with ValkeyServer(maxmemory="100mb", options=options) as own:
            if is_allowed:
                client = open_client(own.url + "?allow_eviction=true")
                assert await count(client, "a") == b"a"
            else:
                client = open_client(own.url)
                with pytest.raises(ServerUnsuitable, match="maxmemory-policy noeviction"):
                    await count(client, "a")
                assert own.keys() == []

    def test_evicting_policy_without_a_limit_is_only_warned_of(self, caplog):
        info = "redis_version:7.2.4\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n"

        check_info(info, parse("valkey://h"))

        assert "will drop jobs" in caplog.text

    def test_server_without_functions_is_refused(self):
        with pytest.raises(ServerUnsuitable, match=r"version 6\.2\.14"):
            check_info("redis_version:6.2.14\r\n", parse("valkey://h"))

    async def test_cluster_and_single_server_are_not_taken_for_each_other(
        self, server, cluster_server, open_client
    ):
        with pytest.raises(ServerUnsuitable, match=r"add `\?cluster=true`"):
            await count(open_client(cluster_server.url.partition("?")[0]), "a")
        with pytest.raises(ServerUnsuitable, match="leave out `cluster=true`"):
            await count(open_client(server.url + "?cluster=true"), "a")


def loaded(server: ValkeyServer) -> list[int]:
    """[protocol, revision] of the small library on the server."""
    return server.cmd("FCALL", "glidemq_9_source", 0)[:2]


class TestRevisions:
    async def test_older_library_is_replaced(self, any_server, open_client, tmp_path):
        any_server.cmd("FUNCTION", "LOAD", "REPLACE", small_library(tmp_path, "9.1").text)

        await count(open_client(any_server.url, library=small_library(tmp_path, "9.2")), "a")

        assert loaded(any_server) == [9, 2]

    async def test_newer_library_is_kept_and_used(self, any_server, open_client, tmp_path):
        any_server.cmd("FUNCTION", "LOAD", "REPLACE", small_library(tmp_path, "9.2").text)

        assert await count(open_client(any_server.url), "a") == b"a"

        assert loaded(any_server) == [9, 2]

    async def test_of_many_starters_the_newest_wins(self, server, open_client, tmp_path):
        server.cmd("FUNCTION", "FLUSH")
        libraries = [small_library(tmp_path, f"9.{i}") for i in (1, 3, 2)]
        clients = [open_client(server.url, library=libraries[i % 3]) for i in range(9)]

        await asyncio.gather(*(count(client, str(i)) for i, client in enumerate(clients)))
        for i, client in enumerate(clients):
            client.saw_revision(loaded(server)[1])
            await count(client, f"again {i}")

        assert loaded(server) == [9, 3]

    async def test_first_load_does_not_push_out_what_another_starter_has_loaded(
        self, server, open_client, tmp_path, monkeypatch
    ):
        server.cmd("FUNCTION", "FLUSH")
        newer, look = small_library(tmp_path, "9.3"), _loader._descriptions

        async def look_and_lose_the_race(*args: Any) -> dict[str, str | None]:
            found = await look(*args)
            if found == {"": None}:
                server.cmd("FUNCTION", "LOAD", newer.text)
            return found

        monkeypatch.setattr(_loader, "_descriptions", look_and_lose_the_race)

        await count(open_client(server.url), "a")

        assert loaded(server) == [9, 3]

    async def test_client_that_hears_of_an_older_one_loads_its_own_again(
        self, server, open_client, tmp_path
    ):
        client = open_client(server.url, library=small_library(tmp_path, "9.2"))
        await count(client, "a")
        server.cmd("FUNCTION", "LOAD", "REPLACE", small_library(tmp_path, "9.1").text)

        client.saw_revision(1)
        await count(client, "b")

        assert loaded(server) == [9, 2]

    async def test_the_real_library_and_its_test_build_load(self, any_server, open_client):
        for kind in ("release", "test"):
            any_server.cmd("FUNCTION", "FLUSH")
            real = _client.bundle(kind)
            client = open_client(any_server.url, library=real)
            reply = await client.call("source", ROOT, {})
            assert reply == [real.protocol, real.revision, real.hash.encode(), kind.encode()]
