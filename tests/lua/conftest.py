"""Fixtures of the tests that call the functions directly."""

from __future__ import annotations

import pytest

from tests.harness.servers import ValkeyServer
from tests.lua.engine import Engine


@pytest.fixture
def engine(any_server: ValkeyServer, queue_name: str) -> Engine:
    """An empty queue, on the plain server and on the cluster, with the test build."""
    engine = Engine(any_server, queue_name)
    engine.load()
    return engine
