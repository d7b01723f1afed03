"""Fixtures for all tests. Servers are started once per test process, at their first use, and emptied before each test.

server, url            a plain server
any_server, any_url    each test runs twice: plain server, one-node cluster (keys of one call must share a slot)
cluster_server         the one-node cluster
proxy                  a network that can fail, in front of the plain server
queue_name             a name of the test's own
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from glidemq_core import Queue, Worker
from tests.harness.fsck import fsck
from tests.harness.proxy import Proxy
from tests.harness.servers import ValkeyServer


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


@pytest.fixture(params=["standalone", "cluster1"])
def any_server(request: pytest.FixtureRequest) -> ValkeyServer:
    return request.getfixturevalue("server" if request.param == "standalone" else "cluster_server")


@pytest.fixture
def url(server: ValkeyServer) -> str:
    return server.url


@pytest.fixture
def any_url(any_server: ValkeyServer) -> str:
    return any_server.url


@pytest.fixture
def proxy(server: ValkeyServer) -> Iterator[Proxy]:
    with Proxy(server.port) as started:
        yield started


@pytest.fixture
def queue_name() -> str:
    return f"q-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def queue(any_server: ValkeyServer, queue_name: str) -> AsyncIterator[Queue]:
    async with Queue(queue_name, connection=any_server.url) as queue:
        yield queue
    assert fsck(any_server, queue_name) == []


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
