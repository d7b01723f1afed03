"""Fixtures of the fault tests: a queue, real worker processes for it, a fake provider, and what looks at all that is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from glidemq_core import Queue
from glidemq_core.ledger import Ledger
from tests.harness.aftermath import Aftermath
from tests.harness.provider import Provider
from tests.harness.servers import ValkeyServer
from tests.harness.workers import Workers


@pytest.fixture
async def queue(server: ValkeyServer, queue_name: str) -> AsyncIterator[Queue]:
    """A queue on the plain server."""
    async with Queue(queue_name, connection=server.url) as opened:
        yield opened


@pytest.fixture
def workers(server: ValkeyServer, queue_name: str, tmp_path: Path) -> Iterator[Workers]:
    """Starts worker processes for that queue."""
    with Workers(server.url, queue_name, tmp_path) as started:
        yield started


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    with Provider(tmp_path / "provider.jsonl") as started:
        yield started


@pytest.fixture
async def ledger(server: ValkeyServer) -> AsyncIterator[Ledger]:
    async with Ledger(connection=server.url) as opened:
        yield opened


@pytest.fixture
async def aftermath(
    server: ValkeyServer, queue: Queue, ledger: Ledger, provider: Provider
) -> AsyncIterator[Aftermath]:
    """Looks at what the test has left, when it has passed: money, limits, streams, effects, repeats."""
    aftermath = Aftermath(server, queue, ledger, provider)
    yield aftermath
    await aftermath.check()
