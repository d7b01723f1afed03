"""TLS on every connection to the server, and what is said when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from glidemq_core import InvalidOption, Queue, Worker
from glidemq_core.errors import ServerUnsuitable
from tests.harness.processes import eventually
from tests.harness.proxy import Proxy
from tests.harness.servers import ValkeyServer
from tests.harness.tls import Authority, TLSFront

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
Front = Callable[..., TLSFront]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "others")


@pytest.fixture
def front() -> Iterator[Front]:
    """Puts TLS in front of a port."""
    with ExitStack() as stack:
        yield lambda port, context: stack.enter_context(TLSFront(port, context))


# -- everything goes over it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["valkeys", "rediss"])
async def test_worker_its_heartbeat_and_readers_speak_tls(
    queue_name: str, proxy: Proxy, front: Front, ours: Authority, scheme: str
):
    calls = {
        name: proxy.watch(name.encode())
        for name in ("glidemq_1_turn", "glidemq_1_job_beat", "BLPOP", "SUBSCRIBE", "stream_append")
    }
    tls = front(proxy.port, ours.server())
    url = f"{scheme}://localhost:{tls.port}?ca={ours.ca}"

    async def handler(job: Any) -> str:
        await job.stream_chunk("content", "a")
        for rule in calls.values():  # the proxy is behind what ends TLS
            await asyncio.to_thread(rule.wait)
        await job.stream_chunk("content", "b")
        return "c"

    async with (
        Queue(queue_name, connection=url) as queue,
        Worker(queue_name, handler, connection=url),
    ):
        job = await queue.add("n")
        texts = [chunk.content async for chunk in job.stream() if chunk.type == "content"]
        assert await job.result(timeout=10) == "c"

    assert texts == ["a", "b"]


async def test_work_goes_on_after_its_connections_were_cut(
    queue_name: str, proxy: Proxy, front: Front, ours: Authority
):
    tls = front(proxy.port, ours.server())
    url = f"valkeys://localhost:{tls.port}?ca={ours.ca}"
    begun, go = asyncio.Event(), asyncio.Event()

    async def handler(job: Any) -> int:
        await job.stream_chunk("content", "before")
        begun.set()
        await go.wait()
        await job.stream_chunk("content", "after")
        return job.run

    async with (
        Queue(queue_name, connection=url) as queue,
        Worker(queue_name, handler, connection=url),
    ):
        job = await queue.add("n")
        await begun.wait()
        proxy.reset_all()
        go.set()
        assert await job.result(timeout=15) == 1
        texts = [chunk.content async for chunk in job.stream() if chunk.type == "content"]
        assert texts == ["before", "after"]
        assert await (await queue.add("n")).result(timeout=15) == 1


async def test_client_shows_its_certificate(
    server: ValkeyServer, queue_name: str, front: Front, ours: Authority, others: Authority
):
    tls = front(server.port, ours.server(trusts=others))
    url = f"valkeys://localhost:{tls.port}?ca={ours.ca}&{others.client()}"

    async def handler(job: Any) -> Any:
        return job.data

    async with (
        Queue(queue_name, connection=url) as queue,
        Worker(queue_name, handler, connection=url),
    ):
        assert await (await queue.add("n", 7)).result(timeout=10) == 7


async def test_insecure_tls_trusts_anybody(
    server: ValkeyServer, queue_name: str, front: Front, ours: Authority
):
    tls = front(server.port, ours.server("elsewhere.example"))

    async with Queue(
        queue_name, connection=f"valkeys://localhost:{tls.port}?insecure_tls=true"
    ) as queue:
        assert (await queue.counts())["waiting"] == 0


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("unknown authority", "certificate that is not trusted: unable to get local issuer"),
        ("system's authorities", "certificate that is not trusted: unable to get local issuer"),
        ("another name", "certificate for another host: .*'localhost'"),
        ("another address", "certificate for another host: .*'127.0.0.1'"),
        ("expired", "certificate that is not trusted: certificate has expired"),
        ("no client certificate", "refuses this client: .*certificate required"),
        ("strange client certificate", "refuses this client: .*unknown ca"),
    ],
)
@pytest.mark.usefixtures("quick_timeouts")
async def test_certificate_that_is_refused_is_named_with_the_reason_at_once(
    server: ValkeyServer,
    queue_name: str,
    front: Front,
    ours: Authority,
    others: Authority,
    *,
    why: str,
    said: str,
):
    context, host, ca = ours.server(), "localhost", f"ca={ours.ca}"
    match why:
        case "unknown authority":
            ca = f"ca={others.ca}"
        case "system's authorities":
            ca = ""
        case "another name":
            context = ours.server("elsewhere.example")
        case "another address":
            context, host = ours.server("localhost"), "127.0.0.1"
        case "expired":
            context = ours.server(until=LONG_AGO)
        case "no client certificate":
            context = ours.server(trusts=ours)
        case _:
            context, ca = ours.server(trusts=ours), f"{ca}&{others.client()}"
    url = f"valkeys://{host}:{front(server.port, context).port}?{ca}".rstrip("?")

    async with Queue(queue_name, connection=url) as queue, asyncio.timeout(20):
        with pytest.raises(ServerUnsuitable, match=said) as caught:
            await queue.add("n")

    assert caught.value.outcome == "not_sent"
    assert server.keys() == []


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ("ca={folder}/none", "ca=.*none.*No such file"),
        ("ca={folder}/junk", "ca=.*junk"),
        ("cert={folder}/none&key={folder}/junk", "cert=.*none.*No such file"),
        ("cert={folder}/junk&key={folder}/junk", "cert=.*junk"),
    ],
)
async def test_file_that_can_not_be_used_is_named(
    tmp_path: Path, queue_name: str, parameters: str, named: str
):
    (tmp_path / "junk").write_text("junk")
    url = f"valkeys://localhost:1?{parameters.format(folder=tmp_path)}"

    async with Queue(queue_name, connection=url) as queue, asyncio.timeout(5):
        with pytest.raises(InvalidOption, match=named):
            await queue.add("n")


@pytest.mark.usefixtures("quick_timeouts")
async def test_server_that_is_away_is_waited_for(
    server: ValkeyServer, queue_name: str, front: Front, ours: Authority
):
    tls = front(1, ours.server())  # nobody is there

    async with Queue(queue_name, connection=f"valkeys://localhost:{tls.port}?ca={ours.ca}") as q:
        adding = asyncio.create_task(q.add("n"))
        await eventually(lambda: tls.connections >= 3)
        assert not adding.done()
        tls.upstream = server.port
        assert (await adding).id
