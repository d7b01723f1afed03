"""The tests' own tools: what they claim to break, they break."""

import json
import time

import pytest

from tests.harness._framing import Splitter
from tests.harness.processes import Process, is_alive, is_frozen, run_function, wait_until
from tests.harness.servers import Cluster, Connection, ReplyError, ValkeyServer


@pytest.fixture
def through(proxy):
    """Makes connections through the proxy."""
    opened = []

    def connect(timeout=5):
        opened.append(Connection(proxy.port, timeout=timeout))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def test_splitter_finds_frames_however_the_bytes_come():
    frames = [
        b"$5\r\nab\r\nc\r\n",
        b"*2\r\n:1\r\n%1\r\n+a\r\n$-1\r\n",
        b">1\r\n+x\r\n",
        b"*0\r\n",
        b"-ERR no\r\n",
    ]
    data = b"".join(frames)

    splitter = Splitter()
    assert [frame for i in range(len(data)) for frame in splitter.feed(data[i : i + 1])] == frames
    assert Splitter().feed(data) == frames


def test_lost_reply_was_applied_and_the_one_before_it_arrives(server, proxy, through):
    rule = proxy.lose_reply(b"second")
    client = through()

    assert client.cmd("SET", "first", 1) == b"OK"
    with pytest.raises(OSError, match=r"reset|closed"):
        client.cmd("SET", "second", 1)
    assert server.keys() == ["first", "second"]
    assert rule.count == 1
    assert through().cmd("SET", "second", 2) == b"OK"


def test_lost_request_was_not_applied(server, proxy, through):
    proxy.lose_request(b"second")

    with pytest.raises(OSError, match=r"reset|closed"):
        through().cmd("SET", "second", 1)
    assert server.keys() == []


def test_hanging_link_stays_open_and_silent(server, proxy, through):
    proxy.lose_reply(b"SET", ending="hang")

    with pytest.raises(TimeoutError):
        through(timeout=0.2).cmd("SET", "first", 1)
    wait_until(lambda: server.keys() == ["first"])
    assert proxy.connections == 1


def test_held_requests_arrive_after_the_release(server, proxy, through):
    client = through()
    client.cmd("PING")
    client._socket.settimeout(0.2)
    proxy.hold(down=False)

    with pytest.raises(TimeoutError):
        client.cmd("SET", "first", 1)
    assert server.keys() == []
    proxy.release()
    wait_until(lambda: server.keys() == ["first"])


def test_reset_and_refused_connections_break_and_counting_goes_on(proxy, through):
    watched = proxy.watch(b"PING")
    client = through()
    client.cmd("PING")

    proxy.reset_all()
    with pytest.raises(OSError, match=r"reset|closed"):
        client.cmd("GET", "a")
    proxy.refuse = True
    with pytest.raises(OSError, match=r"reset|closed"):
        through().cmd("PING")
    proxy.refuse = False
    assert through().cmd("PING") == b"PONG"
    assert watched.count == 2


def test_answer_is_cut_in_its_middle(server, proxy, through):
    server.cmd("SET", "big", "x" * 1000)
    proxy.cut_down_after(500)

    with pytest.raises(OSError, match=r"reset|closed"):
        through().cmd("GET", "big")
    assert len(through().cmd("GET", "big")) == 1000


def test_delay_is_each_way_and_for_all_at_once(proxy, through):
    client = through()
    client.cmd("PING")
    proxy.delay = 0.3
    started = time.monotonic()

    client.send("PING")
    client.send("PING")
    assert [client.receive(), client.receive()] == [b"PONG", b"PONG"]
    assert 0.6 <= time.monotonic() - started < 1.2


def test_narrow_connection_takes_its_time(server, proxy, through):
    server.cmd("SET", "big", "x" * 20_000)
    proxy.rate = 100_000
    started = time.monotonic()

    assert len(through().cmd("GET", "big")) == 20_000
    assert time.monotonic() - started >= 0.2


def test_killed_server_comes_back_with_its_data_and_port():
    with ValkeyServer(appendonly=True) as server:
        server.cmd("SET", "a", 1)
        url = server.url

        server.kill()
        server.start()
        assert (server.cmd("GET", "a"), server.url) == (b"1", url)


def test_frozen_server_answers_when_it_is_thawed():
    with ValkeyServer() as server:
        client = server.connect(timeout=0.1)
        server.freeze()
        with pytest.raises(TimeoutError):
            client.cmd("PING")

        server.thaw()
        assert server.cmd("PING") == b"PONG"
        client.close()


def test_one_node_cluster_refuses_keys_of_two_slots_in_a_call(cluster_server):
    assert cluster_server.cmd("SET", "a", 1) == b"OK"
    with pytest.raises(ReplyError, match="CROSSSLOT"):
        cluster_server.cmd("MGET", "a", "b")


def test_cluster_spreads_slots_over_its_nodes():
    with Cluster(primaries=3) as cluster:
        names = [f"key{i}" for i in range(20)]
        for name in names:
            cluster.node_of(name).cmd("SET", name, 1)

        assert cluster.keys() == sorted(names)
        assert all(node.keys() for node in cluster.nodes)


def test_process_is_heard_frozen_and_killed():
    script = """
        import signal, sys
        print('{"n": 1}')
        print("ready", sys.argv[1])
        signal.pause()
    """
    with Process(script, 7) as child:
        assert child.wait_line("ready") == "ready 7"
        assert child.json_lines() == [{"n": 1}]
        child.freeze()
        assert is_frozen(child.pid)
        child.thaw()
        child.kill()
        assert child.wait() == -9


def test_process_that_ends_without_the_line_shows_its_errors():
    with (
        Process("raise SystemExit('no luck')") as child,
        pytest.raises(AssertionError, match="no luck"),
    ):
        child.wait_line("ready")


def test_function_runs_in_a_process_of_its_own():
    with run_function(json.dumps, {"a": 1}) as child:
        assert (child.wait(), child.errors) == (0, [])


def test_killed_tests_leave_no_server_behind():
    script = """
        import signal
        from tests.harness.servers import ValkeyServer
        print(ValkeyServer().start().pid)
        signal.pause()
    """
    with Process(script) as child:
        pid = int(child.wait_line())
        child.kill()
        wait_until(lambda: not is_alive(pid))
