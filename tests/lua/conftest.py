"""Fixtures of the tests that call the functions directly."""

from __future__ import annotations

import pytest

from tests.harness.servers import ValkeyServer
from tests.lua.engine import Engine
from tests.lua.ledger_engine import LedgerEngine


@pytest.fixture
def engine(any_server: ValkeyServer, queue_name: str) -> Engine:
    """An empty queue, on the plain server and on the cluster, with the test build."""
    engine = Engine(any_server, queue_name)
    engine.load()
    return engine


@pytest.fixture
def ledger(any_server: ValkeyServer, queue_name: str) -> LedgerEngine:
    """An empty ledger, on the plain server and on the cluster, with the test build."""
    ledger = LedgerEngine(any_server, f"ledger:{queue_name}")
    ledger.load()
    return ledger
