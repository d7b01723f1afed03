"""Fixtures of the fault tests: a queue, and real worker processes for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from glidemq_core import Queue
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
