"""Fixtures for all tests. Servers are started once per test process, at their first use, and emptied before each test.

server, url             a plain server
any_server, any_url     each test runs twice: plain server, one-node cluster (keys of one call must share a slot).
                        With --servers=embedded,cluster3 only these tests run, on the embedded server and on three primaries
cluster_server          the one-node cluster
three_primaries         the cluster of three
proxy                   a network that can fail, in front of the plain server
queue_name, other_name  names of the test's own; these queues and the main ledger are on three nodes, where there are three
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from glidemq_core import Queue, Worker
from tests.harness.fsck import fsck
from tests.harness.proxy import Proxy
from tests.harness.servers import Cluster, EmbeddedServer, Look, ValkeyServer

_SERVERS = {
    "standalone": "server",
    "cluster1": "cluster_server",
    "embedded": "embedded_server",
    "cluster3": "three_primaries",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--servers",
        help=f"run only the tests of any_server, on these, by commas: {', '.join(_SERVERS)}",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "any_server" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("servers") or "standalone,cluster1"
        metafunc.parametrize("any_server", chosen.split(","), indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    if config.getoption("servers"):
        others = [item for item in items if "any_server" not in item.fixturenames]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if "any_server" in item.fixturenames]


def pytest_configure(config: pytest.Config) -> None:
    # Hypothesis looks at every module that is loaded, and some of the client's answer with a warning.
    config.addinivalue_line("filterwarnings", "ignore:Importing from 'glide:DeprecationWarning")


@pytest.fixture(scope="session")
def plain_session_server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as started:
        yield started


@pytest.fixture(scope="session")
def cluster_session_server() -> Iterator[ValkeyServer]:
    with ValkeyServer(cluster_enabled=True) as started:
        yield started


@pytest.fixture
def server(plain_session_server: ValkeyServer) -> ValkeyServer:
    plain_session_server.flush()
    return plain_session_server


@pytest.fixture
def cluster_server(cluster_session_server: ValkeyServer) -> ValkeyServer:
    cluster_session_server.flush()
    return cluster_session_server


@pytest.fixture(scope="session")
def embedded_session_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("embedded") / ".glidemq") as started:
        yield started


@pytest.fixture
def embedded_server(embedded_session_server: EmbeddedServer) -> EmbeddedServer:
    embedded_session_server.flush()
    return embedded_session_server


@pytest.fixture(scope="session")
def started_primaries() -> Iterator[Cluster]:
    with Cluster() as started:
        yield started


@pytest.fixture
def three_primaries(started_primaries: Cluster) -> Cluster:
    started_primaries.flush()
    return started_primaries


@pytest.fixture
def any_server(request: pytest.FixtureRequest) -> Look:
    return request.getfixturevalue(_SERVERS[request.param])


@pytest.fixture
def url(server: ValkeyServer) -> str:
    return server.url


@pytest.fixture
def any_url(any_server: Look) -> str:
    return any_server.url


@pytest.fixture
def proxy(server: ValkeyServer) -> Iterator[Proxy]:
    with Proxy(server.port) as started:
        yield started


@pytest.fixture
def queue_names(request: pytest.FixtureRequest) -> list[str]:
    if "any_server" in request.fixturenames:
        server = request.getfixturevalue("any_server")
        if isinstance(server, Cluster):
            return server.names_apart(2, but=["glidemq:{ledger:main}"])
    return [f"q-{uuid.uuid4().hex[:8]}" for _ in range(2)]


@pytest.fixture
def queue_name(queue_names: list[str]) -> str:
    return queue_names[0]


@pytest.fixture
def other_name(queue_names: list[str]) -> str:
    return queue_names[1]


@pytest.fixture
async def queue(any_server: Look, queue_name: str) -> AsyncIterator[Queue]:
    async with Queue(queue_name, connection=any_server.url) as queue:
        yield queue
    assert fsck(any_server, queue_name) == []


@pytest.fixture
async def other(any_server: Look, other_name: str) -> AsyncIterator[Queue]:
    async with Queue(other_name, connection=any_server.url) as other:
        yield other
    assert fsck(any_server, other_name) == []


@pytest.fixture
def work(queue: Queue, any_url: str) -> Callable[..., Worker]:
    def make(handler: Any, **options: Any) -> Worker:
        return Worker(queue.name, handler, connection=any_url, **options)

    return make


@pytest.fixture(autouse=True)
def own_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test reaches a server that the developer's environment names, nor writes into the folder it is run from."""
    monkeypatch.delenv("GLIDEMQ_URL", raising=False)
    monkeypatch.setenv("GLIDEMQ_DIR", str(tmp_path_factory.getbasetemp() / "embedded"))
